"""A round can be computed again by anyone from its evidence, and nothing but the whole of it passes."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from tests.support.rounds import JOB, SPEC, World
from trainer.diloco import reference
from trainer.diloco import round as round_module
from trainer.diloco.encoding import decode, encode
from trainer.diloco.evidence import (
    check_chain,
    check_counts_once,
    check_judgement,
    check_outcome,
    evidence,
    link_of,
    round_work,
)
from trainer.diloco.round import bench, close_round, judge_round, read_state, replay_round
from trainer.protocol.canonical import canonical_bytes, sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import Origin, order_seed
from trainer.protocol.rounds import JobWork, RoundWork
from trainer.protocol.spec import EncodingSpec
from trainer.scoring.ownership import Gains
from trainer.scoring.quality import STEP_SCALE
from trainer.scoring.scores import each_loss


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def refusal(call, *args) -> str:
    with pytest.raises(HyperGPUError) as caught:
        call(*args)
    return caught.value.code


def changed(document: dict, change) -> dict:
    other = copy.deepcopy(document)
    change(other)
    return other


def test_the_evidence_gives_the_round_again_and_the_same_outcome(world):
    before = None
    for document, work in zip(world.documents, world.works, strict=True):
        check_chain(document, before, JOB)
        again = round_work(document, JOB, world.read)
        assert again == work
        check_outcome(again, document)
        assert [(v.node_id, v.quality) for v in check_judgement(again, document)] == [
            (entry["node"], entry["quality"]) for entry in document["contributions"]
        ]
        before = document


def test_evidence_is_canonical_json(world):
    assert canonical_bytes(world.documents[0]) == canonical_bytes(copy.deepcopy(world.documents[0]))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: d["after"].update(version="0" * 64), "evidence.other_outcome"),
        (lambda d: d["after"].update(delta="0" * 64), "evidence.other_outcome"),
        (lambda d: d["after"].update(checkpoint=d["checkpoint"]), "evidence.other_outcome"),
        (lambda d: d["after"].update(outer_state=d["outer_state"]), "evidence.other_outcome"),
        (lambda d: d["after"].update(aggregate=d["previous_aggregate"]), "evidence.other_outcome"),
        (lambda d: d["after"].update(aggregate=None), "evidence.other_outcome"),
        (lambda d: d["contributions"][0].update(seed=d["contributions"][0]["seed"] + 1), "evidence.other_order"),
        (lambda d: d["contributions"][0].update(shard=d["contributions"][1]["shard"]), "evidence.other_order"),
        (lambda d: d["contributions"][0].update(origin=0), "evidence.other_order"),
        (lambda d: d["contributions"][0].update(refused="contribution.copy"), "evidence.other_outcome"),
        (lambda d: d["contributions"][0].update(units=1), "evidence.other_order"),
        (lambda d: d["contributions"][0].update(steps=0, units=0), "evidence.other_order"),
        (lambda d: d["contributions"][0].update(steps=9, units=144), "evidence.other_order"),
        (lambda d: d["contributions"][0].update(shard=3, seed=d["contributions"][2]["seed"] + 1), "evidence.other_order"),
        (lambda d: d["contributions"].__setitem__(1, d["contributions"][0]), "evidence.other_order"),
        (lambda d: d.update(score_seed="0" * 64), "evidence.other_batch"),
        (lambda d: d.update(base="0" * 64, score_seed=None), "evidence.other_batch"),
    ],
)
def test_what_does_not_follow_is_refused(change, code, world):
    document = changed(world.documents[1], change)
    assert refusal(lambda: check_outcome(round_work(document, JOB, world.read), document)) == code


def chained(world, document: dict, *, rounds: int) -> tuple[dict, dict[str, dict]]:
    """`document` as the evidence of a round that many after round 0, and all between by their hash: empty ones."""
    known, name = {sha256_hex(canonical_bytes(world.documents[0])): world.documents[0]}, None
    for number in range(1, rounds):
        name = next(reversed(known))
        between = changed(world.documents[1], lambda d, n=number, b=name: d.update(round=n, before=b, contributions=[]))
        known[sha256_hex(canonical_bytes(between))] = between
    return changed(document, lambda d: d.update(round=rounds, before=next(reversed(known)))), known


def counts_once(document: dict, known: dict[str, dict]) -> None:
    check_counts_once(document, lambda name: link_of(known[name]))


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_work_counts_once_in_a_job(rounds, world):
    """The coordinator would have a friend paid again, as if the same upload had come late."""
    earlier = world.documents[0]["contributions"][0]
    counts_once(*chained(world, world.documents[1], rounds=rounds))
    again = changed(world.documents[1], lambda d: d["contributions"].__setitem__(0, earlier | {"origin": rounds - 1}))
    assert refusal(counts_once, *chained(world, again, rounds=rounds)) == "evidence.same_work"


def test_a_round_does_not_follow_from_evidence_of_another_version(world):
    older = changed(world.documents[0], lambda d: d.update(version=4))
    older["after"] = {"version": older["after"]["version"]}
    assert refusal(check_chain, world.documents[1], older, JOB) == "evidence.other_version"


@pytest.mark.parametrize("refused_in", [0, 1])
def test_work_that_was_refused_has_not_counted(refused_in, world):
    """Else whoever hands refused bytes in again has its whole round refused."""
    before, earlier = world.documents[0], world.documents[0]["contributions"][0]
    again = changed(world.documents[1], lambda d: d["contributions"].__setitem__(0, earlier | {"origin": 0}))
    documents = [before, again]
    documents[refused_in] = changed(
        documents[refused_in], lambda d: d["contributions"][0].update(refused="contribution.copy", quality=None)
    )
    counts_once(documents[1], {documents[1]["before"]: documents[0]})


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(base="0" * 64),
        lambda d: d.update(outer_state=d["checkpoint"]),
        lambda d: d.update(previous_aggregate=None),
        lambda d: d.update(before=None),
        lambda d: d.update(before=d["checkpoint"]),
        lambda d: d["standings"].update({"1": {"rounds": 99, "owned": 1.0}}),
        lambda d: d["standings"].pop("1"),
        lambda d: d["standings"].update({"9": {"rounds": 0, "owned": 0.1}}),
    ],
)
def test_a_round_must_begin_where_the_one_before_ended(change, world):
    assert refusal(check_chain, changed(world.documents[1], change), world.documents[0], JOB) == "evidence.broken_chain"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: d["contributions"][0]["score"].update(improvement=0.5), "evidence.other_scores"),
        (lambda d: d["contributions"][0].update(score=None), "evidence.other_samples"),
        (lambda d: d["contributions"][1].update(gains={"own": 0.1, "other": 0.2}), "evidence.other_scores"),
        (lambda d: d.update(score_samples=d["score_samples"] - 1), "evidence.other_samples"),
        (lambda d: d["contributions"][2].update(refused="contribution.harmful"), "evidence.other_verdicts"),
        (lambda d: d["contributions"][2].update(quality=1), "evidence.other_verdicts"),
        (lambda d: d["after"]["standings"]["1"].update(owned=1.0, rounds=50), "evidence.other_standings"),
        (lambda d: d["after"]["standings"].pop("1"), "evidence.other_standings"),
        (lambda d: d["contributions"][0]["score"].update(surplus=1.0), "evidence.malformed"),
        (lambda d: d["contributions"][0].update(gains="much"), "evidence.malformed"),
    ],
)
def test_a_judgement_that_does_not_follow_is_refused(change, code, world):
    document = changed(world.documents[1], change)
    assert refusal(lambda: check_judgement(round_work(document, JOB, world.read), document)) == code


@pytest.mark.parametrize(
    "change", [lambda e: e["gains"].update(other=e["gains"]["other"] - 0.01), lambda e: e.update(gains=None)]
)
def test_gains_that_nobody_else_measures_are_refused(change, world, monkeypatch):
    monkeypatch.setattr(round_module, "is_looked_at", lambda *_, **__: True)
    work = world.works[1]
    document = evidence(work, close_round(work))
    assert canonical_bytes(document) and check_judgement(work, document)[1].standing.rounds == 1
    change(document["contributions"][1])
    assert refusal(check_judgement, work, document) == "evidence.other_scores"


def test_machines_that_round_otherwise_come_to_the_same_verdicts(world, monkeypatch):
    """Their scores differ in the last digits, and whether a node's update knows its data hangs on them."""

    def machine(sign: float) -> None:
        noise = torch.Generator().manual_seed(int(sign))
        monkeypatch.setattr(
            round_module, "each_loss", lambda *args: each_loss(*args) + 1e-6 * torch.randn(len(args[-1]), generator=noise)
        )
        monkeypatch.setattr(round_module, "ownership", lambda *_, **__: dict.fromkeys(range(3), Gains(0.01, 0.01 + sign * 1e-7)))

    machine(1)
    monkeypatch.setattr(round_module, "is_looked_at", lambda *_, **__: True)
    document = evidence(world.works[1], close_round(world.works[1]))
    machine(2)
    alone = {verdict.node_id: verdict.score for verdict in judge_round(world.works[1])}
    assert alone != {entry["node"]: entry["score"] for entry in document["contributions"]}
    machine(-1)
    assert judge_round(world.works[1])[0].standing.owned == 1.0
    verdicts = check_judgement(world.works[1], document)
    assert [verdict.standing.owned for verdict in verdicts] == [pytest.approx(0.9)] * 3
    assert [verdict.score for verdict in verdicts] == [entry["score"] for entry in document["contributions"]]


