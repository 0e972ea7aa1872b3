"""Names of files that can be written into files, and read from them again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cryoquery.errors import DataError

ESCAPED = "surrogateescape"
"""How Python keeps bytes of a name that it cannot read."""


def check_name(path: Path | str) -> None:
    """Refuse a name that is not text of one line, and could be written to no file.

    Raises:
        DataError: its bytes are not UTF-8, or are not read as such, or it has a line break.
    """
    if len(str(path).splitlines()) > 1:
        raise DataError(f"{' '.join(str(path).splitlines())}: a line break is in its name; rename it")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown, raw = str(path).encode(errors="backslashreplace").decode(), str(path).encode(errors=ESCAPED)
        with suppress(UnicodeDecodeError):
            raise DataError(f"{raw.decode()}: its name is not read as UTF-8; set PYTHONUTF8=1") from None
        raise DataError(f"{shown}: its name is not UTF-8; rename it") from None
