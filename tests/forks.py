"""Processes of Python that have everything imported already, in place of those of `subprocess`.

Importing torch takes seconds. A server does it once and forks for every process that is asked for, also
by those processes themselves. It has computed nothing by then, so that no threads are lost in the fork.

::

    process = Forked([sys.executable, "-m", "cryoquery", "experiment", "c.toml"])
    assert process.wait() == 0
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PRELOADED = (
    "cryoquery.cli.console",
    "cryoquery.experiment.executors.local",
    "cryoquery.label",
    "cryoquery.report",
    "cryoquery.storage.cache",
    "lightning_fabric",
    "matplotlib.pyplot",
    "scipy.stats",
    "sklearn.cluster",
)
VARIABLE = "TESTS_FORK_SERVER"
"""Of the environment: the folder of the server, for processes that want others."""
LONGEST_REQUEST = 1 << 20
START_SECONDS = 120.0
_needed = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
"""While it is open the server stays."""
_started: list[subprocess.Popen[bytes]] = []
"""Kept, since one that is forgotten while it runs is warned of."""
_Popen = subprocess.Popen
"""As it is before anybody puts `Forked` in its place."""


class Forked(_Popen):
    """A process forked from the server; whatever is not Python is started as ever."""

    _status: socket.socket | None = None

    def _execute_child(self, *arguments: Any) -> None:
        given = inspect.signature(_Popen._execute_child).bind(self, *arguments).arguments
        if given["args"][0] != sys.executable:
            super()._execute_child(*arguments)
            return
        address = str(server() / "socket")
        environment = os.environ if given["env"] is None else given["env"]
        request = {
            "command": [os.fspath(word) for word in given["args"][1:]],
            "environment": {**environment, VARIABLE: os.environ[VARIABLE]},
            "folder": os.fspath(given["cwd"] or Path.cwd()),
            "new_session": bool(given["start_new_session"]),
        }
        files = [
            own if given[name] == -1 else given[name]
            for own, name in enumerate(("p2cread", "c2pwrite", "errwrite"))
        ]
        self._status = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._status.connect(address)
        socket.send_fds(self._status, [json.dumps(request).encode()], files)
        self.pid = int(self._status.recv(100))
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))

    def _look(self, seconds: float | None) -> None:
        """Take note of its end, should it come within ``seconds``."""
        assert self._status is not None
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = int(self._status.recv(100))
            self._status.close()

    def _internal_poll(self, *more: Any, **options: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(*more, **options)
        self._look(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._status is None:
            return super()._wait(timeout)
        self._look(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode


def forked_by(pid: int) -> list[int]:
    """The processes that were forked for another one."""
    return [int(path.name.partition("-")[2]) for path in server().glob(f"{pid}-*")]


def server() -> Path:
    """The folder of the server, which is started where there is none; one for all workers of pytest-xdist."""
    if VARIABLE not in os.environ:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}-{time.time_ns()}")
        folder = Path(tempfile.gettempdir(), f"forks-{run}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            _started.append(
                _Popen(
                    [sys.executable, __file__, str(folder)],
                    stdin=subprocess.DEVNULL,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C at a terminal is for those who asked for processes
                )
            )
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "ready").exists():
            assert time.monotonic() < deadline, "the fork server did not start"
            time.sleep(0.02)
        _needed.connect(str(folder / "needed"))
        os.environ[VARIABLE] = str(folder)
    return Path(os.environ[VARIABLE])


def serve(folder: Path) -> tuple[dict[str, Any], list[int]]:
    """Fork for every request; returns in each of the forked processes, with what it is to do."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # or each process would go through all that was imported when it ends: two seconds
    kind = socket.AF_UNIX, socket.SOCK_SEQPACKET
    with socket.socket(*kind) as listener, socket.socket(*kind) as door:
        for each, name in ((listener, "socket"), (door, "needed")):
            each.bind(str(folder / name))
            each.listen(100)
        (folder / "ready").touch()
        needing: list[socket.socket] = []
        while True:
            ready, _, _ = select.select([listener, door, *needing], [], [], None if needing else 60)
            for other in set(ready) & set(needing):
                needing.remove(other)
                other.close()
            if door in ready:
                needing.append(door.accept()[0])
            if not needing:  # all who needed it have ended
                shutil.rmtree(folder, ignore_errors=True)
                os._exit(0)
            if listener not in ready:
                continue
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # guards that have done their work
                    pass
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    for each in (listener, door, *needing):
                        each.close()
                    return _guard(client, folder)


def _guard(client: socket.socket, folder: Path) -> tuple[dict[str, Any], list[int]]:
    """Fork once more, and tell the client how that process ends; returns only in that one."""
    message, files, _, _ = socket.recv_fds(client, LONGEST_REQUEST, 3)
    asking, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    pid = os.fork()
    if pid == 0:
        return json.loads(message), files
    for file in (0, 1, 2, *files):
        os.close(file)
    (folder / f"{asking}-{pid}").touch()
    with contextlib.suppress(OSError):  # it has ended without waiting
        client.send(str(pid).encode())
        client.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def become(request: dict[str, Any], files: list[int]) -> None:
    """Run a command line of Python in this process."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    if request["new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    kind, *arguments = request["command"]
    if kind == "-c":
        program, *arguments = arguments
        sys.argv = ["-c", *arguments]
        exec(program, {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *arguments]
        runpy.run_path(kind, run_name="__main__")


def leave(status: Any) -> None:
    """End as Python does, but for taking apart what was imported: half a second for each process."""
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    request, files = serve(Path(sys.argv[1]))
    try:
        become(request, files)
    except SystemExit as ended:
        leave(ended.code)
    leave(0)
