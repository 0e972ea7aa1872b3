"""The outcome of checking: how many checks, which of them failed, and what could not be checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

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
    _read: dict[tuple[object, ...], Any] = field(default_factory=dict)

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

    def fields(self, file: Path, found: Mapping[str, Any], expected: Mapping[str, Any], of: str = "") -> None:
        """Check values by their names, those of tables within tables one by one."""
        for name, value in expected.items():
            inner = found.get(name)
            if isinstance(value, dict) and isinstance(inner, dict):
                everything = dict.fromkeys(sorted({*inner, *value}))
                self.fields(file, inner, everything | value, f"{of}{name}.")
            else:
                self.equal(file, f"{of}{name}", inner, value)

    def readable(self, file: Path, read: Callable[[Path], Content]) -> Content | None:
        """What ``read`` makes of a file; None where it cannot."""
        try:
            content = read(file)
        except (CryoqueryError, OSError, ValueError, RecursionError) as error:
            self.check(False, file, _reason(error, file))
            return None
        self.n_checks += 1
        return content

    def readable_once(self, file: Path, read: Callable[[Path], Content]) -> Content | None:
        """As `readable`, for a file that links may give several names: it is read under one of them."""

        def read_if_new(file: Path) -> Content:
            status = file.stat()
            known_as = read, status.st_dev, status.st_ino
            if known_as not in self._read:
                self._read[known_as] = read(file)
            content: Content = self._read[known_as]
            return content

        return self.readable(file, read_if_new)

    def json(self, file: Path, shape: Any) -> Any:
        """The content of a JSON file that has a ``shape``, as in `shaped`; None where it has not."""
        content = self.readable(file, read_json)
        return None if content is None else self.shaped(file, content, shape)

    def shaped(self, file: Path, content: object, shape: Any, of: str = "") -> Any:
        """The part ``of`` a file where it has a ``shape``, a type that pydantic knows; None where not."""
        try:
            sound = _adapter(shape).validate_python(content, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (of, *first["loc"]) if part != "") or "it"
            self.check(False, file, f"{where} is {_short(first['input'])}: {first['msg']}")
            return None
        self.n_checks += 1
        return sound

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


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}…"


def _reason(error: Exception, file: Path) -> str:
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{file}: ").splitlines()[0]
