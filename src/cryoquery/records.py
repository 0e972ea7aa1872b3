"""Files that appear whole or not at all: written beside, flushed, renamed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryoquery.errors import DataError, ExperimentError


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; a reader sees the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    _sync_directory(path.parent)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as JSON, whole or not at all. NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make ``folder`` and keep other processes on this machine out of it while the block runs.

    The operating system takes the lock back when the process ends, however it ends.

    Raises:
        ExperimentError: another process is at work in it, or ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ExperimentError(f"{folder}: is a file; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ExperimentError(
                f"{folder}: another process is running this experiment; wait for it, or stop it first"
            ) from None
        yield


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` when the block ends without an error.

    Whatever an interrupted earlier attempt left is removed first; after an error nothing stays.
    ``path`` must not exist yet, or be an empty folder; a symbolic link is followed.
    """
    path = path.resolve()
    staged = path.with_name(f".{path.name}.partial")
    staged.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
        for file in staged.rglob("*"):
            if file.is_file():
                _sync_file(file)
        _sync_directory(staged)
        staged.rename(path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    _sync_directory(path.parent)


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
