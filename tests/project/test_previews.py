from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from project_micrographs import DIAMETER_PX, SHAPE, make_project, particles

from cryoquery.errors import ProjectError
from cryoquery.formats import write_micrograph
from cryoquery.project import copies, previews
from cryoquery.project.folder import Project, open_project
from cryoquery.project.new_project import InitOptions, init_project


def pixels(jpeg: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg))
    assert (image.format, image.mode) == ("JPEG", "L")
    return np.asarray(image).astype(float)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("previews"), 3)


@pytest.mark.parametrize("side", [110, 220, 4096])
def test_particles_are_dark_and_lie_where_they_lie(project: Project, side: int) -> None:
    for item in project.items:
        image = pixels(previews.picture(project, item.number, side, previews.default_lowpass(project)))
        height, width = image.shape
        assert (height, width) == (round(SHAPE[0] * min(1, side / 220)), min(side, 220))
        number = int(item.micrograph.removeprefix("mic_"))
        centers = (particles(number) + 0.5) * [height / SHAPE[0], width / SHAPE[1]] - 0.5
        at = np.rint(centers).astype(int)
        assert image[at[:, 0], at[:, 1]].mean() < np.median(image) - 40


def test_a_point_stays_where_it_is_to_a_fraction_of_a_pixel(tmp_path: Path) -> None:
    """Also where the reduced copy has not a whole number of pixels."""
    shape, dots = (1031, 2777), np.array([[160, 170], [880, 2600], [500, 1400]])
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.random.default_rng(0).normal(0, 0.1, shape)
    for cy, cx in dots:
        image -= 30 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 30.0**2))
    (tmp_path / "data").mkdir()
    for i in range(2):
        write_micrograph(tmp_path / "data" / f"m{i}.mrc", image.astype(np.float32))
    made = init_project(
        tmp_path / "p", [tmp_path / "data"], InitOptions(diameter_px=60.0, start="random")
    ).project
    for side in (701, 2048):
        shown = 255 - pixels(previews.picture(made, 0, side, None))
        per_px = np.array(shown.shape) / shape
        for dot in dots:
            top, left = np.rint((dot + 0.5) * per_px - 0.5 - 120 * per_px).astype(int)
            size = np.ceil(240 * per_px).astype(int)
            part = shown[top : top + size[0], left : left + size[1]]
            weights = np.clip(part - np.median(shown) - 40, 0, None)
            found = np.array(
                [
                    (weights.sum(axis=1) * np.arange(part.shape[0])).sum() + weights.sum() * top,
                    (weights.sum(axis=0) * np.arange(part.shape[1])).sum() + weights.sum() * left,
                ]
            )
            original = (found / weights.sum() + 0.5) / per_px - 0.5
            np.testing.assert_allclose(original, dot, atol=0.5)


def test_the_low_pass_halves_the_amplitude_of_its_own_period() -> None:
    period = 16.0
    wave = np.cos(2 * np.pi * np.arange(256) / period)[None, :].repeat(256, axis=0).astype(np.float32)
    passed = previews._lowpassed(wave, period)
    assert passed[64:192, 64:192].std() / wave[64:192, 64:192].std() == pytest.approx(0.5, abs=0.01)


def test_the_cache_gives_the_same_picture_and_may_be_deleted(project: Project) -> None:
    first = previews.picture(project, 1, 200, 8.0)
    cached = list(project.previews_path.iterdir())
    assert cached
    assert previews.picture(project, 1, 200, 8.0) == first
    for file in cached:
        file.write_bytes(b"damaged")
    assert previews.picture(project, 1, 200, 8.0) == first
    for file in project.previews_path.iterdir():
        file.unlink()
    project.previews_path.rmdir()
    assert previews.picture(project, 1, 200, 8.0) == first


def test_the_cache_serves_where_the_micrographs_are_gone(tmp_path: Path) -> None:
    project = make_project(tmp_path, 2)
    first = previews.picture(project, 0, 200)
    (tmp_path / "data").rename(tmp_path / "gone")
    assert previews.picture(open_project(project.path), 0, 200) == first
    with pytest.raises(ProjectError, match="micrographs_folder"):
        previews.picture(project, 1, 200)


def test_the_cache_is_bounded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for item in project.items:
        previews.picture(project, item.number, 200)
    sizes = {file: file.stat().st_size for file in project.previews_path.iterdir()}
    for age, number in enumerate((1, 0, 2)):
        os.utime(project.previews_path / f"{number}_{max(SHAPE)}.npy", (1e9 - age, 1e9 - age))
    monkeypatch.setattr(copies, "CACHE_BYTES", 2 * max(sizes.values()))
    (project.previews_path / f"1_{max(SHAPE)}.npy").unlink()
    previews.picture(project, 1, 200)
    left = {file.name.split("_")[0] for file in project.previews_path.iterdir()}
    assert left == {"0", "1"}


