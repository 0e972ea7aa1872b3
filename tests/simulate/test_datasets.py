from __future__ import annotations

import math
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from cryoquery.data.source import SourceMicrograph
from cryoquery.errors import ConfigError
from cryoquery.simulate import PROTEINS, Junk, Protein, SimulationConfig, simulate_micrographs
from cryoquery.simulate.config import Shape
from cryoquery.simulate.micrograph import detect
from cryoquery.simulate.scene import assign_proteins, draw_scene, smooth_basis, thin_out
from cryoquery.simulate.specimen import ICE

TINY = {"name": "tiny", "shape": "blob", "length_angstrom": 40, "mass_kda": 20}
NO_JUNK = Junk(crystals=0, aggregates=0, fragments=0, carbon=0, hot_pixels=0)


def small(**changes: object) -> SimulationConfig:
    defaults: dict[str, object] = {"n_micrographs": 6, "height_px": 192, "width_px": 256, "seed": 3}
    return SimulationConfig(**(defaults | changes))  # type: ignore[arg-type]


@cache
def of_protein(name: str) -> list[tuple[SourceMicrograph, NDArray[np.float32]]]:
    config = small(
        proteins=(name,), n_micrographs=8, height_px=320, width_px=256, junk=NO_JUNK, empty=0, ice_variation=0
    )
    return [(source, source.read()) for source in simulate_micrographs(config)]


def contrast_at(image: NDArray[np.float32], points: NDArray[np.float64], diameter: float) -> float:
    """Surround minus center in units of the noise; positive where the points are dark."""
    distance, _ = cKDTree(points).query(np.moveaxis(np.indices(image.shape), 0, -1))
    inner = distance < 0.45 * diameter
    outer = (distance < 1.2 * diameter) & ~inner
    return float((image[outer].mean() - image[inner].mean()) / np.diff(image).std())


# Determinism


def test_same_seed_gives_the_same_micrographs_in_any_order_and_thread() -> None:
    config = small()
    forward = [source.read() for source in simulate_micrographs(config)]
    backward = [source.read() for source in reversed(simulate_micrographs(config))][::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda source: source.read(), simulate_micrographs(config)))
    for a, b, c in zip(forward, backward, threaded, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_reading_twice_gives_the_same_pixels_and_survives_pickling() -> None:
    source = simulate_micrographs(small())[1]
    np.testing.assert_array_equal(source.read(), source.read())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(), source.read())


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    short, long = (simulate_micrographs(small(n_micrographs=n)) for n in (5, 30))
    for a, b in zip(short, long, strict=False):
        assert a.name == b.name
        np.testing.assert_array_equal(a.particles, b.particles)
    np.testing.assert_array_equal(short[4].read(), long[4].read())


def test_another_seed_gives_other_particles_and_other_noise() -> None:
    a, b = (simulate_micrographs(small(seed=seed))[0] for seed in (0, 1))
    assert not np.array_equal(a.particles, b.particles)
    assert abs(np.corrcoef(a.read().ravel(), b.read().ravel())[0, 1]) < 0.5


# What is in the micrographs


def test_sources_say_what_they_are_without_rendering() -> None:
    for source in simulate_micrographs(small(pixel_size=7.0)):
        assert source.group in PROTEINS
        assert source.name.startswith(source.group)
        assert source.pixel_size == 7.0
        assert source.read_mask is None
        image = source.read()
        assert image.shape == source.shape == (192, 256)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()


def test_particles_lie_inside_and_state_the_greatest_extent() -> None:
    for source in simulate_micrographs(small(n_micrographs=40)):
        assert source.particles.shape[1] == 3
        y, x, diameter = source.particles.T
        assert ((y >= 0) & (y <= 191) & (x >= 0) & (x <= 255)).all()
        np.testing.assert_allclose(diameter, PROTEINS[source.group].length_angstrom / 6.0)


