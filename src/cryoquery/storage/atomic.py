"""Files that appear whole or not at all: written beside, flushed, renamed."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cryoquery.errors import CryoqueryError, DataError
from cryoquery.storage.leases import Owner


class SupersededError(CryoqueryError):
    """Another process made the same folder meanwhile, or took over from this one."""


@contextmanager
def write_file(path: Path) -> Iterator[BinaryIO]:
    """A stream to fill that becomes ``path`` when the block ends without an error.

    A reader sees the old file or the new one, never a part; after an error in the block nothing stays.

    Raises:
        OSError: the disk is full, or the like; it names ``path``.
    """
    partial = _partial(path)
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        _sync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            _name(error, partial, path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with write_file(path) as stream:
        stream.write(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_table(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, whole or not at all; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as JSON, whole or not at all. NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` when the block ends without an error.

    What an interrupted earlier attempt left is removed first, unless its process is seen to live; after
    an error nothing stays. Each attempt has a folder of its own, so that one that was thought dead cannot
    write into another's. ``path`` must not exist yet, or be an empty folder; a symbolic link is followed.

    Raises:
        SupersededError: ``path`` appeared meanwhile, or a process elsewhere took this one for dead.
        OSError: the disk is full, or the like; it names a file in ``path``.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path.parent, re.escape(path.name), of_other_machines=True)
    staged = _partial(path)
    try:
        staged.mkdir()
    except OSError as error:
        _name(error, staged, path)
        raise
    try:
        yield staged
        for inside in (staged, *staged.rglob("*")):
            if inside.is_dir():
                _sync_directory(inside)
            elif inside.is_file():
                _sync_file(inside)
        staged.rename(path)
        _sync_directory(path.parent)
    except BaseException as error:
        taken_over = not staged.exists() and not path.exists()
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, OSError):
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and error.filename == str(staged):
                raise SupersededError(
                    f"{path}: another process made it meanwhile; run again to go on"
                ) from None
            if taken_over:
                raise SupersededError(f"{path}: another process took over; run again to go on") from None
            _name(error, staged, path)
        raise


def remove_leftovers(folder: Path, *, alone: bool = False) -> None:
    """Remove the parts of files that killed processes were writing in ``folder``.

    Args:
        folder: need not exist; those below it are not looked at.
        alone: no other process can be at work here, so that also what processes on other machines left is
            removed; otherwise only those are removed whose process is known to be gone.
    """
    _remove(folder, ".+", of_other_machines=alone)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def link(source: Path, target: Path) -> None:
    """A second name for a file where the file system can, a copy where it cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _partial(path: Path) -> Path:
    """Where to write what is to become ``path``: a name that says which process writes it."""
    return path.with_name(f".{path.name}.{Owner.myself().tag}-{uuid.uuid4().hex[:8]}.partial")


def _remove(folder: Path, name: str, of_other_machines: bool) -> None:
    """Remove what became of `_partial` files and folders whose name matches ``name``."""
    pattern = re.compile(rf"\.{name}\.([0-9a-f]+-\d+-\d*)-[0-9a-f]{{8}}\.partial")
    try:
        found = [(path, match[1]) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    except FileNotFoundError:
        return
    for path, tag in found:
        owner = Owner.of_tag(tag)
        if of_other_machines if owner is None else owner.is_gone():
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _name(error: OSError, partial: Path, path: Path) -> None:
    """Make an error name the file that was to be written: most name none, or the temporary one."""
    if error.filename2 is not None:
        del error.filename2
    named = str(partial) if error.filename is None else str(error.filename)
    error.filename = named.replace(str(partial), str(path))


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder; a rename on them is as safe as they make it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def check_new(path: Path) -> None:
    """Refuse to write a new folder over something that exists.

    Raises:
        DataError: ``path`` exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path}: exists already; remove it or choose another name")