@pytest.mark.parametrize("machines", [(1e3, 2e3), (1e3, math.inf), (math.inf, 1e3), (math.inf, math.inf)])
def test_an_update_that_no_two_machines_measure_alike_costs_nobody_but_its_node(machines, world, monkeypatch):
    work = world.works[1]
    state = read_state(work).params
    bad = state - STEP_SCALE * round_module.checked(JOB, work.submissions[0], number=1).values

    def machine(loss: float) -> None:
        monkeypatch.setattr(
            round_module, "each_loss", lambda *args: each_loss(*args) + (loss if torch.equal(args[2], bad) else 0.0)
        )

    machine(machines[0])
    document = evidence(work, close_round(work))
    machine(machines[1])
    verdicts = check_judgement(work, document)
    wanted = "contribution.harmful" if math.isfinite(machines[0]) else "contribution.diverges"
    assert [verdict.code for verdict in verdicts] == [wanted, "", ""]
    machine(0.0)
    assert refusal(check_judgement, work, document) in ("evidence.other_scores", "evidence.other_samples")


def test_what_is_said_of_a_refused_update_moves_nobody_elses_median(world, monkeypatch):
    """Its published parts must fit together."""
    work = world.works[1]
    bad = read_state(work).params - STEP_SCALE * round_module.checked(JOB, work.submissions[0], number=1).values
    monkeypatch.setattr(round_module, "each_loss", lambda *args: each_loss(*args) + (1e3 if torch.equal(args[2], bad) else 0.0))
    document = evidence(work, close_round(work))
    document["contributions"][0]["score"]["improvement"] = 5.0
    assert refusal(check_judgement, work, document) == "evidence.other_scores"


