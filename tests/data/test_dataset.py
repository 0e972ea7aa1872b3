from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cryoquery.data.array_file import read_rows
from cryoquery.data.dataset import (
    IGNORE,
    UNLABELED,
    ZERO_LEVEL,
    DatasetWriter,
    decode,
    encode,
    new_dataset,
    open_dataset,
)
from cryoquery.data.pool import Pool
from cryoquery.errors import DataError
from cryoquery.storage.leases import Owner


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


def test_images_of_another_dataset_are_linked_and_move_with_it(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "p" / "dataset")
    n, height, width = first.images.shape
    records = [replace(r, split=r.split if r.split == "train" else UNLABELED) for r in first.records]
    folder = tmp_path / "p" / "work" / "labeled"
    folder.mkdir(parents=True)
    with closing(DatasetWriter(folder, n, height, width, first.path / "images.npy")) as writer:
        writer.put_mask(2, np.ones((3, 4), np.uint8))
        writer.finish(records, {}, first.recipe, ["said"], "0f1e")
    (tmp_path / "p").rename(tmp_path / "q")
    linked = open_dataset(tmp_path / "q" / "work" / "labeled")
    assert (linked.fingerprint, linked.notes, linked.recipe) == ("0f1e", ["said"], first.recipe)
    assert (linked.path / "images.npy").readlink() == Path("../../dataset/images.npy")
    assert np.array_equal(linked.images, open_dataset(tmp_path / "q" / "dataset").images)
    assert (np.count_nonzero(linked.masks == 1), linked.masks[2, 3, 0], linked.masks[1].max()) == (
        12,
        IGNORE,
        0,
    )
    assert not len(linked.rows("val"))


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    writing = new_dataset(tmp_path / "d", 3, 32, 32)
    writer = writing.__enter__()
    writer.put(0, np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8))
    assert len(list(tmp_path.iterdir())) == 1
    error = RuntimeError()
    assert not writing.__exit__(RuntimeError, error, None), "the error is not swallowed"
    assert list(tmp_path.iterdir()) == []


def pieces(n: int, height: int, width: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(row, image, mask) of all sizes up to the whole, in random order; every fifth row is left out."""
    rng = np.random.default_rng([n, height, width])
    rows = [int(row) for row in rng.permutation(n) if row % 5 != 4]
    sizes = rng.integers(1, [height + 1, width + 1], (len(rows), 2)).tolist()
    sizes[0] = [height, width]
    return [
        (row, rng.integers(0, 256, size, dtype=np.uint8), rng.integers(0, 2, size, dtype=np.uint8))
        for row, size in zip(rows, sizes, strict=True)
    ]


def put_one_by_one(writer: DatasetWriter, parts: list[tuple[int, np.ndarray, np.ndarray]]) -> None:
    for part in parts:
        writer.put(*part)


def put_from_threads(writer: DatasetWriter, parts: list[tuple[int, np.ndarray, np.ndarray]]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: writer.put(*part), parts))


@pytest.mark.parametrize("put", [put_one_by_one, put_from_threads])
@pytest.mark.parametrize("shape", [(1, 16, 16), (7, 16, 48), (200, 32, 32), (0, 16, 16)])
@pytest.mark.parametrize("at_once", [None, 97])
def test_the_files_are_what_numpy_saves(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    put: Callable[..., None],
    shape: tuple[int, int, int],
    at_once: int | None,
) -> None:
    """In any order, from several threads, and where the system writes less than it is asked to."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:at_once], at))
    parts = pieces(*shape) if shape[0] else []
    expected = {"images.npy": np.zeros(shape, np.uint8), "masks.npy": np.zeros(shape, np.uint8)}
    for row, *contents in parts:
        for array, content, padding in zip(expected.values(), contents, (ZERO_LEVEL, IGNORE), strict=True):
            array[row] = padding
            array[row, : content.shape[0], : content.shape[1]] = content
    with new_dataset(tmp_path / "d", *shape) as writer:
        put(writer, parts)
    for name, array in expected.items():
        np.save(tmp_path / name, array)
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_row_outside_is_not_written(tmp_path: Path) -> None:
    image = np.zeros((16, 16), np.uint8)
    with new_dataset(tmp_path / "d", 3, 16, 16) as writer:
        size = (writer.folder / "images.npy").stat().st_size
        for row in (-1, 3):
            with pytest.raises(AssertionError):
                writer.put(row, image, image)
    assert (tmp_path / "d" / "images.npy").stat().st_size == size


PROCESS = Path("/proc/self")
needs_proc = pytest.mark.skipif(not PROCESS.is_dir(), reason="only Linux shows what a process has open")


def descriptors(folder: Path) -> list[str]:
    """Files in a folder that this process has open."""
    links = [str(link.readlink()) for link in (PROCESS / "fd").iterdir() if link.is_symlink()]
    return [link for link in links if link.startswith(str(folder))]


@needs_proc
def test_descriptors_are_closed_and_nothing_is_mapped(tmp_path: Path) -> None:
    image = np.zeros((16, 16), np.uint8)
    with new_dataset(tmp_path / "d", 3, 16, 16) as writer:
        writer.put(0, image, image)
        assert len(descriptors(tmp_path)) == 2
        assert str(tmp_path) not in (PROCESS / "maps").read_text()
    assert descriptors(tmp_path) == []
    with pytest.raises(ValueError, match="closed"):
        writer.put(0, image, image)
    with pytest.raises(KeyError), new_dataset(tmp_path / "e", 3, 16, 16):
        raise KeyError
    assert descriptors(tmp_path) == []


@needs_proc
def test_a_writer_that_cannot_start_closes_what_it_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "masks.npy").touch()
    with pytest.raises(FileExistsError):
        DatasetWriter(tmp_path, 3, 16, 16)
    assert descriptors(tmp_path) == []
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    (tmp_path / "images.npy").unlink()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        DatasetWriter(tmp_path, 3, 16, 16)
    assert descriptors(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("n_before", [0, 1, 2, 5])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, n_before: int
) -> None:
    pwrite, n_left = os.pwrite, iter(range(n_before))

    def until_full(file: int, data: memoryview, at: int) -> int:
        if next(n_left, None) is None:
            raise OSError(code, os.strerror(code))
        return pwrite(file, data, at)

    monkeypatch.setattr(os, "pwrite", until_full)
    with pytest.raises(DataError) as caught, new_dataset(tmp_path / "d", 7, 16, 16) as writer:
        put_from_threads(writer, pieces(7, 16, 16))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'd'}: {os.strerror(code)}")
    assert "free some space" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_writes_nothing_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(DataError, match="free some space"), new_dataset(tmp_path / "d", 1, 16, 16):
        pass


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), new_dataset(tmp_path / "d", 1, 16, 16):
        raise PermissionError(errno.EACCES, "no")
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_writer_left_is_replaced(tmp_path: Path) -> None:
    gone = replace(Owner.myself(), started="1")
    left = tmp_path / f".d.{gone.tag}-0123abcd.partial"
    left.mkdir()
    (left / "images.npy").write_bytes(b"half")
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
    assert set(vars(pool)) == {"levels", "content", "groups", "micrographs", "disc_px"}
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


def test_rows_are_read_from_any_part_of_a_map(tmp_path: Path) -> None:
    images = make_dataset(tmp_path / "d").images
    assert isinstance(images, np.memmap)
    for part in (images, images[:7], images[3:], images[3:][2:9], images[::2], np.asarray(images)):
        assert np.array_equal(read_rows(part, [3, 0, 1]), np.asarray(part)[[3, 0, 1]])
