"""How often do 95 % intervals hold the truth? Simulated micrographs, by method, number and kind of score.

    python benchmarks/interval_coverage.py [--replicates 2000] [--scenarios] [--quick]

The F1 of a micrograph is drawn from a beta distribution; picks and particles are binomial around it.
``macro`` is the mean of F1 over micrographs, as of picks and of a person's blind repeats; ``pooled`` the
ratio of sums, as of pixels, in micrographs with 5 to 300 particles, with F1 falling where there are more or
not; ``difference`` that of the means of two samples, as of labels with and without suggestions.

Scenarios in which most micrographs are perfect, but for a few that may be anything (a beta density that is
infinite at 1), stand apart as ``mostly 1``: a small sample does not tell how bad the rare ones are.

Printed are the lowest and highest coverage over the scenarios of a kind, and the mean width, of the intervals
that are given: there is none where all micrographs of a sample have the same F1.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cryoquery.picking.intervals import limits, limits_of_difference

NUMBERS = (3, 5, 8, 20)
REGULAR = (
    *((0.6, std) for std in (0.03, 0.1, 0.2)),
    *((0.75, std) for std in (0.03, 0.1, 0.19)),
    *((0.85, std) for std in (0.03, 0.1, 0.13)),
    *((0.9, std) for std in (0.03, 0.09)),
    *((0.95, std) for std in (0.03, 0.047)),
    (0.97, 0.029),
)
"""(mean, standard deviation between micrographs) of F1, with a density that is finite at 1."""
MOSTLY_PERFECT = ((0.85, 0.2), (0.9, 0.2), (0.95, 0.1), (0.97, 0.05), (0.97, 0.1))
FEWEST_PARTICLES, MOST_PARTICLES = 5, 300
N_FOR_TRUTH = 400_000

Array: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""(r, m) numerators and denominators → lower and upper limits (r,)."""


