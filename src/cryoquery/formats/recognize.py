"""The format of a file of picks, recognized from what it holds."""

from __future__ import annotations

import re
from pathlib import Path

from cryoquery.errors import DataError
from cryoquery.formats import tables
from cryoquery.formats.names import COORDINATE_SUFFIXES, FORMAT_OF, micrograph_key, micrograph_stem
from cryoquery.formats.text_table import first_line, split_line

HEADERLESS = ("box", "cbox")
"""Formats of bare numbers, in which an empty file means no picks."""

CBOX_WIDTH = 7
"""Numbers in a line of crYOLO's first ``.cbox``; EMAN's ``.box`` has four or five."""
STAR_BLOCK = re.compile(r"^[^\S\n]*data_", re.MULTILINE)
_PRINTABLE = bytes([9, 10, 13, *range(32, 127), *range(160, 256)])


def recognize(path: Path, text: str) -> str:
    """The format of a file of text, or ``table`` for one of no particular format.

    What it holds decides; its name only what is empty, and whether bare numbers are boxes. "star" may be a
    ``.cbox`` as well.

    Raises:
        DataError: it is none of them.
    """
    suffix = path.suffix.lower()
    named = FORMAT_OF.get(suffix)
    first = first_line(text)
    if not text[:100_000].strip():
        # RELION writes nothing at all into a_autopick.star where it has found nothing.
        is_a_pickers = named == "star" and micrograph_key(path) != micrograph_stem(path)
        if named is not None and (named in HEADERLESS or is_a_pickers):
            return named
        raise DataError(f"{path}: empty; copy it again")
    if first.lstrip()[:1] in ("{", "[") and named not in HEADERLESS:
        return "coco"
    if tables.names_coordinates(first):
        return "table"
    if (block := STAR_BLOCK.search(text)) is not None:
        before = map(str.strip, text[: block.start()].splitlines())
        if all(line.startswith("#") for line in before if line):
            return "star"
    if tables.holds_numbers(first):
        if named not in HEADERLESS:
            return "table"
        return "cbox" if named == "cbox" and len(split_line(first)) >= CBOX_WIDTH else "box"
    if suffix == ".cs":
        raise DataError(f"{path}: not a .cs file (it begins with {first[:20]!r}); copy it again")
    if named is not None:  # the format that the name promises: its reader can say what is wrong
        return named
    raise DataError(
        f"{path}: unknown suffix {suffix!r} and a content that is no format of coordinates (it begins with "
        f"{first.strip()[:30]!r}); coordinates are {' '.join(COORDINATE_SUFFIXES)}"
    )


def decode(path: Path, content: bytes) -> str:
    """The text of a file: UTF-8, UTF-16, or Latin-1 where there are no control characters.

    Lines end in a line feed, whatever ends them in the file.
    """
    try:
        text = content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        if content.translate(None, _PRINTABLE):
            raise DataError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
        text = content.decode("latin-1")
    if "\0" in text:
        raise DataError(f"{path}: no text (it holds zero bytes); give coordinates as text in UTF-8, or a .cs")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _encoding(content: bytes) -> str:
    """UTF-16 has a mark, or a zero byte in most pairs of bytes."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    head = content[:1000]
    first, second = head[::2].count(0), head[1::2].count(0)
    if 4 * max(first, second) > len(head) and not min(first, second):
        return "utf-16-be" if first else "utf-16-le"
    return "utf-8-sig"