@pytest.mark.parametrize("name", PROTEINS)
def test_particles_are_dark_where_the_labels_are_and_nowhere_flipped(name: str) -> None:
    contrasts = np.zeros(5)
    for source, image in of_protein(name):
        if len(source.particles) < 3:
            continue
        height, width = image.shape
        y, x, diameter = source.particles.T
        places = ((y, x), (height - 1 - y, x), (y, width - 1 - x), (height - 1 - y, width - 1 - x), (x, y))
        contrasts += [contrast_at(image, np.stack(place, axis=1), diameter[0]) for place in places]
    assert contrasts[0] > 0
    assert contrasts[0] > 3 * np.abs(contrasts[1:]).max()


def test_some_proteins_are_far_noisier_than_others() -> None:
    strength = {
        name: np.mean([contrast_at(i, s.particles[:, :2], s.particles[0, 2]) for s, i in of_protein(name)
                       if len(s.particles) > 2])
        for name in ("ribosome", "chaperonin")
    }  # fmt: skip
    assert strength["ribosome"] > 2 * strength["chaperonin"]


@pytest.mark.realdata
def test_contrast_is_that_of_real_apoferritin(real_data: Path) -> None:
    stem = "May08_03.13.02.bin_avg"
    image = Image.open(real_data / "empiar_10146" / "micrographs" / f"{stem}.png")
    table = np.genfromtxt(
        real_data / "empiar_10146" / "coordinates" / f"{stem}.csv", delimiter=",", skip_header=1
    )
    pixels = np.asarray(image).astype(np.float32)
    small_size = (image.width // 4, image.height // 4)
    scaled = np.asarray(Image.fromarray(pixels).resize(small_size, Image.Resampling.BOX))
    diameter = PROTEINS["apoferritin"].length_angstrom / 6.0
    real = contrast_at(scaled, table[:, 1::-1] / 4, diameter)
    made = np.mean([contrast_at(i, s.particles[:, :2], diameter) for s, i in of_protein("apoferritin")])
    assert 0.5 < made / real < 2


def test_proteins_appear_by_their_shares_at_every_length() -> None:
    config = small(n_micrographs=100)
    names = [protein.name for protein in assign_proteins(config)]
    for n in (10, 50, 100):
        counts = Counter(names[:n])
        for name, protein in PROTEINS.items():
            assert abs(counts[name] - n * protein.share) <= 1
    assert Counter(names) == {name: round(100 * protein.share) for name, protein in PROTEINS.items()}


def test_coverage_sets_the_number_of_particles() -> None:
    protein = Protein(
        name="p", shape="blob", length_angstrom=120, mass_kda=500, coverage=0.2, min_distance=0.5
    )
    config = small(proteins=(protein,), n_micrographs=60, junk=NO_JUNK, empty=0)
    counts = [len(source.particles) for source in simulate_micrographs(config)]
    expected = 0.2 * 192 * 256 / (math.pi / 4 * 20**2)
    assert np.mean(counts) == pytest.approx(expected, rel=0.2)
    assert np.std(counts) / np.mean(counts) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("min_distance", [0.4, 1.0])
def test_particles_keep_their_distance_and_no_more(min_distance: float) -> None:
    protein = Protein(
        name="p", shape="shell", length_angstrom=120, mass_kda=400, coverage=0.3, min_distance=min_distance
    )
    sources = simulate_micrographs(small(proteins=(protein,), n_micrographs=10, empty=0))
    closest = min(pdist(source.particles[:, :2]).min() for source in sources if len(source.particles) > 1)
    assert min_distance <= closest / 20 < 1.3 * min_distance


def test_empty_micrographs_have_no_particles() -> None:
    assert all(len(source.particles) == 0 for source in simulate_micrographs(small(empty=1.0)))
    counts = [len(source.particles) for source in simulate_micrographs(small(n_micrographs=200, empty=0.2))]
    assert 20 <= counts.count(0) <= 65


def test_carbon_is_darker_and_rougher_and_carries_no_particle() -> None:
    config = small(
        n_micrographs=8, junk=NO_JUNK.model_copy(update={"carbon": 1.0}), proteins=("apoferritin",)
    )
    y, x = np.mgrid[:192, :256]
    for source, protein in zip(simulate_micrographs(config), assign_proteins(config), strict=True):
        scene = draw_scene(config, int(source.name.split("_")[-1]), protein)
        assert scene.carbon is not None
        cy, cx = scene.carbon.hole_center
        beyond = np.hypot(y - cy, x - cx) - scene.carbon.hole_radius_px
        film, hole = beyond > 6, beyond < -6
        assert 0.01 < film.mean() < 0.5
        image = source.read()
        assert image[film].mean() < 0.97 * image[hole].mean()
        radius = source.particles[:, 2] / 2
        distance = np.hypot(source.particles[:, 0] - cy, source.particles[:, 1] - cx)
        assert (distance + radius <= scene.carbon.hole_radius_px).all()


def test_crystals_and_aggregates_are_dark_and_unlabeled() -> None:
    config = small(n_micrographs=12, junk=NO_JUNK.model_copy(update={"crystals": 3.0, "aggregates": 1.0}))
    y, x = np.mgrid[:192, :256]
    darker = []
    for index, (source, protein) in enumerate(
        zip(simulate_micrographs(config), assign_proteins(config), strict=True)
    ):
        scene = draw_scene(config, index, protein)
        image = source.read()
        for crystal in scene.crystals:
            distance = np.hypot(y - crystal.center[0], x - crystal.center[1])
            if (core := distance < crystal.radius_px / 2).sum() > 50:
                darker.append(image[core].mean() < np.median(image))
            gaps = np.hypot(*(source.particles[:, :2] - crystal.center).T)
            assert (gaps > crystal.radius_px).all()
        assert len(scene.aggregates.centers) == len(scene.aggregates.quaternions)
    assert len(darker) > 10
    assert np.mean(darker) > 0.95


# Camera and layout


def test_shot_noise_has_the_stated_dose() -> None:
    protein = Protein(
        name="none", shape="blob", length_angstrom=120, mass_kda=100, coverage=0, dose=15, ice_angstrom=0
    )
    config = small(proteins=(protein,), junk=NO_JUNK, detector_blur_px=0, pixel_size=5.0)
    image = simulate_micrographs(config)[0].read()
    assert image.mean() == pytest.approx(15 * 25, rel=0.005)
    assert image.var() == pytest.approx(15 * 25, rel=0.03)


def test_ice_takes_electrons_away() -> None:
    def mean(ice: float) -> float:
        protein = Protein(
            name="none", shape="blob", length_angstrom=120, mass_kda=100, coverage=0, ice_angstrom=ice
        )
        config = small(proteins=(protein,), junk=NO_JUNK, ice_variation=0)
        return float(simulate_micrographs(config)[0].read().mean())

    assert mean(600) / mean(0) == pytest.approx(math.exp(-600 / ICE.mean_free_path_angstrom), rel=0.01)


def test_detector_blur_keeps_the_mean_and_hot_pixels_are_few() -> None:
    expected = np.full((128, 128), 100.0, dtype=np.float32)
    blurred = detect(expected, np.random.default_rng(0), blur_px=0.6)
    assert blurred.mean() == pytest.approx(100, rel=0.005)
    assert blurred.var() < 80
    hot = detect(expected, np.random.default_rng(0), n_hot=5)
    changed = hot != detect(expected, np.random.default_rng(0))
    assert 0 < changed.sum() < 20
    assert hot.max() <= 500


def test_thinning_keeps_the_earlier_of_two_close_points() -> None:
    points = np.array([[0.0, 0.0], [0.5, 0.0], [1.2, 0.0], [9.0, 9.0]])
    np.testing.assert_array_equal(thin_out(points, 1.0), points[[0, 2, 3]])
    assert thin_out(points[:1], 1.0).shape == (1, 2)
    assert thin_out(points[:0], 1.0).shape == (0, 2)


def test_smooth_fields_have_unit_variance() -> None:
    basis = smooth_basis(np.linspace(0, 99, 100), 0, 99, 5)
    np.testing.assert_allclose((basis**2).sum(axis=1), 1, rtol=1e-5)


# Configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proteins": ("hemoglobin",)}, "hemoglobin.*not one of apoferritin"),
        ({"proteins": ()}, "at least 1"),
        ({"proteins": ("rod", "rod")}, "'rod' stands there twice"),
        ({"defocus_um": (3.0, 1.0)}, "must rise"),
        ({"defocus_um": (-2.0, -1.0)}, "must rise"),
        ({"amplitude_contrast": 1.0}, "less than 1"),
        ({"n_micrographs": 0}, "greater than or equal to 1"),
        ({"pixel_size": float("nan")}, "finite"),
        ({"pixel_size": 20.0, "proteins": (TINY,)}, "tiny would be 2 px"),
        ({"height_px": 64, "width_px": 64}, "ribosome would be"),
        ({"sneed": 1}, "unknown key"),
        ({"junk": {"crystal": 1}}, "unknown key"),
        ({"empty": 1.5}, "less than or equal to 1"),
    ],
)  # fmt: skip
def test_bad_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimulationConfig(**changes)  # type: ignore[arg-type]


