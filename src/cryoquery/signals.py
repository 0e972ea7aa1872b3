"""SIGTERM and its like: long work lets go, keeps what is finished, and can be run again to go on.

`stoppable` turns a signal into `Stopped`; what was begun is let go on the way out, and the command line ends
with status 128 + the signal. Ctrl-C (SIGINT) is Python's own `KeyboardInterrupt`. Jobs of Slurm go back into
the queue (`slurm.leave`), and the labeling server ends by the signal once it has let go.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cryoquery.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` where a signal asks this process to stop while the block runs; later ones are ignored.

    Only the main thread can handle signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for other in STOP_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
