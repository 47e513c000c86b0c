"""The task that every peer trains, in plain torch: a byte GPT from given weights, on given batches, to a held-out loss.

Nothing here is HyperGPU's: the peers' environments do not have it. What makes runs comparable (starting weights, each worker's
batches in order, the held-out text) comes in a file that `task_file.py` writes with the product's own functions; a test holds
this model and its step to the product's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BETAS = (0.9, 0.95)
EVAL_BATCH = 64


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width, bias=False)
        self.feed_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        batch, length, width = stream.shape
        mixed = self.attention_in(self.attention_norm(stream)).view(batch, length, 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        stream = stream + self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        return stream + self.feed_out(F.gelu(self.feed_in(self.feed_norm(stream))))


class GPT(nn.Module):
    """(batch, length) int64 bytes to (batch, length, 256) logits; parameters are named as in the product's gpt."""

    def __init__(self, *, layers: int, heads: int, width: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.position = nn.Embedding(length, width)
        self.layers = nn.ModuleList([Layer(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.embedding(inputs) + self.position(torch.arange(inputs.shape[1]))
        for layer in self.layers:
            stream = layer(stream)
        return F.linear(self.norm(stream), self.embedding.weight)


class Task:
    """One worker's view. `batches` (steps, 2, batch, length) uint8, inputs and targets; `model` holds the starting weights."""

    def __init__(self, file: Path, *, worker: int = 0) -> None:
        torch.set_num_threads(1)
        with np.load(file) as content:
            self.recipe: dict[str, Any] = json.loads(str(content["recipe"]))
            self.batches = torch.from_numpy(content["batches"][worker])
            self.held_out = torch.from_numpy(content["held_out"])
            self.model = GPT(**self.recipe["model"])
            self.model.load_state_dict({name: torch.from_numpy(content[name]) for name in self.model.state_dict()})
        self.steps = len(self.batches)

    def optimizer(self) -> torch.optim.AdamW:
        decay = [p for p in self.model.parameters() if p.dim() > 1]
        plain = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [{"params": decay, "weight_decay": self.recipe["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.recipe["learning_rate"], betas=BETAS, fused=True)

    def backward(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Gradients of step `step` (from 0), clipped, and its learning rate set; the loss in nats. `optimizer.step()` is next."""
        optimizer.zero_grad(set_to_none=True)
        loss = mean_loss(model, self.batches[step])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), self.recipe["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = self.recipe["learning_rate"] * min(1.0, (step + 1) / self.recipe["warmup_steps"])
        return loss.item()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean over the whole evaluation split, nats per byte."""
        parts = self.held_out.split(EVAL_BATCH, dim=1)
        return sum(mean_loss(self.model, part).item() * part.shape[1] for part in parts) / self.held_out.shape[1]


def mean_loss(model: nn.Module, pair: Tensor) -> Tensor:
    """`pair` (2, batch, length) uint8: inputs and targets."""
    inputs, targets = pair.long()
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


class Clock:
    """When a worker began its first inner step and ended its last round, and how long inner steps took by themselves."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = self.at = 0.0
        self.inner_seconds, self.steps = 0.0, 0

    def step_begins(self) -> None:
        self.at = time.monotonic()
        self.began = self.began or time.time()
        if self.options.die_at == self.steps and self.options.worker == self.options.workers - 1:
            os.kill(os.getpid(), signal.SIGKILL)  # as a machine goes: no goodbye

    def step_ended(self) -> None:
        self.inner_seconds += time.monotonic() - self.at
        self.steps += 1

    def report(self, task: Task | None = None, *, name: str = "", **more: Any) -> None:
        """After the last round: what this process knows, as JSON in the output folder; with the held-out loss of `task`."""
        result = {"began": self.began or None, "ended": time.time(), "steps": self.steps, "inner_seconds": self.inner_seconds}
        if task is not None:
            result["loss"] = task.held_out_loss()
        name = name or f"worker-{self.options.worker}"
        (self.options.out / f"{name}.json").write_text(json.dumps(result | more))


def arguments() -> argparse.Namespace:
    """What every peer's script takes. Without --worker it is the launcher."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=Path, required=True, help="file of task_file.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the workers' results")
    parser.add_argument("--variant", default="", help="of the peer: see the script")
    parser.add_argument("--inner", type=int, default=20, help="inner steps between two synchronisations")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nice", type=int, default=0, help="of each worker; below 0 it takes root")
    parser.add_argument("--die-at", type=int, help="the last worker kills itself before this step, counted from 0")
    parser.add_argument("--worker", type=int, help="which one this process is")
    parser.add_argument("--meet", default="", help="where the workers meet: given by the launcher")
    return parser.parse_args()


def be_nice(nice: int) -> None:
    """For this process and, where the kernel weighs sessions (sched(7), autogroup), for its session."""
    os.nice(nice)
    group = Path("/proc/self/autogroup")
    if nice and group.exists():
        group.write_text(str(nice))


def launch(options: argparse.Namespace, *, meet: str) -> int:
    """Start the calling script once for each worker and wait; the exit code of the first that failed unasked."""
    given = {
        "task": options.task,
        "out": options.out,
        "variant": options.variant,
        "inner": options.inner,
        "workers": options.workers,
    }
    command = [sys.executable, sys.argv[0], *(part for name, value in given.items() for part in (f"--{name}", str(value)))]
    command += ["--meet", meet, *([] if options.die_at is None else ["--die-at", str(options.die_at)])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [*command, "--worker", str(number)], env=environment, start_new_session=True, preexec_fn=lambda: be_nice(options.nice)
        )
        for number in range(options.workers)
    ]  # fmt: skip
    for worker in workers[: -1 if options.die_at is not None else None]:
        worker.wait()
    for worker in workers:
        worker.kill()
    survivors = workers if options.die_at is None else workers[:-1]
    return next((worker.wait() for worker in survivors if worker.returncode), 0)
