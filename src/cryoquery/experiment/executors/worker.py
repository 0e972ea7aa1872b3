"""A process of the local pool: reads runs from its input, does them, and answers with what went wrong.

python -m cryoquery.experiment.executors.worker EXPERIMENT N_THREADS
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import torch

from cryoquery.errors import Stopped, explain
from cryoquery.experiment.config import plan_runs
from cryoquery.experiment.folder import enter, equip
from cryoquery.experiment.run import do_run
from cryoquery.experiment.run_log import LOG
from cryoquery.signals import stoppable


def main(out: str, n_threads: str) -> int:
    """Work until the input ends. Exit status: 0 done, 143 stopped by a signal."""
    torch.set_num_threads(int(n_threads))
    # Whatever a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        with stoppable():
            config = enter(Path(out))
            try:
                context = equip(config)
            except Exception as error:
                if (reason := explain(error)) is None:
                    raise
                for _ in _lines():
                    print(json.dumps([reason, True]), file=answers, flush=True)
                return 0
            runs = {(run.name, run.seed): run for run in plan_runs(config, len(context.pool))}
            for line in _lines():
                name, seed = json.loads(line)
                run = runs[(name, seed)]
                with _errors_into(run.folder / LOG):
                    outcome = do_run(config, context, run)
                print(json.dumps([outcome.error, outcome.fatal]), file=answers, flush=True)
    except Stopped:
        return 128 + signal.SIGTERM
    return 0


def _lines() -> Iterator[str]:
    """The lines of the standard input. When it ends in the middle of a run, the pool has died: stop, too."""
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")
        if working.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    working = threading.Event()
    threading.Thread(target=read, daemon=True).start()
    while line := lines.get():
        working.set()
        yield line
        working.clear()


@contextmanager
def _errors_into(log: Path) -> Iterator[None]:
    """Add what is written to the standard error, warnings and tracebacks, to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 2)
        try:
            yield
        except Exception:
            import traceback

            traceback.print_exc()
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    # Python would wait for the thread that reads the input.
    os._exit(status)
