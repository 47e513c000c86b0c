"""One pseudo-gradient from many: fair among the honest, bounded against the rest, the same in any order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.diloco.aggregation import Contribution, aggregate
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import AggregationSpec

MEAN, MEDIAN = AggregationSpec(rule="weighted_mean"), AggregationSpec(rule="geometric_median")
TRUE = torch.linspace(-1, 1, 500)


def honest(node_id: int, units: int = 100, noise: float = 1.0) -> Contribution:
    generator = torch.Generator().manual_seed(node_id)
    value = TRUE + noise * torch.randn(500, generator=generator)
    return Contribution(node_id, {"a": value[:300].view(20, 15), "b": value[300:]}, units)


def scaled(contribution: Contribution, factor: float) -> Contribution:
    moved = {name: factor * value for name, value in contribution.pseudo_gradient.items()}
    return Contribution(contribution.node_id, moved, contribution.units)


def vector(pseudo_gradient: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([pseudo_gradient["a"].flatten(), pseudo_gradient["b"]])


def cosine(pseudo_gradient: dict[str, torch.Tensor]) -> float:
    return torch.cosine_similarity(vector(pseudo_gradient), TRUE, dim=0).item()


@pytest.mark.parametrize("spec", [MEAN, MEDIAN])
@given(order=st.permutations(range(5)))
def test_the_order_of_arrival_changes_no_bit(spec, order):
    nodes = [honest(node, units=100 + node) for node in range(5)]
    first, second = aggregate(nodes, spec), aggregate([nodes[i] for i in order], spec)
    assert torch.equal(vector(first.pseudo_gradient), vector(second.pseudo_gradient))
    assert first.weights == second.weights and first.norms == second.norms


def test_the_weighted_mean_counts_samples():
    wide = AggregationSpec(rule="weighted_mean", clip_factor=10)
    result = aggregate([honest(1, units=300), honest(2, units=100)], wide)
    expected = 0.75 * vector(honest(1).pseudo_gradient) + 0.25 * vector(honest(2).pseudo_gradient)
    torch.testing.assert_close(vector(result.pseudo_gradient), expected)
    assert result.weights == {1: 0.75, 2: 0.25} and result.iterations == 0


def test_one_contribution_is_its_own_aggregate():
    for spec in (MEAN, MEDIAN):
        assert torch.equal(vector(aggregate([honest(3)], spec).pseudo_gradient), vector(honest(3).pseudo_gradient))


def test_a_large_norm_is_clipped_to_the_median():
    result = aggregate([honest(0), honest(1), scaled(honest(2), 1000)], MEAN)
    assert result.norms[2] > 500 * max(result.norms[0], result.norms[1])
    assert vector(result.pseudo_gradient).norm() <= sorted(result.norms.values())[1]


def test_one_of_four_that_flips_its_sign_tenfold_hardly_turns_the_geometric_median():
    """Without clipping the mean turns round; the median stays, with and without it."""
    nodes = [honest(node, noise=0.5) for node in range(3)] + [scaled(honest(3, noise=0.5), -10)]
    clean = cosine(aggregate(nodes[:3], MEDIAN).pseudo_gradient)
    unclipped = {"clip_factor": 10.0}
    assert cosine(aggregate(nodes, AggregationSpec(rule="weighted_mean", **unclipped)).pseudo_gradient) < 0
    assert cosine(aggregate(nodes, AggregationSpec(**unclipped)).pseudo_gradient) > clean - 0.2
    assert cosine(aggregate(nodes, MEDIAN).pseudo_gradient) > clean - 0.1
    assert aggregate(nodes, MEDIAN).weights[3] < 0.25


def test_among_honest_nodes_the_geometric_median_is_nearly_the_mean():
    nodes = [honest(node) for node in range(6)]
    result = aggregate(nodes, MEDIAN)
    assert all(0.1 < weight < 0.23 for weight in result.weights.values())
    assert sum(result.weights.values()) == pytest.approx(1)
    assert cosine(result.pseudo_gradient) == pytest.approx(cosine(aggregate(nodes, MEAN).pseudo_gradient), abs=0.01)


def test_the_geometric_median_is_where_the_sum_of_distances_is_least():
    nodes = [honest(node, noise=2.0) for node in range(5)]
    wide = AggregationSpec(clip_factor=10)
    best = vector(aggregate(nodes, wide).pseudo_gradient)

    def cost(point: torch.Tensor) -> float:
        return sum((vector(n.pseudo_gradient) - point).norm().item() for n in nodes)

    generator = torch.Generator().manual_seed(0)
    assert all(cost(best) <= cost(best + 0.05 * torch.randn(500, generator=generator)) for _ in range(50))


def test_a_node_with_most_of_the_samples_is_still_no_majority_alone():
    nodes = [honest(0, noise=0.3), honest(1, noise=0.3), scaled(honest(2, units=10_000, noise=0.3), -1)]
    assert cosine(aggregate(nodes, MEDIAN).pseudo_gradient) > 0
    assert aggregate(nodes, MEDIAN).weights[2] < 0.5


def test_equal_contributions_aggregate_to_themselves():
    same = [Contribution(node, honest(0).pseudo_gradient, 10) for node in range(4)]
    for spec in (MEAN, MEDIAN):
        torch.testing.assert_close(vector(aggregate(same, spec).pseudo_gradient), vector(honest(0).pseudo_gradient))


def test_zero_updates_make_a_zero_step():
    zero = [scaled(honest(node), 0) for node in range(3)]
    assert vector(aggregate(zero, MEDIAN).pseudo_gradient).abs().sum() == 0


def test_nothing_to_aggregate_is_refused():
    with pytest.raises(HyperGPUError) as refusal:
        aggregate([], MEDIAN)
    assert refusal.value.code == "aggregation.empty"


def test_a_node_that_comes_twice_is_refused():
    with pytest.raises(HyperGPUError) as refusal:
        aggregate([honest(1), honest(1)], MEAN)
    assert refusal.value.code == "aggregation.duplicate_node"
