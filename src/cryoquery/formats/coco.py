"""COCO JSON: ``bbox`` [x, y, width, height] from the corner, several classes, and points."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.boxes import centers_of_boxes, diameters, sizes_of_boxes
from cryoquery.formats.classes import choose_particles
from cryoquery.formats.columns import object_column
from cryoquery.formats.picks import Picks
from cryoquery.formats.reading import AS_RECOGNIZED, Reading

_OWN = ("bbox", "image_id", "score")
_STANDARD = ("id", "category_id", "area", "iscrowd", "num_keypoints")


def read_coco(path: Path, text: str, reading: Reading = AS_RECOGNIZED) -> Picks:
    """Centers and sizes of the boxes of particles, and points.

    A box [0, 0, 0, 0] stands for *no particles*, and so does an image that is listed without any. The list
    of a detector's results, ``[{"image_id", "bbox", "score"}, ...]``, is read as well.

    Args:
        path: for messages.
        text: of the file.
        reading: what is said about it.

    Raises:
        DataError: not JSON, not of this layout, or with classes that are not told apart.
    """
    content = _load(path, text)
    images, annotations = _parts(path, content)
    names = _image_names(path, images)
    marks = np.array([_mark(path, i, one) for i, one in enumerate(annotations)], np.float64).reshape(-1, 4)
    kept, notes = _particles(path, annotations, _categories(path, content), reading)
    kept &= marks.any(axis=1)
    marks, annotations = marks[kept], [annotations[i] for i in np.flatnonzero(kept)]
    extra_names = dict.fromkeys(
        name for one in annotations for name in one if name not in (*_OWN, *_STANDARD)
    )
    scores = np.array([_number(annotation.get("score")) for annotation in annotations], dtype=np.float64)
    x, y, width, height = marks.T
    sizes = sizes_of_boxes(width, height)
    sizes[(width == 0) | (height == 0)] = np.nan
    return Picks(
        centers_of_boxes(x, y, width, height, reading.origin or "corner"),
        object_column([_name(path, annotation.get("image_id"), names) for annotation in annotations]),
        scores if np.isfinite(scores).any() else None,
        sizes if np.isfinite(sizes).any() else None,
        extra={
            name: object_column([annotation.get(name, "") for annotation in annotations])
            for name in extra_names
        },
        shapes=_shapes(images, names),
        file_format="coco",
        listed=tuple(names.values()),
        notes=notes,
    )


def _load(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({str(error)[:100]}); copy it again") from None


def _parts(path: Path, content: Any) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    images = content.get("images", []) if isinstance(content, dict) else []
    annotations = content.get("annotations") if isinstance(content, dict) else content
    for part in (images, annotations):
        if not isinstance(part, list) or not all(isinstance(one, dict) for one in part):
            raise DataError(f'{path}: not COCO: "images" and "annotations" must be lists of objects')
    return images, list(annotations or [])


def _image_names(path: Path, images: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Names of the images by their id.

    Raises:
        DataError: an id or a name is there twice.
    """
    names: dict[str, str] = {}
    ids: dict[str, str] = {}
    for image in images:
        own = str(image.get("id"))
        name = str(image.get("file_name") or own)
        if own in names or name in ids:
            raise DataError(
                f"{path}: image {name!r} (id {own}) is listed twice, or two have this id; keep one"
            )
        names[own], ids[name] = name, own
    return names


def _categories(path: Path, content: Any) -> dict[str, str]:
    """Names of the classes by their id."""
    listed = content.get("categories", []) if isinstance(content, dict) else []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise DataError(f'{path}: not COCO: "categories" must be a list of objects')
    return {str(one.get("id")): str(one.get("name") or one.get("id")) for one in listed}


def _particles(
    path: Path, annotations: Sequence[Mapping[str, Any]], categories: Mapping[str, str], reading: Reading
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which annotations (n,) are particles, and notes on the others."""
    of_each = [str(annotation.get("category_id", "")) for annotation in annotations]
    kept, notes = choose_particles(
        path, [categories.get(one, one) for one in of_each], reading.classes, tuple(categories.values())
    )
    crowds = np.array([annotation.get("iscrowd") in (1, True) for annotation in annotations], dtype=bool)
    if (kept & crowds).any():
        notes += (f"{(kept & crowds).sum()} regions of many particles (iscrowd) left out",)
    return kept & ~crowds, notes


def _mark(path: Path, i: int, annotation: Mapping[str, Any]) -> list[float]:
    """x, y, width and height of an annotation; a point, which has no size, by its one keypoint."""
    box, points = annotation.get("bbox"), annotation.get("keypoints")
    values = [_number(v) for v in box] if isinstance(box, list) and len(box) == 4 else []
    point = [_number(v) for v in points] if isinstance(points, list) and len(points) == 3 else []
    if len(point) == 3 and all(map(math.isfinite, point)) and not (len(values) == 4 and all(values[2:])):
        return [*point[:2], 0.0, 0.0]
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise DataError(f"{path}: annotation {i}: bbox {str(box)[:60]} is not four numbers; correct it")
    return values


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _name(path: Path, image_id: object, names: Mapping[str, str]) -> str:
    if names and str(image_id) not in names:
        raise DataError(f"{path}: an annotation of image {image_id!r}, which is not in its list of images")
    return names.get(str(image_id), "" if image_id is None else str(image_id))


def _shapes(images: list[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    shapes = {}
    for image in images:
        height, width = _number(image.get("height")), _number(image.get("width"))
        if 1 <= height < 2**24 and 1 <= width < 2**24:
            shapes[names[str(image.get("id"))]] = (int(height), int(width))
    return shapes


def coco_text(path: Path, picks: Picks, shapes: Mapping[str, tuple[int, int]]) -> str:
    """A COCO file with one class, ``particle``.

    Args:
        path: for messages.
        picks: to write; each needs a diameter.
        shapes: (height, width) in pixels by the name of the micrograph, as far as known; all are listed.

    Raises:
        DataError: a pick has no diameter.
    """
    sizes = diameters(path, picks)
    names = dict.fromkeys([*picks.micrographs.tolist(), *picks.listed, *shapes])
    ids = {name: i for i, name in enumerate(names, start=1)}
    images = []
    for name, i in ids.items():
        size = dict(zip(("height", "width"), shapes[name], strict=True)) if name in shapes else {}
        images.append({"id": i, "file_name": name, **size})
    columns = {
        name: values.tolist() for name, values in picks.extra.items() if values.ndim == 1 and "/" not in name
    }
    annotations = []
    for i, ((y, x), size) in enumerate(zip(picks.centers_yx.tolist(), sizes.tolist(), strict=True)):
        annotation = {name: values[i] for name, values in columns.items()}
        annotation |= {
            "id": i + 1,
            "image_id": ids[picks.micrographs[i]],
            "category_id": 1,
            "bbox": [round(x - size / 2, 6), round(y - size / 2, 6), size, size],
            "area": size * size,
            "iscrowd": 0,
        }
        if picks.scores is not None and math.isfinite(picks.scores[i]):
            annotation["score"] = float(picks.scores[i])
        annotations.append(annotation)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "particle", "supercategory": "particle"}],
    }
    return json.dumps(content) + "\n"
