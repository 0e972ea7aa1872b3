"""Micrographs to try the labeling on, and the truth about them.

    python examples/simulated_micrographs.py OUT [--micrographs 32] [--size 768] [--seed 0]

OUT gets ``micrographs/*.mrc``, as a microscope would leave them, and ``truth.star``, where the particles
are. The particles are proteasomes: barrels 150 Å long, 3 Å per pixel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cryoquery.formats import Picks, concatenate, write_coordinates, write_micrograph
from cryoquery.simulate import PROTEINS, Junk, Protein, SimulationConfig, simulate_micrographs

PIXEL_SIZE = 3.0
# Fewer particles than usual, to be marked by hand in half a minute.
PROTEASOME = Protein(**(PROTEINS["proteasome"].model_dump() | {"coverage": 0.1, "dose": 5.0}))
JUNK = Junk(crystals=1.5, aggregates=1.0, fragments=8.0, carbon=0.2)


def write_micrographs(out: Path, n: int = 32, size: int = 768, seed: int = 0) -> int:
    """Write ``n`` micrographs of ``size`` px squared, and the truth, into ``out``; how many particles.

    Raises:
        ConfigError: a number that cannot be used.
        FileExistsError: ``out`` exists.
    """
    config = SimulationConfig(
        n_micrographs=n,
        height_px=size,
        width_px=size,
        pixel_size=PIXEL_SIZE,
        seed=seed,
        proteins=(PROTEASOME,),
        junk=JUNK,
        empty=0.0,
    )
    sources = simulate_micrographs(config)
    (out / "micrographs").mkdir(parents=True)
    truth = []
    for source in sources:
        name = f"micrographs/{source.name}.mrc"
        write_micrograph(out / name, source.read(), source.pixel_size)
        rows = source.particles
        truth.append(
            Picks.of(rows[:, :2], micrograph=name, diameters_px=rows[:, 2], pixel_size=source.pixel_size)
        )
    particles = concatenate(truth)
    write_coordinates(out / "truth.star", particles)
    return len(particles)


def main() -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--micrographs", type=int, default=32)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out}: exists; name another folder")
    n_particles = write_micrographs(given.out, given.micrographs, given.size, given.seed)
    print(f"{given.out}: {given.micrographs} micrographs with {n_particles:,} particles")


if __name__ == "__main__":
    main()
