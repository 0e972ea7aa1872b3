"""Particles that nobody has named: random assemblies of domains, with and without symmetry."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

SYMMETRIES = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "D2", "D3", "D4", "D5", "D7", "T", "O", "I")
"""Point groups in Schoenflies notation, as `scipy.spatial.transform.Rotation.create_group` names them."""
_ASYMMETRIC = 0.35
"""Probability of no symmetry at all."""
_SHELL = 0.2
"""Probability that the domains are those of a closed shell, such as apoferritin or a capsid."""
_MAX_BEADS = 400


def random_assembly(rng: np.random.Generator) -> NDArray[np.float32]:
    """Centers (n, 3) of equal beads, the furthest of them at distance 1 from the origin; n is at most 400.

    One to four balls or rods of random size are put at random distances from the axes of a random point
    group and repeated by it. They may overlap, which makes the density there higher; those far from the
    axes leave a hollow.
    """
    name = "C1" if rng.random() < _ASYMMETRIC else str(rng.choice(SYMMETRIES))
    group = Rotation.create_group(name).as_matrix()  # type: ignore[arg-type]
    n_domains = int(rng.integers(2, 7)) if name == "C1" else int(rng.integers(1, 5))
    n_domains = min(n_domains, max(_MAX_BEADS // (4 * len(group)), 1))
    n_beads = _MAX_BEADS // (len(group) * n_domains)
    if rng.random() < _SHELL:
        beads = _shell(rng, _MAX_BEADS)
    else:
        domains = [_domain(rng, n_beads) + _place(rng, hollow=name != "C1") for _ in range(n_domains)]
        unit = np.concatenate(domains)
        # Symmetry axes lie along z and in the plane: stretching z makes rods and rings of the same group.
        beads = np.einsum("gij,nj->gni", group, unit).reshape(-1, 3)
        if not name.startswith(("T", "O", "I")):
            beads *= [1.0, 1.0, math.exp(rng.normal(0, 0.45))]
    beads = beads - beads.mean(axis=0)
    return np.asarray(beads / np.linalg.norm(beads, axis=1).max(), dtype=np.float32)


def _place(rng: np.random.Generator, hollow: bool) -> NDArray[np.float64]:
    """Where a domain lies: (3,)."""
    direction = rng.standard_normal(3)
    distance = rng.uniform(0.35, 1.0) if hollow else rng.uniform(0.0, 0.9)
    return np.asarray(distance * direction / np.linalg.norm(direction))


def _domain(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """A ball or an ellipsoid of ``n`` beads: (n, 3)."""
    directions = rng.standard_normal((n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ball = directions * np.cbrt(rng.random((n, 1)))
    axes = rng.uniform(0.2, 0.65) * np.exp(rng.normal(0, 0.35, 3))
    turned = Rotation.random(random_state=np.random.RandomState(rng.integers(2**31)))
    return np.asarray(turned.apply(ball * axes))


def _shell(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """A hollow ball of ``n`` beads, a little bumpy: (n, 3)."""
    inner = rng.uniform(0.45, 0.9)
    directions = rng.standard_normal((n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bumps = 1 + rng.uniform(0, 0.08) * np.cos(directions @ rng.normal(0, 6, 3))
    radius = np.cbrt(rng.uniform(inner**3, 1, n)) * bumps
    return np.asarray(directions * radius[:, None])
