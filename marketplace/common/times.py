"""Times as they leave the system."""

from __future__ import annotations

from datetime import UTC, datetime

LAST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


def from_unix(seconds: int) -> datetime:
    """A moment in UTC; what lies beyond the calendar (anyone may register "for ever") is its last day."""
    return datetime.fromtimestamp(min(seconds, LAST), UTC)


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, or None."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
