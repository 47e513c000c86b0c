"""What hostile and failing operators cost: final loss, their pay and that of honest ones, and which aggregation rule bears it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scripts.hypergpu_bench.attack_cells import HOSTILE, STEPS, Cell, Outcome, run_cells
from scripts.hypergpu_bench.report import INTERVAL, Figure, Interval, Measured, interval
from scripts.hypergpu_bench.tasks import NODES
from trainer.protocol.spec import AggregationSpec, AuditSpec
from trainer.simulation.attackers import ATTACKS
from trainer.simulation.plots import Bars

SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
ROUNDS, QUICK_ROUNDS = {"text": 8, "images": 8}, {"text": 5, "images": 5}
RULES = ("weighted_mean", "coordinate_median", "trimmed_mean", "multi_krum", "geometric_median", "centered_clipping")
RULE_ROUNDS, QUICK_RULE_ROUNDS = 4, 3
RULE_ATTACKS = (None, "sign_flip")
"""None is a clean run. Sign flip harms most without a gate."""
FAILURE = 0.2
TARGET_ROUND = 0.6
"""Part of the clean run after which its loss is the target that failing runs must reach, too."""
BASELINE = "absent"
"""A run of the honest nodes alone: a row to compare with, and no attack, so in no figure."""
GOALS = {"loss_gap": 2.0, "hostile": 5.0, "honest": 2.0, "slowdown": 20.0}


def measure(*, quick: bool) -> Measured:
    seeds, rounds = (QUICK_SEEDS, QUICK_ROUNDS) if quick else (SEEDS, ROUNDS)
    by_rule = rule_cells(seeds, quick=quick)
    found = run_cells(list(dict.fromkeys([*attack_cells(seeds, rounds), *by_rule])))
    samples = [sample(found, task, attack, seeds, rounds[task]) for task in rounds for attack in ATTACKS]
    failing = [failing_row(found, task, seeds, rounds[task]) for task in rounds]
    rules = rule_rows(found, seeds, quick=quick)
    return Measured(
        seeds=seeds, conditions=conditions(rounds), rows=[as_row(one) for one in samples], spread=INTERVAL,
        figures=figures([one for one in samples if one["attack"] != BASELINE], failing), plots=plots(samples),
        more={"nodes that crash": failing, "aggregation rules (text)": rules},
    )  # fmt: skip


def conditions(rounds: Mapping[str, int]) -> tuple[str, ...]:
    spec, audit = AggregationSpec(), AuditSpec()
    return (
        f"{NODES} nodes, {HOSTILE} of them hostile in every round, in league; {STEPS} local steps. text: byte GPT of one layer "
        f"and width 32 on tiny Shakespeare, {rounds['text']} rounds, 8 x 64 bytes a step. images: a CNN of 4 and 8 channels "
        f"on the MNIST test files, {rounds['images']} rounds, 16 images a step.",
        "Real: every gradient, and the product's own local steps, encodings, checks, scores, aggregation and outer step. "
        "Emulated: machines and links (profile lan), which do not matter to loss and pay here.",
        f"The job's defaults: rule {spec.rule}, loss gate {'on' if spec.gate else 'off'}. Losses are of the evaluation split, "
        "against the clean run of the same seed; no attacker is excluded while it runs: the worst case for the loss.",
        "Pay: samples times quality of each accepted contribution, nothing for a refused one. 'pay of a cheat' counts checks and "
        "scores alone, 'after audits' what is expected to be left by replay audits; both against an honest node of the same run.",
        f"Audits by chance at the defaults: {audit.newcomer_rate:.0%} of a node's first {audit.newcomer_rounds} contributions, "
        f"{audit.rate:.0%} later, {audit.segments} segments of {audit.stride} steps each. A false segment that is looked at is "
        "found (what replays really miss: the audits bench). Who trains as ordered and lies afterwards has one false segment.",
        "Who is caught is excluded and loses the pay of all its false rounds: each is a case of its own at the DisputeCourt "
        "within the challenge window (a day, longer than these jobs), which takes it back, and as much again as a penalty from "
        "credit, then stake. 'net of penalties' counts those too; 'after audits' and the goal do not.",
        "So it is built: whoever a replay has caught is audited in all its other rounds of that window, and each that is proven "
        "false is a case. That the node answers those audits, and that they find every false round, is assumed: who does not "
        "answer is left out for a day, and keeps that pay.",
        "copy_ally: the first hostile node works honestly, the second sends that work under noise; only the second counts as a "
        "cheat. Attacks on the past (resend, copy_earlier) send nothing in the first round.",
        "absent: the two hand in nothing, so the model learns from six nodes instead of eight. No attack and in no figure: what "
        "is left to lose when every attack is found.",
        f"Nodes that crash: each with a chance of {FAILURE:.0%} in each round, losing its round and its optimizer's moments. "
        f"Compared are the rounds to the loss that the clean run has after {TARGET_ROUND:.0%} of its rounds.",
    )  # fmt: skip


# Attacks.


def attack_cells(seeds: Sequence[int], rounds: Mapping[str, int]) -> list[Cell]:
    clean = [Cell(task=task, seed=seed, rounds=count) for seed in seeds for task, count in rounds.items()]
    return [
        *clean,
        *(replace(cell, failure=FAILURE) for cell in clean),
        *(replace(cell, attack=attack) for cell in clean for attack in ATTACKS),
    ]


Sample = dict[str, Any]


def sample(found: Mapping[Cell, Outcome], task: str, attack: str, seeds: Sequence[int], rounds: int) -> Sample:
    """One attack on one task: each quantity as an interval over seeds, in per cent."""
    clean = [found[Cell(task=task, seed=seed, rounds=rounds)] for seed in seeds]
    hit = [found[Cell(task=task, seed=seed, rounds=rounds, attack=attack)] for seed in seeds]

    def over(quantity: Callable[[Outcome, Outcome], float]) -> Interval:
        return interval([100 * quantity(one, other) for one, other in zip(hit, clean, strict=True)])

    return {
        "task": task, "attack": attack,
        "loss_gap": over(lambda one, other: one.losses[-1] / other.losses[-1] - 1),
        "refused": over(lambda one, _: one.refused),
        "pay": over(lambda one, _: one.cheats / mean_honest(one)),
        "after_audits": over(lambda one, _: one.kept.pay / mean_honest(one)),
        "net": over(lambda one, _: one.kept.net / mean_honest(one)),
        "honest_loss": over(lambda one, other: 1 - sum(one.honest.values()) / sum(other.honest[node] for node in one.honest)),
    }  # fmt: skip


def mean_honest(outcome: Outcome) -> float:
    return sum(outcome.honest.values()) / len(outcome.honest)


def as_row(one: Sample) -> dict[str, Any]:
    return {
        "task": one["task"], "attack": one["attack"], "loss against clean %": shown(one["loss_gap"]),
        "refused %": round(one["refused"].mean, 1), "pay of a cheat %": shown(one["pay"]),
        "after audits %": shown(one["after_audits"]), "net of penalties %": shown(one["net"]),
        "honest pay lost %": shown(one["honest_loss"]),
    }  # fmt: skip


def shown(found: Interval) -> str:
    """Mean and half the width of the interval."""
    if found.low is None:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} ±{found.mean - found.low:.2f}"


# Nodes that crash.


def failing_row(found: Mapping[Cell, Outcome], task: str, seeds: Sequence[int], rounds: int) -> dict[str, Any]:
    """Rounds to the target loss with crashes against without, interpolated; None where a run never gets there."""
    target_round = max(1, round(TARGET_ROUND * rounds))
    slower: list[float | None] = []
    gaps = []
    for seed in seeds:
        clean = found[Cell(task=task, seed=seed, rounds=rounds)].losses
        losses = found[Cell(task=task, seed=seed, rounds=rounds, failure=FAILURE)].losses
        needed = rounds_to(losses, clean[target_round - 1])
        slower.append(None if needed is None else 100 * (needed / target_round - 1))
        gaps.append(100 * (losses[-1] / clean[-1] - 1))
    reached = [one for one in slower if one is not None]
    return {
        "task": task, "rounds more to the same loss %": shown(interval(reached)) if reached else "not reached",
        "not reached": slower.count(None), "loss against clean %": shown(interval(gaps)), "by_seed": {"slower": slower},
    }  # fmt: skip


def rounds_to(losses: Sequence[float], target: float) -> float | None:
    """Rounds until the loss is down at `target`, on straight lines between rounds; None when it never is."""
    for number, loss in enumerate(losses):
        if loss <= target:
            before = losses[number - 1] if number else None
            return number + 1 - ((target - loss) / (before - loss) if before is not None and before > loss else 0.0)
    return None


# Aggregation rules.


def rule_cells(seeds: Sequence[int], *, quick: bool) -> list[Cell]:
    rounds = QUICK_RULE_ROUNDS if quick else RULE_ROUNDS
    return [
        Cell(task="text", seed=seed, rounds=rounds, attack=attack, rule=rule, gate=gate)
        for seed in seeds for attack in RULE_ATTACKS for rule in RULES for gate in (True, False)
        if gate or attack is not None or rule == "weighted_mean"
    ]  # fmt: skip


def rule_rows(found: Mapping[Cell, Outcome], seeds: Sequence[int], *, quick: bool) -> list[dict[str, Any]]:
    """Final loss against the plain mean of a clean round (no gate), in per cent; a rule's gate costs nothing in a clean run
    that refuses nobody, so clean runs are with it."""
    cells = rule_cells(seeds, quick=quick)
    rounds = cells[0].rounds
    plain = {seed: found[Cell(task="text", seed=seed, rounds=rounds, rule="weighted_mean", gate=False)] for seed in seeds}
    rows = []
    for rule in RULES:
        for gate in (True, False):
            row: dict[str, Any] = {"rule": rule, "gate": "on" if gate else "off"}
            for attack in dict.fromkeys(cell.attack for cell in cells):
                own = [cell for cell in cells if (cell.rule, cell.gate, cell.attack) == (rule, gate, attack)]
                gaps = [100 * (found[cell].losses[-1] / plain[cell.seed].losses[-1] - 1) for cell in own]
                row[f"{attack or 'clean'} %"] = shown(interval(gaps)) if gaps else ""
            rows.append(row)
    return rows


# What it came to.


def figures(samples: Sequence[Sample], failing: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    slower = [100.0 if one is None else one for row in failing for one in row["by_seed"]["slower"]]
    slow = interval(slower)
    return {
        "worst_loss_gap_percent": worst(samples, "loss_gap", GOALS["loss_gap"]),
        "worst_hostile_pay_share_percent": worst(samples, "after_audits", GOALS["hostile"]),
        "worst_honest_pay_loss_percent": worst(samples, "honest_loss", GOALS["honest"]),
        "worst_hostile_pay_share_without_audits_percent": worst(samples, "pay", None),
        "worst_hostile_net_of_penalties_percent": worst(samples, "net", None),
        "attacks_beyond_the_loss_goal": beyond(samples, "loss_gap", GOALS["loss_gap"]),
        "attacks_beyond_the_pay_goal": beyond(samples, "after_audits", GOALS["hostile"]),
        "rounds_more_with_20_percent_crashing_percent": Figure(
            value=slow.mean, unit="% of rounds", goal=GOALS["slowdown"], low=slow.low, high=slow.high
        ),
    }


def worst(samples: Sequence[Sample], name: str, goal: float | None) -> Figure:
    """The largest mean of all attacks and tasks, with its interval."""
    one = max(samples, key=lambda sample: sample[name].mean)
    unit = f"% ({one['attack']}, {one['task']})"
    return Figure(value=one[name].mean, unit=unit, goal=goal, low=one[name].low, high=one[name].high)


def beyond(samples: Sequence[Sample], name: str, goal: float) -> Figure:
    return Figure(
        value=sum(sample[name].mean > goal for sample in samples), unit=f"of {len(samples)} (mean above {goal:g} %)", goal=0
    )


def plots(samples: Sequence[Sample]) -> list[Bars]:
    def bars(name: str) -> dict[str, tuple[float, ...]]:
        return {f"{one['attack']} ({one['task']})": tuple(v for v in one[name] if v is not None) for one in samples}

    return [
        Bars(title="final loss against the clean run", x="%", bars=bars("loss_gap"), goal=GOALS["loss_gap"]),
        Bars(
            title="pay of a hostile node after audits",
            x="% of an honest node's",
            bars=bars("after_audits"),
            goal=GOALS["hostile"],
        ),
    ]