def test_coverage_that_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ConfigError, match="use at most 0"):
        Protein(name="p", shape="blob", length_angstrom=100, mass_kda=100, coverage=0.6, min_distance=1.0)
    with pytest.raises(ConfigError, match="must not exceed"):
        Protein(name="p", shape="rod", length_angstrom=100, width_angstrom=200, mass_kda=100)


def test_config_takes_names_and_tables_and_round_trips() -> None:
    table = {"name": "mine", "shape": "lobes", "length_angstrom": 120, "mass_kda": 200}
    config = SimulationConfig(proteins=("rod", table))  # type: ignore[arg-type]
    assert config.proteins[0] == PROTEINS["rod"]
    assert config.proteins[1].width == 60
    assert SimulationConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("shape", ["shell", "barrel", "rod", "lobes", "blob"])
@pytest.mark.parametrize("mass", [6.0, 300.0])
def test_every_shape_renders(shape: Shape, mass: float) -> None:
    protein = Protein(name="p", shape=shape, length_angstrom=110, mass_kda=mass, coverage=0.1)
    source = simulate_micrographs(small(proteins=(protein,), n_micrographs=1))[0]
    assert np.isfinite(source.read()).all()


# Near-duplicates


def test_further_exposures_show_the_same_place_with_other_noise_a_little_displaced() -> None:
    once = simulate_micrographs(small(n_micrographs=2))
    config = small(n_micrographs=6, exposures=3, displacement_angstrom=12, pixel_size=6)
    first, second, *_, other = simulate_micrographs(config)
    assert first.read().tobytes() == once[0].read().tobytes()
    assert first.field_of_view == second.field_of_view != other.field_of_view
    assert len({source.name for source in simulate_micrographs(config)}) == 6

    far_from_edge = [p for p in first.particles if 8 < p[0] < 184 and 8 < p[1] < 248]
    shift, _ = cKDTree(second.particles[:, :2]).query([p[:2] for p in far_from_edge])
    assert len(far_from_edge) > 3
    assert np.allclose(shift, shift[0])  # all by the same
    assert 0 < shift[0] <= 2 * math.sqrt(2)
    noise = np.corrcoef(first.read().ravel(), second.read().ravel())[0, 1]
    assert 0 < noise < 0.9


def test_the_number_of_micrographs_cuts_the_exposures_of_the_last_scene_short() -> None:
    views = [source.field_of_view for source in simulate_micrographs(small(n_micrographs=5, exposures=3))]
    assert list(Counter(views).values()) == [3, 2]
