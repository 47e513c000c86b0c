"""Fields that several apps share."""

from __future__ import annotations

from typing import Any

from django.db import models


class AmountField(models.DecimalField):
    """A uint128 of token base units: exact, and never a float."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"max_digits": 39, "decimal_places": 0}))
