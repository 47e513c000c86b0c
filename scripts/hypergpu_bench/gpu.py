"""The inner loop beside a bare PyTorch loop of the same model, and beside the card's rate of matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from scripts.hypergpu_bench.report import INTERVAL, Figure, Measured, interval
from scripts.hypergpu_demo.supervise import StackError
from trainer.data import Dataset, shard_batches
from trainer.data.splits import text_dataset
from trainer.diloco.inner import BETAS
from trainer.diloco.local import NodeState
from trainer.diloco.trace import contribute
from trainer.models import build_model, mean_loss
from trainer.operator.benchmark import device_name
from trainer.protocol.orders import WorkOrder
from trainer.protocol.spec import AuditSpec, DataSpec, InnerSpec, JobSpec, ModelSpec
from trainer.simulation.plots import Bars

GOAL_VS_BARE, GOAL_MFU = 97.0, 45.0
SIDE, PRODUCTS = 8192, 50
"""Of the square matrices whose product gives the card's rate, and how many in a row."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A byte GPT and the batches it is fed; `pairs` of runs, bare and ours in turn, of `steps` each."""

    name: str
    layers: int
    heads: int
    width: int
    sequence: int
    batch: int
    steps: int
    pairs: int
    precision: str = "fp32"
    compile: bool = False

    @property
    def tokens(self) -> int:
        """Of a run."""
        return self.steps * self.batch * self.sequence

    def spec(self) -> JobSpec:
        return JobSpec(
            model=ModelSpec(architecture="gpt", config={"layers": self.layers, "heads": self.heads, "width": self.width}),
            data=DataSpec(kind="text", files={"text": "0" * 64}, sequence_length=self.sequence),
            inner=InnerSpec.model_validate(
                {"steps": self.steps, "batch_size": self.batch, "precision": self.precision, "compile": self.compile}
            ),
        )


LARGE = Workload("GPT, 121 M", layers=17, heads=12, width=768, sequence=1024, batch=32, steps=60, pairs=5,
                 precision="bf16", compile=True)  # fmt: skip
LARGE_QUICK = Workload("GPT, 121 M", layers=17, heads=12, width=768, sequence=1024, batch=32, steps=20, pairs=3,
                       precision="bf16", compile=True)  # fmt: skip
SMALL = Workload("GPT, 364 k", layers=3, heads=4, width=96, sequence=64, batch=8, steps=40, pairs=15)
BOTH = (
    "Both loops in one process, in turn: same model, same batches; the bare one has fused AdamW, clipping, its batches at hand.",
    f"Ours is the product's `contribute` with its trace, a state every {AuditSpec().stride} steps, written to a file beside the "
    "steps: 'loop' is from before the first step to after the last; 'whole' loads the base and waits for trace and upload too.",
)
ON_CPU = "On a CPU with one thread, in processor time, that of the trace's thread too: this is no GPU measurement."
ON_GPU = (
    "A byte vocabulary: what GPT-2 small, of the same width, has in its vocabulary is here in five more layers. bf16, compiled.",
    f"MFU: 6 operations a weight and token and causal attention's, by the rate of {SIDE} x {SIDE} bf16 products on the card.",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds of one run each."""

    bare: float
    loop: float
    whole: float


def measure(*, quick: bool) -> Measured:
    """Raises StackError without a GPU; `quick` compares the loops on the CPU then."""
    if torch.cuda.is_available():
        return measure_gpu(LARGE_QUICK if quick else LARGE)
    if not quick:
        raise StackError("This benchmark needs a CUDA GPU. With --quick it compares the two loops on the CPU instead.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure_cpu(SMALL)
    finally:
        torch.set_num_threads(threads)


def measure_cpu(work: Workload) -> Measured:
    pairs = compare(work, torch.device("cpu"))
    return Measured(
        seeds=seeds(pairs), conditions=[ON_CPU, f"Machine: {device_name()}.", *BOTH], rows=rows(work, pairs),
        figures={"inner_loop_vs_bare_percent_cpu": versus_bare(pairs)}, plots=[plot(pairs)], spread=INTERVAL,
    )  # fmt: skip


def measure_gpu(work: Workload) -> Measured:
    pairs, card = compare(work, torch.device("cuda")), product_rate()
    speed = interval([work.tokens / pair.loop for pair in pairs])
    used = interval([100 * work.tokens * operations_per_token(work) / pair.loop / card for pair in pairs])
    return Measured(
        seeds=seeds(pairs), conditions=[f"Machine: {device_name()}.", *ON_GPU, *BOTH],
        rows=[*rows(work, pairs), {"what": "matrix products", "10^12 operations/s": card / 1e12}],
        figures={
            "inner_loop_vs_bare_percent": versus_bare(pairs),
            "mfu_percent_vs_matmul": Figure(value=used.mean, unit="%", goal=GOAL_MFU, low=used.low, high=used.high),
            "tokens_per_second": Figure(value=speed.mean, unit="tokens/s", low=speed.low, high=speed.high),
        },
        plots=[plot(pairs)], spread=INTERVAL,
    )  # fmt: skip


def compare(work: Workload, device: torch.device) -> list[Pair]:
    """Runs in turn, after one of each that warms up and compiles."""
    spec, dataset = work.spec(), random_text(work)
    bare, ours = bare_loop(spec, dataset, device), our_loop(spec, dataset, device)
    bare(0)
    ours(0)
    return [Pair(bare(seed), *ours(seed)) for seed in range(1, work.pairs + 1)]


def random_text(work: Workload) -> Dataset:
    """Bytes that nobody can predict: how fast a step is does not depend on them."""
    samples = 4 * work.steps * work.batch
    drawn = torch.randint(256, (samples * work.sequence,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return text_dataset(drawn.numpy().tobytes(), sequence_length=work.sequence)


def bare_loop(spec: JobSpec, dataset: Dataset, device: torch.device) -> Callable[[int], float]:
    """What one writes without HyperGPU. A run's seconds, by seed."""
    model, inner = build_model(spec.model, dataset.info, seed=spec.seed).to(device), spec.inner
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=inner.learning_rate, betas=BETAS, weight_decay=inner.weight_decay, fused=True
    )

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        return mean_loss(model, inputs, targets)

    loss_function = torch.compile(loss_of) if inner.compile and device.type == "cuda" else loss_of

    def run(seed: int) -> float:
        batches = [
            (inputs.to(device), targets.to(device))
            for inputs, targets in shard_batches(
                dataset.train, shard=0, shards=1, seed=seed, steps=inner.steps, batch_size=inner.batch_size
            )
        ]
        started = clock(device)
        for inputs, targets in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=inner.precision == "bf16"):
                loss = loss_function(inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), inner.clip_norm)
            optimizer.step()
        return clock(device) - started

    return run


