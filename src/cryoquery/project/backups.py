"""Copies of a project's log: when a person asks, before each step, and once a day while it is served."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from cryoquery.errors import CryoqueryError, explain
from cryoquery.project.events import EventLog
from cryoquery.project.folder import Project
from cryoquery.storage.atomic import check_new, remove_leftovers

FOLDER = "backups"
MOST_KEPT = 5
"""The newest copies that are made by themselves …"""
DAYS_KEPT = 7
"""… and the last one of each of so many days."""
_NAME = re.compile(r"events_(\d{4}-\d\d-\d\d)_(\d+)\.sqlite")


def back_up(project: Project, path: Path) -> int:
    """Copy the log of a project to ``path``, also while it is served; the number of events in it.

    The copy is read and checked before it appears.

    Raises:
        ProjectError: the log is missing or damaged.
        CryoqueryError: ``path`` exists.
        OSError: the disk is full, or the like.
    """
    check_new(path)
    remove_leftovers(path.parent)
    with EventLog.open(project.events_path, write=False) as log:
        return log.copy(path)


def back_up_by_itself(project: Project, say: Callable[[str], None], *, daily: bool = False) -> None:
    """Keep a copy in the project's folder ``backups`` if something is new, and forget old ones.

    Where that cannot be done, ``say`` tells why; the work goes on.

    Args:
        project: whose log it is.
        say: takes a sentence.
        daily: not where there is a copy of today.
    """
    folder = project.path / FOLDER
    try:
        today = time.strftime("%Y-%m-%d")
        kept = _kept(folder)
        if daily and kept and kept[-1][0] == today:
            return
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder)
        with EventLog.open(project.events_path, write=False) as log:
            seq = log.last_seq
            if seq and not any(last == seq for _, last in kept):
                log.copy(folder / _name(today, seq))
        _forget(folder)
    except (CryoqueryError, OSError) as error:
        say(f"no backup was made: {explain(error)}")


def _name(day: str, seq: int) -> str:
    return f"events_{day}_{seq}.sqlite"


def _kept(folder: Path) -> list[tuple[str, int]]:
    """(day, number of the last event) of each copy, in order."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted((match[1], int(match[2])) for match in found if match)


def _forget(folder: Path) -> None:
    kept = _kept(folder)
    last_of_day = {day: (day, seq) for day, seq in kept}
    stay = {*kept[-MOST_KEPT:], *list(last_of_day.values())[-DAYS_KEPT:]}
    for copy in kept:
        if copy not in stay:
            with contextlib.suppress(OSError):
                (folder / _name(*copy)).unlink()
