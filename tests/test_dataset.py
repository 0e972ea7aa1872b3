from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cryoquery.data.dataset import decode, encode, new_dataset, open_dataset
from cryoquery.data.pool import Pool
from cryoquery.errors import DataError


@given(arrays(np.float64, (3, 4), elements=st.floats(-10, 10)))
def test_encoding_keeps_a_sixtyfourth_of_a_sigma(image: np.ndarray) -> None:
    assert np.abs(decode(encode(image)) - np.clip(image, -4, 127 / 32)).max() <= 1 / 64 + 1e-6


def test_round_trip(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    again = open_dataset(tmp_path / "d")
    assert again.records == dataset.records
    assert again.fingerprint == dataset.fingerprint
    assert all(np.array_equal(again.particles[key], rows) for key, rows in dataset.particles.items())
    again.check_unchanged()
    assert again.rows("train").tolist() == list(range(20))
    assert again.rows("test").tolist() == []
    assert again.n_particles(np.arange(26)) == sum(len(rows) for rows in again.particles.values())


def test_the_same_content_has_the_same_fingerprint(tmp_path: Path) -> None:
    first, second = make_dataset(tmp_path / "a"), make_dataset(tmp_path / "b")
    other = make_dataset(tmp_path / "c", seed=1)
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    writing = new_dataset(tmp_path / "d", 3, 32, 32)
    writer = writing.__enter__()
    writer.put(0, np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8))
    assert len(list(tmp_path.iterdir())) == 1
    error = RuntimeError()
    assert not writing.__exit__(RuntimeError, error, None), "the error is not swallowed"
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_writer_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".d.partial").mkdir()
    (tmp_path / ".d.partial" / "images.npy").write_bytes(b"half")
    make_dataset(tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make_dataset(tmp_path / "d")
    with pytest.raises(DataError, match="exists already"):
        make_dataset(tmp_path / "d")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        make_dataset(tmp_path / "file")


def test_the_pool_has_no_labels(tmp_path: Path) -> None:
    pool = Pool.of(make_dataset(tmp_path / "d"))
    assert set(vars(pool)) == {"levels", "content", "groups", "micrographs"}
    assert not {"n_particles", "particles", "mask"} & set(
        (tmp_path / "d" / "images.csv").read_text().splitlines()[0].split(",")
    )


def spoil(path: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", None, "not a dataset"),
        ("dataset.json", b"{", "cannot be read as JSON"),
        ("dataset.json", b'{"version": 99}', "version 99"),
        ("images.npy", None, "cannot be opened"),
        ("images.npy", b"junk", "cannot be opened"),
        ("masks.npy", b"", "cannot be opened"),
        ("images.csv", None, "missing"),
        ("images.csv", b"", "cannot be read"),
        ("images.csv", b"id,micrograph\nx,y\n", "cannot be read"),
        ("particles.csv", b"group,micrograph,y,x,diameter_px\na,b,one,2,3\n", "line 2 cannot be read"),
        ("particles.csv", b"y,x\n", "cannot be read"),
    ],
)
def test_a_damaged_dataset_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    make_dataset(tmp_path / "d")
    spoil(tmp_path / "d", name, content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path / "d")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "d") in str(caught.value)


def test_parts_that_do_not_fit_together(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a")
    make_dataset(tmp_path / "b", {"train": 3, "val": 1})
    shutil.copy(tmp_path / "b" / "masks.npy", tmp_path / "a" / "masks.npy")
    with pytest.raises(DataError, match="do not fit together"):
        open_dataset(tmp_path / "a")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset folder; make one with 'cryoquery import'"):
        open_dataset(tmp_path / "nowhere")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    info = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert info["fingerprint"] == dataset.fingerprint
    images = np.load(tmp_path / "d" / "images.npy", mmap_mode="r+")
    images[-1, -1, -1] ^= 1
    images.flush()
    with pytest.raises(DataError, match="changed after it was written"):
        dataset.check_unchanged()
