"""The model as a worker holds it: one flat copy for each job, which it moves from version to version itself.

What arrives in a round is the encoded outer step alone, and who has missed some takes them one after the other. That they led to
the right version is proven, not believed: the Merkle root is derived from the bits that training starts from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.data import SampleInfo
from trainer.diloco.checkpoint import initial_params, load_checkpoint
from trainer.diloco.flat import Shapes
from trainer.diloco.fragments import stepped
from trainer.diloco.version import model_root
from trainer.operator.config import Home
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder


class OuterStep(NamedTuple):
    """The version that it leads on from, None for none, and the SHA-256 of its file."""

    parent: str | None
    delta: str


class MissingError(Exception):
    """`artifacts`, {what it is: SHA-256}, are not in the cache: the agent fetches them and gives the order again."""

    def __init__(self, artifacts: dict[str, str]) -> None:
        super().__init__(f"missing: {artifacts}")
        self.artifacts = artifacts


class Replica:
    """`params` (n,) fp32 on the CPU are version `version` of the job's model; None before its first order. A copy on disk
    follows them with `keep`, under its version's name, so that another process can go on."""

    def __init__(self, home: Home, job_id: int) -> None:
        self.home, self.job_id = home, job_id
        self.params: Tensor | None = None
        self.version: str | None = None

    def reach(
        self, order: WorkOrder, shapes: Shapes, sample: SampleInfo, *, say: Callable[[HyperGPUError], None],
        steps: Sequence[OuterStep] = (),
    ) -> Tensor:  # fmt: skip
        """The parameters of version `order.base`, by the way that moves the fewest bytes; `say` hears why one led elsewhere.
        `steps` lead to it from an older version, oldest first.

        Raises MissingError, and HyperGPUError `artifact.*` or `version.mismatch` when the checkpoint is not that version.
        """
        ways: tuple[Callable[[], Tensor | None], ...] = (
            lambda: self.held(order.base),
            lambda: self.stepped([OuterStep(order.parent, order.delta)], order, shapes) if order.delta else None,
            lambda: self.stepped(steps, order, shapes),
            lambda: initial_params(order.spec, sample) if order.round == 0 else None,
        )
        for way in ways:
            try:
                if (params := way()) is not None:
                    return self.proven(order.base, params)
            except HyperGPUError as error:
                say(HyperGPUError("version.mismatch", f"{error.message} The checkpoint is fetched instead."))
                self.forget()
        return self.from_checkpoint(order, shapes)

    def held(self, version: str | None) -> Tensor | None:
        if version is None or version == self.version:
            return self.params if version is not None else None
        path = self.path(version)
        return torch.from_numpy(np.fromfile(path, "<f4")) if path.exists() else None

    def stepped(self, steps: Sequence[OuterStep], order: WorkOrder, shapes: Shapes) -> Tensor | None:
        """By the outer steps from the newest of their versions that is here: those of the rounds just before `order`'s. With
        fragments in turn and a round between that made none, they lead elsewhere, and the checkpoint is fetched."""
        for place in reversed(range(len(steps))):
            if (params := self.held(steps[place].parent)) is not None:
                first = order.round - len(steps) + place
                for number, file in enumerate(self.cached_steps([step.delta for step in steps[place:]]), start=first):
                    params = stepped(params, file.read_bytes(), order.spec, shapes=shapes, number=number)
                return params
        return None

    def cached_steps(self, deltas: Sequence[str]) -> list[Path]:
        """Raises MissingError for all that are to be fetched, which may be done together."""
        files = {sha256: self.home.cache / sha256 for sha256 in deltas}
        missing = [sha256 for sha256, file in files.items() if not file.exists()]
        if missing:
            names = (
                ["outer step"] if len(missing) == 1 else [f"outer step {n} of {len(missing)}" for n in range(1, len(missing) + 1)]
            )
            raise MissingError(dict(zip(names, missing, strict=True)))
        return [files[sha256] for sha256 in deltas]

    def from_checkpoint(self, order: WorkOrder, shapes: Shapes) -> Tensor:
        path = cached(self.home, "checkpoint", order.checkpoint)
        try:
            return self.proven(order.base, load_checkpoint(path.read_bytes(), shapes=shapes))
        except HyperGPUError:
            path.unlink()
            raise

    def proven(self, version: str, params: Tensor) -> Tensor:
        if (found := model_root(params)) != version:
            text = f"Version {version[:12]} of the model is wanted, what is here is {found[:12]}."
            raise HyperGPUError("version.mismatch", text, wanted=version, found=found)
        self.params, self.version = params, version
        return params

    # On disk.

    def keep(self) -> None:
        """Write the copy that `version` names and drop older ones. If this never happens, the outer step is taken again."""
        if self.params is None or self.version is None:
            return
        path = self.path(self.version)
        if not path.exists():
            temporary = path.with_name(f".{self.job_id}")
            self.params.numpy().astype("<f4", copy=False).tofile(temporary)
            os.replace(temporary, path)
        for other in self.on_disk() - {path}:
            other.unlink(missing_ok=True)

    def forget(self) -> None:
        self.params = self.version = None
        for path in self.on_disk():
            path.unlink(missing_ok=True)

    def path(self, version: str) -> Path:
        return self.home.versions / f"{self.job_id}-{version}"

    def on_disk(self) -> set[Path]:
        return set(self.home.versions.glob(f"{self.job_id}-*"))


def cached(home: Home, what: str, sha256: str) -> Path:
    """A fetched artifact's file. Raises MissingError."""
    path = home.cache / sha256
    if not path.exists():
        raise MissingError({what: sha256})
    return path
