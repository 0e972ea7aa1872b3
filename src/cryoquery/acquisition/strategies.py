"""The table of strategies: which images to label next, one line each.

A row is an expression of the grammar (`vocabulary.py`), or a function from candidates and a number to
that many choices. It pulls what it needs from the candidates; `random` pulls nothing, and no network
is run for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from cryoquery.acquisition.candidates import Candidates, Choice, ImageScore, Select, Strategy
from cryoquery.acquisition.expressions import Word, read_as
from cryoquery.acquisition.vocabulary import words
from cryoquery.errors import ConfigError


@dataclass(frozen=True)
class NamedStrategy:
    """A row of the table."""

    expression: str | Strategy
    """What it is made of: an expression, or a registered function."""
    summary: str
    source: str = ""
    """Where it was published."""

    @property
    def strategy(self) -> Strategy:
        """What chooses."""
        if isinstance(self.expression, Strategy):
            return self.expression
        return _built(self.expression)


_NOISY = "power({}(entropy(ensemble='dihedral')), beta=(1, 100))"
_SKILLED = "power(skill, standardize=False)"
_HYBRID = "mix((0.7, top(mean(least_confidence))), (0.3, k_means))"

STRATEGIES: dict[str, NamedStrategy] = {
    "uncertainty": NamedStrategy("top(mean(least_confidence))", "highest mean least confidence"),
    "entropy": NamedStrategy("top(mean(entropy))", "highest mean entropy"),
    "margin": NamedStrategy("top(mean(margin))", "smallest mean margin; ranks images as uncertainty does"),
    "diversity": NamedStrategy("k_means", "k-means on bottleneck features, the image nearest to each center"),
    "hybrid": NamedStrategy(_HYBRID, "70 % by uncertainty, 30 % by diversity among the rest"),
    "random": NamedStrategy("random", "uniformly at random; looks at nothing"),
    "stratified_random": NamedStrategy(
        "stratified(random)", "at random, equal shares per group; the baseline where groups are uneven"
    ),
    "core_set": NamedStrategy("k_center", "greedy k-center given the labeled images", "arXiv:1708.00489"),
    "bald": NamedStrategy(
        "top(mean(mutual_information))",
        "highest mean mutual information of an image's eight symmetries",
        "arXiv:1112.5745",
    ),
    "power_bald": NamedStrategy(
        "power(mean(mutual_information))",
        "as bald, with Gumbel noise on standardized log scores, lest a query be all alike",
        "arXiv:2106.12059",
    ),
    "power_entropy": NamedStrategy(
        "power(mean(entropy))", "as entropy, with Gumbel noise on standardized log scores", "arXiv:2106.12059"
    ),
    "foreground_entropy": NamedStrategy(
        "top(foreground(entropy))", "highest mean entropy of the predicted foreground", "arXiv:2401.16298"
    ),
    "boundary_entropy": NamedStrategy(
        "top(boundary(entropy))", "highest mean entropy along predicted boundaries", "arXiv:2401.16298"
    ),
    "particle_entropy": NamedStrategy(
        "top(per_particle(entropy))", "most entropy per expected particle; likes images without any"
    ),
    "stratified_entropy": NamedStrategy(
        "stratified(top(mean(entropy)))", "highest mean entropy, equal shares per group"
    ),
    "stochastic_batches": NamedStrategy(
        "stochastic_batch(mean(entropy))", "the random batch of the highest mean entropy", "arXiv:2301.07670"
    ),
    "badge": NamedStrategy(
        "badge",
        "k-means++ on pooled gradients of the last layer: uncertain and different",
        "arXiv:1906.03671",
    ),
    "clue": NamedStrategy(
        "clue", "k-means on bottleneck features weighted by mean entropy", "arXiv:2010.08666"
    ),
    "clasp_pe": NamedStrategy(
        f"mix((0.667, {_NOISY.format('foreground')}), (0.333, {_NOISY.format('mean')}))",
        "two thirds by entropy of the foreground, one by that of the image, with noise that fades",
        "arXiv:2601.13677",
    ),
    "typiclust": NamedStrategy(
        "typiclust", "typical images of clusters with few labels; for cold starts", "arXiv:2202.02794"
    ),
    "prob_cover": NamedStrategy(
        "prob_cover", "images that most others are like and none labeled is", "arXiv:2205.11320"
    ),
    "auto": NamedStrategy(
        f"proportional({_SKILLED}, by=skill, otherwise={_SKILLED})",
        "shares of groups by their mean expected skill, at random within each; the default of projects",
    ),
}


def register(
    name: str, select: str | Select, summary: str, source: str = "", needs: Sequence[str] = ()
) -> None:
    """Add a row to the table.

    Args:
        name: what configs call it; letters, digits and underscores.
        select: an expression, or a function from candidates and a number to that many choices, best first.
        summary: one line about it.
        source: where it was published.
        needs: image scores that a function asks for, as expressions: so one pass yields all of them,
            and a plan knows what it costs.

    Raises:
        ConfigError: the name is taken or no name, or an expression cannot be read.
    """
    check_free(name)
    if isinstance(select, str):
        _built(select)
        STRATEGIES[name] = NamedStrategy(select, summary, source)
    else:
        scores = [image_score(text) for text in needs]
        signals = frozenset(signal for score in scores for signal in score.needs)
        STRATEGIES[name] = NamedStrategy(Strategy(select, signals), summary, source)


def image_score(text: str) -> ImageScore:
    """The image score that an expression stands for, to be called on candidates.

    Raises:
        ConfigError: it is none.
    """
    score: ImageScore = read_as(ImageScore, text, words())
    return score


def strategy_of(text: str) -> Strategy:
    """The strategy of a name in the table, or of an expression.

    Raises:
        ConfigError: it is neither.
    """
    return STRATEGIES[text].strategy if text in STRATEGIES else _built(text)


@lru_cache(maxsize=256)
def _built(expression: str) -> Strategy:
    # A word before a row of its name: entropy is a pixel score inside an expression.
    vocabulary = {name: _as_word(row) for name, row in STRATEGIES.items()} | dict(words())
    strategy: Strategy = read_as(Strategy, expression, vocabulary)
    return strategy


def _as_word(row: NamedStrategy) -> Word:
    return lambda: row.strategy


def load_plugin(path: Path) -> None:
    """Import a Python file that registers strategies, once in a process.

    Raises:
        ConfigError: it is not there, or fails.
    """
    path = path.resolve()
    if path in _LOADED:
        return
    module = ModuleType(f"cryoquery_plugin_{path.stem}")
    module.__file__ = str(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec")
        sys.modules[module.__name__] = module  # where dataclasses look for their own module
        exec(code, module.__dict__)
    except OSError as error:
        raise ConfigError(f"plugins: {path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"plugins: {path}: fails when it is imported ({reason})") from error
    _LOADED.add(path)


_LOADED: set[Path] = set()


def check_free(name: str) -> None:
    """Refuse a name that cannot be given to a new strategy.

    Raises:
        ConfigError: it is taken, or no name.
    """
    if not name.isidentifier() or name in STRATEGIES or name in words():
        raise ConfigError(f"strategy {name!r}: is taken or no name; call it otherwise")


def check_known(name: str) -> None:
    """Refuse what is neither in the table nor an expression.

    Raises:
        ConfigError: it is not; the message lists what is in the table.
    """
    if name.isidentifier() and name not in STRATEGIES:
        raise ConfigError(f"strategy {name!r}: unknown; choose from {', '.join(STRATEGIES)}")
    strategy_of(name)


def select(name: str, candidates: Candidates, n: int) -> list[Choice]:
    """The query of a strategy: ``n`` choices, best first, no image twice.

    Args:
        name: its name in the table, or an expression.
        candidates: what it chooses from.
        n: how many.

    Raises:
        ConfigError: the strategy is unknown, or cannot choose from these candidates: fewer than ``n``
            are left, or all are of one group where it needs several.
    """
    if n > len(candidates):
        raise ConfigError(f"a query of {n} images: only {len(candidates)} are unlabeled; ask for fewer")
    check_known(name)
    chosen = strategy_of(name)(candidates, n)
    indices = {choice.index for choice in chosen}
    assert len(chosen) == len(indices) == n, f"{name} broke its contract"
    assert indices <= set(candidates.indices.tolist()), f"{name} chose outside its candidates"
    assert np.isfinite([choice.score for choice in chosen]).all(), f"{name} has scores that are not finite"
    return chosen
