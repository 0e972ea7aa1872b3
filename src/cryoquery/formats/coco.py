"""COCO JSON as CryoTransformer writes it: one class, ``bbox`` [x, y, width, height] from the corner."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryoquery.errors import DataError
from cryoquery.formats.boxes import diameters
from cryoquery.formats.columns import object_column
from cryoquery.formats.picks import Picks

_OWN = ("bbox", "image_id", "score")
_STANDARD = ("id", "category_id", "area", "iscrowd")


def read_coco(path: Path, text: str) -> Picks:
    """Centers and sizes of the boxes; boxes of no size, which stand for *no particles*, are left out.

    The list of a detector's results, ``[{"image_id", "bbox", "score"}, ...]``, is read as well.

    Raises:
        DataError: not JSON, or not of this layout.
    """
    content = _load(path, text)
    images, annotations = _parts(path, content)
    names = {str(image.get("id")): str(image.get("file_name") or image.get("id")) for image in images}
    boxes = np.array([_box(path, i, one) for i, one in enumerate(annotations)], np.float64).reshape(-1, 4)
    has_size = (boxes[:, 2:] > 0).all(axis=1)
    boxes, kept = boxes[has_size], [annotations[i] for i in np.flatnonzero(has_size)]
    extra_names = dict.fromkeys(name for one in kept for name in one if name not in (*_OWN, *_STANDARD))
    scores = np.array([_number(annotation.get("score")) for annotation in kept], dtype=np.float64)
    return Picks(
        np.column_stack([boxes[:, 1] + boxes[:, 3] / 2, boxes[:, 0] + boxes[:, 2] / 2]),
        object_column([_name(annotation.get("image_id"), names) for annotation in kept]),
        scores if np.isfinite(scores).any() else None,
        boxes[:, 2:].mean(axis=1) if len(boxes) else None,
        extra={
            name: object_column([annotation.get(name, "") for annotation in kept]) for name in extra_names
        },
        shapes=_shapes(images, names),
        file_format="coco",
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


def _box(path: Path, i: int, annotation: Mapping[str, Any]) -> list[float]:
    box = annotation.get("bbox")
    values = [_number(v) for v in box] if isinstance(box, list) and len(box) == 4 else []
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


def _name(image_id: object, names: Mapping[str, str]) -> str:
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
        shapes: (height, width) in pixels by the name of the micrograph, as far as known.

    Raises:
        DataError: a pick has no diameter.
    """
    sizes = diameters(path, picks)
    names = dict.fromkeys([*picks.micrographs.tolist(), *picks.shapes])
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
