"""Of several kinds of things that a file marks, those that are particles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError

PARTICLES = frozenset(("particle", "particles"))
"""What a class of particles is called, in any case."""


def choose_particles(
    path: Path, classes: Sequence[str], wanted: Sequence[str] = (), known: Sequence[str] = ()
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which of the marks of a file are particles, and a note on those that are not.

    Those of the classes that are asked for; else of the class that is called particle; else all, where
    they are of one class.

    Args:
        path: for messages.
        classes: (n,) of each mark.
        wanted: names of classes, compared without case.
        known: further classes, of which the file has no mark.

    Returns:
        A mask (n,) and notes.

    Raises:
        DataError: none of the classes is known, or there are several and none is called particle.
    """
    counts = Counter(classes)
    every = dict.fromkeys([*counts, *known])
    asked = {name.lower() for name in wanted} or PARTICLES
    chosen = {name for name in every if name.strip().lower() in asked}
    shown = ", ".join(f"{name} ({counts[name]})" for name in every)
    if wanted and not chosen:
        raise DataError(f"{path}: no class {' or '.join(wanted)}; its classes are {shown}")
    if not chosen and len(counts) > 1:
        raise DataError(f"{path}: several classes, {shown}; say with --class which are particles")
    chosen = chosen or set(counts)
    left_out = [f"{counts[name]} of class {name}" for name in counts if name not in chosen]
    notes = [f"{', '.join(left_out)} left out; --class says which are particles"] if left_out else []
    if not wanted and not chosen & _called_particle(chosen) and len(every) > 1:
        notes.append(f"class {', '.join(chosen)} taken for particles; the file knows {shown}")
    return np.array([name in chosen for name in classes], dtype=bool), tuple(notes)


def _called_particle(names: set[str]) -> set[str]:
    return {name for name in names if name.strip().lower() in PARTICLES}
