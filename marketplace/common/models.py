"""Fields that several apps share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:
    Text = models.CharField[int, int]
else:
    Text = models.CharField


class Driven(models.Model):
    """A row that a worker computes something for, which takes its time (`common.driving`)."""

    # When a worker was last asked, or the one that is at it last showed life; a lost one is replaced.
    driven_at = models.DateTimeField(null=True)
    # Who is at it; empty while it waits in a queue.
    worker = models.CharField(max_length=16, blank=True)
    # How often a worker has begun.
    drives = models.IntegerField(default=0)

    class Meta:
        abstract = True


BIGGEST = 2**63 - 1
DIGITS = 39


def clamped(value: int) -> int:
    """A uint64 of the chain as the database's signed 64 bits can hold it: strangers choose some of these values, and one
    that does not fit must not stop the indexer."""
    return min(value, BIGGEST)


class AmountField(Text):
    """A uint128 of token base units, an int in Python. Stored as 39 digits, so that every amount is exact on every database
    (SQLite rounds decimals to 15 digits) and sorts as a number. Arithmetic is Python's, in the transaction that writes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"max_length": DIGITS}))

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> int | None:
        return None if value is None else int(value)

    def to_python(self, value: Any) -> int | None:
        return None if value is None else int(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Raises ValueError for what no uint128 holds, which is our own bug."""
        if value is None:
            return None
        if not 0 <= int(value) < 2**128:
            raise ValueError(f"{value} is not an amount")
        return f"{int(value):0{DIGITS}d}"
