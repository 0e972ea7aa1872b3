"""Names of tasks as the browser knows them: a blind repeat must not show in its name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from cryoquery.project.labeling import UnknownTaskError, task_id

_ITEM = re.compile(r"0|[1-9][0-9]{0,8}")
_DIGITS = 16


class TaskNames:
    """Task ↔ its name, 16 hexadecimal digits that stay the same in a project. For one thread.

    Args:
        project: id of the project.
        n_items: of the project.
    """

    def __init__(self, project: str, n_items: int) -> None:
        self._project = project
        self._n_items = n_items
        self._tasks: dict[str, str] = {}

    def public(self, task: str) -> str:
        """The name of ``task``."""
        key = hashlib.sha256(self._project.encode()).digest()
        name = hashlib.blake2b(task.encode(), key=key, digest_size=_DIGITS // 2).hexdigest()
        self._tasks[name] = task
        return name

    def task(self, name: str, known: Iterable[str]) -> str:
        """The task of that name.

        The number of an item names its first labeling: pages of earlier versions keep commands under it.

        Args:
            name: from a browser.
            known: tasks that were opened at least once.

        Raises:
            UnknownTaskError: no task has it.
        """
        if _ITEM.fullmatch(name) and int(name) < self._n_items:
            return name
        if name not in self._tasks:
            for task in (*map(task_id, range(self._n_items)), *known):
                self.public(task)
        if name not in self._tasks:
            raise UnknownTaskError("there is no such task")
        return self._tasks[name]