def test_fields_are_shown_with_their_surroundings(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (600, 520))
    squares = 40 * ((np.arange(600)[:, None] // 50 + np.arange(520)[None, :] // 50) % 2)
    (tmp_path / "data").mkdir()
    for i in range(2):
        write_micrograph(tmp_path / "data" / f"m{i}.mrc", (noise + squares).astype(np.float32))
    options = InitOptions(diameter_px=24.0, start="random", unit="field")
    project = init_project(tmp_path / "p", [tmp_path / "data"], options).project
    for item in project.items_of["m0"]:
        assert item.region is not None
        top, left, height, width = item.region
        bottom, right = min(top + height + 24, 600), min(left + width + 24, 520)
        top, left = max(top - 24, 0), max(left - 24, 0)
        assert previews.shown_region(project, item.number) == (top, left, bottom - top, right - left)
        shown = pixels(previews.picture(project, item.number, 1024))
        expected = squares[top:bottom, left:right]
        assert shown.shape == expected.shape
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.95
        assert max(pixels(previews.thumbnail(project, item.number).read_bytes()).shape) <= 320


def test_what_is_offered_is_sorted_and_shows_particles(project: Project) -> None:
    values = previews.lowpass_values(project)
    assert previews.lowpass_unit(project) == "Å"
    assert values == sorted(values)
    assert 4.0 <= values[0] <= values[-1] <= DIAMETER_PX * 2.0 / 2
    assert previews.default_lowpass(project) in values
    assert previews.levels(project, 0) == [220]


def test_impossible_requests_are_refused(project: Project) -> None:
    for item, side, lowpass in (
        (9, 200, None),
        (-1, 200, None),
        (0, 3, None),
        (0, 10**6, None),
        (0, 200, -1.0),
    ):
        with pytest.raises(ProjectError):
            previews.picture(project, item, side, lowpass)
    with pytest.raises(ProjectError):
        previews.thumbnail(project, 3)


def test_ice_does_not_take_the_contrast_from_particles(project: Project) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (300, 300)).astype(np.float32)
    with_ice = noise.copy()
    with_ice[:60, :60] -= 40
    clean, other = (pixels(previews._jpeg(image, 95))[100:] for image in (noise, with_ice))
    assert other.std() > 0.6 * clean.std()


def test_tiles_make_up_the_micrograph_in_one_contrast(tmp_path: Path) -> None:
    shape = (1500, 4200)
    image = np.random.default_rng(0).normal(0, 1, shape) + np.cos(np.arange(4200) / 90)
    (tmp_path / "data").mkdir()
    write_micrograph(tmp_path / "data" / "m0.mrc", image.astype(np.float32))
    write_micrograph(tmp_path / "data" / "m1.mrc", image[:900, :1000].astype(np.float32))
    made = init_project(tmp_path / "p", [tmp_path / "data"], InitOptions(diameter_px=60.0)).project
    large = next(item.number for item in made.items if item.micrograph == "m0")
    assert previews.levels(made, large) == [512, 1024, 2048]
    assert previews.tile_factors(made, large) == [1, 2]
    assert previews.tile_factors(made, 1 - large) == []
    for factor in (1, 2):
        n_rows, n_columns = (-(-n // (factor * previews.TILE)) for n in shape)
        rows = [
            [pixels(previews.tile(made, large, factor, (row, column), 15.0)) for column in range(n_columns)]
            for row in range(n_rows)
        ]
        whole = np.block(rows)
        assert whole.shape == (shape[0] // factor, shape[1] // factor)
        expected = pixels(previews.picture(made, large, max(whole.shape), 15.0))
        assert np.abs(whole - expected).mean() < 6
    for factor, place in ((3, (0, 0)), (1, (3, 0)), (1, (0, -1))):
        with pytest.raises(ProjectError):
            previews.tile(made, large, factor, place)


def test_cutouts_have_their_particle_in_the_middle(project: Project) -> None:
    (item,) = project.items_of["mic_01"]
    centers = np.vstack([particles(1), [[0.0, 0.0]]])
    strip = pixels(previews.cutouts(project, item.number, centers, 8.0))
    side = previews.CUTOUT
    assert strip.shape == (side, side * len(centers))
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(rows, columns) < 0.8 * side / 2 / previews.CUTOUT_DIAMETERS
    for cut in np.split(strip, len(centers), axis=1)[:-1]:
        assert cut[inside].mean() < cut[~inside].mean() - 20
