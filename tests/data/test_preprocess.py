from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryoquery.data import preprocess
from cryoquery.data.preprocess import (
    draw_mask,
    fit_background,
    fit_scale,
    normalize,
    remove_hot_pixels,
    rescale,
    rescale_mask,
    scaled_shape,
)
from cryoquery.errors import DataError
from cryoquery.formats.placement import to_scaled


def micrograph(seed: int = 0, shape: tuple[int, int] = (300, 260)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    discs = draw_mask(shape, rng.uniform(0, shape, (40, 2)), np.full(40, 24.0))
    return (rng.normal(100, 10, shape) - 6.0 * discs).astype(np.float32)


def test_normalized_contrast_is_one_at_every_scale() -> None:
    for scale in (1.0, 0.5, 0.2):
        image = normalize(micrograph(), scale).image
        assert image.dtype == np.float32
        assert abs(np.median(image)) < 1e-3
        assert 1.4826 * np.median(np.abs(image)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("gain", "offset"), [(3.0, 5000.0), (0.001, 0.0), (100.0, -1e4)])
def test_gain_and_offset_do_not_matter(gain: float, offset: float) -> None:
    pixels = micrograph()
    plain, changed = normalize(pixels, 0.5), normalize(gain * pixels + offset, 0.5)
    np.testing.assert_allclose(changed.image, plain.image, atol=0.01)
    assert changed.spread == pytest.approx(gain * plain.spread, rel=1e-3)
    assert changed.center == pytest.approx(gain * plain.center + offset, rel=1e-3)


def test_an_ice_gradient_is_removed() -> None:
    pixels = micrograph()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]] / 300
    gradient = 80 * y - 50 * x + 60 * (y - 0.4) ** 2 - 40 * x * y
    difference = normalize(pixels + gradient.astype(np.float32)).image - normalize(pixels).image
    assert np.abs(difference).max() < 0.05


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_hot_pixels_are_removed_before_averaging(scale: float) -> None:
    pixels = micrograph()
    hot = pixels.copy()
    at = np.random.default_rng(1).integers(0, pixels.size, pixels.size // 1000)
    hot.flat[at] += 5000
    plain, cleaned = normalize(pixels, scale), normalize(hot, scale)
    assert np.abs(cleaned.image - plain.image).max() < 4.5 * (1 if scale == 1 else 0.2)
    assert np.abs(cleaned.image - plain.image).mean() < 0.02
    assert cleaned.spread == pytest.approx(plain.spread, rel=0.01)


def test_large_dark_areas_are_not_hot_pixels() -> None:
    pixels = micrograph()
    pixels[:60, :60] -= 300
    assert np.array_equal(remove_hot_pixels(pixels)[5:50, 5:50], pixels[5:50, 5:50])


def test_a_carbon_corner_does_not_tilt_the_background() -> None:
    pixels = micrograph()
    carbon = pixels.copy()
    carbon[:60, :60] -= 100
    tilt = fit_background(carbon) - fit_background(pixels)
    assert np.abs(tilt[80:, 80:]).max() < 0.5, "carbon is 100 darker, noise is 10"


def test_quantized_and_tiny_images() -> None:
    mostly_equal = np.zeros((64, 64), np.float32)
    mostly_equal[::4, ::4] = 1
    assert np.isfinite(normalize(mostly_equal).image).all()
    assert normalize(np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)).image.shape == (2, 2)
    with pytest.raises(DataError, match="constant"):
        normalize(np.full((32, 32), 3.0, np.float32))


@given(st.integers(5, 90), st.integers(5, 90), st.floats(0.11, 1.4))
def test_rescaling_keeps_points_where_they_belong(height: int, width: int, scale: float) -> None:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shape = scaled_shape((height, width), scale)
    assert shape == (max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6)))
    rows, columns = rescale(y, scale), rescale(x, scale)
    assert rows.shape == shape
    reach = int(np.ceil(3 * max(scale, 1)))
    inner = np.s_[reach:-reach, reach:-reach]
    expected = np.mgrid[: shape[0], : shape[1]]
    np.testing.assert_allclose(to_scaled(rows[inner], scale), expected[0][inner], atol=0.05)
    np.testing.assert_allclose(to_scaled(columns[inner], scale), expected[1][inner], atol=0.05)


def test_fit_scale_fills_the_size_exactly() -> None:
    for longer in (4096, 1240, 5760, 7676, 11520, 767):
        scale = fit_scale((longer, longer - 13), 768)
        assert scaled_shape((longer, longer - 13), scale)[0] == 768


@given(st.integers(0, 10_000))
def test_discs_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centers, diameters = rng.uniform(-8, 48, (6, 2)), rng.uniform(1, 25, 6)
    y, x = np.mgrid[:37, :43]
    expected = np.zeros((37, 43), bool)
    for (cy, cx), diameter in zip(centers, diameters, strict=True):
        expected |= (y - cy) ** 2 + (x - cx) ** 2 <= (diameter / 2) ** 2
    mask = draw_mask((37, 43), centers, diameters)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, expected)
    assert not draw_mask((4, 4), np.empty((0, 2)), np.empty(0)).any()


@pytest.mark.parametrize("reduction", [1, 4])
def test_a_mask_at_another_size_lands_where_discs_would(reduction: int) -> None:
    shape, scale = (400, 320), 0.3
    centers = np.array([[100.0, 90.0], [260.0, 200.0], [390.0, 310.0]])
    per_pixel = 1 / reduction
    given_mask = draw_mask(
        (shape[0] // reduction, shape[1] // reduction),
        to_scaled(centers, per_pixel),
        np.full(3, 60.0 * per_pixel),
    )
    mask = rescale_mask(given_mask.astype(bool), shape, scale)
    discs = draw_mask(scaled_shape(shape, scale), to_scaled(centers, scale), np.full(3, 60 * scale))
    assert mask.shape == discs.shape
    overlap = 2 * np.sum(mask & discs) / (mask.sum() + discs.sum())
    assert overlap > 0.95


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot pixels are the same however much of a micrograph is looked at in one go; also at its edges."""
    rng = np.random.default_rng(5)
    pixels = rng.normal(0, 1, (90, 70)).astype(np.float32)
    pixels.flat[rng.integers(0, pixels.size, 60)] = 40
    whole = remove_hot_pixels(pixels)
    assert (whole != pixels).sum() > 50
    for n_pixels in (1, 70, 700):
        monkeypatch.setattr(preprocess, "STRIP_PIXELS", n_pixels)
        assert np.array_equal(remove_hot_pixels(pixels), whole)