def late(work: RoundWork) -> RoundWork:
    """The round, if its first submission had been trained in the round before."""
    first, *others = work.submissions
    origin = work.number - 1
    return replace(work, submissions=[replace(first, origin=origin, seed=order_seed(SPEC, origin, first.shard)), *others])


def test_late_work_weighs_less_for_everybody(world):
    plain, work = world.works[1], late(world.works[1])
    result, usual = close_round(work), close_round(plain)
    document = evidence(work, result)
    check_chain(document, world.documents[0], JOB)
    check_outcome(round_work(document, JOB, world.read), document)
    node = work.submissions[0].node_id
    assert work.discount(work.submissions[0]) == 1 + SPEC.network.stale_discount
    weights = [{verdict.node_id: verdict.weight for verdict in found.verdicts} for found in (result, usual)]
    assert weights[0][node] < weights[1][node]
    on_time = changed(document, lambda d: d["contributions"][0].update(origin=None, seed=plain.submissions[0].seed))
    assert refusal(lambda: check_outcome(round_work(on_time, JOB, world.read), on_time)) == "evidence.other_outcome"


@pytest.mark.parametrize("origin", [-1, 1, 2])
def test_late_work_is_of_a_round_before_and_not_too_stale(origin, world):
    claimed = changed(world.documents[1], lambda d: d["contributions"][0].update(origin=origin))
    assert refusal(check_chain, claimed, world.documents[0], JOB) == "evidence.too_stale"


