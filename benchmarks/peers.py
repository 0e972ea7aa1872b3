"""Pickers that need no labels beside each other: RELION's blob filter, Topaz, and the two of this package.

    python benchmarks/peers.py ../shared/data [--sets empiar_10017 …] [--topaz PROGRAM] [--out FILE.csv]

FOLDER has a `manifest.csv` (dataset, micrograph, coordinates, diameter_px), and for each data set
`micrographs/` and `coordinates/`; where there is `coordinates_completed/`, that is the truth. RELION
(Debian's `relion`) and Topaz (`topaz-em` in an environment of its own; its license is the GPL) are run as
programs, on MRC files in a temporary folder, and left out where they are not installed. They are told the
diameter of the manifest; `general` is not told any, `general, told` and `log` are.

Each picker gives all it finds down to a generous threshold, and its scores. *Default* is F1 at the threshold
that it takes by itself (Topaz: a log-likelihood ratio of 0). *Others* is F1 at the threshold that is best on
the other micrographs of the set. Both are means over micrographs, as is the average precision.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import average_precision
from numpy.typing import NDArray

from cryoquery.formats import Picks, read_coordinates, read_micrograph, write_micrograph
from cryoquery.picking.diameter import estimate_from_files
from cryoquery.picking.metrics import ranked_matches
from cryoquery.picking.picker import AnyPicker, LogPicker, PickOptions, load_picker, prepare_file

TOPAZ_PARTICLE_PX = 16
"""About the diameter of a particle to which micrographs are reduced for Topaz's pretrained networks."""
N_THRESHOLDS = 200


@dataclass(frozen=True)
class DataSet:
    """Micrographs of one protein."""

    name: str
    files: tuple[Path, ...]
    truths: tuple[NDArray[np.float64], ...]
    """Of each micrograph: (n, 2) centers, px."""
    diameter_px: float

    @property
    def radius_px(self) -> float:
        """A pick this close matches."""
        return self.diameter_px / 2


@dataclass(frozen=True)
class Found:
    """What a picker finds on one micrograph."""

    centers_yx: NDArray[np.float64]
    scores: NDArray[np.float64]
    by_default: NDArray[np.bool_]
    """Which of them it gives where no threshold is stated."""


PickSet = Callable[[DataSet], list[Found]]


def data_sets(folder: Path, names: list[str] | None) -> Iterator[DataSet]:
    """Those of the manifest, or of them the ones named."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in names or sorted({row["dataset"] for row in rows}):
        some = [row for row in rows if row["dataset"] == name and row["n_particles"]]
        completed = folder / name / "coordinates_completed"
        labels = completed if completed.is_dir() else folder / name / "coordinates"
        some = [row for row in some if (labels / row["coordinates"]).is_file()]
        if some:
            files = tuple(folder / name / "micrographs" / row["micrograph"] for row in some)
            truths = tuple(read_coordinates(labels / row["coordinates"]).centers_yx for row in some)
            yield DataSet(name, files, truths, float(np.median([float(row["diameter_px"]) for row in some])))


@contextmanager
def as_mrc(data: DataSet) -> Iterator[tuple[Path, list[Path]]]:
    """A temporary folder with the micrographs as 32-bit MRC files, and these."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mics").mkdir()
        copies = [folder / "mics" / f"{i:04}.mrc" for i in range(len(data.files))]
        for file, copy in zip(data.files, copies, strict=True):
            write_micrograph(copy, read_micrograph(file).pixels.astype(np.float32), pixel_size=1.0)
        yield folder, copies


