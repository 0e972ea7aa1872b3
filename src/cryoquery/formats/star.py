"""The syntax of STAR files: tables of text, read and written. What the labels mean is not known here."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import gemmi

from cryoquery.errors import DataError
from cryoquery.formats.columns import number

_TOKEN = re.compile(r"""'[^'\n]*'(?=\s|$)|"[^"\n]*"(?=\s|$)|\S+""")
_LABEL = re.compile(r"_\S+(?:\s+#.*)?")
_COMMENT = re.compile(r"^[ \t]*_\S+[ \t]+#\S*[ \t]+(\S.*)$", re.MULTILINE)
"""Behind a label, more than its number."""
_LINE = re.compile(r"^[ \t]*[^\s#]", re.MULTILINE)
_NEEDS_QUOTES = re.compile(r"^$|\s|^['\"_#$\[\];]|^(?:data_|loop_|save_|stop_|global_)", re.IGNORECASE)

_HEADER_LENGTH = 10_000
"""Characters at both ends of a file where empty lines and comments are looked for first."""

VERSION = "\n# version 30001\n\n"
"""The line before each table."""


MAX_LABELS = 1000
"""Of a table; rows that lack values are filled up, so that many labels would take much memory."""


@dataclass(frozen=True)
class Table:
    """A loop, or the pairs of a block taken as one row."""

    block: str
    """Name of its block, without ``data_``."""
    columns: Mapping[str, Sequence[str]]
    """Values by label, without the leading underscore; those missing at the end of a row are empty."""
    is_loop: bool = True

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))


def read_tables(path: Path, text: str) -> list[Table]:
    """All tables of a STAR file, in its order.

    gemmi reads; what it refuses is read line by line as RELION does, which accepts names that begin
    like a keyword or a quote, bytes beyond ASCII, and blocks of equal name. Rows that go on in the
    next line are refused, as by RELION: they cannot be told from rows with a value missing.

    Raises:
        DataError: a row has fewer or more values than there are labels, is part of a comment, or of no loop.
    """
    tables = _read_tables(path, text)
    _refuse_rows_in_comments(path, text, tables)
    return tables


def _refuse_rows_in_comments(path: Path, text: str, tables: Sequence[Table]) -> None:
    """Refuse a row that goes on behind the last label: it would be lost."""
    fewest = min((len(table.columns) for table in tables if table.is_loop), default=MAX_LABELS)
    for found in _COMMENT.finditer(text):
        words = found[1].split()
        if len(words) >= fewest - 1 and any(number(word) == number(word) for word in words):
            line = text.count("\n", 0, found.start()) + 1
            raise DataError(f"{path}: line {line}: a row in the comment of a label; begin a new line with it")


def _read_tables(path: Path, text: str) -> list[Table]:
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError):
        return _read_lines(path, text)
    if any(item.loop is not None and item.loop.width() > MAX_LABELS for block in document for item in block):
        raise _too_many(path)
    tables = _tables_of(document, quoted=any(mark in text for mark in "'\";"))
    return tables if _one_row_per_line(text, tables, len(document)) else _read_lines(path, text)


def _tables_of(document: gemmi.cif.Document, quoted: bool) -> list[Table]:
    tables = []
    for block in document:
        name = block.name.strip()
        pairs: dict[str, list[str]] = {}
        for item in block:
            if item.pair is not None:
                label, value = cast("tuple[str, str]", item.pair)
                pairs[label[1:]] = [gemmi.cif.as_string(value) if quoted else value]
            elif item.loop is not None:
                values, width = item.loop.values, item.loop.width()
                if quoted:
                    values = [gemmi.cif.as_string(v) if v[0] in "'\";" else v for v in values]
                columns = {tag[1:]: values[i::width] for i, tag in enumerate(item.loop.tags)}
                tables.append(Table(name, columns))
        if pairs:
            tables.append(Table(name, pairs, is_loop=False))
    return tables


def _one_row_per_line(text: str, tables: Sequence[Table], n_blocks: int) -> bool:
    """Whether there are no more lines than rows; else values are missing, and gemmi has shifted the rest.

    In the middle of a large file every line is taken for a row first: there are no empty ones as a rule.
    """
    n_expected = n_blocks
    for table in tables:
        n_expected += len(table.columns) + (table.n_rows + 1 if table.is_loop else 0)
    head = text.find("\n", _HEADER_LENGTH)
    tail = text.rfind("\n", head, -_HEADER_LENGTH)
    if 0 < head < tail:
        ends = len(_LINE.findall(text[:head])) + len(_LINE.findall(text[tail:]))
        if ends + text.count("\n", head, tail) <= n_expected:
            return True
    return len(_LINE.findall(text)) <= n_expected


