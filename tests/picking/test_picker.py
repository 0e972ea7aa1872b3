from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import disc_mask
from scipy.ndimage import zoom

from cryoquery import pick_particles
from cryoquery.data.build import BuildConfig, build_dataset
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.data.source import SourceMicrograph
from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import concatenate, read_coordinates, write_micrograph
from cryoquery.formats.lengths import parse_length
from cryoquery.network.checkpoint import load_model, save_model
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig
from cryoquery.network.predict import Predictor
from cryoquery.network.train import fit
from cryoquery.picking.batch import check_target, pick_micrographs
from cryoquery.picking.calibration import Calibration
from cryoquery.picking.metrics import match_particles
from cryoquery.picking.picker import Picker, PickOptions, load_picker, pick_file
from cryoquery.picking.threshold import picking_recipe

MODEL = ModelConfig(base_channels=4)
CPU = DeviceConfig(accelerator="cpu", precision="32-true")
DIAMETER = 16.0
"""Of the particles in the micrographs that are picked; twice that of the training images."""


def draw(
    centers: np.ndarray, shape: tuple[int, int] = (150, 210), diameter: float = DIAMETER, seed: int = 0
) -> np.ndarray:
    """A micrograph with dark discs, noisy as those of the training once it is reduced."""
    factor = diameter / 8
    coarse = np.random.default_rng(seed).normal(0, 0.7, [int(n / factor) + 2 for n in shape])
    noise = zoom(coarse, factor, order=1)[: shape[0], : shape[1]]
    return (1000 + 50 * (noise - 2.0 * disc_mask(shape, centers, diameter))).astype(np.float32)


def scattered(n: int, shape: tuple[int, int], seed: int, gap: float = 1.3 * DIAMETER) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kept: list[np.ndarray] = []
    while len(kept) < n:
        point = rng.uniform(DIAMETER, np.array(shape) - DIAMETER)
        if all(np.linalg.norm(point - other) > gap for other in kept):
            kept.append(point)
    return np.array(kept)