@dataclass(frozen=True)
class Scenario:
    """Micrographs of one project."""

    kind: str
    mean: float
    std: float
    log_sizes: bool = False
    """Numbers of particles are uniform in their logarithm: a few micrographs outweigh all others."""
    crowding: float = 0.0
    """Correlation of the normal scores of the number of particles and of what F1 lacks."""

    @property
    def name(self) -> str:
        """Kind and shape of the scores."""
        return self.kind if (self.mean, self.std) in REGULAR else f"{self.kind}, mostly 1"

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Numerators and denominators ``shape`` of F1 in micrographs."""
        n = self.mean * (1 - self.mean) / self.std**2 - 1
        place = rng.uniform(size=shape)
        span = MOST_PARTICLES / FEWEST_PARTICLES
        sizes = span**place if self.log_sizes else 1 + (span - 1) * place
        n_particles = np.rint(FEWEST_PARTICLES * sizes).astype(int)
        quality = rng.beta(self.mean * n, (1 - self.mean) * n, shape)
        if self.crowding:
            noise = np.sqrt(1 - self.crowding**2) * rng.normal(size=shape)
            score = stats.norm.cdf(noise - self.crowding * stats.norm.ppf(place))
            quality = stats.beta.ppf(score, self.mean * n, (1 - self.mean) * n)
        n_matched = rng.binomial(n_particles, quality)
        n_false = rng.binomial(n_particles, 1 - quality)
        above, below = 2.0 * n_matched, (n_particles + n_matched + n_false).astype(float)
        return (above, below) if self.kind == "pooled" else (above / below, np.ones(shape))


def scenarios(kind: str) -> Iterator[Scenario]:
    """All scenarios of a kind."""
    for mean, std in (*REGULAR, *MOSTLY_PERFECT):
        if kind == "macro":
            yield Scenario(kind, mean, std)
        else:
            for log_sizes in (False, True):
                for crowding in (0.0, 0.5):
                    yield Scenario(kind, mean, std, log_sizes, crowding)


def pooled(above: Array, below: Array) -> Array:
    """Ratio of the sums over the last axis."""
    return np.asarray(above.sum(axis=-1) / below.sum(axis=-1))


def jackknife(above: Array, below: Array) -> tuple[Array, Array, Array]:
    """Ratio, its standard error, and the ratios without each micrograph."""
    m = above.shape[-1]
    without = (above.sum(-1, keepdims=True) - above) / (below.sum(-1, keepdims=True) - below)
    return pooled(above, below), np.sqrt((m - 1) * without.var(axis=-1)), without


def student(above: Array, below: Array, scale: str) -> tuple[Array, Array]:
    """Jackknife error times a t quantile with m − 1 degrees of freedom, on a scale, cut off at 0 and 1."""
    ratio, error, _ = jackknife(above, below)
    reach = stats.t.ppf(0.975, above.shape[-1] - 1) * error
    if scale == "arcsine":
        angle, reach = np.arcsin(np.sqrt(ratio)), reach / (2 * np.sqrt(ratio * (1 - ratio)))
        low, high = (np.sin(np.clip(angle + sign * reach, 0, np.pi / 2)) ** 2 for sign in (-1, 1))
    elif scale == "logit":
        odds, reach = np.log(ratio / (1 - ratio)), reach / (ratio * (1 - ratio))
        low, high = (1 / (1 + np.exp(-(odds + sign * reach))) for sign in (-1, 1))
    else:
        low, high = np.clip(ratio - reach, 0, 1), np.clip(ratio + reach, 0, 1)
    return low, high


def resamples(m: int, n_drawn: int, n: int, seed: int = 0) -> Array:
    """Weights (n, m) of micrographs of which ``n_drawn`` are drawn with replacement."""
    return np.random.default_rng(seed).multinomial(n_drawn, np.full(m, 1 / m), size=n).astype(float)


def percentile(above: Array, below: Array, n: int, rao_wu: bool) -> tuple[Array, Array]:
    """Percentile bootstrap, plain or of m − 1 draws and stretched to a t quantile (as the report had)."""
    m = above.shape[-1]
    weights = resamples(m, m - 1 if rao_wu else m, n)
    found = np.quantile((above @ weights.T) / (below @ weights.T), [0.025, 0.975], axis=-1)
    if rao_wu:
        ratio, stretch = pooled(above, below), stats.t.ppf(0.975, m - 1) / stats.norm.ppf(0.975)
        found = np.clip(ratio + stretch * (found - ratio), 0, 1)
    return found[0], found[1]


def accelerated(above: Array, below: Array, n: int) -> tuple[Array, Array]:
    """BCa (Efron 1987)."""
    weights = resamples(above.shape[-1], above.shape[-1], n)
    drawn = np.sort((above @ weights.T) / (below @ weights.T), axis=-1)
    ratio, _, without = jackknife(above, below)
    less = (drawn < ratio[:, None]).mean(-1) + (drawn == ratio[:, None]).mean(-1) / 2
    bias = stats.norm.ppf(np.clip(less, 1 / n, 1 - 1 / n))
    d = without.mean(-1, keepdims=True) - without
    skew = (d**3).sum(-1) / (6 * (d**2).sum(-1) ** 1.5)
    found = []
    for z in stats.norm.ppf([0.025, 0.975]):
        at = stats.norm.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
        rows = np.clip(np.nan_to_num(at) * n, 0, n - 1).astype(int)
        found.append(np.take_along_axis(drawn, rows[:, None], axis=-1)[:, 0])
    return found[0], found[1]


def bootstrap_t(above: Array, below: Array, n: int) -> tuple[Array, Array]:
    """Bootstrap-t on the logit scale (Efron 1979), resamples without spread left out."""
    m = above.shape[-1]
    weights = resamples(m, m, n)
    ratio, error, _ = jackknife(above, below)
    drawn = (above @ weights.T) / (below @ weights.T)
    # Linearized variance of a resample: sums of w (a − R b)² over the squared mean of b.
    squares = (above**2) @ weights.T - 2 * drawn * ((above * below) @ weights.T)
    squares = np.maximum(squares + drawn**2 * ((below**2) @ weights.T), 0)
    errors = np.sqrt(squares * m / (m - 1)) / (below @ weights.T)
    inside = np.clip(drawn, 1e-4, 1 - 1e-4)
    odds = np.log(ratio / (1 - ratio))
    t = (np.log(inside / (1 - inside)) - odds[:, None]) / (errors / (inside * (1 - inside)))
    low, high = np.nanquantile(np.where(errors > 1e-6, t, np.nan), [0.975, 0.025], axis=-1)
    scale = error / (ratio * (1 - ratio))
    return 1 / (1 + np.exp(-(odds - low * scale))), 1 / (1 + np.exp(-(odds - high * scale)))


def methods(n: int) -> Mapping[str, Method]:
    """All methods, the bootstraps with ``n`` resamples."""
    return {
        "percentile bootstrap (before)": partial(percentile, n=n, rao_wu=False),
        "Rao-Wu percentile × t": partial(percentile, n=n, rao_wu=True),
        "BCa": partial(accelerated, n=n),
        "bootstrap-t, logit": partial(bootstrap_t, n=n),
        "jackknife-t": partial(student, scale="none"),
        "jackknife-t, arcsine": partial(student, scale="arcsine"),
        "jackknife-t, logit": partial(student, scale="logit"),
        "the same, df by kurtosis (ours)": limits,
    }


@dataclass(frozen=True)
class Found:
    """Of one method in one scenario."""

    coverage: float
    width: float
    none: float
    """Share of samples without an interval."""


def measured(method: Method, above: Array, below: Array, truth: float) -> Found:
    """Coverage of the samples (r, m) that vary at all."""
    given = jackknife(above, below)[1] > 1e-9
    low, high = method(above[given], below[given])
    inside = (low - 1e-12 <= truth) & (truth <= high + 1e-12)
    return Found(float(inside.mean()), float((high - low).mean()), float(1 - given.mean()))


def differences(scenario: Scenario, m: int, n: int, rng: np.random.Generator) -> Found:
    """Of `limits_of_difference`, for two samples of micrographs whose expected F1 is the same."""
    low, high = limits_of_difference(scenario.draw(rng, (n, m))[0], scenario.draw(rng, (n, m))[0])
    given = ~np.isnan(low)
    inside = ((low <= 0) & (high >= 0))[given]
    return Found(float(inside.mean()), float((high - low)[given].mean()), float(1 - given.mean()))


def table(n: int, n_resamples: int, quick: bool) -> Iterator[tuple[Scenario, int, str, Found]]:
    """Every scenario, number of micrographs, and method."""
    for kind in ("macro", "pooled"):
        for index, scenario in enumerate(scenarios(kind)):
            if quick and index % 7:
                continue
            rng = np.random.default_rng([index, len(kind)])
            truth = float(pooled(*scenario.draw(rng, (N_FOR_TRUTH // (20 if quick else 1),))))
            for m in NUMBERS:
                above, below = scenario.draw(rng, (n, m))
                for name, method in methods(n_resamples).items():
                    yield scenario, m, name, measured(method, above, below, truth)
                if kind == "macro":
                    renamed = Scenario("difference", scenario.mean, scenario.std)
                    yield renamed, m, "Welch's t, df by kurtosis (ours)", differences(renamed, m, n, rng)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicates", type=int, default=2000, help="samples of each scenario")
    parser.add_argument("--resamples", type=int, default=500, help="of each bootstrap")
    parser.add_argument("--scenarios", action="store_true", help="a row for each scenario as well")
    parser.add_argument("--quick", action="store_true", help="few scenarios, few samples")
    given = parser.parse_args(argv)
    n, n_resamples = (100, 100) if given.quick else (given.replicates, given.resamples)
    rows: dict[tuple[str, str], dict[int, list[Found]]] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        for scenario, m, name, found in table(n, n_resamples, given.quick):
            rows.setdefault((scenario.name, name), {}).setdefault(m, []).append(found)
            if given.scenarios:
                print(f"{scenario} m={m} {name}: {found.coverage:.3f}, width {found.width:.3f}", flush=True)
    head = " | ".join(f"{m} micrographs" for m in NUMBERS)
    for kind in dict.fromkeys(kind for kind, _ in rows):
        none = max(found.none for (k, _), by_m in rows.items() if k == kind for found in by_m[NUMBERS[0]])
        print(f"\n{kind} (at most {none:.0%} of samples of three without an interval)\n\n| method | {head} |")
        print("|---" * (len(NUMBERS) + 1) + "|")
        for (k, name), by_m in rows.items():
            if k == kind:
                print(f"| {name} | {' | '.join(cell(by_m[m]) for m in NUMBERS)} |")


def cell(found: list[Found]) -> str:
    """Lowest and highest coverage in %, and mean width."""
    low, high = (100 * f(one.coverage for one in found) for f in (min, max))
    return f"{low:.1f} to {high:.1f} ({np.mean([one.width for one in found]):.2f})"


if __name__ == "__main__":
    main()