def _read_lines(path: Path, text: str) -> list[Table]:
    """The rules of RELION: labels one per line, then one row per line."""
    tables: list[Table] = []
    pairs: dict[str, Sequence[str]] = {}
    block, at = "", 0
    lines = text.splitlines()
    while at < len(lines):
        line = lines[at].strip()
        if line.startswith("data_"):
            if pairs:
                tables.append(Table(block, pairs, is_loop=False))
            block, pairs = line[len("data_") :], {}
        elif line.startswith("loop_"):
            columns, at = _read_loop(path, lines, at + 1)
            tables.append(Table(block, columns))
            continue
        elif line.startswith("_"):
            tokens = _tokens(line)
            pairs[tokens[0][1:]] = [tokens[1] if len(tokens) > 1 else ""]
        elif line and not line.startswith("#"):
            raise DataError(
                f"{path}: line {at + 1} ({line[:40]!r}) belongs to no loop; correct the labels before it"
            )
        at += 1
    return [*tables, Table(block, pairs, is_loop=False)] if pairs else tables


def _read_loop(path: Path, lines: Sequence[str], at: int) -> tuple[dict[str, Sequence[str]], int]:
    """The loop whose labels begin at line index ``at``, and the index of the line behind it."""
    labels: list[str] = []
    rows: list[list[str]] = []
    after_blank = False
    while at < len(lines):
        line = lines[at].strip()
        if not rows and _LABEL.fullmatch(line):
            labels.append(line.split()[0][1:])
            if len(labels) > MAX_LABELS:
                raise _too_many(path)
        elif line and line[0] != "#":
            tokens = _tokens(line)
            if line[0] in "_dl" and _ends_loop(line, len(tokens), len(labels), after_blank):
                break
            if len(tokens) > len(labels):
                raise DataError(
                    f"{path}: line {at + 1} has {len(tokens)} values for {len(labels)} labels; "
                    "correct that line"
                )
            if rows and len(tokens) != len(rows[0]):
                raise DataError(
                    f"{path}: line {at + 1} has {len(tokens)} values where rows before have {len(rows[0])}; "
                    "correct that line"
                )
            rows.append(tokens)
        after_blank = not line
        at += 1
    columns: dict[str, Sequence[str]] = {}
    found = list(zip(*rows, strict=True))
    missing = [("",) * len(rows)] * (len(labels) - len(found))
    for label, values in zip(labels, [*found, *missing], strict=False):
        if columns.setdefault(label, values) != values:
            raise DataError(f"{path}: label _{label} is there twice, with different values; keep one column")
    return columns, at


def _too_many(path: Path) -> DataError:
    return DataError(f"{path}: a table of more than {MAX_LABELS} labels; damaged, copy it again")


def _ends_loop(line: str, n_tokens: int, n_labels: int, after_blank: bool) -> bool:
    """Whether a line is not a row: a name in the first column may begin like a keyword."""
    keyword = line.startswith(("data_", "loop_")) or (after_blank and line.startswith("_"))
    return keyword and (n_tokens != n_labels or (after_blank and n_tokens == 1))


def _tokens(line: str) -> list[str]:
    """Values of a line; a token that begins with # is a comment to its end."""
    tokens = line.split()
    if quoted := "'" in line or '"' in line:
        tokens = _TOKEN.findall(line)
    if "#" in line:
        n = next((i for i, token in enumerate(tokens) if token.startswith("#")), len(tokens))
        tokens = tokens[:n]
    if not quoted:
        return tokens
    return [t[1:-1] if len(t) > 1 and t[0] in "'\"" and t[0] == t[-1] else t for t in tokens]


def table_text(block: str, columns: Mapping[str, Sequence[str]], plain: Collection[str] = ()) -> str:
    """A loop as RELION writes it, values that need quotes in quotes.

    Its version is that of RELION 3.1, which refuses later ones; RELION 4 and 5 read it as well.

    Args:
        block: its name, without ``data_``.
        columns: values by label, all of one length.
        plain: labels of columns that are known to need no quotes, such as numbers.
    """
    labels = "".join(f"_{label} #{i} \n" for i, label in enumerate(columns, start=1))
    safe = [values if label in plain else _quoted(values) for label, values in columns.items()]
    rows = "\n".join(map(" ".join, zip(*safe, strict=True)))
    return f"{VERSION}data_{block}\n\nloop_ \n{labels}{rows}\n\n"


def _quoted(values: Sequence[str]) -> Sequence[str]:
    """The same values; only distinct ones are looked at, as a column of names repeats a few."""
    bad = {value: _quote(value) for value in set(values) if _NEEDS_QUOTES.search(value)}
    return [bad.get(value, value) for value in values] if bad else values


def _quote(value: str) -> str:
    plain = " ".join(value.splitlines())
    mark = "'" if '"' in plain else '"'
    return f"{mark}{plain.replace(mark, '_')}{mark}"
