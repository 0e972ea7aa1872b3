"""Train as projects do on labeled micrographs of ../shared/data, and pick micrographs that were left out.

    python benchmarks/proteins.py [SET ...] [--folds 3] [--only FOLD] [--fields 40] [--missing 0.8]
        [--believe] [--average] [--picture docs/images/reliability.png]

Micrograph number i belongs to fold i modulo the number of folds; each is picked by a model that has seen none
of its fold. Everything is what `cryoquery step` does with fields of 128 px: its training from `general`, its
calibration and threshold. 10028 is trained on its published labels, of which a third is missing, and measured
against the completed ones. `--fields` trains on so many fields, drawn at random; `--missing` leaves out a
share of the labels that are trained on; `--believe` takes all that has no label for background. Printed are
particle scores at the model's threshold, average precision, and how far scores are from the share of picks
that match; the picture shows the latter. Finished trainings are kept below data/proteins.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from general_model import SETS, SHARED, LabeledSet
from matplotlib.figure import Figure
from measuring import average_precision
from numpy.typing import NDArray

from cryoquery.active.iteration import MODEL
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.run import Context, Run
from cryoquery.active.training import train_and_evaluate
from cryoquery.data.build import BuildConfig, build_dataset
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.data.source import SourceMicrograph
from cryoquery.formats import read_coordinates, read_micrograph
from cryoquery.network.checkpoint import SHIPPED
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig
from cryoquery.picking.calibration import Calibration
from cryoquery.picking.metrics import ParticleMatches, match_particles, mean_particle_scores, ranked_matches
from cryoquery.picking.picker import Picker, PickOptions, load_picker
from cryoquery.project.image_size import DISC_FRACTION
from cryoquery.project.settings import PARTICLE_PX, ProjectConfig
from cryoquery.storage.cache import Cache

FOLDER = Path("data/proteins")
SIDE = 128
BINS = np.array([0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 1.0])
"""Scores between which picks are counted together."""


@dataclass
class Found:
    """What the picks of left-out micrographs are worth."""

    matches: list[ParticleMatches] = field(default_factory=list)
    average_precisions: list[float] = field(default_factory=list)
    raw: list[NDArray[np.float64]] = field(default_factory=list)
    """Scores before calibration of all that might be a particle, for each micrograph."""
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    hits: list[NDArray[np.bool_]] = field(default_factory=list)

    def row(self) -> str:
        """Cells of a table."""
        scores, (raw, given, hits) = mean_particle_scores(self.matches), map(np.concatenate, self.parts)
        cells = [scores[f"particle_{name}"] for name in ("f1", "precision", "recall")]
        cells += [float(np.mean(self.average_precisions)), off(raw, hits), off(given, hits)]
        return " | ".join(f"{cell:.3f}" for cell in cells)

    @property
    def parts(self) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], list[NDArray[np.bool_]]]:
        """Raw scores, scores, and hits of each micrograph."""
        return self.raw, self.scores, self.hits


def off(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    """Mean distance of scores from the share of hits, over ten bins of scores, from 0.05 on."""
    number = np.minimum((10 * scores).astype(int), 9)
    number[scores < BINS[0]] = -1
    bins = [number == i for i in range(10) if (number == i).any()]
    gaps = [abs(scores[some].mean() - hits[some].mean()) * some.sum() for some in bins]
    return float(sum(gaps) / max(sum(some.sum() for some in bins), 1))


def dataset_of(
    labeled: LabeledSet, files: Sequence[Path], fold: int, n_folds: int, missing: float
) -> Dataset:
    """The micrographs as fields, those of a fold as validation split, with the labels that are published."""
    path = FOLDER / f"{labeled.name}_{fold}_of_{n_folds}_{missing:g}"
    if path.exists():
        return open_dataset(path)
    sources = []
    for i, file in enumerate(files):
        centers = read_coordinates(SHARED / labeled.name / "coordinates" / f"{file.stem}.csv").centers_yx
        kept = centers[np.random.default_rng(i).random(len(centers)) >= missing]
        pixels = read_micrograph(file).pixels
        sources.append(
            SourceMicrograph(
                file.stem, labeled.name, (pixels.shape[0], pixels.shape[1]),
                read=partial(lambda file: read_micrograph(file).pixels, file),
                particles=np.column_stack([kept, np.full(len(kept), labeled.diameter_px)]),
                split="val" if i % n_folds == fold else "train", diameter_px=labeled.diameter_px,
            )
        )  # fmt: skip
    config = BuildConfig(field=SIDE, particle_px=PARTICLE_PX, disc_fraction=DISC_FRACTION)
    return build_dataset(sources, path, config)


def model_of(dataset: Dataset, n_fields: int | None, believe: bool, seed: int) -> Path:
    """The model that a step of a project would train on the fields of the training split."""
    defaults = ProjectConfig.model_fields
    training = defaults["training"].default
    if believe:
        training = training.model_copy(update={"doubtful_background": 0.0})
    rows = dataset.rows("train")
    if n_fields is not None:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:n_fields])
    oracle = SimulatedOracle(dataset)
    oracle.ask(rows)
    context = Context(
        dataset, ModelConfig(base_channels=16), training, DeviceConfig().fabric(), ("val",),
        Cache(FOLDER / "cache"), start=SHIPPED["general"],
    )  # fmt: skip
    run = Run("random_sampling", "random", seed, (len(rows),), FOLDER, from_scratch=True)
    return train_and_evaluate(run, context, oracle, [rows])[0] / MODEL


def pick(
    picker: Picker, labeled: LabeledSet, file: Path, truth: NDArray[np.float64], average: bool, into: Found
) -> None:
    """Pick one micrograph, and note what the picks are worth."""
    raw = replace(picker, recipe=picker.recipe.model_copy(update={"calibration": Calibration()}))
    options = PickOptions(diameter_px=labeled.diameter_px, average=average)
    pixels = read_micrograph(file).pixels
    prepared = picker.prepare(pixels, options, None)
    predicted = picker.predict(prepared)
    picks = picker.find(prepared, predicted, options).picks
    everything = raw.find(prepared, predicted, options.model_copy(update={"threshold": 0.0})).picks
    assert everything.scores is not None
    hits = ranked_matches(everything.centers_yx, everything.scores, truth, labeled.radius_px)
    into.matches.append(match_particles(picks.centers_yx, truth, labeled.radius_px))
    into.average_precisions.append(average_precision(hits, len(truth)))
    into.raw.append(everything.scores)
    into.scores.append(picker.recipe.calibration.of(everything.scores))
    into.hits.append(hits)


def draw(found: dict[str, Found], out: Path) -> None:
    """Share of matches over score, before and after calibration."""
    figure = Figure(figsize=(3.4 * len(found), 3.4), dpi=110, layout="constrained")
    for panel, (name, one) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        raw, scores, hits = map(np.concatenate, one.parts)
        panel.plot([0, 1], [0, 1], color="#b9bec6", linewidth=1)
        for given, color, label in ((raw, "#c0504d", "raw"), (scores, "#3b6fb5", "calibrated")):
            bins = [(given >= low) & (given < high) for low, high in zip(BINS, BINS[1:], strict=False)]
            points = [(given[some].mean(), hits[some].mean(), some.sum()) for some in bins if some.sum() > 4]
            x, y, n = np.array(points).T
            panel.plot(x, y, color=color, label=label)
            panel.scatter(x, y, s=6 + 60 * n / n.max(), color=color)
        panel.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score of picks", title=name.removeprefix("empiar_"))
        panel.set_ylabel("share that matches a label")
        panel.legend(frameon=False)
    figure.savefig(out)


def main() -> None:
    """Read the command line, and print a row for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(one.name for one in SETS))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--only", type=int, help="this fold alone")
    parser.add_argument("--fields", type=int, help="train on so many; default: all")
    parser.add_argument("--missing", type=float, default=0.0, help="share of the training labels left out")
    parser.add_argument("--believe", action="store_true", help="what has no label is background")
    parser.add_argument("--average", action="store_true", help="average over eight orientations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = {}
    print(
        "| set | micrographs | F1 | precision | recall | average precision | scores off, raw | calibrated |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for labeled in SETS:
        if given.sets and labeled.name not in given.sets:
            continue
        found = results[labeled.name] = Found()
        micrographs = list(labeled.micrographs())
        for fold in range(given.folds) if given.only is None else [given.only]:
            data = dataset_of(labeled, [file for file, _ in micrographs], fold, given.folds, given.missing)
            picker = load_picker(model_of(data, given.fields, given.believe, given.seed))
            for file, truth in micrographs[fold :: given.folds]:
                pick(picker, labeled, file, truth, given.average, found)
        print(f"| {labeled.name} | {len(found.matches)} | {found.row()} |", flush=True)
    if given.picture is not None:
        draw(results, given.picture)


if __name__ == "__main__":
    main()
