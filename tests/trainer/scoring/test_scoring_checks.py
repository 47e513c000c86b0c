"""What is no contribution is refused before any data is looked at."""

import pytest
import torch

from trainer.diloco.encoding import encode
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec, JobSpec
from trainer.scoring.checks import check_contribution, norm_limit

SPEC = EncodingSpec()


def shapes(update):
    return {name: tuple(value.shape) for name, value in update.items()}


def check(update, *, spec=SPEC, **known):
    data = encode(update, spec, error=None)[0]
    return check_contribution(data, spec, shapes(update), **({"others": {}} | known))


def refuse(update, **known) -> HyperGPUError:
    with pytest.raises(HyperGPUError) as refusal:
        check(update, **known)
    return refusal.value


def noisy(update, part: float):
    generator = torch.Generator().manual_seed(0)
    norm = sum(float((v**2).sum()) for v in update.values()) ** 0.5
    noise = {name: torch.randn(value.shape, generator=generator) for name, value in update.items()}
    noise_norm = sum(float((v**2).sum()) for v in noise.values()) ** 0.5
    return {name: value + part * norm / noise_norm * noise[name] for name, value in update.items()}


@pytest.mark.parametrize("spec", [SPEC, EncodingSpec(kind="dense"), EncodingSpec(kind="topk")])
def test_honest_updates_pass_beside_each_other(honest, spec):
    limit = norm_limit(JobSpec(encoding=spec), shapes(honest[1]))
    others: dict = {}
    for node, update in honest.items():
        others[node] = check(update, spec=spec, others=others, previous=others.get(node - 1), max_norm=limit)
    assert len(others) == 3


@pytest.mark.parametrize("changed", [lambda u: u, lambda u: noisy(u, 0.02), lambda u: {n: 3 * v for n, v in u.items()}])
def test_a_copy_is_refused_and_names_its_source(honest, changed):
    assert refuse(changed(honest[2]), others={2: honest[2]}).data["node"] == 2
    refusal = refuse(changed(honest[2]), others={1: honest[1], 2: honest[2]})
    assert refusal.code == "contribution.copy" and refusal.data["node"] == 2 and refusal.data["cosine"] > 0.98


def test_a_copy_under_noise_is_found_when_the_honest_differ(honest):
    others = {1: honest[1], 2: honest[2], 3: honest[3]}
    assert refuse(noisy(honest[2], 0.15), others=others).data["node"] == 2
    assert refuse(noisy(honest[2], 0.15), others={1: honest[1]}, previous=honest[2]).data["node"] is None


def test_honest_updates_that_move_as_one_are_not_taken_for_copies(honest):
    """Small models early on: every pair has a cosine of about 0.99."""
    alike = {node: noisy(honest[1], 0.0) for node in range(4)}
    generator = torch.Generator().manual_seed(5)
    for update in alike.values():
        for value in update.values():
            value += 0.1 * value.square().mean().sqrt() * torch.randn(value.shape, generator=generator)
    for node, update in alike.items():
        check(update, others={other: alike[other] for other in range(node)}, previous=noisy(honest[1], 0.2))


def test_the_last_aggregate_sent_again_is_refused(honest):
    refusal = refuse(honest[1], others={2: honest[2]}, previous=honest[1])
    assert refusal.code == "contribution.copy" and refusal.data["node"] is None and "previous aggregate" in refusal.message


def test_a_zero_update_is_refused(honest):
    assert refuse({name: torch.zeros_like(value) for name, value in honest[1].items()}).code == "contribution.empty"


def test_an_absurd_norm_is_refused(honest):
    limit = norm_limit(JobSpec(), shapes(honest[1]))
    huge = {name: 100 * value for name, value in honest[1].items()}
    assert refuse(huge, max_norm=limit).code == "contribution.norm_too_large"


def test_a_broken_file_is_refused_by_its_own_code(honest):
    with pytest.raises(HyperGPUError) as refusal:
        check_contribution(b"nothing", SPEC, shapes(honest[1]), others={})
    assert refusal.value.code == "artifact.truncated"
