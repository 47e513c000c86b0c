"""A round's end, from submissions to the next version: judge, aggregate, step.

One implementation for everybody: the coordinator closes rounds with it, attestors and strangers replay them, the simulation
runs on it. Everything here is a function of its arguments. What is measured (scores, gains, the metric) is floating point and
may differ in the last digits between machines, so a round publishes it, and whoever judges again goes by what was published
once it has measured the same (`Measured`); all that follows is exact.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer.data import Dataset, load_dataset
from trainer.diloco.aggregation import Aggregate, Contribution, aggregate
from trainer.diloco.checkpoint import initial_params, load_checkpoint, load_outer, save_checkpoint, save_outer
from trainer.diloco.encoding import Update, decode
from trainer.diloco.findings import Findings, Measured, expected, go_by, harmful, leave_doubt
from trainer.diloco.flat import Shapes, count_of
from trainer.diloco.fragments import fragment_of, part_of, with_part
from trainer.diloco.local import default_device
from trainer.diloco.outer import OuterState, outer_step
from trainer.diloco.version import model_root
from trainer.models import build_model, model_shapes, parameter_shapes
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import upload_limit
from trainer.protocol.rounds import JobWork, Prepared, RoundResult, RoundWork, Standing, Submission, Verdict
from trainer.protocol.spec import JobSpec
from trainer.scoring.agreement import SAME, agreed
from trainer.scoring.checks import check_contribution, find_copies, norm_limit, orders_apart
from trainer.scoring.cores import on_cores
from trainer.scoring.effort import MOST_SAMPLES, is_looked_at, score_samples
from trainer.scoring.ownership import assigned_samples, is_suspected, ownership, passes_of, refuse_other_data, renewed
from trainer.scoring.quality import SCATTERS, STEP_SCALE, qualities
from trainer.scoring.repeats import Work, drawn_places, find_nothing_new, find_repeats
from trainer.scoring.scores import draw_batch, each_loss, evaluate, improvement


class Bench(NamedTuple):
    """What a job's rounds have in common; kept between rounds, since building it costs more than a small round. `model` is where
    losses are measured: on a GPU where there is one, since whoever measures again may round otherwise (`findings.Measured`)."""

    dataset: Dataset
    model: nn.Module
    shapes: Shapes

    @property
    def size(self) -> int:
        """Parameters in total."""
        return count_of(self.shapes)


def bench(job: JobWork) -> Bench:
    """The job's data set and architecture. Raises HyperGPUError `data.*` or `model.*`."""
    return cached_bench(job.spec.model_dump_json(include={"model", "data", "seed"}), tuple(sorted(job.files.items())))


@lru_cache(maxsize=4)
def cached_bench(spec_json: str, files: tuple[Any, ...]) -> Bench:
    spec = JobSpec.model_validate_json(spec_json)
    dataset = load_dataset(spec.data, files=dict(files))
    model = build_model(spec.model, dataset.info, seed=spec.seed).to(default_device())
    return Bench(dataset, model, parameter_shapes(model))


def parameters(job: JobWork) -> int:
    """Of the job's model, which is not allocated. Raises HyperGPUError when data or model cannot be had."""
    dataset = load_dataset(job.spec.data, files=job.files)
    return count_of(model_shapes(job.spec.model, dataset.info))


def prepare(job: JobWork) -> Prepared:
    """The job before its first round. Raises HyperGPUError when data or model cannot be had, or cut as the job wants it."""
    at = bench(job)
    fragment_of(at.shapes, job.spec, 0)
    first = first_state(job)
    began = time.perf_counter()
    metrics = evaluate(at.model, at.shapes, first.params, at.dataset.eval)
    evaluation_rate = len(at.dataset.eval) / (time.perf_counter() - began)
    return Prepared(
        base=model_root(first.params), params=save_checkpoint(first.params, at.shapes), outer_state=save_outer(first),
        metric=asdict(metrics), upload_limit=upload_limit(at.size), evaluation_rate=evaluation_rate,
    )  # fmt: skip


def first_state(job: JobWork) -> OuterState:
    """Parameters and outer state before the first round, from the job's seed."""
    return OuterState.start(initial_params(job.spec, bench(job).dataset.info), job.spec)


def check(job: JobWork, submission: Submission, *, number: int) -> None:
    """Is it an update of round `number` at all? Raises HyperGPUError `artifact.*` or `contribution.*`."""
    checked(job, submission, number=number)


