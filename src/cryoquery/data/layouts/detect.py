"""The four layouts of folders, each a function that recognizes one and says what is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryoquery.data.dataset import SPLITS
from cryoquery.data.layouts.match import (
    LayoutContent,
    coordinates_in,
    group_name,
    has_images,
    images_in,
    masks_in,
    pair,
)
from cryoquery.errors import DataError
from cryoquery.formats.columns import number
from cryoquery.formats.recognize import decode
from cryoquery.formats.text_table import read_text_table

CRYOPPP_COORDINATES = Path("ground_truth") / "particle_coordinates"


def find_cryoppp(folder: Path) -> LayoutContent | None:
    """CryoPPP: ``micrographs/*`` and ``ground_truth/particle_coordinates/<stem>.csv``."""
    if not (folder / "micrographs").is_dir() or not (folder / CRYOPPP_COORDINATES).is_dir():
        return None
    content = LayoutContent()
    images = images_in(folder / "micrographs", content.notes)
    coordinates = coordinates_in(folder / CRYOPPP_COORDINATES)
    content.micrographs += pair(images, group_name(folder), coordinates, {}, content.notes)
    return content


def find_cryotransformer(folder: Path) -> LayoutContent | None:
    """CryoTransformer: ``train|val|test/*`` and ``particle_coordinates/<stem>.csv``.

    The folders are the splits. A row of zeros stands for *no particles*, and so does a missing file.
    """
    splits = [split for split in SPLITS if has_images(folder / split)]
    if not splits or not (folder / "particle_coordinates").is_dir():
        return None
    content = LayoutContent()
    coordinates = coordinates_in(folder / "particle_coordinates")
    images = {split: images_in(folder / split, content.notes) for split in splits}
    everything = [image for split in splits for image in images[split]]
    content.micrographs += [
        replace(found, split=found.image.parent.name, dummy_boxes=True, empty_without_labels=True)
        for found in pair(everything, group_name(folder), coordinates, {}, content.notes)
    ]
    return content


def find_cryosegnet(folder: Path) -> LayoutContent | None:
    """CryoSegNet: ``images/*`` and ``masks/<stem>_mask.*``, directly or in ``train|val|test``."""
    parts = [(split, folder / split) for split in SPLITS if _has_images_and_masks(folder / split)]
    content = LayoutContent()
    if parts:
        for split, part in parts:
            images, masks = images_in(part / "images", content.notes), masks_in(part / "masks")
            found = pair(images, group_name(folder), {}, masks, content.notes)
            content.micrographs += [replace(one, split=split) for one in found]
        return content
    if not _has_images_and_masks(folder):
        return None
    images, masks = images_in(folder / "images", content.notes), masks_in(folder / "masks")
    owner = folder.resolve().parent if folder.resolve().name in SPLITS else folder
    content.micrographs += pair(images, group_name(owner), {}, masks, content.notes)
    return content


def _has_images_and_masks(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def find_plain(folder: Path) -> LayoutContent | None:
    """The plain layout: ``micrographs/*`` with ``coordinates/<stem>.csv``, ``masks/<stem>_mask.*`` or both.

    A ``manifest.csv`` in the folder or above it may state pixel sizes and diameters.
    """
    labels = (folder / "coordinates", folder / "masks")
    if not (folder / "micrographs").is_dir() or not any(path.is_dir() for path in labels):
        return None
    content = LayoutContent()
    images = images_in(folder / "micrographs", content.notes)
    pairs = pair(images, group_name(folder), coordinates_in(labels[0]), masks_in(labels[1]), content.notes)
    manifest = _read_manifest(folder)
    for found in pairs:
        pixel_size, diameter = manifest.get(found.image.name, (None, None))
        content.micrographs.append(replace(found, pixel_size=pixel_size, diameter_px=diameter))
    return content


def _read_manifest(folder: Path) -> dict[str, tuple[float | None, float | None]]:
    """(pixel size in Å/px, diameter in px) by the name of the micrograph's file; empty without a manifest."""
    candidates = (folder / "manifest.csv", folder.resolve().parent / "manifest.csv")
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return {}
    table = read_text_table(path, decode(path, path.read_bytes()), named=True)
    if "micrograph" not in table.names:
        return {}
    rows = [dict(zip(table.names, row, strict=True)) for row in table.rows]
    return {
        row["micrograph"]: (
            _positive(path, table.where(i), row.get("pixel_size_angstrom")),
            _positive(path, table.where(i), row.get("diameter_px")),
        )
        for i, row in enumerate(rows)
        if row.get("dataset") in (None, "", folder.resolve().name)
    }


def _positive(path: Path, where: str, text: str | None) -> float | None:
    if not text:
        return None
    value = number(text)
    if not 0 < value < float("inf"):
        raise DataError(f"{path}: {where}: {text!r} is not a positive number; correct that line")
    return value


LAYOUTS: dict[str, tuple[Callable[[Path], LayoutContent | None], str]] = {
    "CryoPPP": (find_cryoppp, "[<id>/]micrographs/ + [<id>/]ground_truth/particle_coordinates/<stem>.csv"),
    "CryoTransformer": (find_cryotransformer, "train|val|test/*.jpg + particle_coordinates/<stem>.csv"),
    "CryoSegNet": (find_cryosegnet, "[<id>/][train|val/]images/ + masks/<stem>_mask.*"),
    "plain": (find_plain, "[<name>/]micrographs/ + coordinates/<stem>.csv and/or masks/<stem>_mask.*"),
}
"""Name: the function that recognizes it, and what it looks for. The first that fits is taken."""
