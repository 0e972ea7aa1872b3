"""A project of RELION with two micrographs of known particles, and RELION's programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
from conftest import disc_mask
from numpy.typing import NDArray

from cryoquery.formats import Picks, concatenate, write_micrograph

SHAPE, BOX, DIAMETER, PIXEL_SIZE = (200, 260), 32, 20.0, 3.0
NAMES = ("a", "b")
PROGRAMS = ("preprocess", "autopick", "import", "star_handler", "image_handler", "pipeliner")


def missing_programs() -> list[str]:
    """RELION's programs that the tests need and that are not installed."""
    return [f"relion_{name}" for name in PROGRAMS if shutil.which(f"relion_{name}") is None]


def relion(program: str, *arguments: object) -> str:
    """Run one of RELION's programs in the current folder; what it says."""
    command = [f"relion_{program}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def truth(suffix: str = ".mrc", folder: str = "MotionCorr/job002/Movies") -> Picks:
    """Particles well inside of the micrographs, at whole pixels as RELION extracts them."""
    rng = np.random.default_rng(5)
    return concatenate(
        [
            Picks.of(
                rng.integers(BOX, np.array(SHAPE) - BOX, (20, 2)),
                micrograph=f"{folder}/{name}{suffix}",
                scores=rng.uniform(size=20),
                diameters_px=DIAMETER,
            )
            for name in NAMES
        ]
    )


def write_project(suffix: str = ".mrc", folder: str = "MotionCorr/job002/Movies") -> Picks:
    """Micrographs in the folder of RELION's project, and a STAR file as its CtfFind leaves it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path("CtfFind/job003").mkdir(parents=True, exist_ok=True)
    rng, particles = np.random.default_rng(6), truth(suffix, folder)
    for name, picks in particles.by_micrograph().items():
        pixels = rng.normal(0, 1, SHAPE) - 2 * disc_mask(SHAPE, picks.centers_yx, DIAMETER)
        write_micrograph(name, pixels.astype(np.float32), pixel_size=PIXEL_SIZE)
    rows = "".join(f"{name} 1\n" for name in particles.by_micrograph())
    Path("CtfFind/job003/micrographs_ctf.star").write_text(OPTICS + rows)
    return particles


OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 3.0 200.0 1.4 0.07


# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
"""
MICS = "CtfFind/job003/micrographs_ctf.star"


def extract(job: str, mics: str = MICS, out: str = "Extract/job009") -> dict[str, NDArray]:
    """The boxes (n, BOX, BOX) that RELION extracts by the picks of a job, by the micrograph's stem."""
    relion(
        *("preprocess", "--i", mics, "--coord_dir", f"{job}/", "--coord_suffix", "_autopick.star"),
        *("--part_star", f"{out}/particles.star", "--part_dir", f"{out}/"),
        *("--extract", "--extract_size", BOX),
    )
    return {path.stem: mrcfile.read(path) for path in sorted(Path(out).rglob("*.mrcs"))}


def cut(pixels: NDArray, picks: Picks) -> NDArray:
    """The same boxes, cut with NumPy."""
    corners = np.floor(picks.centers_yx + 0.5).astype(int) - BOX // 2
    return np.array([pixels[y : y + BOX, x : x + BOX] for y, x in corners])