def checked(job: JobWork, submission: Submission, *, number: int) -> Update:
    count = fragment_of(bench(job).shapes, job.spec, number).count
    limit = norm_limit(job.spec, count, submission.steps)
    return check_contribution(submission.data, submission.encoding, count, max_norm=limit)


# The round before it is judged.


def read_state(work: RoundWork, *, shapes: Shapes | None = None) -> OuterState:
    """Parameters and outer state of the round's base. Raises HyperGPUError `round.wrong_base` when they are not that version,
    `artifact.*` when they cannot be read."""
    params = load_checkpoint(work.params, shapes=bench(work.job).shapes if shapes is None else shapes)
    if (found := model_root(params)) != work.base:
        raise HyperGPUError("round.wrong_base", f"The checkpoint is version {found}, the round began at {work.base}.")
    return load_outer(work.outer_state, params, work.job.spec)


def score_seed(work: RoundWork) -> str:
    """A hash over all commitments of the round: nobody knows the batches when committing, everybody can draw them after."""
    commitments = ":".join(sorted(submission.artifact for submission in work.submissions))
    return sha256_hex(f"{work.chain_job_id}:{work.number}:{work.base}:{commitments}".encode())


def trained(work: RoundWork) -> int:
    """Samples that the round's orders were to train."""
    return sum(submission.steps for submission in work.submissions) * work.job.spec.inner.batch_size


# Judging.


def judge_round(work: RoundWork, said: Measured | None = None) -> list[Verdict]:
    """Who is accepted, with which quality, and why not: what an attestor recomputes before it signs. What is `said` to have been
    measured is measured again and then gone by, so that machines which round otherwise come to the same verdicts.

    Raises HyperGPUError `evidence.other_scores` where it does not come out again, `evidence.other_samples` where other samples
    were scored than the rule gives, and what `read_state` raises.
    """
    return verdicts(work, assess(work, read_state(work).params, said))


def assess(work: RoundWork, base: Tensor, said: Measured | None = None) -> Findings:
    """Each submission, until something speaks against it: it is no update, a copy of one committed earlier, harmful."""
    found = Findings({}, {one.node_id: work.standings.get(one.node_id, Standing()) for one in work.submissions})
    shapes, turns = bench(work.job).shapes, work.job.spec.network.fragments
    before = last_aggregate(work, shapes)
    previous = None if before is None else fragment_of(shapes, work.job.spec, work.number).take(before)
    for submission in work.submissions:
        try:
            found.updates[submission.node_id] = checked(work.job, submission, number=work.number)
        except HyperGPUError as error:
            found.refused[submission.node_id] = error
    found.refused |= find_copies(
        {node: update.values for node, update in found.updates.items()}, previous, apart=orders_apart(work.submissions),
        as_one=work.number < turns > 1,
    )  # fmt: skip
    found.refused = {**repeats(work, found, previous), **found.refused}
    score(work, base, found, said)
    compare_with_orders(work, base, found, said)
    return found


def repeats(work: RoundWork, found: Findings, previous: Tensor | None) -> dict[int, HyperGPUError]:
    """Updates that were accepted in a round before, or are made of what was. That one has nothing new is told of dense updates of
    whole models alone, trained where the round begins: top k sends what the others have sent before, who works ahead begins
    elsewhere, and late work has its own round's in it."""
    spec, number = work.job.spec, work.number
    fragment = fragment_of(bench(work.job).shapes, spec, number)
    at = drawn_places(fragment.count, score_seed(work))

    def as_work(one: Submission, counted_in: int, values: Tensor) -> Work:
        return Work(one, counted_in if one.origin is None else one.origin, values[at])

    new = [as_work(one, number, found.updates[one.node_id].values) for one in work.submissions if one.node_id in found.updates]
    earlier = [
        as_work(one, then, decode(one.data, one.encoding, count=fragment.count).values)
        for then, counted in work.earlier.items() if (number - then) % spec.network.fragments == 0 for one in counted
    ]  # fmt: skip
    refused = find_repeats(new, earlier)
    if spec.aggregation.gate and spec.network.overlap == "none" and spec.network.fragments == 1:
        dense = [one for one in new if one.began == number and one.submission.encoding.kind != "topk"]
        refused = find_nothing_new(dense, None if previous is None else previous[at]) | refused
    return refused


def score(work: RoundWork, base: Tensor, found: Findings, said: Measured | None) -> None:
    """Loss improvement of each update on the round's held-out batch; one that harms, or helps too little, is refused."""
    improve(work, base, found, said)
    found.refused |= harmful(work, found.scores)


