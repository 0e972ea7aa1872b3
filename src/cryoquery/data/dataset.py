"""A dataset on disk: images and masks as memory maps, tables beside them, a recipe, a fingerprint.

::

    DATASET/
      images.npy      (n, h, w) uint8   normalized images, see `decode`
      masks.npy       (n, h, w) uint8   BACKGROUND, PARTICLE or IGNORE
      images.csv      one row per image, in the order of the arrays; no labels but the particle diameter
      particles.csv   every labeled particle center, in pixels of its original micrograph
      dataset.json    version, recipe, notes of the import, fingerprint

Rows are sorted by split, training images first, so that the index of a training image is its row.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.array_file import ArrayFile, read_rows
from cryoquery.data.dataset_tables import PARTICLE_COLUMNS, read_particles, table_lines
from cryoquery.data.fields import Field, own_parts
from cryoquery.errors import DataError
from cryoquery.formats.placement import to_scaled
from cryoquery.storage.atomic import check_new, read_json, staged_directory, write_json, write_table

FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
UNLABELED = "unlabeled"
"""The split of held-out images without labels: neither trained nor measured on."""

MicrographKey: TypeAlias = tuple[str, str]
"""(group, name of the micrograph)"""

BACKGROUND, PARTICLE, IGNORE = 0, 1, 255

ZERO_LEVEL = 128
LEVELS_PER_SIGMA = 32.0

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when the disk, or the share of it that a user may fill, is full."""


