"""Each attacker does what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.data import load_dataset
from trainer.protocol.spec import DataSpec
from trainer.simulation.attackers import ALIE_Z, ALLY_NOISE, ATTACKS, IPM_EPSILON, Sight, mislabelled

N = 4000


def vector(seed: int) -> Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(seed))


OWN, ALLY, PEERS, AGGREGATE = vector(1), vector(2), {3: vector(3), 5: 2 * vector(4), 6: 3 * vector(5)}, 0.5 * vector(6)


def crafted(name: str, *, place: int = 1, fresh: bool = False) -> Tensor | None:
    return ATTACKS[name].craft(
        Sight(
            place=place, own=OWN, gang=[ALLY, OWN], published={} if fresh else PEERS, aggregate=None if fresh else AGGREGATE,
            usual_norm=9.0, generator=torch.Generator().manual_seed(0),
        )
    )  # fmt: skip


def cosine(one: Tensor | None, other: Tensor) -> float:
    assert one is not None
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def norm(update: Tensor | None) -> float:
    assert update is not None
    return float(update.norm())


MEDIAN = norm(PEERS[5])


def test_harm():
    assert torch.equal(crafted("sign_flip"), -OWN)
    assert torch.equal(crafted("scaling"), 20 * OWN)
    assert norm(crafted("noise")) == pytest.approx(MEDIAN, rel=1e-4)
    assert abs(cosine(crafted("noise"), OWN)) < 0.1
    assert norm(crafted("noise", fresh=True)) == pytest.approx(9.0, rel=1e-4)


def test_free_rides():
    assert norm(crafted("zeros")) == 0
    assert cosine(crafted("resend"), AGGREGATE) == pytest.approx(1, abs=1e-5)
    assert cosine(crafted("resend_noisy"), AGGREGATE) == pytest.approx(0.5**0.5, abs=0.05)
    assert norm(crafted("resend_noisy")) == pytest.approx(MEDIAN, rel=1e-4)
    assert crafted("resend", fresh=True) is None and crafted("resend_noisy", fresh=True) is None
    assert all(not ATTACKS[name].work for name in ("zeros", "resend", "resend_noisy", "copy_earlier", "noise"))


def test_copies():
    assert torch.equal(crafted("copy_earlier", place=0), PEERS[3]) and torch.equal(crafted("copy_earlier", place=1), PEERS[5])
    assert crafted("copy_earlier", fresh=True) is None
    assert torch.equal(crafted("copy_ally", place=0), ALLY)
    assert cosine(crafted("copy_ally"), ALLY) == pytest.approx(1 / (1 + ALLY_NOISE**2) ** 0.5, abs=0.01)
    assert norm(crafted("copy_ally")) == pytest.approx(norm(ALLY), rel=1e-4)


def test_lazy_steps_are_blown_up_to_the_usual_norm():
    assert (ATTACKS["lazy_10"].work, ATTACKS["lazy_50"].work) == (0.9, 0.5)
    assert norm(crafted("lazy_50")) == pytest.approx(MEDIAN, rel=1e-4) and cosine(crafted("lazy_50"), OWN) > 0.999
    assert torch.equal(crafted("lazy_50", fresh=True), OWN)


def test_collusion_is_one_agreed_direction():
    mean, known = (OWN + ALLY) / 2, torch.stack([ALLY, OWN, *PEERS.values()])
    for name, wanted in (("ipm", -IPM_EPSILON * mean), ("alie", mean - ALIE_Z * known.std(0))):
        assert torch.allclose(crafted(name, place=0), wanted) and torch.allclose(crafted(name, place=1), wanted)


def test_label_flips_train_on_wrong_labels_and_leave_what_judges_alone():
    dataset = load_dataset(DataSpec(), files={})
    wrong = mislabelled(dataset)
    assert torch.equal(wrong.train.targets, 9 - dataset.train.targets) and torch.equal(wrong.train.inputs, dataset.train.inputs)
    assert wrong.score is dataset.score and wrong.eval is dataset.eval
    assert ATTACKS["label_flip"].wrong and ATTACKS["other_data"].shift == 1
