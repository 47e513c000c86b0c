"""The agent's lines: short for people, JSON for log collectors."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any


class Console:
    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def say(self, event: str, text: str, **data: Any) -> None:
        """One line: local time and `text`, or {at, event, text, ...data} with UTC time."""
        now = datetime.now(UTC)
        if self.as_json:
            line = json.dumps({"at": now.isoformat(timespec="milliseconds"), "event": event, "text": text, **data})
        else:
            line = f"{now.astimezone():%H:%M:%S}  {text}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
