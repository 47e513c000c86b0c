"""How a node gets from the version that it holds to the one that a round starts from: by the outer steps between them, as long as
these are fewer bytes than the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from marketplace.artifacts.models import Artifact
from marketplace.jobs.models import Job
from marketplace.training.models import Assignment, Checkpoint

MOST_STEPS = 16
"""That a node is told to take: whoever was away for longer fetches the checkpoint."""


def held_by(slots: Sequence[Assignment]) -> int | None:
    """Number of the checkpoint that a node holds, by its slots, newest first: the one that its last order started from."""
    return next((slot.round.number for slot in slots if slot.leased_at and slot.origin_id is None), None)


def newest_steps(job: Job, *, number: int) -> list[Checkpoint]:
    """The checkpoints to which the newest outer steps led, up to checkpoint `number`, oldest first."""
    return list(Checkpoint.objects.filter(job=job, number__gt=number - MOST_STEPS, number__lte=number).order_by("number"))


def between(steps: Sequence[Checkpoint], *, held: int | None, whole: int) -> list[Checkpoint] | None:
    """Those that a node with checkpoint `held` takes one after the other; None where the checkpoint of `whole` bytes is less to
    fetch, or nothing leads there."""
    if held is None or not steps or held + 1 < steps[0].number:
        return None
    missing = [step for step in steps if step.number > held and step.delta]
    return missing if sum(step.delta_size for step in missing) <= whole else None


def missed_steps(slot: Assignment) -> list[dict[str, str]]:
    """For the agent of a slot whose node has missed outer steps: each with the version that it leads on from, oldest first.
    Nothing where the step that the order names is enough, or the checkpoint is less to fetch."""
    job, number = slot.round.job, slot.round.number
    mine = Assignment.objects.filter(node_id=slot.node_id, round__job=job, round__number__lt=number, origin=None)
    held = held_by(list(mine.select_related("round").order_by("-round__number")[:MOST_STEPS]))
    if held is None or held >= number - 1:
        return []
    steps = newest_steps(job, number=number)
    whole = Artifact.objects.values_list("size", flat=True).get(sha256=steps[-1].params)
    chain = between(steps, held=held, whole=whole) or []
    versions = dict(Checkpoint.objects.filter(job=job, number__gte=held, number__lt=number).values_list("number", "version"))
    return [{"parent": versions[step.number - 1], "delta": step.delta} for step in chain]
