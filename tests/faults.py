"""Attempts at one command, each in a process of its own that dies or fails at a chosen file operation.

    python faults.py PLAN.json

reads which commands to run and where to disturb them, and prints a line of JSON for each attempt. All
attempts are forked from one process that has imported everything, so that an attempt costs what it does
and not what Python takes to start. There are no threads to lose in the fork: OpenMP has one.

Counted are the operations that change files below one folder, and the steps of trainings. A write is
disturbed halfway: the first half of the bytes arrives. Nothing is synced to the disk in earnest, because
a killed process loses nothing that it wrote.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KILL, ENOSPC, EIO, MEMORY = "kill", "ENOSPC", "EIO", "memory"
BY_AUDIT = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.remove": 0, "os.rmdir": 0}
"""Audited operations that change files, and which of their arguments names what is changed."""
NAMED = ("open", *BY_AUDIT)
"""Operations whose errors name a file."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FREEING = ("os.remove", "os.rmdir")
"""A full disk does not keep anybody from removing files."""


@dataclass(frozen=True)
class Fault:
    """What happens at every ``at``-th operation of an attempt; 0: nothing ever."""

    kind: str = KILL
    at: int = 0
    lasting: bool = False
    """All operations fail from then on; a disk that is full stays full."""
    megabytes: int = 0
    """What the process may take in addition to what it has; of the kind MEMORY."""


@dataclass(frozen=True)
class Attempt:
    """How an attempt ended."""

    fault: Fault
    status: int
    """Exit status, or minus the signal that ended it."""
    n_operations: int
    hit: str
    """What was disturbed; empty: it was over before that."""
    said: str
    """What it wrote to standard error."""


class Disturbance:
    """Counts the operations of this process and disturbs the one that a fault names."""

    def __init__(self, fault: Fault, folder: Path, log: Path) -> None:
        self.fault, self.folder = fault, str(folder)
        self.n_operations = 0
        self._log = log
        self._fsync, self._open = os.fsync, io.open

    def install(self) -> None:
        """From here on there is no way back: an audit hook stays."""
        sys.addaudithook(self._audited)
        os.fsync = self._synced
        os.write, os.pwrite = self._writing(os.write), self._writing(os.pwrite)
        io.open = builtins.open = self._opened

    def step(self, *_: object) -> None:
        """A step of a training ended."""
        self._operation("step", "", can_fail=False)

    def _operation(
        self, name: str, path: str, halfway: Callable[[], object] | None = None, can_fail: bool = True
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            if self.fault.kind != KILL and can_fail:  # the beat of a lease
                raise OSError(getattr(errno, self.fault.kind), "injected")
            return
        self.n_operations += 1
        at, n = self.fault.at, self.n_operations
        if not at or n < at or (n % at and not self.fault.lasting):
            return
        if n == at:
            self._log.write_text(f"{name} {Path(path).name}")
        if self.fault.kind == KILL:
            if halfway is not None:
                halfway()
            os.kill(os.getpid(), signal.SIGKILL)
        if can_fail and not (self.fault.kind == ENOSPC and name in FREEING):
            if halfway is not None:
                halfway()
            number = getattr(errno, self.fault.kind)
            raise OSError(number, os.strerror(number), *([path] if name in NAMED else []))

    def _is_watched(self, path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.folder)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in BY_AUDIT:
            path = arguments[BY_AUDIT[event]]
            if self._is_watched(path):
                self._operation(event, os.fspath(path))
        elif event == "open" and self._is_watched(arguments[0]) and arguments[2] & WRITING:
            self._operation("open", os.fspath(arguments[0]))

    def _synced(self, descriptor: int) -> None:
        path = _path_of(descriptor)
        if self._is_watched(path):
            self._operation("fsync", path)

    def _writing(self, write: Callable[..., int]) -> Callable[..., int]:
        def disturbed(descriptor: int, content: bytes, *where: int) -> int:
            path = _path_of(descriptor)
            if self._is_watched(path):
                half = bytes(content)[: len(content) // 2]
                self._operation("write", path, lambda: write(descriptor, half, *where))
            return write(descriptor, content, *where)

        return disturbed

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        if not self._is_watched(file) or "b" not in mode or not set(mode) & set("wxa+"):
            return self._open(file, mode, buffering, *rest, **more)
        raw = _TornFile(file, mode.replace("b", ""))
        raw.disturbance = self
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


class _TornFile(io.FileIO):
    disturbance: Disturbance

    def write(self, content: Any) -> int:
        half = memoryview(content)[: len(content) // 2]
        self.disturbance._operation("write", str(self.name), lambda: io.FileIO.write(self, half))
        return super().write(content)


def attempt(command: list[str], fault: Fault, folder: Path, scratch: Path) -> Attempt:
    """Fork a process for the command line ``command``, disturb it, and say how it ended."""
    log, said, counted = scratch / "hit", scratch / "said", scratch / "counted"
    for file in (log, said, counted):
        file.write_text("")
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _redirect(scratch / "told", said)
        status = 70
        try:
            disturbance = Disturbance(fault, folder, log)
            status = _run(command, disturbance)
            counted.write_text(str(disturbance.n_operations))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(ended)
    return Attempt(fault, status, int(counted.read_text() or 0), log.read_text(), said.read_text())


def _redirect(told: Path, said: Path) -> None:
    for descriptor, file in ((1, told), (2, said)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)


def _run(command: list[str], disturbance: Disturbance) -> int:
    """The exit status of a command line in this process."""
    from cryoquery import cli
    from cryoquery.active.progress import Event, ImagesPassed
    from cryoquery.cli import console
    from cryoquery.storage import leases

    leases.SILENT_SECONDS, leases.POLL_SECONDS, leases.BEAT_SECONDS = 0.3, 0.02, 0.05
    told = console.ExperimentProgress.__call__

    def tell(progress: Any, event: Event) -> None:
        if isinstance(event, ImagesPassed) and event.trained:
            disturbance.step()
        told(progress, event)

    console.ExperimentProgress.__call__ = tell
    if disturbance.fault.kind == MEMORY:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + (disturbance.fault.megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    else:
        disturbance.install()
    sys.argv = ["cryoquery", *command]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stderr.flush()
    return 0


def main() -> None:
    """Make the attempts of a plan, one after the other."""
    import cryoquery
    import cryoquery.acquisition
    import cryoquery.cli.console
    import cryoquery.experiment.config
    import cryoquery.experiment.plan
    import cryoquery.report  # noqa: F401

    plan = json.loads(Path(sys.argv[1]).read_text())
    for fault in plan["faults"]:
        result = attempt(plan["command"], Fault(**fault), Path(plan["folder"]), Path(sys.argv[1]).parent)
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
