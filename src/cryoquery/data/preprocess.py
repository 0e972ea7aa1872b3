"""From a recorded micrograph to a normalized image, and the geometry of scaling, fields and discs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

from cryoquery.errors import DataError

MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
HOT_LIMIT = 5.0
"""A pixel further than this many standard deviations from its surroundings is a defect."""
HOT_WINDOW = 5
"""Side in px of the neighborhood whose median replaces a hot pixel."""
SURFACE_BLOCKS = 24
"""The background is fitted to the medians of at most so many blocks per side."""
BISQUARE = 4.685
"""Tukey's constant for 95 % efficiency."""
MAX_SAMPLES = 1 << 20
"""Pixels that statistics of a raw micrograph are estimated from."""
STRIP_PIXELS = 1 << 18
"""A micrograph is looked through in strips of so many pixels, which stay in the processor's cache."""

NORMALIZATION: Mapping[str, Any] = {
    "hot_pixels": {"limit_sigma": HOT_LIMIT, "replaced_by_median_of_px": HOT_WINDOW},
    "rescaling": "bicubic, antialiased",
    "background": {"surface": "quadratic", "blocks_per_side": SURFACE_BLOCKS, "bisquare": BISQUARE},
    "center": "median",
    "spread": f"{MAD_TO_SIGMA} * median absolute deviation",
}
"""What `normalize` does, in the order in which it is done; goes into the recipe of a dataset."""


T = TypeVar("T")


def evenly(items: Sequence[T], n: int) -> list[T]:
    """At most ``n`` of the items, evenly chosen."""
    at = np.unique(np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int))
    return [items[i] for i in at]


@dataclass(frozen=True)
class Normalized:
    """A micrograph in standard deviations of its own contrast."""

    image: NDArray[np.float32]
    """(h, w), median 0, robust standard deviation 1."""
    center: float
    """Intensity that became 0 (in the middle of the background)."""
    spread: float
    """Intensity per standard deviation, at the scale of ``image``."""


def normalize(pixels: NDArray[np.floating], scale: float = 1.0) -> Normalized:
    """Remove hot pixels, rescale, subtract the background, and standardize robustly.

    Hot pixels go first, because averaging would spread them; contrast is measured last, because
    averaging lowers it. The result does not depend on the gain or the offset of the intensities.

    Args:
        pixels: (height, width) intensities as recorded, finite and not all equal.
        scale: image pixels per recorded pixel.

    Raises:
        DataError: nothing is left to standardize: the image is constant.

    """
    pixels = np.asarray(pixels, dtype=np.float32)
    offset = float(np.median(_sample(pixels)))
    shifted = pixels - np.float32(offset)
    _replace_hot_pixels(shifted)
    scaled = rescale(shifted, scale)
    surface = fit_background(scaled)
    flat = scaled - surface
    level = float(np.median(flat))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(flat - level)))
    if spread == 0:
        spread = float(flat.std())
    if not spread > 0:
        raise DataError("a constant image cannot be normalized")
    center = offset + float(np.median(surface)) + level
    return Normalized(((flat - level) / spread).astype(np.float32), center, spread)


