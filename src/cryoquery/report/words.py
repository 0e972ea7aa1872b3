"""Numbers and lists as people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(n: int, one: str, numerals: Sequence[str] = (), many: str | None = None) -> str:
    """``1 image``, ``2,000 images``; ``numerals`` writes small numbers out."""
    number = numerals[n] if n < len(numerals) else f"{n:,}"
    return f"{number} {one if n == 1 else many or one + 's'}"


def signed(value: float | None) -> str:
    """A difference as tables have it, with a minus that is not a hyphen; never a signed zero."""
    if value is None:
        return "–"
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−").replace("+0.000", "0.000")


def p_value(p: float | None) -> str:
    """A p value as tables have it."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def mean_std(summary: Mapping[str, float | None] | None) -> str:
    """``0.812 ± 0.004`` of a mean and a standard deviation, which may be missing."""
    if summary is None or summary["mean"] is None:
        return "–"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.3f}"
    return f"{summary['mean']:.3f}{spread}".replace("-", "−")