def test_a_carried_order_is_trained_as_it_was_first_given(world):
    order = reference.order(SPEC, world.works[1], 0)
    carried = order.model_copy(update={"round": 3, "base": "a" * 64, "checkpoint": "b" * 64, "origin": Origin(
        round=order.round, base=order.base, checkpoint=order.checkpoint, parent=order.parent, delta=order.delta)})  # fmt: skip
    assert carried.as_trained == order == order.as_trained


def test_the_first_round_must_begin_at_the_seeds_version(world):
    other = JobWork(spec=SPEC.model_copy(update={"seed": 1}), files={})
    assert refusal(check_chain, world.documents[0], None, other) == "evidence.broken_chain"


@pytest.mark.parametrize("name", ["checkpoint", "outer_state", "previous_aggregate"])
def test_the_first_round_must_begin_with_nothing_behind_it(name, world):
    claimed = changed(world.documents[0], lambda d: d.update({name: world.documents[1][name]}))
    assert refusal(check_chain, claimed, None, JOB) == "evidence.broken_chain"


def test_a_round_that_accepts_nothing_leaves_all_as_it_was(world):
    work = replace(world.works[1], submissions=[])
    document = evidence(work, close_round(work))
    check_outcome(work, document)
    after = document["after"]
    assert (after["version"], after["outer_state"], after["aggregate"]) == (work.base, document["outer_state"], None)
    assert refusal(check_outcome, work, changed(document, lambda d: d["after"].update(aggregate="0" * 64))) == (
        "evidence.other_outcome"
    )


def test_a_part_never_passes_as_the_whole(world):
    work = world.works[0]
    part = replace(work, submissions=work.submissions[:2])
    assert refusal(replay_round, part, [0, 1, 2]) == "round.incomplete"
    missing = {name: data for name, data in world.store.items() if name != work.submissions[2].artifact}
    assert refusal(lambda: round_work(world.documents[0], JOB, lambda name: missing[name])) == "evidence.malformed"


def test_a_checkpoint_of_another_version_is_refused(world):
    first, second = world.works
    assert refusal(judge_round, replace(second, params=first.params)) == "round.wrong_base"


def test_evidence_of_another_shape_or_version_is_refused(world):
    for change in (lambda d: d.update(version=2), lambda d: d.pop("base"), lambda d: d["contributions"][0].pop("seed")):
        assert refusal(round_work, changed(world.documents[0], change), JOB, world.read) == "evidence.malformed"


def test_a_file_of_another_encoding_than_ordered_is_refused(world):
    work, count = world.works[0], bench(JOB).size
    dense = encode(decode(work.submissions[0].data, SPEC.encoding, count=count).values, EncodingSpec(kind="int8")).data
    first = replace(work.submissions[0], data=dense, artifact=sha256_hex(dense))
    verdicts = judge_round(replace(work, submissions=[first, *work.submissions[1:]]))
    assert [verdict.code for verdict in verdicts] == ["artifact.wrong_encoding", "", ""]


def test_losses_are_measured_on_the_machines_own_device(monkeypatch):
    monkeypatch.setattr(round_module, "default_device", lambda: torch.device("meta"))
    round_module.cached_bench.cache_clear()
    try:
        assert {parameter.device.type for parameter in bench(JOB).model.parameters()} == {"meta"}
    finally:
        round_module.cached_bench.cache_clear()