def encode(normalized: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Quantize a normalized image (any shape, in standard deviations) to 8 bits.

    The range is −4 to 3.97 standard deviations in steps of 1/32; values beyond it are clipped.
    """
    levels = np.rint(normalized * LEVELS_PER_SIGMA + ZERO_LEVEL)
    clipped: NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return clipped


def decode(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Undo `encode`: 8-bit levels (any shape) to standard deviations. Padding is 0."""
    return (levels.astype(np.float32) - ZERO_LEVEL) / LEVELS_PER_SIGMA


@dataclass(frozen=True)
class ImageRecord:
    """One image of a dataset: where it was cut, from what, and at which scale.

    An image is the part of the scaled micrograph that starts at (``top``, ``left``). Its content
    lies in the upper left; the rest is padding. An original point (y, x) lies at
    ``(y + 0.5) * scale - 0.5 - top`` and ``(x + 0.5) * scale - 0.5 - left``.
    """

    id: str
    micrograph: str
    group: str
    split: str
    height_px: int
    """Height of the original micrograph."""
    width_px: int
    scale: float
    """Dataset pixels per original pixel."""
    top: int
    left: int
    content_height: int
    content_width: int
    pixel_size: float | None
    """Å per original pixel, where known."""
    diameter_px: float
    """Particle diameter in original pixels."""
    field_of_view: str
    """Equal for near-duplicates: micrographs that show the same place and must share a split."""
    center: float
    """Intensity of the micrograph that became 0."""
    spread: float
    """Intensity per standard deviation."""

    @property
    def key(self) -> MicrographKey:
        """What identifies the micrograph within the dataset."""
        return (self.group, self.micrograph)

    @property
    def content(self) -> tuple[slice, slice]:
        """Where in the image the content lies."""
        return np.s_[: self.content_height, : self.content_width]

    @property
    def field(self) -> Field:
        """The part of the scaled micrograph that is the content."""
        return Field(self.top, self.left, self.content_height, self.content_width)

    @property
    def place(self) -> tuple[slice, slice]:
        """Where in the scaled micrograph the content lies."""
        return self.field.place


@dataclass(frozen=True)
class Dataset:
    """An opened dataset. The arrays are read-only memory maps."""

    path: Path
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    records: tuple[ImageRecord, ...]
    particles: Mapping[MicrographKey, NDArray[np.float64]]
    """For each micrograph that has any: (n, 3) rows (y, x, diameter) in original pixels."""
    recipe: Mapping[str, Any]
    notes: Sequence[str]
    fingerprint: str

    def __reduce__(self) -> tuple[Callable[[Path], Dataset], tuple[Path]]:
        """Another process opens the folder for itself."""
        return open_dataset, (self.path,)

    @property
    def disc_fraction(self) -> float:
        """Diameter of the discs in the masks over the diameter of the particles."""
        return float(self.recipe["config"]["disc_fraction"])

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of the images of one split; empty where the split does not exist."""
        return np.array([i for i, r in enumerate(self.records) if r.split == split], dtype=np.int64)

    def centers_in(self, row: int) -> NDArray[np.float64]:
        """Centers (n, 2) as (y, x) inside image ``row``, in pixels of that image."""
        record = self.records[row]
        return np.asarray(self.centers_among([row]) - np.array([record.top, record.left]))

    def centers_among(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """Centers (n, 2) inside any of the images ``rows`` of one micrograph, each once.

        In pixels of the micrograph at the scale of the images.
        """
        record = self.records[rows[0]]
        found = sorted({number for row in rows for number in self._particles_in[row]})
        centers = self.particles.get(record.key, np.empty((0, 3)))[found, :2]
        return to_scaled(centers, record.scale)

    def n_particles(self, rows: Sequence[int] | NDArray[np.int64]) -> int:
        """How many labeled centers lie in the images ``rows``; one that lies in two of them counts once."""
        return len({(self.records[row].key, number) for row in rows for number in self._particles_in[row]})

    @cached_property
    def own_parts(self) -> tuple[Field, ...]:
        """Of each image the part of its micrograph, at its scale, that no other image stands for."""
        rows: dict[MicrographKey, list[int]] = {}
        for row, record in enumerate(self.records):
            rows.setdefault(record.key, []).append(row)
        found = {
            row: part
            for its in rows.values()
            for row, part in zip(its, own_parts([self.records[row].field for row in its]), strict=True)
        }
        return tuple(found[row] for row in range(len(self.records)))

    def n_foreground(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Pixels of particles in the masks of the images ``rows`` (n,): (n,)."""
        masks = (read_rows(self.masks, [row]) for row in rows)
        return np.array([np.count_nonzero(mask == PARTICLE) for mask in masks], dtype=np.int64)

    def n_valid(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Pixels of content in the images ``rows`` (n,), padding left out: (n,)."""
        records = [self.records[row] for row in rows]
        return np.array([r.content_height * r.content_width for r in records], dtype=np.int64)

    @cached_property
    def _particles_in(self) -> tuple[list[int], ...]:
        """Numbers of the centers inside each image, within its micrograph."""
        found = []
        for record in self.records:
            centers = to_scaled(self.particles.get(record.key, np.empty((0, 3)))[:, :2], record.scale)
            points = centers - np.array([record.top, record.left])
            extent = np.array([record.content_height, record.content_width])
            inside = ((points >= -0.5) & (points < extent - 0.5)).all(axis=1)
            found.append(np.flatnonzero(inside).tolist())
        return tuple(found)

    def check_unchanged(self) -> None:
        """Recompute the fingerprint from the files.

        Raises:
            DataError: the files are no longer those that the fingerprint was made of.
        """
        found = _fingerprint(self.path)
        if found != self.fingerprint:
            raise DataError(
                f"{self.path}: its files changed after it was written (fingerprint {found[:12]}, "
                f"recorded {self.fingerprint[:12]}); import or simulate it again"
            )


def open_dataset(path: Path | str) -> Dataset:
    """Open the dataset in folder ``path``.

    Raises:
        DataError: the folder is missing, not a dataset, or its parts do not fit together.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such dataset folder; make one with 'cryoquery import' or 'simulate'")
    info_file = path / "dataset.json"
    if not info_file.is_file():
        raise DataError(f"{path}: not a dataset (no dataset.json); make one with 'cryoquery import'")
    info = read_json(info_file)
    version = info.get("version") if isinstance(info, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{info_file}: version {version!r}, this program reads {FORMAT_VERSION}")
    if missing := {"recipe", "notes", "fingerprint"} - set(info):
        raise DataError(f"{info_file}: has no {', '.join(sorted(missing))}; import the dataset again")
    records = _read_records(path / "images.csv")
    dataset = Dataset(
        path=path,
        images=_open_array(path / "images.npy"),
        masks=_open_array(path / "masks.npy"),
        records=records,
        particles=read_particles(path / "particles.csv"),
        recipe=info["recipe"],
        notes=info["notes"],
        fingerprint=info["fingerprint"],
    )
    if dataset.images.shape != dataset.masks.shape or len(dataset.images) != len(records):
        raise DataError(
            f"{path}: images {dataset.images.shape}, masks {dataset.masks.shape} and {len(records)} table "
            "rows do not fit together; import it again"
        )
    return dataset


class DatasetWriter:
    """Fills a dataset image by image, in any order and from several threads.

    With ``images``, the array of another dataset, it has these by a relative link, so that both can be
    moved together; only masks are put then.
    """

    def __init__(
        self, folder: Path, n_images: int, height: int, width: int, images: Path | None = None
    ) -> None:
        shape = (n_images, height, width)
        self.folder = folder
        self._images = None
        with ExitStack() as opened:
            if images is None:
                self._images = opened.enter_context(ArrayFile(folder / "images.npy", shape))
            else:
                (folder / "images.npy").symlink_to(os.path.relpath(images.resolve(), folder.resolve()))
            self._masks = opened.enter_context(ArrayFile(folder / "masks.npy", shape))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the files of the arrays; no thread may still `put`."""
        self._opened.close()

    def put(self, row: int, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Put image and mask (h, w); smaller ones are padded below and to the right.

        Raises:
            OSError: the disk is full, or fails.
        """
        assert image.shape == mask.shape, f"image {image.shape}, mask {mask.shape}"
        assert self._images is not None, "the images are those of another dataset"
        self._images.put(row, image, ZERO_LEVEL)
        self.put_mask(row, mask)

    def put_mask(self, row: int, mask: NDArray[np.uint8]) -> None:
        """Put a mask (h, w) alone; a smaller one is padded below and to the right.

        Raises:
            OSError: the disk is full, or fails.
        """
        self._masks.put(row, mask, IGNORE)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all images but ``rows``, ascending; no thread may still `put`."""
        assert self._images is not None, "the images are those of another dataset"
        self._images.keep(rows)
        self._masks.keep(rows)

    def finish(
        self,
        records: Sequence[ImageRecord],
        particles: Mapping[MicrographKey, NDArray[np.float64]],
        recipe: Mapping[str, Any],
        notes: Sequence[str] = (),
        fingerprint: str | None = None,
    ) -> None:
        """Write the tables, the recipe and the fingerprint.

        Args:
            records: one per image; those of `SPLITS` are sorted by split.
            particles: for each micrograph (n, 3) rows (y, x, diameter) in original pixels.
            recipe: how the dataset was made; JSON types only.
            notes: what was noticed.
            fingerprint: of what the dataset is made of; None: of its arrays and tables.
        """
        ranks = [SPLITS.index(record.split) for record in records if record.split != UNLABELED]
        assert len(records) == self._masks.shape[0], "one record per image"
        assert ranks == sorted(ranks), "rows are sorted by split, training first"
        levels = {"levels": {"zero": ZERO_LEVEL, "per_sigma": LEVELS_PER_SIGMA}} if self._images else {}
        for array in filter(None, (self._images, self._masks)):
            array.sync()
        centers = [[*key, *row] for key, rows in sorted(particles.items()) for row in rows.tolist()]
        columns = [field.name for field in fields(ImageRecord)]
        write_table(self.folder / "images.csv", columns, map(dataclasses.astuple, records))
        write_table(self.folder / "particles.csv", PARTICLE_COLUMNS, centers)
        info = {
            "version": FORMAT_VERSION,
            "fingerprint": fingerprint or _fingerprint(self.folder),
            "n_images": len(records),
            "image_shape": list(self._masks.shape[1:]),
            **levels,
            "recipe": dict(recipe),
            "notes": list(notes),
        }
        write_json(self.folder / "dataset.json", info)


@contextmanager
def new_dataset(path: Path | str, n_images: int, height: int, width: int) -> Iterator[DatasetWriter]:
    """A writer whose dataset appears at ``path`` when the block ends, and not at all after an error.

    Raises:
        DataError: ``path`` exists and is not an empty folder, or the disk became full.
    """
    path = Path(path)
    check_new(path)
    try:
        with staged_directory(path) as staged, closing(DatasetWriter(staged, n_images, height, width)) as new:
            yield new
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DataError(
            f"{path}: {error.strerror} while the dataset was written (its arrays take "
            f"{2 * n_images * height * width / 1e9:.1f} GB); nothing of it was kept: free some space, or "
            "choose another disk or a smaller size, and start again"
        ) from None


def _open_array(path: Path) -> NDArray[np.uint8]:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened ({error}); import the dataset again") from None
    if array.ndim != 3 or array.dtype != np.uint8:
        raise DataError(f"{path}: expected (n, h, w) of 8 bits, found {array.shape} {array.dtype}")
    return np.asarray(array) if array.size == 0 else array


def _fingerprint(folder: Path) -> str:
    """SHA-256 over arrays and tables."""
    digest = hashlib.sha256()
    for name in ("images.csv", "particles.csv", "images.npy", "masks.npy"):
        with (folder / name).open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _read_records(path: Path) -> tuple[ImageRecord, ...]:
    parsers: dict[str, Callable[[str], Any]] = {
        "str": str,
        "int": int,
        "float": float,
        "float | None": lambda value: float(value) if value else None,
    }
    columns = [(field.name, parsers[str(field.type)]) for field in fields(ImageRecord)]
    with table_lines(path) as lines:
        header = next(lines)
        places = [(name, header.index(name), parse) for name, parse in columns]
        return tuple(ImageRecord(**{name: parse(line[at]) for name, at, parse in places}) for line in lines)
