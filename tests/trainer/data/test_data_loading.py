"""Real samples come out of each kind of file, cut the same way every time."""

import numpy as np
import pytest
import torch

from trainer.data import load_dataset
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import DataSpec

ANY = "0" * 64


def spec(kind: str, *roles: str, **more: int) -> DataSpec:
    return DataSpec(kind=kind, files=dict.fromkeys(roles, ANY), **more)


def test_digits_are_real_and_bundled():
    digits = load_dataset(DataSpec(), files={})
    assert (digits.info.kind, digits.info.shape, digits.info.classes) == ("image", (1, 8, 8), 10)
    assert (len(digits.train), len(digits.score), len(digits.eval)) == (1257, 180, 360)
    inputs, targets = digits.train.take(torch.arange(1257))
    assert inputs.dtype == torch.float32 and inputs.min() == 0 and inputs.max() == 1
    assert torch.bincount(targets, minlength=10).min() > 100


def test_idx_images_keep_their_labels_and_fall_in_one_split_each(idx_files):
    data = load_dataset(spec("idx", "images", "labels"), files=idx_files)
    splits = [data.train, data.score, data.eval]
    assert [len(split) for split in splits] == [42, 6, 12]
    assert data.info.shape == (1, 4, 5) and data.info.classes == 3
    numbers = torch.cat([split.inputs[:, 0, 0, 0] for split in splits]).long()
    assert sorted(numbers.tolist()) == list(range(60)) != numbers.tolist()
    assert torch.equal(torch.cat([split.targets for split in splits]), numbers % 3)
    inputs, _ = data.train.take(torch.tensor([0]))
    assert torch.equal(inputs, data.train.inputs[:1].float() / 255)


def test_the_same_file_is_cut_the_same_way_twice(idx_files):
    first, second = (load_dataset(spec("idx", "images", "labels"), files=idx_files) for _ in range(2))
    assert torch.equal(first.train.inputs, second.train.inputs) and torch.equal(first.eval.targets, second.eval.targets)


def test_cifar10_batches_are_read_in_the_order_of_their_names(tmp_path):
    records = np.random.RandomState(0).randint(0, 256, (40, 3073)).astype(np.uint8)
    records[:, 0] = np.arange(40) % 10
    for name, part in (("b", records[20:]), ("a", records[:20])):
        (tmp_path / name).write_bytes(part.tobytes())
    data = load_dataset(spec("cifar10", "b", "a"), files={name: tmp_path / name for name in "ab"})
    one = load_dataset(spec("cifar10", "all"), files={"all": whole(tmp_path, records)})
    assert data.info.shape == (3, 32, 32) and data.info.classes == 10
    assert torch.equal(data.train.inputs, one.train.inputs)


def whole(tmp_path, records):
    (tmp_path / "all").write_bytes(records.tobytes())
    return tmp_path / "all"


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.random.RandomState(0).rand(30, 7), (1, 1, 7)),
        (np.random.RandomState(0).randint(0, 255, (30, 6, 5)).astype(np.uint8), (1, 6, 5)),
        (np.random.RandomState(0).rand(30, 3, 6, 5).astype(np.float32), (3, 6, 5)),
        (np.random.RandomState(0).randint(0, 255, (30, 6, 5, 3)).astype(np.uint8), (3, 6, 5)),
        (np.asfortranarray(np.random.RandomState(0).rand(30, 6, 5)), (1, 6, 5)),
    ],
)
def test_npz_takes_vectors_and_images(array, shape, tmp_path):
    np.savez_compressed(tmp_path / "data.npz", x=array, y=np.arange(30) % 4)
    data = load_dataset(spec("npz", "npz"), files={"npz": tmp_path / "data.npz"})
    assert data.info.shape == shape and data.info.classes == 4
    first = next(
        i for i in range(30) if i % 4 == data.train.targets[0] and np.isclose(at(array, shape, i), data.train.inputs[0]).all()
    )
    assert 0 <= first < 30


def at(array, shape, index):
    sample = array[index]
    return np.moveaxis(sample, -1, 0) if sample.shape[-1:] == (3,) else sample.reshape(shape)


def test_text_is_cut_in_one_piece_and_predicts_the_next_byte(write):
    content = bytes(np.random.RandomState(0).randint(0, 256, 2001).astype(np.uint8))
    data = load_dataset(spec("text", "text", sequence_length=10), files={"text": write(content)})
    assert (data.info.kind, data.info.shape, data.info.classes) == ("bytes", (10,), 256)
    assert (len(data.train), len(data.score), len(data.eval)) == (180, 10, 10)
    inputs, targets = data.train.take(torch.arange(180))
    assert bytes(inputs.flatten().tolist()) == content[:1800] and bytes(targets.flatten().tolist()) == content[1:1801]
    held_out = torch.cat([data.score.inputs, data.eval.inputs]).flatten()
    assert bytes(held_out.tolist()) == content[1800:2000]


def test_a_file_that_was_not_fetched_is_named():
    with pytest.raises(HyperGPUError, match="text") as refusal:
        load_dataset(spec("text", "text"), files={})
    assert refusal.value.code == "data.missing_file"
