"""Small micrographs with known particles, and projects made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryoquery.data.preprocess import draw_mask
from cryoquery.formats import Picks, concatenate, write_micrograph
from cryoquery.project.folder import Project
from cryoquery.project.new_project import InitOptions, init_project

DIAMETER_PX = 20.0
SHAPE = (160, 220)


def particles(number: int, shape: tuple[int, int] = SHAPE, n: int = 12) -> np.ndarray:
    """(n, 2) centers (y, x) in px of micrograph ``number``, not symmetric in any orientation."""
    rng = np.random.default_rng([number, 1])
    return np.round(rng.uniform([12, 12], [shape[0] - 12, shape[1] - 40], (n, 2)), 3)


def write_micrographs(
    folder: Path, n: int, shape: tuple[int, int] = SHAPE, pixel_size: float | None = 2.0
) -> list[Path]:
    """``n`` micrographs mic_00.mrc … with dark discs on noise."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(n):
        centers = particles(i, shape)
        discs = draw_mask(shape, centers, np.full(len(centers), DIAMETER_PX))
        noise = np.random.default_rng([i, 2]).normal(100, 1, shape)
        paths.append(folder / f"mic_{i:02d}.mrc")
        write_micrograph(paths[-1], (noise - 1.5 * discs).astype(np.float32), pixel_size)
    return paths


def known_picks(numbers: range, folder: str = "elsewhere") -> Picks:
    """The particles of micrographs, named as another program would, in another folder."""
    return concatenate([Picks.of(particles(i), micrograph=f"{folder}/mic_{i:02d}.mrc") for i in numbers])


def make_project(root: Path, n: int = 6, **options: object) -> Project:
    """A project ``root/project`` of ``n`` micrographs in ``root/data``."""
    labels = options.pop("labels", ())
    table = options.pop("table", None)
    write_micrographs(root / "data", n)
    given = InitOptions(**{"diameter_px": DIAMETER_PX, "start": "random", **options})
    made = init_project(root / "project", [f"{root}/data/*.mrc"], given, labels=labels, table=table)  # type: ignore[arg-type]
    return made.project