def source(i: int) -> SourceMicrograph:
    centers = scattered(12, (128, 128), 100 + i, gap=(0.9 + 0.1 * (i % 3)) * DIAMETER)
    return SourceMicrograph(
        name=f"s{i}", group="discs", shape=(128, 128), read=lambda: draw(centers, (128, 128), seed=i),
        particles=np.column_stack([centers, np.full(len(centers), DIAMETER)]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learned dark discs at 8 px, saved as the loop saves it."""
    folder = tmp_path_factory.mktemp("model")
    dataset = build_dataset(
        [source(i) for i in range(16)],
        folder / "discs",
        BuildConfig(field=64, particle_px=8, disc_fraction=0.7),
    )
    fabric = CPU.fabric()
    indices = dataset.rows("train")
    labeled = LabeledImages(Pool.of(dataset), indices, lambda rows: dataset.masks[rows])
    network = fit(
        Training(
            initial_weights(MODEL, 0),
            MODEL,
            labeled,
            TrainingConfig(initial_epochs=70, batch_size=4),
            True,
            0,
        ),
        fabric,
    )
    recipe = picking_recipe(Predictor(network, fabric), dataset, indices, ("test",))
    save_model(folder / "model.pt", network, MODEL, {"seed": 0}, recipe.model_dump(mode="json"))
    return folder / "model.pt"


@pytest.fixture(scope="module")
def picker(model: Path) -> Picker:
    return load_picker(model, CPU)


def test_particles_are_found_at_their_own_scale(picker: Picker) -> None:
    truth = scattered(20, (150, 210), 1)
    for diameter, shape in ((DIAMETER, (150, 210)), (8.0, (75, 105)), (12.0, (112, 157))):
        factor = diameter / DIAMETER
        centers = (truth + 0.5) * factor - 0.5
        pixels = draw(centers, shape, diameter)
        picks = pick_particles(picker, pixels, diameter_px=diameter)
        found = match_particles(picks.centers_yx, centers, diameter / 2)
        assert found.f1 > 0.9
        assert found.distances_px.mean() < 0.15 * diameter


def test_touching_particles_stay_two(picker: Picker) -> None:
    truth = np.array([[60.0, 60.0], [60.0, 60 + DIAMETER], [110.0, 120.0], [110 + 0.8 * DIAMETER, 120.0]])
    picks = pick_particles(picker, draw(truth), diameter_px=DIAMETER)
    assert match_particles(picks.centers_yx, truth, DIAMETER / 2).recall == 1.0


def test_gain_and_offset_do_not_matter(picker: Picker) -> None:
    pixels = draw(scattered(15, (150, 210), 2))
    picks = pick_particles(picker, pixels, diameter_px=DIAMETER)
    other = pick_particles(picker, pixels * 4 - 700, diameter_px=DIAMETER)
    assert match_particles(picks.centers_yx, other.centers_yx, 1.0).f1 > 0.99


def test_a_diameter_in_angstrom_is_the_same(picker: Picker) -> None:
    pixels = draw(scattered(15, (150, 210), 3))
    picks = pick_particles(picker, pixels, diameter_px=DIAMETER)
    same = pick_particles(picker, pixels, diameter_angstrom=2.5 * DIAMETER, pixel_size=2.5)
    assert np.array_equal(picks.centers_yx, same.centers_yx)
    assert same.pixel_size == 2.5
    assert same.diameters_px == pytest.approx(np.full(len(same), DIAMETER))


def test_inverted_contrast(picker: Picker) -> None:
    pixels = draw(scattered(15, (150, 210), 4))
    picks = pick_particles(picker, pixels, diameter_px=DIAMETER)
    turned = pick_particles(picker, 2000 - pixels, diameter_px=DIAMETER, invert=True)
    assert match_particles(picks.centers_yx, turned.centers_yx, 1.0).f1 > 0.99


def test_threshold_distance_and_margin(picker: Picker) -> None:
    pixels = draw(np.vstack([scattered(15, (150, 210), 5), [[75.0, 1.0]]]))
    everything = pick_particles(picker, pixels, diameter_px=DIAMETER, threshold=0)
    strict = pick_particles(picker, pixels, diameter_px=DIAMETER, threshold=0.9)
    assert everything.scores is not None
    assert strict.scores is not None
    assert len(strict) < len(everything)
    assert strict.scores.min() >= 0.9
    assert np.all(np.diff(everything.scores) <= 0)
    inner = pick_particles(picker, pixels, diameter_px=DIAMETER, threshold=0, edge_margin="8px").centers_yx
    assert inner.min() >= 8
    assert (inner <= np.array([149, 209]) - 8).all()
    apart = pick_particles(picker, pixels, diameter_px=DIAMETER, threshold=0, min_distance="2d").centers_yx
    gaps = np.linalg.norm(apart[:, None] - apart[None], axis=-1)[np.triu_indices(len(apart), 1)]
    assert gaps.min() > 2 * DIAMETER - 4


def test_on_contamination_only_what_is_certain(picker: Picker) -> None:
    """Noise as strong as that of carbon on a part of the micrograph."""
    rng = np.random.default_rng(7)
    truth = scattered(40, (320, 320), 7)
    pixels = draw(truth, (320, 320))
    carbon = np.arange(320) > 224
    pixels[:, carbon] += 60 * zoom(rng.normal(0, 1, (160, 160)), 2, order=1)[:, carbon]
    low = float(picker.recipe.calibration.of(np.array([0.2]))[0])
    careful, careless = (
        picker.pick(pixels, PickOptions(diameter_px=DIAMETER, threshold=low, avoid_contamination=avoid), None)
        for avoid in (True, False)
    )
    assert careful.avoided[:, 120:].mean() > 0.3
    assert not careless.avoided.any()

    def on_carbon(picks_yx: np.ndarray) -> int:
        return int((picks_yx[:, 1] > 240).sum())

    assert on_carbon(careful.picks.centers_yx) < on_carbon(careless.picks.centers_yx)
    clean = [p.picks.centers_yx[p.picks.centers_yx[:, 1] < 180] for p in (careful, careless)]
    assert np.array_equal(*clean)


def test_whatever_the_path_or_the_object_the_picks_are_the_same(
    picker: Picker, model: Path, tmp_path: Path
) -> None:
    pixels = draw(scattered(12, (150, 210), 8))
    write_micrograph(tmp_path / "m.mrc", pixels, pixel_size=3.0)
    from cryoquery.formats import read_micrograph

    a = pick_particles(picker, tmp_path / "m.mrc", diameter_px=DIAMETER)
    b = pick_particles(picker, read_micrograph(tmp_path / "m.mrc"), diameter_px=DIAMETER)
    c = pick_particles(picker, pixels, diameter_px=DIAMETER)
    d = pick_particles(str(model), str(tmp_path / "m.mrc"), diameter_px=DIAMETER)
    assert np.array_equal(a.centers_yx, b.centers_yx)
    assert np.array_equal(a.centers_yx, c.centers_yx)
    assert match_particles(a.centers_yx, d.centers_yx, 1.0).f1 > 0.95, "in the device's own precision"
    assert a.pixel_size == b.pixel_size == 3.0
    assert set(a.micrographs) == {str(tmp_path / "m.mrc")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the particle diameter is not known; give --diameter-px"),
        ({"diameter_angstrom": 100}, "give --pixel-size"),
        ({"diameter_px": 16, "diameter_angstrom": 40}, "give one of them"),
        ({"diameter_px": 500}, "does not fit 150×210 px"),
        ({"diameter_px": 0.2}, "would be enlarged 40 times"),
        ({"diameter_px": -1}, "diameter_px=-1"),
        ({"diameter_px": 16, "threshold": 2}, "threshold=2"),
        ({"diameter_px": 16, "min_distance": "5"}, "min_distance '5': give a number and its unit"),
        ({"diameter_px": 16, "edge_margin": "9A"}, "edge_margin 9A: the pixel size is not known"),
    ],
)
def test_options_that_cannot_be_used(picker: Picker, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pick_particles(picker, draw(np.array([[50.0, 50.0]])), **options)


def test_scores_are_calibrated_and_the_threshold_means_the_same(picker: Picker) -> None:
    pixels = draw(scattered(25, (150, 210), 1))
    given = picker.pick(pixels, PickOptions(diameter_px=DIAMETER), None)
    raw = replace(picker, recipe=picker.recipe.model_copy(update={"calibration": Calibration()}))
    lowest = PickOptions(diameter_px=DIAMETER, threshold=picker.recipe.raw_threshold)
    before = raw.pick(pixels, lowest, None)
    assert np.array_equal(given.picks.centers_yx, before.picks.centers_yx)
    assert np.array_equal(given.picks.scores, picker.recipe.calibration.of(before.picks.scores))
    assert not np.allclose(given.picks.scores, before.picks.scores)


def test_an_average_over_orientations_finds_the_same(picker: Picker) -> None:
    pixels = draw(scattered(25, (150, 210), 1))
    once, average = (
        pick_particles(picker, pixels, diameter_px=DIAMETER, average=average) for average in (False, True)
    )
    assert match_particles(average.centers_yx, once.centers_yx, DIAMETER / 2).f1 > 0.9
    assert not np.array_equal(average.scores, once.scores)


def test_the_recipe_in_the_model(picker: Picker, model: Path) -> None:
    recipe = picker.recipe
    assert (recipe.scale, recipe.image_side, recipe.particle_px) == ("particle", 64, 8.0)
    assert recipe.tuned_on == "labeled training images"
    assert recipe.tuned_f1 is not None
    assert recipe.tuned_f1 > 0.9
    assert isinstance(load_model(model), torch.nn.Module)


def test_a_model_without_a_recipe_is_refused(picker: Picker, tmp_path: Path) -> None:
    save_model(tmp_path / "old.pt", picker.predictor.network, MODEL, {})
    with pytest.raises(DataError, match="does not say how to pick with it"):
        load_picker(tmp_path / "old.pt")
    save_model(tmp_path / "odd.pt", picker.predictor.network, MODEL, {}, {"scale": "none"})
    with pytest.raises(DataError, match="its recipe for picking cannot be used"):
        load_picker(tmp_path / "odd.pt")


@pytest.mark.parametrize("kind", ["text", "random bytes", "nothing", "zip", "pickle", "object", "list"])
def test_what_is_no_model_is_one_line_without_advice(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "garbage.pt"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing")
    elif kind == "list":
        torch.save([1, 2], path)
    else:
        content = {
            "text": b"these are no weights\n" * 20,
            "random bytes": np.random.default_rng(0).bytes(500),
            "nothing": b"",
            "pickle": pickle.dumps({"weights": np.ones(3)}),
            "object": pickle.dumps(Path("x")),
        }
        path.write_bytes(content[kind])
    with pytest.raises(DataError) as raised:
        load_picker(path)
    said = str(raised.value)
    assert said.startswith(f"{path}: not a model written by cryoquery; ")
    assert "weights_only" not in said
    assert "\n" not in said


@pytest.fixture
def micrographs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "micrographs"
    folder.mkdir()
    for i in range(3):
        write_micrograph(folder / f"m{i}.mrc", draw(scattered(10, (150, 210), i)), pixel_size=2.0)
    (folder / "bad.mrc").write_bytes(b"x" * 500)
    return [folder / "m0.mrc", folder / "bad.mrc", folder / "m1.mrc", folder / "m2.mrc", folder / "gone.mrc"]


OPTIONS = PickOptions(diameter_px=DIAMETER)


@pytest.mark.parametrize("out", ["picks.star", "picks.txt", "picks.cs", "picks.json", "job"])
def test_bad_files_do_not_stop_the_others(
    picker: Picker, micrographs: list[Path], tmp_path: Path, out: str
) -> None:
    outcome = pick_micrographs(picker, micrographs, tmp_path / out, OPTIONS)
    assert outcome.n_done == 3
    assert list(outcome.failures) == [micrographs[1], micrographs[4]]
    assert all(str(path) in reason for path, reason in outcome.failures.items())
    read = read_coordinates(tmp_path / out)
    assert len(read) == len(outcome.picks) > 20
    assert match_particles(read.centers_yx, outcome.picks.centers_yx, 0.01).n_matched == len(read)


def test_pictures(picker: Picker, micrographs: list[Path], tmp_path: Path) -> None:
    pick_micrographs(
        picker, micrographs, tmp_path / "p.star", OPTIONS,
        overlays=tmp_path / "o", histograms=tmp_path / "h",
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["m0.png", "m1.png", "m2.png"]
    assert len(list((tmp_path / "h").iterdir())) == 3


def test_nothing_is_written_when_nothing_could_be_picked_or_it_was_interrupted(
    picker: Picker, micrographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "p.star"
    assert pick_micrographs(picker, [micrographs[1]], out, OPTIONS).n_done == 0
    assert not out.exists()

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pick_micrographs(picker, micrographs, out, OPTIONS, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["micrographs"]
    first = pick_micrographs(picker, micrographs, out, OPTIONS).picks
    again = pick_micrographs(picker, micrographs, out, OPTIONS).picks
    assert np.array_equal(first.centers_yx, again.centers_yx)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_the_pipeline_picks_as_one_after_the_other(
    picker: Picker, micrographs: list[Path], tmp_path: Path, n_workers: int
) -> None:
    """Picks, failures, notes and progress; with files that fail amid the others."""
    options = PickOptions(diameter_angstrom=DIAMETER * 4, pixel_size=4.0)
    told: list[tuple[int, int]] = []
    outcome = pick_micrographs(
        picker, micrographs, tmp_path / "p.star", options,
        n_workers=n_workers, progress=lambda *at: told.append(at),
    )  # fmt: skip
    readable, damaged = [micrographs[i] for i in (0, 2, 3)], [micrographs[i] for i in (1, 4)]
    alone = [pick_file(picker, path, options) for path in readable]
    failures = {}
    for path in damaged:
        with pytest.raises(DataError) as caught:
            pick_file(picker, path, options)
        failures[path] = str(caught.value)
    expected = concatenate([picked.picks for picked in alone])
    assert expected.scores is not None
    assert outcome.picks.scores is not None
    assert np.array_equal(outcome.picks.centers_yx, expected.centers_yx)
    assert np.array_equal(outcome.picks.scores, expected.scores)
    assert outcome.picks.micrographs.tolist() == expected.micrographs.tolist()
    assert (outcome.failures, outcome.notes) == (failures, tuple(p.note for p in alone))
    assert list(outcome.failures) == list(failures)
    assert told == [(i + 1, 5) for i in range(5)]


def test_pictures_that_cannot_be_written_are_a_note(
    picker: Picker, micrographs: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "o" / "m1.png").mkdir(parents=True)
    outcome = pick_micrographs(
        picker, micrographs, tmp_path / "p.star", OPTIONS, overlays=tmp_path / "o", n_workers=2
    )
    assert outcome.n_done == 3
    assert len(outcome.notes) == 1
    assert f"{micrographs[2]}: its pictures could not be written" in outcome.notes[0]


def test_lengths_that_cannot_be_known_are_named_with_their_file(
    picker: Picker, micrographs: list[Path], tmp_path: Path
) -> None:
    write_micrograph(tmp_path / "m.mrc", draw(scattered(10, (150, 210), 1)))
    options = PickOptions(diameter_px=DIAMETER, edge_margin=parse_length("9A", "edge_margin"))
    paths = [tmp_path / "m.mrc", micrographs[0]]
    outcome = pick_micrographs(picker, paths, tmp_path / "p.star", options)
    assert outcome.n_done == 1
    reason = outcome.failures[paths[0]]
    assert "edge_margin 9A: the pixel size is not known" in reason
    assert str(paths[0]) in reason


def test_targets_are_refused_before_the_work(micrographs: list[Path], tmp_path: Path) -> None:
    for out, message in (
        ("p.xyz", "unknown suffix"),
        ("p.box", "hold one micrograph, 5 are given"),
        ("micrographs", "not an empty folder"),
    ):
        with pytest.raises(DataError, match=message):
            check_target(tmp_path / out, micrographs, None)
    with pytest.raises(DataError, match="unknown format"):
        check_target(tmp_path / "new", micrographs, "pdb")
    with pytest.raises(DataError, match=r"\.box files hold one micrograph"):
        check_target(tmp_path / "p.star", micrographs, "box")


def test_equal_names_of_different_folders(picker: Picker, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_micrograph(tmp_path / folder / "m.mrc", draw(scattered(10, (150, 210), 1)))
    paths = [tmp_path / "a" / "m.mrc", tmp_path / "b" / "m.mrc"]
    pick_micrographs(picker, paths, tmp_path / "p.star", OPTIONS, overlays=tmp_path / "o")
    assert len(list((tmp_path / "o").iterdir())) == 2
    with pytest.raises(DataError, match="given twice"):
        pick_micrographs(picker, [paths[0], paths[0]], tmp_path / "p.star", OPTIONS)


def test_a_doubtful_pixel_size_is_said(picker: Picker, tmp_path: Path) -> None:
    write_micrograph(tmp_path / "m.mrc", draw(scattered(10, (150, 210), 1)), pixel_size=2.0)
    picked = pick_file(
        picker, tmp_path / "m.mrc", PickOptions(diameter_angstrom=DIAMETER * 4, pixel_size=4.0)
    )
    assert "pixel size 4 Å/px from --pixel-size, but 2" in picked.note
    assert picked.picks.pixel_size == 4.0
