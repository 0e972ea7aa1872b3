"""What to label first, before there is a model: micrographs that differ, from all conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from cryoquery.acquisition.diversity import k_means
from cryoquery.data.array_file import read_rows
from cryoquery.data.build import default_workers
from cryoquery.data.dataset import decode
from cryoquery.data.preprocess import MAD_TO_SIGMA, rescale
from cryoquery.picking.contamination import contaminated
from cryoquery.project.folder import Project
from cryoquery.project.state import QueueEntry

N_RINGS = 10
FINEST_RING = 4.0
"""Periods per particle diameter up to which the spectrum is looked at."""
WORKING_PARTICLE_PX = 10.0
"""Particle diameter in px of the reduced image in which areas are looked at."""
MOSTLY = 0.5
"""A micrograph with so large a share of carbon, ice and aggregates is not proposed for training."""
LIMIT = 4.0
"""Features are limited to so many robust standard deviations, so that odd ones do not decide alone."""
MAX_BINS = 3
"""Of defocus and of ice, in each group."""
MEASURE_REASON = "drawn at random, to measure how good the model is"

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class _Stratum:
    """Items taken under the same conditions."""

    words: str
    """The conditions; empty where nothing is known."""
    items: NDArray[np.int64]
    """Row numbers of the features."""


def held_out_order(project: Project) -> list[int]:
    """The items that are never trained on, in the fixed random order in which they are to be labeled.

    The first of them that are labeled are a random sample of the project, however many they are.
    """
    rows = project.dataset.rows("val")
    rng = np.random.default_rng([project.config.seed, 1])
    return [int(row) for row in rng.permutation(rows)]


def propose(
    project: Project,
    n: int,
    *,
    exclude: Collection[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[QueueEntry]:
    """The first ``n`` items to label, fewer where there are no more.

    Their score is the share of the items of their purpose that they stand for, in [0, 1].

    A share of them (``held_out_share``) is drawn at random from those that are only measured on. The others
    represent the rest: each group and each range of defocus and ice thickness, where these are known, gets
    its share; within these, images are clustered (`acquisition.diversity.k_means`) by `image_features`, and
    the one nearest to the center of each cluster is taken. Mostly contaminated ones are avoided.

    Args:
        project: with its images; no model and no labels are needed.
        n: how many.
        exclude: items that are not to be proposed, such as those that are labeled.
        progress: called with (items looked at, all of them).
    """
    held_out = [item for item in held_out_order(project) if item not in exclude]
    pool = np.array([row for row in project.dataset.rows("train") if row not in exclude], dtype=np.int64)
    n_measure = min(len(held_out), max(1, round(n * project.config.held_out_share)))
    n_train = min(len(pool), n - n_measure)
    n_measure = min(len(held_out), n - n_train)
    features, avoided = image_features(project, pool, progress)
    rng = np.random.default_rng([project.config.seed, 2])
    train: list[QueueEntry] = []
    for stratum, k in _shares(_strata(project, pool, n_train), n_train):
        train += _represent(project, pool, stratum, k, features, avoided, rng)
    train.sort(key=lambda entry: -(entry.score or 0))
    measure = [
        QueueEntry(item, 0, MEASURE_REASON, 1 / len(held_out), "measure") for item in held_out[:n_measure]
    ]
    return [entry._replace(rank=rank) for rank, entry in enumerate(spread(train, measure))]


def image_features(
    project: Project, items: NDArray[np.int64], progress: Callable[[int, int], None] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What images look like, without a model.

    Returns:
        Features (n, c), each with median 0 and robust standard deviation 1, limited to ±4: the logarithm
        of the power in rings of the Fourier transform up to 4 periods per particle, quantiles of the local
        standard deviation, skewness of the low-pass image, the contaminated share, and mean and spread of
        the intensity as recorded. And the contaminated share (n,) in [0, 1].
    """
    raw = []
    with ThreadPoolExecutor(default_workers()) as pool:
        for i, one in enumerate(pool.map(lambda item: _features(project, int(item)), items)):
            raw.append(one)
            if progress is not None:
                progress(i + 1, len(items))
    if not raw:
        return np.empty((0, 0)), np.empty(0)
    table = np.array(raw, dtype=np.float64)
    return _standardized(table), table[:, -1]


def _features(project: Project, item: int) -> NDArray[np.float64]:
    record = project.dataset.records[item]
    levels = read_rows(project.dataset.images, [item])[0]
    image = decode(levels[: record.content_height, : record.content_width])
    particle_px = record.diameter_px * record.scale
    small = rescale(np.ascontiguousarray(image), min(1.0, WORKING_PARTICLE_PX / particle_px))
    working_px = min(particle_px, WORKING_PARTICLE_PX)
    low = ndimage.gaussian_filter(small, working_px / 4, mode="nearest")
    power = ndimage.uniform_filter(small**2, max(3, round(working_px)), mode="nearest")
    quantiles = np.percentile(power, (10, 50, 90))
    off = low - low.mean()
    spread = float(off.std()) or 1.0
    return np.array(
        [
            *_ring_power(image, particle_px),
            *(0.5 * np.log(np.maximum(quantiles, 1e-6))),
            float((off**3).mean()) / spread**3,
            record.center,
            np.log(record.spread),
            float(contaminated(small, working_px).mean()),
        ]
    )


