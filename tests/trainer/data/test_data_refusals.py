"""Files from strangers: each lie is refused by its code, before it costs memory."""

import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data import limits, load_dataset
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import DataSpec

ANY = "0" * 64
X, Y = np.zeros((30, 4, 4), np.uint8), np.arange(30) % 3


def idx(shape: tuple[int, ...], body: bytes, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy_claiming(header: str, body: bytes = b"") -> bytes:
    line = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + body


LABELS = idx((30,), bytes(30))
BAD_IDX_IMAGES = {
    "empty": b"",
    "wrong magic": b"\x00\x01\x08\x03" + bytes(500),
    "header only": idx((30, 4, 4), b"")[:9],
    "too short": idx((30, 4, 4), bytes(479)),
    "too long": idx((30, 4, 4), bytes(481)),
    "other dtype": idx((30, 4, 4), bytes(480 * 4), kind=0x0D),
    "labels instead": LABELS,
    "no pixels": idx((30, 0, 4), b""),
    "fewer than labels": idx((29, 4, 4), bytes(464)),
    "broken gzip": gzip.compress(idx((30, 4, 4), bytes(480)))[:-9],
    "gzip of nothing": b"\x1f\x8b" + bytes(40),
}


def load(kind: str, write, **contents: bytes):
    files = {role: write(content, role) for role, content in contents.items()}
    return load_dataset(DataSpec(kind=kind, files=dict.fromkeys(files, ANY)), files=files)


@pytest.mark.parametrize("case", BAD_IDX_IMAGES)
def test_broken_idx_is_refused(case, write):
    with pytest.raises(HyperGPUError) as refusal:
        load("idx", write, images=BAD_IDX_IMAGES[case], labels=LABELS)
    assert refusal.value.code == "data.malformed"


def test_an_idx_header_that_claims_terabytes_is_refused_unread(write):
    with pytest.raises(HyperGPUError) as refusal:
        load("idx", write, images=idx((2**32 - 1, 2**20, 2**20), b""), labels=LABELS)
    assert refusal.value.code == "data.too_large"


def test_a_gzip_bomb_stops_at_the_limit(write, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(64 << 20))
    path = write(bomb)
    tracemalloc.start()
    with pytest.raises(HyperGPUError) as refusal:
        load_dataset(DataSpec(kind="text", files={"text": ANY}), files={"text": path})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusal.value.code == "data.too_large" and peak < 8 << 20


def test_a_file_beyond_the_limit_is_refused_unread(write, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100)
    with pytest.raises(HyperGPUError) as refusal:
        load("text", write, text=bytes(101))
    assert refusal.value.code == "data.too_large"


BAD_NPZ = {
    "not a zip": b"PK nothing",
    "no labels": npz(x=npy(X)),
    "a third array": npz(x=npy(X), y=npy(Y), z=npy(Y)),
    "pickled objects": npz(x=npy(np.array([{}] * 30, dtype=object), allow_pickle=True), y=npy(Y)),
    "strings": npz(x=npy(np.array(["a"] * 30)), y=npy(Y)),
    "complex": npz(x=npy(np.zeros((30, 4), np.complex64)), y=npy(Y)),
    "records": npz(x=npy(np.zeros(30, dtype=[("a", "f4")])), y=npy(Y)),
    "not npy": npz(x=b"hello", y=npy(Y)),
    "claims 8 TB": npz(x=npy_claiming("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"), y=npy(Y)),
    "negative shape": npz(x=npy_claiming("{'descr': '|u1', 'fortran_order': False, 'shape': (-30, -1), }", bytes(30)), y=npy(Y)),
    "header is code": npz(x=npy_claiming("__import__('os').getcwd()"), y=npy(Y)),
    "header is nested": npz(x=npy_claiming("(" * 400 + str(list(range(500)))), y=npy(Y)),
    "sub-arrays": npz(x=npy_claiming("{'descr': ('|u1', (4,)), 'fortran_order': False, 'shape': (30,), }", bytes(120)), y=npy(Y)),
    "a thousand entries": npz(**{f"x{i}": b"" for i in range(1000)}),
    "empty": b"",
    "float labels": npz(x=npy(X), y=npy(Y.astype(float))),
    "negative label": npz(x=npy(X), y=npy(Y - 1)),
    "a million classes": npz(x=npy(X), y=npy(Y * 500_000)),
    "too few labels": npz(x=npy(X), y=npy(Y[:29])),
    "too few samples": npz(x=npy(X[:19]), y=npy(Y[:19])),
    "one number": npz(x=npy(np.float32(3)), y=npy(Y)),
    "NaN": npz(x=npy(np.full((30, 4), np.nan)), y=npy(Y)),
    "infinite as float32": npz(x=npy(np.full((30, 4), 1e300)), y=npy(Y)),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("case", BAD_NPZ)
def test_a_bad_npz_is_refused(case, write):
    with pytest.raises(HyperGPUError) as refusal:
        load("npz", write, npz=BAD_NPZ[case])
    assert refusal.value.code == "data.malformed"


def test_an_archive_that_lists_a_million_entries_is_refused_unread(write, monkeypatch):
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: pytest.fail("zipfile read the list"))
    with pytest.raises(HyperGPUError) as refusal:
        load("npz", write, npz=BAD_NPZ["a thousand entries"])
    assert refusal.value.code == "data.malformed"


def test_an_npz_bomb_is_refused_before_it_inflates(write):
    bomb = npz(x=npy(np.zeros((30, 100_000), np.uint8)), y=npy(Y))
    with pytest.raises(HyperGPUError) as refusal:
        load("npz", write, npz=bomb)
    assert refusal.value.code == "data.too_large"


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes([10]) + bytes(3072), bytes(3073) * 19])
def test_bad_cifar10_is_refused(content, write):
    with pytest.raises(HyperGPUError) as refusal:
        load("cifar10", write, batch=content)
    assert refusal.value.code == "data.malformed"


@pytest.mark.parametrize("size", [0, 1, 64 * 20])
def test_a_text_without_enough_samples_is_refused(size, write):
    with pytest.raises(HyperGPUError) as refusal:
        load("text", write, text=bytes(size))
    assert refusal.value.code == "data.malformed"


VALID = {
    "idx": {"images": gzip.compress(idx((30, 4, 4), bytes(range(240)) * 2)), "labels": LABELS},
    "npz": {"npz": npz(x=npy(X), y=npy(Y))},
    "cifar10": {"batch": bytes(3073 * 20)},
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(sorted(VALID)))
def test_whatever_is_changed_in_a_file_nothing_but_a_refusal_comes_of_it(data, kind, write):
    contents = dict(VALID[kind])
    role = data.draw(st.sampled_from(sorted(contents)))
    broken = bytearray(contents[role])
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    contents[role] = bytes(broken[: data.draw(st.integers(0, len(broken)))]) if data.draw(st.booleans()) else bytes(broken)
    try:
        load(kind, write, **contents)
    except HyperGPUError as refusal:
        assert refusal.code in {"data.malformed", "data.too_large"}