def improve(work: RoundWork, base: Tensor, found: Findings, said: Measured | None) -> None:
    """Fill in the scores: on as much of the round's batch as its orders afford, and on the rest too where that leaves in doubt
    whether an update harms or falls short. What diverges is refused."""
    at = bench(work.job)
    fragment = fragment_of(at.shapes, work.job.spec, work.number)
    kind = at.dataset.info.kind
    batch = draw_batch(at.dataset.score, seed=score_seed(work), size=MOST_SAMPLES[kind])
    size = score_samples(kind, trained=trained(work), updates=len(found.updates))
    before, after = torch.empty(0), {node_id: torch.empty(0) for node_id in found.updates}
    for inputs, targets in zip(*(samples.tensor_split([size]) for samples in batch), strict=True):
        if not len(targets) or (found.samples and not is_doubtful(work, found, said)):
            break
        nodes = [node_id for node_id in after if node_id not in found.refused]

        def losses(model: nn.Module, node_id: int | None, inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
            moved = base if node_id is None else base - STEP_SCALE * fragment.spread(found.updates[node_id].values)
            return each_loss(model, at.shapes, moved, inputs, targets)

        here, *there = on_cores(at.model, [partial(losses, node_id=node_id) for node_id in (None, *nodes)])
        before = torch.cat([before, here])
        found.samples = len(before)
        for node_id, moved in zip(nodes, there, strict=True):
            after[node_id] = torch.cat([after[node_id], moved])
            try:
                found.scores[node_id] = improvement(before, after[node_id])
            except HyperGPUError as error:
                found.scores.pop(node_id, None)
                found.refused[node_id] = error
    if said is not None:
        if said.samples != found.samples:
            raise other_samples(f"scores are said to be over {said.samples} samples where it gives {found.samples}")
        go_by(work, found, said.scores)


def is_doubtful(work: RoundWork, found: Findings, said: Measured | None) -> bool:
    """Whether the scores so far leave in doubt if an update harms or falls short. Who judges again looks as closely as is `said`
    that the round was looked at, where the scores give a reason: those published for going on no further, one's own, which may
    be rounded otherwise, for having gone on."""
    if said is None:
        return leave_doubt(work, found, found.scores)
    closer = said.samples > found.samples
    rounding = SAME * (SCATTERS if work.job.spec.network.fragments > 1 else 1.0) if closer else 0.0
    if closer != leave_doubt(work, found, found.scores if closer else said.scores, rounding=rounding):
        raise other_samples("no update was in doubt, and yet all samples were scored" if closer else "an update is in doubt")
    return closer


def other_samples(what: str) -> HyperGPUError:
    return HyperGPUError("evidence.other_samples", f"The round was not scored on the samples of the rule: {what}.")


def compare_with_orders(work: RoundWork, base: Tensor, found: Findings, said: Measured | None) -> None:
    """Whether each update knows the data that its order named: that moves the node's standing, and one too low refuses. Where
    orders are small it is looked at in some rounds only, and in all that somebody's standing speaks against; standings stay in
    the others, and nobody is refused without another look."""
    at, seed = bench(work.job), score_seed(work)
    fragment = fragment_of(at.shapes, work.job.spec, work.number)
    updates = {node_id: fragment.spread(found.updates[node_id].values) for node_id in found.accepted}
    passes = passes_of(len(work.submissions), at.dataset.info.kind)
    if any(map(is_suspected, found.standings.values())) or is_looked_at(seed, passes=passes, trained=trained(work)):
        assigned = {s.node_id: assigned_samples(at.dataset.train, work.job.spec, s, number=work.number) for s in work.submissions}
        found.gains = ownership(at.model, at.shapes, base, updates, train=at.dataset.train, assigned=assigned, seed=seed)
    if said is not None:
        not_owned = {node for node, gains in said.gains.items() if not gains.owned}
        same = not_owned & {node for node, gains in found.gains.items() if not gains.owned}  # the same standing follows
        found.gains = agreed(found.gains, said.gains, what="gains", settled=same)
    for node_id in updates:
        found.standings[node_id] = renewed(found.standings[node_id], found.gains.get(node_id))
        try:
            refuse_other_data(found.standings[node_id])
        except HyperGPUError as error:
            found.refused[node_id] = error


def verdicts(work: RoundWork, found: Findings) -> list[Verdict]:
    points = qualities(
        {node_id: found.scores[node_id].improvement for node_id in found.accepted}, expected(work, found.accepted)
    )  # fmt: skip
    result = []
    for node_id in (submission.node_id for submission in work.submissions):
        verdict = Verdict(
            node_id=node_id, score=asdict(found.scores[node_id]) if node_id in found.scores else None,
            gains=found.gains[node_id].as_json() if node_id in found.gains else None, standing=found.standings[node_id],
        )  # fmt: skip
        if (error := found.refused.get(node_id)) is not None:
            result.append(replace(verdict, code=error.code, reason=error.message))
        else:
            result.append(replace(verdict, quality=points[node_id]))
    return result


# Advancing.


@dataclass(frozen=True, slots=True)
class Advance:
    """What follows, bit by bit, from a base and the accepted contributions. `gathered` is None when there were none: then the
    version stays. `aggregate` (n,) holds what was gathered, and of other fragments what was gathered of them last."""

    state: OuterState
    gathered: Aggregate | None
    delta: bytes
    aggregate: Tensor | None = None

    @property
    def version(self) -> str:
        return model_root(self.state.params)


def last_aggregate(work: RoundWork, shapes: Shapes) -> Tensor | None:
    """What came of the rounds before (n,), so that nobody sends it again."""
    return load_checkpoint(work.previous_aggregate, shapes=shapes) if work.previous_aggregate else None


def advance(
    work: RoundWork, state: OuterState, updates: Mapping[int, Update], accepted: Collection[int], *, shapes: Shapes
) -> Advance:
    """Aggregate and step the round's fragment. Raises HyperGPUError `aggregation.*`."""
    if not accepted:
        return Advance(state, None, b"")
    by_node = {submission.node_id: submission for submission in work.submissions}
    contributions = [
        Contribution(node_id, updates[node_id], by_node[node_id].units, work.discount(by_node[node_id])) for node_id in accepted
    ]
    gathered = aggregate(contributions, work.job.spec.aggregation)
    fragment = fragment_of(shapes, work.job.spec, work.number)
    stepped = outer_step(part_of(state, fragment), gathered.pseudo_gradient, work.job.spec, number=work.number)
    whole = fragment.spread(gathered.pseudo_gradient)
    if fragment.count < fragment.whole and (before := last_aggregate(work, shapes)) is not None:
        whole = fragment.put(before, gathered.pseudo_gradient)
    return Advance(with_part(state, fragment, stepped.state), gathered, stepped.delta, whole)


def close_round(work: RoundWork, *, measured: bool = True) -> RoundResult:
    """Judge, aggregate, take the outer step and, if `measured`, evaluate: the whole of a round's end."""
    at = bench(work.job)
    state = read_state(work)
    found = assess(work, state.params)
    after = advance(work, state, found.updates, found.accepted, shapes=at.shapes)
    weights = after.gathered.weights if after.gathered else {}
    return RoundResult(
        version=after.version, params=save_checkpoint(after.state.params, at.shapes), outer_state=save_outer(after.state),
        aggregate=b"" if after.aggregate is None else save_checkpoint(after.aggregate, at.shapes), delta=after.delta,
        metric=asdict(evaluate(at.model, at.shapes, after.state.params, at.dataset.eval)) if measured else {},
        verdicts=[replace(verdict, weight=weights.get(verdict.node_id)) for verdict in verdicts(work, found)],
        samples=found.samples,
    )  # fmt: skip


def metric(job: JobWork, params: bytes) -> dict[str, float]:
    """Of a checkpoint, on the evaluation split. Raises HyperGPUError `artifact.*` when it cannot be read."""
    at = bench(job)
    return asdict(evaluate(at.model, at.shapes, load_checkpoint(params, shapes=at.shapes), at.dataset.eval))


def replay_round(work: RoundWork, accepted: Collection[int], *, shapes: Shapes | None = None) -> Advance:
    """The round again, given who was accepted. Raises HyperGPUError `round.wrong_base`, `artifact.*`, `aggregation.*`, and
    `round.incomplete` when an accepted contribution is not among the submissions: a part never passes as the whole."""
    state = read_state(work, shapes=shapes)
    shapes = bench(work.job).shapes if shapes is None else shapes
    by_node = {submission.node_id: submission for submission in work.submissions}
    if missing := sorted(set(accepted) - set(by_node)):
        raise HyperGPUError("round.incomplete", f"Contributions of accepted nodes are missing: {missing}.", nodes=missing)
    count = fragment_of(shapes, work.job.spec, work.number).count
    updates = {node: decode(by_node[node].data, by_node[node].encoding, count=count) for node in accepted}
    return advance(work, state, updates, accepted, shapes=shapes)
