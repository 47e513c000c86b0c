"""One pseudo-gradient from many: fair among the honest, bounded against the rest, the same bits in any order and anywhere."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.diloco import aggregation
from trainer.diloco.aggregation import RULES, Contribution, aggregate
from trainer.diloco.encoding import Update
from trainer.diloco.exact import gram
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import AggregationSpec

MEAN, MEDIAN = AggregationSpec(rule="weighted_mean"), AggregationSpec(rule="geometric_median")
ALL = [AggregationSpec(rule=rule) for rule in RULES]
ROBUST = [spec for spec in ALL if spec.rule != "weighted_mean"]
TRUE = torch.linspace(-1, 1, 500)


def of(node_id: int, values: torch.Tensor, units: int = 100, sent: torch.Tensor | None = None) -> Contribution:
    return Contribution(node_id, Update(values, sent, bytes(32)), units)


def honest(node_id: int, units: int = 100, noise: float = 1.0) -> Contribution:
    generator = torch.Generator().manual_seed(node_id)
    return of(node_id, TRUE + noise * torch.randn(500, generator=generator), units)


def scaled(contribution: Contribution, factor: float) -> Contribution:
    return of(contribution.node_id, factor * contribution.update.values, contribution.units)


def sparse(node_id: int, held: dict[int, float], units: int = 100) -> Contribution:
    values, sent = torch.zeros(8), torch.zeros(8, dtype=torch.bool)
    for place, value in held.items():
        values[place], sent[place] = value, True
    return of(node_id, values, units, sent)


def result(contributions: list[Contribution], spec: AggregationSpec) -> torch.Tensor:
    return aggregate(contributions, spec).pseudo_gradient


def cosine(vector: torch.Tensor) -> float:
    return torch.cosine_similarity(vector, TRUE, dim=0).item()


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.rule)
@given(order=st.permutations(range(5)))
def test_the_order_of_arrival_changes_no_bit(spec, order):
    nodes = [honest(node, units=100 + node) for node in range(5)]
    first, second = aggregate(nodes, spec), aggregate([nodes[i] for i in order], spec)
    assert torch.equal(first.pseudo_gradient, second.pseudo_gradient)
    assert first.weights == second.weights and first.norms == second.norms


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.rule)
def test_threads_and_block_sizes_change_no_bit(spec, monkeypatch):
    nodes = [honest(node, units=100 + node) for node in range(6)]
    first = aggregate(nodes, spec)
    monkeypatch.setattr(aggregation, "COLUMNS", 37)
    monkeypatch.setattr("trainer.diloco.exact.COLUMNS", 101)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        second = aggregate(nodes, spec)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first.pseudo_gradient, second.pseudo_gradient) and first == first.__class__(
        first.pseudo_gradient, second.weights, second.norms
    )


@settings(max_examples=50)
@given(
    rows=st.lists(st.lists(st.floats(-1e4, 1e4, width=32, allow_subnormal=False), min_size=6, max_size=6), min_size=2, max_size=5)
)
def test_dot_products_are_those_of_exact_fractions_of_the_rounded_values(rows):
    vectors = [torch.tensor(row) for row in rows]

    def rounded(vector: torch.Tensor) -> list[Fraction]:
        largest = vector.abs().max().item()
        step = Fraction(2) ** ((math.frexp(largest)[1] if largest else 0) - 15)
        return [round(Fraction(value) / step) * step for value in vector.tolist()]

    exact = [[sum(a * b for a, b in zip(rounded(u), rounded(v), strict=True)) for v in vectors] for u in vectors]
    assert gram(vectors) == [[float(value) for value in row] for row in exact]


def test_the_weighted_mean_counts_samples():
    wide = AggregationSpec(rule="weighted_mean", clip_factor=10)
    found = aggregate([honest(1, units=300), honest(2, units=100)], wide)
    expected = 0.75 * honest(1).update.values + 0.25 * honest(2).update.values
    torch.testing.assert_close(found.pseudo_gradient, expected)
    assert found.weights == {1: 0.75, 2: 0.25}


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.rule)
def test_one_contribution_is_its_own_aggregate(spec):
    torch.testing.assert_close(result([honest(3)], spec), honest(3).update.values, rtol=0, atol=1e-6)


def test_a_large_norm_is_clipped_to_the_median():
    found = aggregate([honest(0), honest(1), scaled(honest(2), 1000)], MEAN)
    assert found.norms[2] > 500 * max(found.norms[0], found.norms[1])
    assert found.pseudo_gradient.norm() <= sorted(found.norms.values())[1]


@pytest.mark.parametrize("spec", ROBUST, ids=lambda spec: spec.rule)
def test_two_of_eight_that_flip_their_sign_tenfold_hardly_turn_a_robust_rule(spec):
    """Without clipping the mean turns round; every other rule stays, with and without it."""
    nodes = [honest(node, noise=0.5) for node in range(6)] + [scaled(honest(node, noise=0.5), -10) for node in (6, 7)]
    clean = cosine(result(nodes[:6], spec))
    unclipped = spec.model_copy(update={"clip_factor": 10.0})
    assert cosine(result(nodes, AggregationSpec(rule="weighted_mean", clip_factor=10))) < 0
    assert cosine(result(nodes, spec)) > clean - 0.1
    assert cosine(result(nodes, unclipped)) > clean - 0.2


@pytest.mark.parametrize("spec", ROBUST, ids=lambda spec: spec.rule)
def test_among_honest_nodes_a_robust_rule_is_nearly_the_mean(spec):
    nodes = [honest(node) for node in range(6)]
    assert cosine(result(nodes, spec)) == pytest.approx(cosine(result(nodes, MEAN)), abs=0.06)


def test_multi_krum_leaves_out_who_lies_far_from_the_rest():
    nodes = [honest(node, noise=0.5) for node in range(6)] + [scaled(honest(6), -1), scaled(honest(7), -1)]
    weights = aggregate(nodes, AggregationSpec(rule="multi_krum")).weights
    assert weights[6] == weights[7] == 0 and all(weights[node] > 0 for node in range(6))


def test_the_median_and_the_trimmed_mean_of_a_coordinate():
    nodes = [of(node, torch.tensor([value, 1.0])) for node, value in enumerate([1.0, 2.0, 3.0, 1000.0])]
    wide = {"clip_factor": 10.0}
    bounded = [
        0.0,
        *(result(nodes, AggregationSpec(rule=rule, **wide))[0].item() for rule in ("coordinate_median", "trimmed_mean")),
    ]
    # Of four values the two in the middle remain; the largest was clipped to ten times the median norm, and is cut off anyway.
    assert bounded[1:] == pytest.approx([2.5, 2.5])


def test_the_geometric_median_is_where_the_sum_of_distances_is_least():
    nodes = [honest(node, noise=2.0) for node in range(5)]
    best = result(nodes, AggregationSpec(clip_factor=10))

    def cost(point: torch.Tensor) -> float:
        return sum((node.update.values - point).norm().item() for node in nodes)

    generator = torch.Generator().manual_seed(0)
    assert all(cost(best) <= cost(best + 0.05 * torch.randn(500, generator=generator)) for _ in range(50))


def test_a_node_with_most_of_the_samples_is_still_no_majority_alone():
    nodes = [honest(0, noise=0.3), honest(1, noise=0.3), scaled(honest(2, units=10_000, noise=0.3), -1)]
    assert cosine(result(nodes, MEDIAN)) > 0
    assert aggregate(nodes, MEDIAN).weights[2] < 0.5


def test_a_coordinate_is_averaged_over_those_who_sent_it():
    nodes = [sparse(0, {0: 1.0, 1: 4.0}), sparse(1, {0: 3.0, 2: 4.0})]
    wide = AggregationSpec(rule="weighted_mean", clip_factor=10, least_senders=0.5)
    assert result(nodes, wide).tolist() == [2.0, 4.0, 4.0, 0, 0, 0, 0, 0]


def test_nobody_owns_a_rare_coordinate():
    nodes = [sparse(node, {0: 1.0, node: 1.0}) for node in range(8)]
    for spec in (
        AggregationSpec(rule=rule, least_senders=0.25, clip_factor=10) for rule in ("weighted_mean", "coordinate_median")
    ):
        found = result(nodes, spec)
        assert found[0] == pytest.approx(1.0)
        # One of eight sent it: it counts as if two had, one of them with zero.
        assert found[1:].tolist() == pytest.approx([0.5] * 7)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.rule)
def test_equal_contributions_aggregate_to_themselves(spec):
    same = [of(node, honest(0).update.values, 10) for node in range(4)]
    torch.testing.assert_close(result(same, spec), honest(0).update.values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.rule)
def test_zero_updates_make_a_zero_step(spec):
    assert result([scaled(honest(node), 0) for node in range(4)], spec).abs().sum() == 0


def test_nothing_to_aggregate_is_refused():
    with pytest.raises(HyperGPUError) as refusal:
        aggregate([], MEDIAN)
    assert refusal.value.code == "aggregation.empty"


def test_a_node_that_comes_twice_is_refused():
    with pytest.raises(HyperGPUError) as refusal:
        aggregate([honest(1), honest(1)], MEAN)
    assert refusal.value.code == "aggregation.duplicate_node"
