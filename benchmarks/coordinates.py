"""Read and write a STAR file of many picks, beside gemmi's own read of it; match many micrographs.

    python benchmarks/coordinates.py [N_PICKS]

Every number is the best of several rounds: what disturbs a run only ever makes it slower.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gemmi
import numpy as np

from cryoquery.formats import Optics, Picks, match_micrographs, read_coordinates, write_coordinates
from cryoquery.picking.metrics import match_particles

N_ROUNDS = 5
N_MICROGRAPHS, N_EACH = 500, 600
SHAPE = (4096, 5760)
RADIUS_PX = 50.0


def best(task: Callable[[], object]) -> float:
    """Seconds of the fastest of several rounds."""
    seconds = []
    for _ in range(N_ROUNDS):
        start = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def make_picks(n: int, rng: np.random.Generator) -> Picks:
    """Picks at random with scores, and two columns more as RELION's pickers write."""
    names = [f"MotionCorr/job002/Movies/FoilHole_{i:05d}_fractions.mrc" for i in range(N_MICROGRAPHS)]
    picks = Picks.of(
        rng.uniform(0, SHAPE, (n, 2)),
        micrograph=[names[i * N_MICROGRAPHS // n] for i in range(n)],
        scores=rng.random(n),
        pixel_size=0.885,
    )
    return picks.replace(extra={"rlnClassNumber": np.full(n, "1", dtype=object)})


def match_all(picks: Picks, truth: Picks, files: list[Path]) -> int:
    """True positives over all micrographs, matched by name and then by place."""
    leased, there = picks.by_micrograph(), truth.by_micrograph()
    image_of = {name: path.stem for name, path in match_micrographs([*leased, *there], files).items()}
    leases = {image_of[name]: part for name, part in leased.items()}
    return sum(
        match_particles(leases[image_of[name]].centers_yx, part.centers_yx, RADIUS_PX).n_matched
        for name, part in there.items()
    )


def main() -> None:
    """Print a line per task."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    rng = np.random.default_rng(0)
    picks = make_picks(n, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picks.star"
        write = best(lambda: write_coordinates(path, picks, optics=Optics()))
        size = path.stat().st_size
        by_gemmi = best(lambda: gemmi.cif.read_file(str(path)))
        read = best(lambda: read_coordinates(path))
    print(f"{n} picks, {size / 1e6:.0f} MB of STAR")
    print(f"gemmi reads    {by_gemmi:6.2f} s")
    print(f"cryoquery reads {read:5.2f} s, {read / by_gemmi:.1f} times gemmi's")
    print(f"cryoquery writes {write:4.2f} s, {write / by_gemmi:.1f} times gemmi's read")
    truth = make_picks(N_MICROGRAPHS * N_EACH, rng)
    shifted = truth.replace(centers_yx=truth.centers_yx + rng.normal(0, 20, truth.centers_yx.shape))
    files = [Path(f"micrographs/FoilHole_{i:05d}_fractions.mrc") for i in range(N_MICROGRAPHS)]
    seconds = best(lambda: match_all(shifted, truth, files))
    print(f"matching {N_MICROGRAPHS} micrographs x {N_EACH} picks {seconds:5.2f} s")


if __name__ == "__main__":
    main()
