"""Many items in three stages: threads before the network, the network, threads after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from cryoquery.errors import CryoqueryError

FAILURES = (CryoqueryError, OSError, MemoryError)
"""What may happen to one item while the others go on."""

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


def in_stages(
    items: Iterable[Item],
    before: Callable[[Item], Prepared],
    network: Callable[[Prepared], Answer],
    after: Callable[[Item, Prepared, Answer], Result],
    n_workers: int,
) -> Generator[Result | Exception, None, None]:
    """``after(item, prepared, network(prepared))`` of all items, in their order, as ``before`` prepared them.

    ``network`` runs in the calling thread, the others in ``n_workers`` threads ahead of it and behind
    it. At most ``n_workers`` items are in them at a time, and at most ``3 * n_workers + 1`` between
    the beginning of ``before`` and the result. Close the iterator when not all of it is wanted: it
    waits for the threads to finish what they are at, and begins nothing more.

    Yields:
        The result; or the error, where it is one of `FAILURES`.
    """
    rest = iter(items)
    coming: deque[tuple[Item, Future[Prepared | Exception]]] = deque()
    going: deque[Future[Result | Exception]] = deque()
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="pick")
    try:
        while True:
            missing = 2 * n_workers - len(coming)
            coming.extend((item, pool.submit(_attempt, before, item)) for item in islice(rest, missing))
            if coming:
                item, future = coming.popleft()
                prepared = future.result()
                answer = prepared if isinstance(prepared, Exception) else _attempt(network, prepared)
                if isinstance(prepared, Exception) or isinstance(answer, Exception):
                    going.append(_known(answer))
                else:
                    going.append(pool.submit(_attempt, after, item, prepared, answer))
            elif not going:
                return
            while going and (going[0].done() or len(going) > n_workers or not coming):
                yield going.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | Exception:
    try:
        return function(*arguments)
    except FAILURES as error:
        # Its frames would keep the pixels of a micrograph alive for as long as the error is.
        error.__traceback__ = error.__context__ = None
        return error


def _known(outcome: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(outcome)
    return future
