"""Threads for work that takes long; the program ends without waiting for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Workers:
    """So many threads, in which one task after the other is done."""

    def __init__(self, n: int, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._n = n
        for i in range(n):
            # A ThreadPoolExecutor's threads are waited for when Python ends, daemons are not.
            threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True).start()

    async def do(self, task: Callable[[], Answer]) -> Answer:
        """What ``task`` returns or raises; where this is cancelled before its turn, it is not begun."""
        future: Future[Answer] = Future()
        self._tasks.put((future, task))
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while (given := self._tasks.get()) is not None:
            future, task = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)

    def close(self) -> None:
        """Begin nothing more."""
        while not self._tasks.empty():
            given = self._tasks.get()
            if given is not None:
                given[0].cancel()
        for _ in range(self._n):
            self._tasks.put(None)