def _ring_power(image: NDArray[np.float32], particle_px: float) -> NDArray[np.float64]:
    """Logarithm of the mean power (N_RINGS,) in rings of 0.25 to 4 periods per particle diameter."""
    height, width = image.shape
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    spectrum = np.abs(np.fft.rfft2(image * window.astype(np.float32))) ** 2 / max(window.sum(), 1.0)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    per_particle = np.hypot(y, x) * particle_px
    edges = np.geomspace(0.25, FINEST_RING, N_RINGS + 1)
    ring = np.digitize(per_particle.ravel(), edges) - 1
    inside = (ring >= 0) & (ring < N_RINGS)
    sums = np.bincount(ring[inside], spectrum.ravel()[inside], N_RINGS)
    counts = np.bincount(ring[inside], minlength=N_RINGS)
    return np.asarray(np.log(np.maximum(sums / np.maximum(counts, 1), 1e-6)))


def _standardized(table: NDArray[np.float64]) -> NDArray[np.float64]:
    off = table - np.median(table, axis=0)
    spread = MAD_TO_SIGMA * np.median(np.abs(off), axis=0)
    spread = np.where(spread > 0, spread, off.std(axis=0))
    return np.clip(off / np.where(spread > 0, spread, 1.0), -LIMIT, LIMIT)


def _strata(project: Project, pool: NDArray[np.int64], n: int) -> list[_Stratum]:
    """Groups, and ranges of defocus and ice in them as long as there are twice as many items to choose."""
    by_group: dict[str, list[int]] = defaultdict(list)
    for at, item in enumerate(pool):
        by_group[project.items[item].group].append(at)
    several = len(by_group) > 1
    strata = [
        _Stratum(f"group {group}" if several else "", np.array(members))
        for group, members in sorted(by_group.items())
    ]
    rows = [project.micrograph_of(int(item)) for item in pool]
    for name, unit, known in (
        ("defocus", " µm", [row.defocus_um for row in rows]),
        ("ice", "", [row.ice for row in rows]),
    ):
        n_bins = min(MAX_BINS, n // (2 * max(len(strata), 1)))
        if n_bins > 1 and any(value is not None for value in known):
            values = np.array([np.nan if value is None else value for value in known])
            strata = [part for stratum in strata for part in _split(stratum, name, unit, values, n_bins)]
    return strata


def _split(
    stratum: _Stratum, name: str, unit: str, values: NDArray[np.float64], n_bins: int
) -> list[_Stratum]:
    """Equally filled ranges of a value, and those of which it is not known."""
    own = values[stratum.items]
    known = np.isfinite(own)
    edges = np.quantile(own[known], np.linspace(0, 1, n_bins + 1)[1:-1]) if known.any() else np.empty(0)
    bins = np.where(known, np.digitize(np.nan_to_num(own), edges), -1)
    parts = []
    for number in np.unique(bins):
        inside = bins == number
        words = f"{name} not known"
        if number >= 0:
            words = f"{name} {_range(float(own[inside].min()), float(own[inside].max()))}{unit}"
        joined = ", ".join(part for part in (stratum.words, words) if part)
        parts.append(_Stratum(joined, stratum.items[inside]))
    return parts


def _range(low: float, high: float) -> str:
    texts = [f"{value:.3g}" if abs(value) >= 100 else f"{value:.1f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]}–{texts[1]}"


def _shares(strata: Sequence[_Stratum], n: int) -> list[tuple[_Stratum, int]]:
    """How many of ``n`` each stratum gets, in proportion to its size (largest remainders)."""
    sizes = np.array([len(stratum.items) for stratum in strata], dtype=np.float64)
    if n == 0 or not len(strata):
        return []
    exact = sizes * (n / sizes.sum())
    counts = np.floor(exact).astype(np.int64)
    for i in np.argsort(-(exact - counts), kind="stable")[: n - counts.sum()]:
        counts[i] += 1
    return [(stratum, int(count)) for stratum, count in zip(strata, counts, strict=True) if count]


def _represent(
    project: Project,
    pool: NDArray[np.int64],
    stratum: _Stratum,
    k: int,
    features: NDArray[np.float64],
    avoided: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[QueueEntry]:
    """``k`` items of a stratum that are nearest to the centers of as many clusters."""
    candidates = stratum.items[avoided[stratum.items] < MOSTLY]
    candidates = _one_each(project, pool, candidates, k, rng)
    if len(candidates) < k:
        candidates = stratum.items
    chosen = candidates[k_means(features[candidates], k, rng)]
    nearest = cdist(features[stratum.items], features[chosen]).argmin(axis=1)
    counts = np.bincount(nearest, minlength=k)
    what = "fields" if project.config.unit == "field" else "micrographs"
    entries = []
    for at, count in zip(chosen, counts, strict=True):
        stands = f"stands for {count:,} similar {what}" if count > 1 else "unlike all others"
        reason = ": ".join(part for part in (stratum.words, stands) if part)
        entries.append(QueueEntry(int(pool[at]), 0, reason, float(count) / len(pool), "train"))
    return entries


def _one_each(
    project: Project,
    pool: NDArray[np.int64],
    candidates: NDArray[np.int64],
    k: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """One random field of each micrograph, where that leaves enough to choose from."""
    if project.config.unit == "micrograph":
        return candidates
    first: dict[str, int] = {}
    for at in rng.permutation(candidates):
        first.setdefault(project.items[pool[at]].micrograph, int(at))
    return np.array(sorted(first.values())) if len(first) >= k else candidates


def spread(many: Sequence[Entry], few: Sequence[Entry]) -> list[Entry]:
    """Both in their order, the places of each evenly spread."""
    places = [
        ((i + 0.5) / len(part), which, entry)
        for which, part in enumerate((many, few))
        for i, entry in enumerate(part)
    ]
    return [entry for *_, entry in sorted(places, key=lambda place: place[:2])]
