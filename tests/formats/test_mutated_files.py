"""Files that are a little wrong, or only unusual: read as they were meant, refused, or read with a note.

What is between the numbers is changed and the numbers are left alone. Then no pick may silently move by more
than half a pixel, and none may be lost or won.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from test_damaged_files import in_memory, read_or_refuse
from tiers import take, thorough

from cryoquery.formats import Picks, write_coordinates
from cryoquery.formats.names import SUFFIX_OF

N_FILES = take(1_000, 20_000)
N_SEEDS = take(70, 700)
"""Files as they were written, of which the others are made."""
SHAPE = (3838, 3710)
HALF_A_PIXEL = 0.5
NUMBER = re.compile(rb"(?<![A-Za-z_])[-+]?\d[\d.]*(?:[eE][-+]?\d+)?")
UTF_16 = "".encode("utf-16")
OTHERS = b"#,;: \t\n\"'_|xZ/[]{}()<>\\"
"""What is put between numbers; nothing that makes a number of two, or another one of one."""


def some_picks(rng: np.random.Generator) -> Picks:
    """Ten picks, on whole pixels or between them, at least some pixels apart."""
    grid = np.argwhere(np.ones((7, 7)))[rng.permutation(49)[:10]]
    centers = 200 + 450 * grid + rng.integers(-150, 150, (10, 2))
    centers = centers + (rng.uniform(0, 1, (10, 2)) if rng.integers(2) else 0)
    scores = rng.uniform(0, 1, 10) if rng.integers(2) else None
    return Picks.of(centers, micrograph="Movies/mic_1.mrc", scores=scores, diameters_px=108)


def written(picks: Picks, folder: Path, rng: np.random.Generator) -> tuple[bytes, str]:
    """A file of any format, and its suffix."""
    suffix = list(SUFFIX_OF.values())[rng.integers(len(SUFFIX_OF))]
    path = folder / f"seed{suffix}"
    write_coordinates(path, picks, pixel_size=1.5, micrograph_shapes=SHAPE)
    return path.read_bytes(), suffix


def unusual(content: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """The same file as another program, or another computer, might have written it."""
    if suffix == ".cs":
        return content
    text = content.decode()
    if suffix == ".json":
        text = json.dumps(json.loads(text), indent=rng.choice([None, 1, 4]), sort_keys=bool(rng.integers(2)))
    if suffix in (".csv", ".txt", ".box"):
        text = text.replace("\t" if suffix != ".csv" else ",", rng.choice(DELIMITERS[suffix]))
    if suffix in (".csv", ".txt"):
        text = HEADERS[rng.integers(len(HEADERS))](text)
    if rng.integers(4) == 0:
        text = "\n".join(line + " " * int(rng.integers(3)) for line in text.split("\n")) + "\n\n"
    if rng.integers(4) == 0:
        text = text.replace("\n", "\r\n")
    return text.encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"]) if rng.integers(3) == 0 else "utf-8")


DELIMITERS = {
    ".csv": [",", ", ", ";", "\t", " "],
    ".txt": ["\t", " ", "  ", ";", ","],
    ".box": ["\t", " ", ","],
}
HEADERS: list[Callable[[str], str]] = [
    str,
    str.lower,
    lambda text: text.replace("X-Coordinate", "x").replace("Y-Coordinate", "y"),
    lambda text: re.sub(r"^([\w-]+)", r'"\1"', text),
    lambda text: "# made by hand\n" + text,
]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One or two bytes between the numbers taken out, put in, or exchanged."""
    if content.startswith(UTF_16):  # between its bytes are the numbers themselves
        return mutated(content.decode("utf-16").encode(), rng).decode().encode("utf-16")
    for _ in range(rng.integers(1, 3)):
        inside = np.zeros(len(content) + 1, dtype=bool)
        for match in NUMBER.finditer(content):
            inside[match.start() : match.end()] = True
        at = int(rng.choice(np.flatnonzero(~inside[:-1])))
        other = OTHERS[(i := int(rng.integers(len(OTHERS)))) : i + 1]
        kind = rng.integers(4)
        if other == b"#" and content[:at].endswith(b"\n"):
            continue  # a row that is a comment is none, and nobody could tell
        if kind == 0:
            content = content[:at] + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + other + content[at + 1 :]
        elif kind == 2:
            content = content[:at] + other + content[at:]
        else:
            content = content[:at] + content[at : at + 1] * 2 + content[at + 1 :]
    return content


def moved_silently(read: Picks, picks: Picks) -> bool:
    """Whether picks are not where they were meant, and nothing was said."""
    if read.notes:
        return False
    distance = cdist(read.centers_yx, picks.centers_yx) if len(read) else np.empty((0, len(picks)))
    return len(read) != len(picks) or bool((distance.min(axis=0) > HALF_A_PIXEL).any())


@thorough
@pytest.mark.parametrize("is_damaged", [False, True], ids=["unusual", "damaged"])
def test_no_pick_moves_silently(tmp_path: Path, is_damaged: bool) -> None:
    rng = np.random.default_rng(20_261_130 + is_damaged)
    seeds = [(picks := some_picks(rng), *written(picks, tmp_path, rng)) for _ in range(N_SEEDS)]
    n_read = 0
    there: dict[Path, bytes] = {}
    with in_memory(there):
        for i in range(N_FILES // 2):
            picks, content, suffix = seeds[i % N_SEEDS]
            content = unusual(content, suffix, rng)
            if is_damaged and suffix != ".cs":
                content = mutated(content, rng)
            path = Path(f"/nowhere/mic_1{suffix}")
            there.clear()
            there[path] = content
            outcome = read_or_refuse(path)
            if isinstance(outcome, Picks):
                n_read += 1
                assert not moved_silently(outcome, picks), content
            else:
                assert str(path) in outcome, content
                assert "\n" not in outcome, content
    assert n_read > N_FILES // (8 if is_damaged else 3)
