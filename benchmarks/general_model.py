"""Make `general`, the model that comes with the package: simulated micrographs, real ice, no labels.

    make general-model                                     # all three steps, below data/general
    python benchmarks/general_model.py fields   [--fields 6000] [--seed 0]
    python benchmarks/general_model.py train    [--epochs 4] [--seed 0]
    python benchmarks/general_model.py evaluate [MODEL]
    python benchmarks/general_model.py calibrate MODEL.pt
    python benchmarks/general_model.py show docs/images/random_fields.png

Each step may be interrupted and run again. `fields` draws `cryoquery.simulate.randomized` fields of 256 px,
some on real pictures of empty, crystalline or missing ice, and cuts each into four. `train` fits the
quarter-width network to them and writes the package's model in half precision. `evaluate` picks all labeled
micrographs of ../shared/data and prints the table of docs/general_model.md. No micrograph of a protein is
trained on, and of the pictures without particles the last two of each class are kept for the evaluation.

`calibrate` gives the model in a file a calibration and a threshold, from simulated fields that nobody trains
on. It is not part of `all`: what holds there does not hold on every protein (docs/results/calibration.md).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from measuring import average_precision
from numpy.typing import NDArray
from PIL import Image

from cryoquery.data.dataset import IGNORE, encode
from cryoquery.data.fields import field_grid
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.data.preprocess import draw_mask, normalize
from cryoquery.formats import read_coordinates, read_micrograph
from cryoquery.network.checkpoint import SHIPPED, read_model, save_model
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import AttentionUNet, ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig, TrainingStep
from cryoquery.network.train import fit
from cryoquery.picking.calibration import Calibration, expected_f1
from cryoquery.picking.metrics import ParticleMatches, match_particles, mean_particle_scores, ranked_matches
from cryoquery.picking.picker import Picker, PickOptions, load_picker
from cryoquery.picking.threshold import THRESHOLDS, PickingRecipe
from cryoquery.simulate.randomized import PARTICLE_PX, random_field
from cryoquery.storage.provenance import source_commit

SHARED = Path("../shared/data")
FOLDER = Path("data/general")
DRAWN, SIDE = 256, 128
"""Side in px of the fields that are drawn, and of those that are trained on."""
PER_SHARD = 100
DISC_FRACTION = 0.5
THRESHOLD = 0.7
"""Of raw scores; F1 on `SETS` changes by less than 0.01 from 0.5 to 0.75, or rises."""
MODEL = ModelConfig(base_channels=16)
EMPTY = ("no_ice", "crystalline_ice", "empty_ice")
N_CALIBRATED, UNSEEN = 120, 777
"""Fields that scores are calibrated on, and their seed, which no training has."""
N_TRAINED = 3
"""Pictures of each class in `EMPTY` that are trained on; the others are for the evaluation."""


def empty_pictures() -> dict[str, list[Path]]:
    """Pictures without particles by class, in their order."""
    return {name: sorted((SHARED / "quality_classes" / name).iterdir()) for name in EMPTY}


def draw_fields(n: int, seed: int) -> None:
    """Write images and masks of ``n`` fields as shards that appear whole; those that are there stay."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = [file for some in empty_pictures().values() for file in some[:N_TRAINED]]
    backgrounds = [normalize(read_micrograph(file).pixels).image for file in files]
    wanted = [i for i in range(-(-n // PER_SHARD)) if not shard(i).exists()]
    with ProcessPoolExecutor() as pool:
        for i in pool.map(partial(_draw_shard, seed, backgrounds), wanted):
            print(f"{(i + 1) * PER_SHARD} of {n} fields", flush=True)


def shard(number: int) -> Path:
    """File of images and masks (2, n, h, w)."""
    return FOLDER / f"fields_{number:04}.npy"


def _draw_shard(seed: int, backgrounds: Sequence[NDArray[np.float32]], number: int) -> int:
    images, masks = [], []
    for i in range(number * PER_SHARD, (number + 1) * PER_SHARD):
        field = random_field(np.random.default_rng([seed, i]), DRAWN, backgrounds=backgrounds)
        diameters = np.full(len(field.centers_yx), PARTICLE_PX * DISC_FRACTION)
        images += _quarters(encode(normalize(field.image).image))
        masks += _quarters(draw_mask((DRAWN, DRAWN), field.centers_yx, diameters))
    partial_file = shard(number).with_suffix(".partial.npy")
    np.save(partial_file, np.stack([np.stack(images), np.stack(masks)]))
    partial_file.rename(shard(number))
    return number


def _quarters(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [image[field.place] for field in field_grid((DRAWN, DRAWN), SIDE)]


def train(epochs: int, seed: int) -> None:
    """Fit the network to all fields and write the model of the package."""
    shards = [np.load(file) for file in sorted(FOLDER.glob("fields_????.npy"))]
    images, masks = (np.concatenate([one[part] for one in shards]) for part in (0, 1))
    n = len(images)
    assert not (masks == IGNORE).any()
    pool = Pool(images, np.full((n, 2), SIDE), ("random",) * n, tuple(map(str, range(n))))
    config = TrainingConfig(
        initial_epochs=epochs, batch_size=16, initial_learning_rate=2e-3, focal_alpha=0.5,
        distort=True, decay="cosine", averaging=0.998,
    )  # fmt: skip
    labeled = LabeledImages(pool, np.arange(n), lambda indices: masks[indices])
    training = Training(initial_weights(MODEL, seed), MODEL, labeled, config, from_scratch=True, seed=seed)
    started, losses = time.time(), []

    def watch(step: TrainingStep) -> None:
        losses.append(step.n_images)
        if len(losses) % 100 == 0 or step.loss is not None:
            done = f"{len(losses)} steps of {epochs * config.n_steps(n)}"
            print(f"{done}, {time.time() - started:.0f} s, epoch's loss {step.loss}", flush=True)

    network = fit(training, DeviceConfig().fabric(), watch, checkpoint=FOLDER / "checkpoint.pt")
    recipe = PickingRecipe(
        scale="particle", image_side=DRAWN, particle_px=PARTICLE_PX,
        particle_px_range=(PARTICLE_PX, PARTICLE_PX), disc_fraction=DISC_FRACTION, threshold=THRESHOLD,
    )  # fmt: skip
    made_by = {
        "command": "make general-model",
        "commit": source_commit(),
        "fields": n,
        "seed": seed,
        "training": config.model_dump(mode="json"),
    }
    SHIPPED["general"].parent.mkdir(exist_ok=True)
    save_model(SHIPPED["general"], halved(network), MODEL, made_by, recipe.model_dump(mode="json"))
    print(f"{SHIPPED['general']}: {SHIPPED['general'].stat().st_size / 1e6:.1f} MB")


def halved(network: AttentionUNet) -> AttentionUNet:
    """Weights in half precision; statistics stay as they are, for some are beyond it."""
    for parameter in network.parameters():
        parameter.data = parameter.data.half()
    return network


def calibrate(path: Path) -> None:
    """Fit the calibration of the model in a file to simulated fields that nobody trains on."""
    saved, picker = read_model(path), load_picker(path)
    plain = picker.recipe.model_copy(update={"calibration": Calibration()})
    options = PickOptions(diameter_px=PARTICLE_PX, threshold=0.0, avoid_contamination=False)
    scores, hits = [], []
    for i in range(N_CALIBRATED):
        field = random_field(np.random.default_rng([UNSEEN, i]), DRAWN)
        picks = replace(picker, recipe=plain).pick(field.image, options, None).picks
        assert picks.scores is not None
        scores.append(picks.scores)
        hits.append(ranked_matches(picks.centers_yx, picks.scores, field.centers_yx, PARTICLE_PX / 2))
    calibration = Calibration.fitted(np.concatenate(scores), np.concatenate(hits))
    chances = calibration.of(np.concatenate(scores))
    threshold = float(THRESHOLDS[np.argmax(expected_f1(chances, THRESHOLDS))])
    recipe = picker.recipe.model_copy(update={"calibration": calibration, "threshold": threshold})
    made_by = {**saved.made_by, "calibrated_on": f"{N_CALIBRATED} simulated fields"}
    save_model(path, halved(saved.build()), saved.model, made_by, recipe.model_dump(mode="json"))
    print(f"{path}: {calibration}, threshold {threshold:g}")


@dataclass(frozen=True)
class LabeledSet:
    """Micrographs of one protein with labels."""

    name: str
    coordinates: str
    diameter_px: float
    """That a person would state who looks at the particles, px of the micrographs."""
    radius_px: float
    """A pick this close matches."""

    def micrographs(self) -> Iterator[tuple[Path, NDArray[np.float64]]]:
        """Files, and labeled centers (n, 2)."""
        folder = SHARED / self.name
        for file in sorted((folder / "micrographs").iterdir()):
            labels = folder / self.coordinates / f"{file.stem}.csv"
            if labels.exists():
                yield file, read_coordinates(labels).centers_yx


SETS = (
    LabeledSet("empiar_10017", "coordinates", 108, 54),
    LabeledSet("empiar_10028", "coordinates_completed", 56, 28),
    LabeledSet("empiar_10146", "coordinates", 80, 30),
)


def evaluate(model: Path | str) -> None:
    """Print particle scores of each set, and the number of picks where there is nothing to pick."""
    picker = load_picker(model)
    print("| set | micrographs | F1 | precision | recall | average precision |\n|---|---|---|---|---|---|")
    for labeled in SETS:
        matches, precisions = [], []
        for file, truth in labeled.micrographs():
            match, average_precision = _pick(picker, file, truth, labeled)
            matches.append(match)
            precisions.append(average_precision)
        scores = mean_particle_scores(matches)
        cells = [scores[f"particle_{name}"] for name in ("f1", "precision", "recall")]
        cells.append(float(np.mean(precisions)))
        print(f"| {labeled.name} | {len(matches)} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    for name, files in empty_pictures().items():
        options = PickOptions(diameter_px=24)
        counts = [len(picker.pick(read_micrograph(f).pixels, options, None).picks) for f in files[N_TRAINED:]]
        print(f"{name}: {counts} picks at a diameter of 24 px")


def _pick(
    picker: Picker, file: Path, truth: NDArray[np.float64], labeled: LabeledSet
) -> tuple[ParticleMatches, float]:
    """Matches at the model's threshold, and average precision over all scores."""
    pixels, options = (
        read_micrograph(file).pixels,
        PickOptions(diameter_px=labeled.diameter_px, threshold=0.0),
    )
    everything = picker.pick(pixels, options, None).picks
    hits = ranked_matches(everything.centers_yx, everything.scores, truth, labeled.radius_px)
    kept = everything.scores >= picker.recipe.threshold
    return match_particles(everything.centers_yx[kept], truth, labeled.radius_px), average_precision(
        hits, len(truth)
    )


def show(out: Path, n_columns: int = 6, n_rows: int = 2) -> None:
    """Draw some fields, without real pictures, side by side."""
    rows = []
    for row in range(n_rows):
        drawn = [random_field(np.random.default_rng([3, row, i]), 192).image for i in range(n_columns)]
        rows.append(np.hstack([encode(normalize(image).image) for image in drawn]))
    Image.fromarray(np.vstack(rows) // 4 * 4).save(out, optimize=True)


def main() -> None:
    """Read the command line and do one step, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("step", choices=("fields", "train", "evaluate", "calibrate", "show", "all"))
    parser.add_argument("model", nargs="?", default="general", help="to work on, or picture to write")
    parser.add_argument("--fields", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.step in ("fields", "all"):
        draw_fields(given.fields, given.seed)
    if given.step in ("train", "all"):
        train(given.epochs, given.seed)
    if given.step == "calibrate":
        calibrate(Path(given.model))
    if given.step == "show":
        show(Path(given.model))
    if given.step in ("evaluate", "all"):
        evaluate(given.model)


if __name__ == "__main__":
    main()
