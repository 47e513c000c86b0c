"""What audits ask for, sent beside the node's work: large models' evidence takes longer than any pause between orders."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

from trainer.operator.client import Coordinator
from trainer.operator.config import Home
from trainer.operator.console import Console
from trainer.operator.results import Evidence
from trainer.operator.transfers import show
from trainer.protocol.errors import HyperGPUError

Audit = dict[str, Any]
"""As a lease's answer names it."""


class Shower:
    """Sends one file behind the other, from a thread that ends with the process: what a stopped agent had sent is kept by the
    coordinator, which asks again."""

    def __init__(self, coordinator: Coordinator, home: Home, console: Console) -> None:
        self.coordinator, self.home, self.console = coordinator, home, console
        self.waiting: SimpleQueue[tuple[Audit, Evidence]] = SimpleQueue()
        self.taken: set[int] = set()
        self.told: set[int] = set()
        self.thread: threading.Thread | None = None

    def has(self, audit: Audit) -> bool:
        """Whether it waits, was sent, or was refused: the coordinator reminds every few seconds."""
        return audit["audit_id"] in self.taken

    def show(self, audit: Audit, shown: Evidence) -> None:
        self.taken.add(audit["audit_id"])
        self.waiting.put((audit, shown))
        if self.thread is None:
            self.thread = threading.Thread(target=self.work, daemon=True)
            self.thread.start()

    def work(self) -> None:
        while True:
            audit, shown = self.waiting.get()
            file = self.home.artifacts / shown.sha256
            try:
                show(self.coordinator, audit["audit_id"], file, shown.sha256, check=lambda: None)
                file.unlink(missing_ok=True)
            except HyperGPUError as refusal:
                self.failed(audit, refusal)
            except OSError as error:
                self.failed(audit, error)
                self.taken.discard(audit["audit_id"])
            else:
                self.console.say(
                    "audit.answered",
                    f"audit {audit['audit_id']}: sent the states of segment {audit['segment']} of job {shown.job_id} round "
                    f"{shown.round}, {shown.size / 1000:,.0f} kB",
                    audit_id=audit["audit_id"], job_id=shown.job_id, round=shown.round, size=shown.size,
                )  # fmt: skip

    def failed(self, audit: Audit, error: Exception) -> None:
        """Said once."""
        number = audit["audit_id"]
        if number not in self.told:
            self.console.say("audit.failed", f"audit {number} was not answered: {error}", audit_id=number)
        self.told.add(number)
