"""Regular expressions of the whole package: none takes time by the square of a text's length."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator

import cryoquery

N_CHARACTERS, SECONDS = 20_000, 0.5
"""By the square a search takes more than a second, else some thousandths."""
PARTS = (
    *("a", "1", ".", ",", "/", "_", "-", " ", "\t", "\n", "'", '"', "#", "å", "a/", "1.", "1e", "x_", "e1"),
    *("_a", "_a #", "_a\t#", "a#", "' ", " \n", "/job001", "data_", "_DW", "_bin", "_bin1.", "_bin1"),
)


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """All that modules keep, by their name."""
    for module in pkgutil.walk_packages(cryoquery.__path__, "cryoquery."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    yield f"{module.name}.{name}", value


def slow(pattern: re.Pattern[str]) -> str | None:
    """A part that takes long to search when it is repeated."""
    for part in PARTS:
        for head in ("", "1"):
            text = head + part * (N_CHARACTERS // len(part)) + "!"
            started = time.process_time()
            pattern.search(text)
            if time.process_time() - started > SECONDS:
                return part
    return None


def test_no_search_takes_the_square_of_the_length() -> None:
    all_patterns = {pattern: name for name, pattern in patterns()}
    assert len(all_patterns) > 15
    assert {name: part for pattern, name in all_patterns.items() if (part := slow(pattern))} == {}


def test_what_takes_the_square_is_found() -> None:
    assert slow(re.compile(r"\d*,")) == "1"
