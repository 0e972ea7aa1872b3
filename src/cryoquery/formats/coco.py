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
from cryoquery.formats.classes import Chosen, choose_particles
from cryoquery.formats.columns import number, object_column
from cryoquery.formats.picks import Picks, Region
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.formats.rle import box_of_mask

CROWDS = ("iscrowd", "ignore")
"""Keys of an annotation that is no single particle, and no background either."""
_OWN = ("bbox", "image_id", "score")
_STANDARD = ("id", "category_id", "area", "num_keypoints", *CROWDS)


def read_coco(path: Path, text: str, reading: Reading = AS_RECOGNIZED) -> Picks:
    """Centers and sizes of the boxes of particles, of boxes around their outlines, and points.

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
    outlines = {i: one for i, a in enumerate(annotations) if (one := _outline(path, i, a)) is not None}
    marks = np.array(
        [_mark(path, i, one, outlines.get(i)) for i, one in enumerate(annotations)], np.float64
    ).reshape(-1, 4)
    crowds = np.array([any(_is_true(a.get(key)) for key in CROWDS) for a in annotations], dtype=bool)
    chosen = _chosen(path, annotations, _categories(path, content), reading)
    kept = chosen.particles & ~crowds & marks.any(axis=1)
    ignored = (chosen.ignored | crowds) & marks.any(axis=1)
    regions = _regions(path, ignored, marks, outlines, annotations, names)
    notes = [*chosen.notes]
    if n_crowds := int((chosen.particles & crowds).sum()):
        notes.append(f"{n_crowds} marked as crowds (iscrowd) or to be ignored left out")
    if n_around := sum(bool(kept[i]) and not _has_box(annotations[i]) for i in outlines):
        notes.append(f"{n_around} outlines without boxes: the boxes around them are taken")
    marks, annotations = marks[kept], [annotations[i] for i in np.flatnonzero(kept)]
    extra_names = dict.fromkeys(
        name for one in annotations for name in one if name not in (*_OWN, *_STANDARD)
    )
    scores = np.array([_score(annotation.get("score")) for annotation in annotations], dtype=np.float64)
    x, y, width, height = marks.T
    sizes = sizes_of_boxes(width, height)
    sizes[(width == 0) | (height == 0)] = np.nan
    centers = centers_of_boxes(x, y, width, height, reading.origin or "corner")
    of_images = [_name(path, annotation.get("image_id"), names) for annotation in annotations]
    shapes = _shapes(images, names)
    notes += _outside(centers, of_images, shapes)
    return Picks(
        centers,
        object_column(of_images),
        scores if np.isfinite(scores).any() else None,
        sizes if np.isfinite(sizes).any() else None,
        extra={
            name: object_column([annotation.get(name, "") for annotation in annotations])
            for name in extra_names
        },
        shapes=shapes,
        file_format="coco",
        listed=tuple(names.values()),
        notes=tuple(notes),
        regions=regions,
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
    """Names of the classes by their id.

    Raises:
        DataError: an id is there twice.
    """
    listed = content.get("categories", []) if isinstance(content, dict) else []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise DataError(f'{path}: not COCO: "categories" must be a list of objects')
    names: dict[str, str] = {}
    for one in listed:
        own, name = str(one.get("id")), str(one.get("name") or one.get("id"))
        if names.setdefault(own, name) != name:
            raise DataError(f"{path}: {names[own]!r} and {name!r} are both the category {own}; keep one")
    return names


def _chosen(
    path: Path, annotations: Sequence[Mapping[str, Any]], categories: Mapping[str, str], reading: Reading
) -> Chosen:
    of_each = [str(annotation.get("category_id", "")) for annotation in annotations]
    classes = [categories.get(one, one) for one in of_each]
    return choose_particles(path, classes, reading, {name: own for own, name in categories.items()})


def _is_true(value: object) -> bool:
    return value in (1, True) or str(value).lower() in ("1", "true")


def _has_box(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation has a box; [0, 0, 0, 0] is none."""
    box = annotation.get("bbox")
    return bool(box) and not (isinstance(box, list) and all(_number(value) == 0 for value in box))


def _outline(path: Path, i: int, annotation: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """(k, 2) vertices (x, y) of the polygons of an annotation, one after the other; None: it has none.

    Of a mask two corners of the box around it, where the annotation has none.

    Raises:
        DataError: a vertex is not two numbers, or the outline is needed and neither of polygons nor a mask.
    """
    found = annotation.get("segmentation")
    if not found or (not isinstance(found, list) and _has_box(annotation)):
        return None
    parts = found if isinstance(found, list) else []
    if all(isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 for part in parts) and parts:
        numbers = np.array([_number(value) for part in parts for value in part], dtype=np.float64)
        if np.isfinite(numbers).all():
            return numbers.reshape(-1, 2)
    if _has_box(annotation):
        return None
    if isinstance(found, dict) and (around := box_of_mask(found)) is not None:
        x, y, width, height = around
        return np.array([[x, y], [x + width, y + height]])
    raise DataError(
        f"{path}: annotation {i}: no box, and its outline is neither of polygons nor a mask (RLE) that can "
        "be read; add bbox"
    )


def _mark(
    path: Path, i: int, annotation: Mapping[str, Any], outline: NDArray[np.float64] | None
) -> list[float]:
    """x, y, width and height of an annotation; a point, which has no size, by its one keypoint."""
    box, points = annotation.get("bbox"), annotation.get("keypoints")
    values = [_number(v) for v in box] if isinstance(box, list) and len(box) == 4 else []
    point = [_number(v) for v in points] if isinstance(points, list) and len(points) == 3 else []
    if len(point) == 3 and all(map(math.isfinite, point)) and not (len(values) == 4 and all(values[2:])):
        return [*point[:2], 0.0, 0.0]
    if outline is not None and not _has_box(annotation):
        lowest, highest = outline.min(axis=0), outline.max(axis=0)
        return [*lowest.tolist(), *(highest - lowest).tolist()]
    if not box:
        raise DataError(
            f"{path}: annotation {i}: neither a box (bbox), nor one point, nor polygons; add bbox"
        )
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise DataError(f"{path}: annotation {i}: bbox {str(box)[:60]} is not four numbers; correct it")
    return values


def _regions(
    path: Path,
    chosen: NDArray[np.bool_],
    marks: NDArray[np.float64],
    outlines: Mapping[int, NDArray[np.float64]],
    annotations: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
) -> tuple[Region, ...]:
    """The annotations (n,) that are chosen as regions: their one polygon, or else their box."""
    regions = []
    for i in np.flatnonzero(chosen).tolist():
        x, y, width, height = marks[i]
        corners = np.array([[y, x], [y, x + width], [y + height, x + width], [y + height, x]])
        is_one = i in outlines and len(annotations[i]["segmentation"]) == 1
        polygon = outlines[i][:, ::-1] if is_one else corners
        regions.append(Region(_name(path, annotations[i].get("image_id"), names), polygon))
    return tuple(regions)


def _outside(
    centers: NDArray[np.float64], images: Sequence[str], shapes: Mapping[str, tuple[int, int]]
) -> list[str]:
    """A note where centers lie outside of their image, as those of [x1, y1, x2, y2] do."""
    n = sum(
        not (-0.5 <= y <= shapes[name][0] and -0.5 <= x <= shapes[name][1])
        for name, (y, x) in zip(images, centers.tolist(), strict=True)
        if name in shapes
    )
    if not n:
        return []
    return [f"{n} of {len(centers)} boxes have their center outside of their image; are they [x, y, w, h]?"]


def _score(value: object) -> float:
    return number(value) if isinstance(value, str) else _number(value)


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
