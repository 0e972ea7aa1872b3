"""Micrographs with known particles: synthetic, deterministic, made to look like real ones."""

from __future__ import annotations

from pathlib import Path

from cryoquery.data.build import BuildConfig, Progress, build_dataset
from cryoquery.data.dataset import Dataset
from cryoquery.simulate.config import PROTEINS, Junk, Protein, SimulationConfig
from cryoquery.simulate.micrograph import simulate_micrographs

__all__ = [
    "PROTEINS",
    "Junk",
    "Protein",
    "SimulationConfig",
    "simulate_dataset",
    "simulate_micrographs",
]


def simulate_dataset(
    out: Path | str,
    simulation: SimulationConfig | None = None,
    build: BuildConfig | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Simulate micrographs and write them as a dataset at ``out``; all of it or nothing.

    Without ``build`` the images are the micrographs at the size they are simulated at.

    Raises:
        DataError: ``out`` exists, or the disk is too full.
    """
    simulation = simulation or SimulationConfig()
    build = build or BuildConfig(size=simulation.image_size)
    return build_dataset(
        simulate_micrographs(simulation),
        out,
        build,
        origin={"simulation": simulation.model_dump(mode="json")},
        progress=progress,
    )
