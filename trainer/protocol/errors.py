"""The one error family of the product."""

from __future__ import annotations

from typing import Any


class HyperGPUError(Exception):
    """A refusal with a stable code, a sentence that says what to do, and machine-readable details.

    `code` is dotted and never changes once released (`lease.stale_fence`); `data` holds JSON values only.
    """

    def __init__(self, code: str, message: str, **data: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        """Crosses process pools whole: pickling by `args` would call it with the sentence alone."""
        return _again, (self.code, self.message, self.data)

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "data": self.data}


def _again(code: str, message: str, data: dict[str, Any]) -> HyperGPUError:
    return HyperGPUError(code, message, **data)
