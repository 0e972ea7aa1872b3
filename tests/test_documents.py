"""What the documents name is there: pages, sections, files of the sources, tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
COMMENTED = [
    *(ROOT / "configs").glob("*.toml"),
    *(path for folder in ("src", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def sections(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(FENCED.sub("", path.read_text())):
        page = path.parent / target if target else path
        assert page.exists(), target
        assert not anchor or anchor in sections(page), f"{target}#{anchor}"


def test_files_that_are_named_exist() -> None:
    known = [ROOT, ROOT / "src" / "cryoquery"]
    for path in DOCUMENTS + COMMENTED:
        for name in re.findall(r"\b((?:[\w.]+/)+\w+\.(?:py|js|md|toml))\b", path.read_text()):
            if name.split("/")[0] in {"src", "docs", "tests", "benchmarks", "examples", "configs"} | PACKAGES:
                assert any((folder / name).exists() for folder in [*known, path.parent]), f"{path}: {name}"


PACKAGES = {folder.name for folder in (ROOT / "src" / "cryoquery").iterdir() if folder.is_dir()}


def test_tests_that_are_named_exist() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for path in DOCUMENTS:
        named = set(re.findall(r"`(test_\w+)`", path.read_text()))
        assert named <= defined, path


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_configurations_can_be_read(path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        tomllib.loads(block)
