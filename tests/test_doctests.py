"""The examples in docstrings of public names run, and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

MODULES = [
    "acquisition.diversity",
    "acquisition.scores",
    "formats.coordinates",
    "formats.micrographs",
    "formats.picks",
    "formats.placement",
    "formats.writing",
    "network.losses",
    "network.model",
    "picking.metrics",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # examples write files beside them
    found = doctest.testmod(import_module(f"cryoquery.{name}"))
    assert found.attempted, "no example"
    assert not found.failed, "see the output"