def our_loop(spec: JobSpec, dataset: Dataset, device: torch.device) -> Callable[[int], tuple[float, float]]:
    """Seconds of the loop and of the whole call, by seed."""
    state = NodeState(spec, dataset.info, device=device)
    base = state.params()

    def run(seed: int) -> tuple[float, float]:
        stamps: list[float] = []

        def before_the_first() -> bool:
            if not stamps:
                stamps.append(clock(device))
            return False

        def after_the_last(step: int, loss: float) -> None:
            if step + 1 == spec.inner.steps:
                stamps.append(clock(device))

        started = clock(device)
        with TemporaryDirectory() as folder:
            contribute(
                state, order(spec, seed), base, dataset, on_step=after_the_last, should_stop=before_the_first, folder=Path(folder)
            )
        return stamps[1] - stamps[0], clock(device) - started

    return run


def order(spec: JobSpec, seed: int) -> WorkOrder:
    return WorkOrder(
        job_id=0, round=0, node_id=0, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=0, shards=1, seed=seed,
        steps=spec.inner.steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


def clock(device: torch.device) -> float:
    """Seconds: of a GPU that has done all it was told, of a CPU's work for this process."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def product_rate() -> float:
    """Operations a second of the best of five series of bf16 matrix products."""
    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(6):
        started = clock(left.device)
        for _ in range(PRODUCTS):
            left @ right
        seconds.append(clock(left.device) - started)
    return 2 * SIDE**3 * PRODUCTS / min(seconds[1:])


def operations_per_token(work: Workload) -> float:
    """Of forward and backward pass, as Chowdhery et al. 2022 (arXiv:2204.02311, appendix B) count: 6 for each weight that is
    multiplied (the tied embedding once, as the head), and attention, of which a causal one needs half."""
    weights = 12 * work.layers * work.width**2 + 256 * work.width
    return 6 * weights + 6 * work.layers * work.width * work.sequence


def seeds(pairs: list[Pair]) -> list[int]:
    return list(range(1, len(pairs) + 1))


def versus_bare(pairs: list[Pair]) -> Figure:
    """The loop's speed in percent of the bare loop's, over pairs of runs."""
    speed = interval([100 * pair.bare / pair.loop for pair in pairs])
    return Figure(value=speed.mean, unit="%", goal=GOAL_VS_BARE, low=speed.low, high=speed.high)


def rows(work: Workload, pairs: list[Pair]) -> list[dict[str, object]]:
    """Medians over the pairs."""
    bare, loop, whole = (statistics.median(column) for column in zip(*map(astuple, pairs), strict=True))
    return [
        {"what": f"{work.name}: {what}", "tokens/s": work.tokens / seconds, "ms a step": 1e3 * seconds / work.steps,
         "% of bare": 100 * bare / seconds}
        for what, seconds in (
            ("bare PyTorch", bare), ("contribute, loop", loop), ("contribute, whole", whole),
        )
    ]  # fmt: skip


def plot(pairs: list[Pair]) -> Bars:
    kinds = {"loop": [100 * pair.bare / pair.loop for pair in pairs], "whole": [100 * pair.bare / pair.whole for pair in pairs]}
    bars = {name: tuple(value for value in interval(values) if value is not None) for name, values in kinds.items()}
    return Bars(title="contribute beside a bare loop", x="% of its speed", bars=bars, goal=GOAL_VS_BARE)
