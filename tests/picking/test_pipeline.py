from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any

import pytest

from cryoquery.errors import DataError
from cryoquery.picking.pipeline import in_stages


def same(value: Any) -> Any:
    return value


def triple(*values: Any) -> tuple[Any, ...]:
    return values


def pick_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pick")]


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_results_come_in_order(n_workers: int) -> None:
    def slowly(item: int) -> int:
        time.sleep(0.002 * (item * 7 % 5))
        return item + 100

    results = list(in_stages(range(20), slowly, lambda prepared: prepared * 2, triple, n_workers))
    assert results == [(i, i + 100, 2 * (i + 100)) for i in range(20)]
    assert list(in_stages([], same, same, triple, n_workers)) == []
    assert pick_threads() == []


def test_the_network_runs_in_the_calling_thread_and_the_rest_beside_it() -> None:
    def here(_: Any) -> bool:
        return threading.current_thread() is threading.main_thread()

    results = list(in_stages([0], here, here, lambda *stages: (*stages, here(0)), 2))
    assert results == [(0, False, True, False)]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_failure_is_one_result_among_the_others(stage: int) -> None:
    def fail_at(this: int, item: int) -> int:
        if this == stage and item == 2:
            raise DataError("two is damaged")
        return item

    results = list(
        in_stages(
            range(5),
            lambda item: fail_at(0, item),
            lambda item: fail_at(1, item),
            lambda item, *_: fail_at(2, item),
            2,
        )
    )
    assert [r for r in results if not isinstance(r, Exception)] == [0, 1, 3, 4]
    assert isinstance(results[2], DataError)
    assert results[2].__traceback__ is None, "it would keep a micrograph alive"


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("slow", ["before", "network", "after"])
def test_few_items_are_alive_however_many_there_are(n_workers: int, slow: str) -> None:
    lock = threading.Lock()
    running, most_running, begun, received, most_alive = 0, 0, 0, 0, 0

    def stage(name: str) -> None:
        if name == slow:
            time.sleep(0.003)

    def before(item: int) -> int:
        nonlocal running, most_running, begun, most_alive
        with lock:
            begun += 1
            running += 1
            most_running = max(most_running, running)
            most_alive = max(most_alive, begun - received)
        stage("before")
        with lock:
            running -= 1
        return item

    for _ in in_stages(range(60), before, lambda p: stage("network"), lambda *_: stage("after"), n_workers):
        with lock:
            received += 1
    assert begun == received == 60
    assert most_running <= n_workers
    assert most_alive <= 3 * n_workers + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_in_the_network_ends_the_threads(error: type[BaseException]) -> None:
    begun = []

    def network(item: int) -> int:
        if item == 3:
            raise error
        return item

    def before(item: int) -> int:
        begun.append(item)
        return item

    with pytest.raises(error):
        list(in_stages(range(1000), before, network, triple, 2))
    assert pick_threads() == []
    assert len(begun) < 20


@pytest.mark.parametrize("stage", [0, 2])
def test_a_bug_in_a_thread_reaches_the_caller(stage: int) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(in_stages(range(9), broken if stage == 0 else same, same, broken if stage == 2 else triple, 2))
    assert pick_threads() == []


def test_whoever_stops_listening_ends_the_threads() -> None:
    begun = []

    def before(item: int) -> int:
        begun.append(item)
        return item

    with closing(in_stages(range(1000), before, same, triple, 2)) as results:
        assert next(results) == (0, 0, 0)
    assert pick_threads() == []
    assert len(begun) < 20
