"""The outcome of checking: how many checks, which of them failed, and what could not be checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryoquery.errors import CryoqueryError
from cryoquery.storage.atomic import read_json

Content = TypeVar("Content")


@dataclass(frozen=True)
class Problem:
    """Something that does not hold."""

    file: Path
    text: str
    """What was expected there, and what was found."""

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


@dataclass(frozen=True)
class Verification:
    """What `verify` found out about an experiment."""

    n_checks: int
    problems: tuple[Problem, ...]
    unfinished: tuple[str, ...]
    """Runs that are not finished, with how far they got; what there is of them was checked."""
    not_checked: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing was found that does not hold."""
        return not self.problems

    def summary(self) -> str:
        """How it came out, in a line or a few."""
        outcome = "all hold" if self.holds else f"{len(self.problems)} do not hold"
        lines = [f"{self.n_checks:,} checks: {outcome}"]
        lines += [f"not finished: {what}" for what in self.unfinished]
        lines += [f"not checked: {what}" for what in self.not_checked]
        return "\n".join(lines)


@dataclass
class Checks:
    """Collects the outcome of checks."""

    n_checks: int = 0
    _problems: dict[Problem, None] = field(default_factory=dict)
    _unfinished: list[str] = field(default_factory=list)
    _skipped: Counter[str] = field(default_factory=Counter)

    def check(self, holds: bool, file: Path, text: str) -> bool:
        """Count a check; where it does not hold, ``text`` says so. Returns ``holds``."""
        self.n_checks += 1
        if not holds:
            self._problems[Problem(file, text)] = None
        return holds

    def equal(self, file: Path, what: str, found: object, expected: object) -> bool:
        """Check that a value is the one that was recomputed. Returns whether it is."""
        holds = type(found) is type(expected) and found == expected
        return self.check(holds, file, f"{what} is {_short(found)}, expected {_short(expected)}")

    def readable(self, file: Path, read: Callable[[Path], Content]) -> Content | None:
        """What ``read`` makes of a file; None where it cannot."""
        try:
            content = read(file)
        except (CryoqueryError, OSError, ValueError, RecursionError) as error:
            self.check(False, file, _reason(error, file))
            return None
        self.n_checks += 1
        return content

    def json(self, file: Path, kind: type) -> Any:
        """The content of a JSON file that holds a ``kind``; None where it does not."""
        content = self.readable(file, read_json)
        if content is None or self.check(isinstance(content, kind), file, f"holds no {kind.__name__}"):
            return content
        return None

    def unfinished(self, what: str) -> None:
        """Note a run that is not finished."""
        self._unfinished.append(what)

    def skip(self, what: str) -> None:
        """Note something that could not be checked; the same again is counted."""
        self._skipped[what] += 1

    def done(self) -> Verification:
        """The outcome of all checks."""
        skipped = (what if n == 1 else f"{what} ({n} times)" for what, n in self._skipped.items())
        return Verification(self.n_checks, tuple(self._problems), tuple(self._unfinished), tuple(skipped))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}…"


def _reason(error: Exception, file: Path) -> str:
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{file}: ").splitlines()[0]