def remove_hot_pixels(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace pixels that stand out of their surroundings by the median of these.

    Args:
        pixels: (height, width).

    Returns:
        A copy, (height, width).

    """
    result = pixels.copy()
    _replace_hot_pixels(result)
    return np.asarray(result)


def _replace_hot_pixels(pixels: NDArray[np.float32]) -> None:
    """`remove_hot_pixels` in place: a whole micrograph is large, and this one is not copied again."""
    height, width = pixels.shape
    surface = _fit_surface(pixels)
    stride = _stride(pixels)
    sampled = np.abs(_sample(pixels) - surface.at(range(0, height, stride), range(0, width, stride)))
    sigma = MAD_TO_SIGMA * float(np.median(sampled)) or float(sampled.std())
    suspects = _beyond(pixels, surface, HOT_LIMIT * sigma)
    reach = HOT_WINDOW // 2
    offsets = np.argwhere(np.ones((HOT_WINDOW, HOT_WINDOW))) - reach
    replaced = []
    for start in range(0, len(suspects), 1 << 16):
        at_y, at_x = np.divmod(suspects[start : start + (1 << 16)], width)
        y = np.clip(at_y[:, None] + offsets[:, 0], 0, height - 1)
        x = np.clip(at_x[:, None] + offsets[:, 1], 0, width - 1)
        around = np.median(pixels[y, x], axis=1)
        hot = np.abs(pixels[at_y, at_x] - around) > HOT_LIMIT * sigma
        replaced.append((at_y[hot], at_x[hot], around[hot]))
    for at_y, at_x, around in replaced:  # only now, or one replacement would be the surroundings of the next
        pixels[at_y, at_x] = around


def _beyond(pixels: NDArray[np.float32], surface: _Surface, limit: float) -> NDArray[np.int64]:
    """Flat indices (n,) of the pixels further than ``limit`` from the surface."""
    height, width = pixels.shape
    n_rows = max(STRIP_PIXELS // width, 1)
    found = []
    for top in range(0, height, n_rows):
        strip = pixels[top : top + n_rows]
        deviation = np.abs(strip - surface.at(range(top, top + len(strip)), range(width)))
        found.append(np.flatnonzero(deviation > limit) + top * width)
    return np.concatenate(found)


def fit_background(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The quadratic surface (height, width) through the medians of blocks of ``pixels``.

    Fitted by iteratively reweighted least squares with Tukey's bisquare, so that carbon, ice and
    empty corners do not tilt it.
    """
    height, width = pixels.shape
    return _fit_surface(pixels).at(range(height), range(width))


@dataclass(frozen=True)
class _Surface:
    """A quadratic function of the place in an image."""

    shape: tuple[int, int]
    coefficients: NDArray[np.float32]
    """(6,) of 1, y, x, y², xy, x², where y and x run from -1 to 1."""

    def at(self, rows: range, columns: range) -> NDArray[np.float32]:
        """Its values (n_rows, n_columns)."""
        height, width = self.shape
        y = (np.array(rows) / height * 2 - 1)[:, None]
        x = (np.array(columns) / width * 2 - 1)[None, :]
        constant, by_y, by_x, by_yy, by_xy, by_xx = self.coefficients
        along_y = (constant + by_y * y + by_yy * y**2).astype(np.float32)
        along_x = (by_x * x + by_xx * x**2).astype(np.float32)
        return np.asarray(along_y + along_x + (by_xy * y).astype(np.float32) * x.astype(np.float32))


def _fit_surface(pixels: NDArray[np.float32]) -> _Surface:
    height, width = pixels.shape
    stride = _stride(pixels)
    sampled = pixels[::stride, ::stride]
    rows, columns = (_blocks(side) for side in sampled.shape)  # (n, tall), (m, wide)
    blocks = sampled[rows[:, None, :, None], columns[None, :, None, :]]  # (n, m, tall, wide)
    medians = np.median(blocks.reshape(len(rows) * len(columns), -1), axis=1)
    y = np.repeat(rows.mean(axis=1) * stride / height * 2 - 1, len(columns))
    x = np.tile(columns.mean(axis=1) * stride / width * 2 - 1, len(rows))
    terms = np.stack([np.ones_like(y), y, x, y**2, x * y, x**2], axis=1)
    coefficients = np.zeros(terms.shape[1], dtype=np.float32)
    if len(medians) < 2 * terms.shape[1]:
        coefficients[0] = np.median(sampled)
    else:
        coefficients[:] = _fit_robustly(terms, medians.astype(np.float64))
    return _Surface((height, width), coefficients)


def _blocks(side: int) -> NDArray[np.int64]:
    """Indices (n, length) of equally long blocks that cover 0 … side − 1, overlapping where they must."""
    n = min(SURFACE_BLOCKS, max(side // 8, 1))
    length = -(-side // n)
    starts = np.rint(np.linspace(0, side - length, n)).astype(np.int64)
    return starts[:, None] + np.arange(length)


def _fit_robustly(terms: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.ones(len(values))
    coefficients: NDArray[Any] = np.zeros(terms.shape[1])
    for _ in range(10):
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(terms * root[:, None], values * root, rcond=None)[0]
        residuals = values - terms @ coefficients
        sigma = MAD_TO_SIGMA * np.median(np.abs(residuals))
        if sigma <= 1e-7 * np.abs(values).max():
            break
        weights = np.clip(1 - (residuals / (BISQUARE * sigma)) ** 2, 1e-6, None) ** 2
    return np.asarray(coefficients)


def _stride(pixels: NDArray[Any]) -> int:
    return max(1, math.isqrt(pixels.size // MAX_SAMPLES))


def _sample(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every so many-th pixel; enough for a median, at a fraction of its time."""
    stride = _stride(pixels)
    return pixels[::stride, ::stride]


def scaled_shape(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Size of an image of ``shape`` after `rescale`: whole pixels that fit, at least one."""
    height, width = (max(1, math.floor(n * scale + 1e-6)) for n in shape)
    return height, width


def fit_scale(shape: tuple[int, int], size: int) -> float:
    """The scale at which the longer side of ``shape`` is ``size`` px."""
    return size / max(shape)


def rescale(image: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Resample (h, w) to (floor(h * scale), floor(w * scale)), antialiased, at exactly this scale.

    A point (y, x) of ``image`` comes to lie at (y + 0.5) * scale - 0.5, and x likewise; what does
    not fill a whole pixel at the lower and the right edge is cut off.
    """
    if scale == 1:
        return image
    height, width = scaled_shape((image.shape[0], image.shape[1]), scale)
    box = (0.0, 0.0, min(width / scale, image.shape[1]), min(height / scale, image.shape[0]))
    source = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(source.resize((width, height), Image.Resampling.BICUBIC, box=box))


def rescale_mask(mask: NDArray[np.bool_], shape: tuple[int, int], scale: float) -> NDArray[np.uint8]:
    """Bring a mask to the scale of `rescale`: 1 where at least half of a pixel is covered.

    Args:
        mask: (h, w) of the micrograph, or of a reduced version of it.
        shape: (height, width) of the micrograph in recorded pixels.
        scale: image pixels per recorded pixel.

    """
    height, width = scaled_shape(shape, scale)
    per_pixel = (mask.shape[0] / shape[0], mask.shape[1] / shape[1])
    right, lower = width / scale * per_pixel[1], height / scale * per_pixel[0]
    box = (0.0, 0.0, min(right, mask.shape[1]), min(lower, mask.shape[0]))
    shrinks = width < box[2]
    source = Image.fromarray(mask.astype(np.float32))
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return (np.asarray(source.resize((width, height), method, box=box)) >= 0.5).astype(np.uint8)


def draw_mask(
    shape: tuple[int, int], centers_yx: NDArray[np.float64], diameters: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Draw discs: 1 where a pixel's center is at most half a diameter from a particle's center.

    Args:
        shape: (h, w) of the mask.
        centers_yx: (n, 2) in px; discs may stick out.
        diameters: (n,) in px.

    Returns:
        (h, w) of 0 and 1.

    """
    mask = np.zeros(shape, dtype=np.uint8)
    for (y, x), radius in zip(centers_yx.tolist(), (np.asarray(diameters) / 2).tolist(), strict=True):
        top, bottom = max(0, math.ceil(y - radius)), min(shape[0] - 1, math.floor(y + radius))
        left, right = max(0, math.ceil(x - radius)), min(shape[1] - 1, math.floor(x + radius))
        if top > bottom or left > right:
            continue
        down = (np.arange(top, bottom + 1) - y) ** 2
        across = (np.arange(left, right + 1) - x) ** 2
        mask[top : bottom + 1, left : right + 1] |= down[:, None] + across[None, :] <= radius**2
    return mask


def apart(centers: NDArray[np.float64], heights: NDArray[np.float64], distance: float) -> NDArray[np.int64]:
    """Rows that stay, best first, when of two centers closer than ``distance`` the higher one stays."""
    neighbors = KDTree(centers).query_ball_point(centers, distance)
    dropped = np.zeros(len(centers), dtype=bool)
    kept = []
    for row in np.argsort(-heights, kind="stable"):
        if not dropped[row]:
            kept.append(row)
            dropped[neighbors[row]] = True
    return np.array(kept, dtype=np.int64)