def run(folder: Path, *words: object) -> None:
    """Run a program in ``folder``; what it says is shown only if it fails."""
    done = subprocess.run([str(w) for w in words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def relion(program: str, data: DataSet) -> list[Found]:
    """`relion_autopick --LoG` between 0.8 and 1.2 of the diameter, as it is and with a generous threshold."""
    with as_mrc(data) as (folder, copies):
        log = ("--LoG", "--LoG_diam_min", 0.8 * data.diameter_px, "--LoG_diam_max", 1.2 * data.diameter_px)
        picks: dict[int, list[Picks | None]] = {}
        for adjust in (0, -3):
            (folder / f"job{adjust}").mkdir()
            odir = f"job{adjust}/"
            run(folder, program, "--i", "mics/*.mrc", "--odir", odir, "--angpix", 1, *log,
                "--LoG_adjust_threshold", adjust)  # fmt: skip
            stars = [folder / odir / "mics" / f"{copy.stem}_autopick.star" for copy in copies]
            picks[adjust] = [read_coordinates(s) if s.exists() and s.stat().st_size else None for s in stars]
        return [_with_default(few, many) for few, many in zip(picks[0], picks[-3], strict=True)]


def _with_default(few: Picks | None, many: Picks | None) -> Found:
    """Of two runs: those of the generous one, and which of them score as those of the other."""
    if many is None or many.scores is None:
        return Found(np.empty((0, 2)), np.empty(0), np.empty(0, dtype=bool))
    lowest = np.inf if few is None or few.scores is None else few.scores.min(initial=np.inf)
    return Found(many.centers_yx, many.scores, many.scores >= lowest)


def topaz(program: str, data: DataSet) -> list[Found]:
    """The pretrained `resnet16_u64` on micrographs that are reduced by a whole number."""
    with as_mrc(data) as (folder, copies):
        scale = max(1, round(data.diameter_px / TOPAZ_PARTICLE_PX))
        run(folder, program, "preprocess", "-s", scale, "-d", -1, "-o", "small/", *copies)
        small = [folder / "small" / copy.name for copy in copies]
        radius = round(data.diameter_px / 2 / scale)
        run(folder, program, "extract", "-m", "resnet16_u64", "-r", radius, "-x", scale, "-d", -1,
            "-o", "found.txt", *small)  # fmt: skip
        with (folder / "found.txt").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    found = []
    for copy in copies:
        some = [row for row in rows if row["image_name"] == copy.stem]
        # A pixel of the reduced picture is ``scale`` of the micrograph, whose middle is what is meant.
        centers = np.array([[float(r["y_coord"]), float(r["x_coord"])] for r in some]).reshape(-1, 2)
        scores = np.array([float(r["score"]) for r in some])
        found.append(Found(centers + (scale - 1) / 2, scores, scores >= 0))
    return found


def ours(picker: AnyPicker, data: DataSet, diameter_px: float) -> list[Found]:
    """A picker of the package."""
    options, found = PickOptions(diameter_px=diameter_px), []
    everything = options.model_copy(update={"threshold": 0.0})
    for file in data.files:
        prepared = prepare_file(picker, file, options)
        predicted = picker.predict(prepared)
        few, many = (picker.find(prepared, predicted, given).picks for given in (options, everything))
        assert many.scores is not None
        default = np.isin(many.centers_yx @ [1e6, 1.0], few.centers_yx @ [1e6, 1.0])
        found.append(Found(many.centers_yx, many.scores, default))
    return found


def scores(data: DataSet, found: list[Found]) -> dict[str, float]:
    """F1 at the default and at the others' threshold, average precision: means over micrographs."""
    pooled = np.concatenate([each.scores for each in found])
    if not len(pooled):
        return {"default": 0.0, "others": 0.0, "average_precision": 0.0}
    thresholds = np.unique(np.quantile(pooled, np.linspace(0, 1, N_THRESHOLDS)))
    f1, default, precisions = [], [], []
    for each, truth in zip(found, data.truths, strict=True):
        hits = ranked_matches(each.centers_yx, each.scores, truth, data.radius_px)
        order = np.argsort(-each.scores, kind="stable")
        matched = np.concatenate([[0], np.cumsum(hits[order])])
        n_kept = np.searchsorted(-each.scores[order], -thresholds, side="right")
        f1.append(2 * matched[n_kept] / (n_kept + len(truth)))
        kept = each.by_default
        alone = ranked_matches(each.centers_yx[kept], each.scores[kept], truth, data.radius_px)
        default.append(2 * alone.sum() / (kept.sum() + len(truth)))
        precisions.append(average_precision(hits[order], len(truth)))
    curves = np.array(f1)
    rest = curves.sum(axis=0) - curves
    others = [curves[i, np.argmax(rest[i])] for i in range(len(curves))]
    return {
        "default": float(np.mean(default)),
        "others": float(np.mean(others)),
        "average_precision": float(np.mean(precisions)),
    }


def pickers(relion_program: str | None, topaz_program: str | None) -> dict[str, PickSet]:
    """Those that are installed."""
    general = load_picker("general")
    some: dict[str, PickSet] = {
        "general": lambda data: ours(general, data, estimate_from_files(data.files, general).best_px),
        "general, told": lambda data: ours(general, data, data.diameter_px),
        "log": lambda data: ours(LogPicker(), data, data.diameter_px),
    }
    if relion_program:
        some["RELION LoG"] = lambda data: relion(relion_program, data)
    if topaz_program:
        some["Topaz"] = lambda data: topaz(topaz_program, data)
    return some


def main() -> None:
    """Read the command line, print a Markdown table, and write a row for each set and picker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--relion", default=shutil.which("relion_autopick"))
    parser.add_argument("--topaz", default=shutil.which("topaz"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    print("| set | picker | F1, default | F1, others' threshold | average precision | s |")
    print("|---|---|---|---|---|---|")
    for data in data_sets(given.folder, given.sets):
        for name, pick_set in pickers(given.relion, given.topaz).items():
            started = time.perf_counter()
            values = scores(data, pick_set(data))
            seconds = time.perf_counter() - started
            shown = " | ".join(f"{value:.3f}" for value in values.values())
            print(f"| {data.name} | {name} | {shown} | {seconds:.0f} |", flush=True)
            rows.append({"set": data.name, "picker": name, **values, "seconds": round(seconds, 1)})
    if given.out:
        with given.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
