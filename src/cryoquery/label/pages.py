"""The page's own files, read once: a request names one of them or none, and no path is ever made of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryoquery.errors import DataError

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True)
class StaticFile:
    """What is sent for a name."""

    content: bytes
    media_type: str
    etag: str


def load_pages(folder: Path = FOLDER) -> dict[str, StaticFile]:
    """The files of ``folder`` and of those in it, by name: ``index.html``, ``parts/view.js``.

    Raises:
        DataError: the page is not there.
    """
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder / INDEX}: no such file; install cryoquery again")
    return {
        path.relative_to(folder).as_posix(): _load(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in TYPES
    }


def with_fresh_addresses(pages: dict[str, StaticFile], prefix: str) -> dict[str, StaticFile]:
    """The same files, and a page that asks for them under ``/static/<prefix>/``.

    What a browser's cache holds for an address may be of another program that listened there before.
    """
    content = pages[INDEX].content.replace(b'"/static/', f'"/static/{prefix}/'.encode())
    return {**pages, INDEX: _file(content, TYPES[".html"])}


def _load(path: Path) -> StaticFile:
    return _file(path.read_bytes(), TYPES[path.suffix])


def _file(content: bytes, media_type: str) -> StaticFile:
    return StaticFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
