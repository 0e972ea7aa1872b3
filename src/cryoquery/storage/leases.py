"""Leases: which process is at work on something, on a file system that several machines may share.

A lease is a small file that exists while its owner works. It is made with ``O_EXCL``, which NFS keeps
since version 3, and holds who made it and a counter that the owner raises every few seconds. No lock of
the operating system is involved, and clocks are not compared: an owner counts as gone when its process
is gone, where that can be seen, or when its counter stood still for two minutes of the observer's own
monotonic clock.

A lease saves work and guards nothing: an owner that was suspended for longer may find that another process
took over. What is done under a lease must therefore appear whole or not at all, and come out the same
whoever does it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cryoquery.errors import ExperimentError

BEAT_SECONDS = 10.0
"""How often an owner says that it is alive."""
SILENT_SECONDS = 120.0
"""After so long without a beat an owner on another machine counts as gone."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Owner:
    """A process, so that others on the same machine can tell whether it is still there."""

    host: str
    boot: str
    """Identity of the machine's present boot and of its process table; empty where unknown."""
    pid: int
    started: str
    """When the process started, in ticks since boot: process numbers are used again."""

    @classmethod
    def myself(cls) -> Owner:
        """The present process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()))

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; False also where that cannot be seen from here."""
        if self.host != socket.gethostname() or not self.boot or self.boot != _boot():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # another process's, and alive
        return bool(self.started) and _started(self.pid) != self.started

    @property
    def tag(self) -> str:
        """The process as part of a file name: ``machine-pid-started``."""
        return f"{_machine(self.host, self.boot)}-{self.pid}-{self.started}"

    @classmethod
    def of_tag(cls, tag: str) -> Owner | None:
        """The process with this `tag`; None: it was on another machine, or before this one was restarted."""
        machine, pid, started = tag.split("-")
        host, boot = socket.gethostname(), _boot()
        return cls(host, boot, int(pid), started) if machine == _machine(host, boot) else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A lease that this process holds, and keeps alive from a thread until it is released."""

    def __init__(self, path: Path, descriptor: int, token: str) -> None:
        self.path = path
        self._descriptor = descriptor
        self._token = token
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give it up; the file disappears, unless another process took it over in the meantime.

        Where the disk fails it stays, and counts as abandoned when its time has come. What the work
        itself ran into is not hidden by that.
        """
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        with contextlib.suppress(OSError):
            found = _read(self.path)
            if found is not None and found.token == self._token:
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        n_beats = 0
        while not self._released.wait(BEAT_SECONDS):
            n_beats += 1
            # A full disk or a lost server must not end the work: others see the counter stand still.
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, f"{n_beats:{_COUNTER_DIGITS}d}".encode(), 0)
                os.fsync(self._descriptor)


def try_lease(path: Path) -> Lease | None:
    """Lease ``path`` for this process; None where another process holds it.

    The folder of ``path`` must exist.

    Raises:
        OSError: the file cannot be written; it names ``path``.
    """
    token = uuid.uuid4().hex
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    content = f"{0:{_COUNTER_DIGITS}d}\n{json.dumps({'token': token, **asdict(Owner.myself())})}\n".encode()
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
        lease = Lease(path, descriptor, token)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    _remove_asides(path)
    return lease


@contextmanager
def leased(
    path: Path,
    *,
    settled: Callable[[], bool] = lambda: False,
    waiting: Callable[[str], None] = lambda owner: None,
) -> Iterator[bool]:
    """Hold the lease ``path`` while the block runs, waiting for it as long as a living owner has it.

    Args:
        path: of the lease; its folder is made.
        settled: asked again and again while waiting; when it is true the wait ends without the lease.
        waiting: told once who holds it.

    Yields:
        Whether the lease is held; False: what was waited for is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path, lambda _: settled(), waiting) as mine:
        yield mine


@contextmanager
def alone(folder: Path, waiting: Callable[[str], None] = lambda owner: None) -> Iterator[None]:
    """Make ``folder`` and keep other processes, also on other machines, out of it while the block runs.

    What a process left that was killed is taken away at once on the same machine, and after
    `SILENT_SECONDS` without a sign of life on another.

    Args:
        folder: where to be alone.
        waiting: told once whose sign of life is waited for.

    Raises:
        ExperimentError: another process is at work in it, or ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ExperimentError(f"{folder}: is a file; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)

    def refuse(watch: LeaseObserver) -> bool:
        if watch.is_alive():
            raise ExperimentError(
                f"{folder}: {watch.owner} is running this experiment; wait for it, or stop it first"
            )
        return False

    with _held(folder / ".running", refuse, waiting):
        yield


@contextmanager
def _held(
    path: Path, leave: Callable[[LeaseObserver], bool], waiting: Callable[[str], None]
) -> Iterator[bool]:
    """Hold the lease ``path``; False once ``leave`` says of another process's lease that the wait is over."""
    watch = LeaseObserver(path)
    told = False
    while (lease := try_lease(path)) is None:
        if watch.is_abandoned():
            take_away(path, watch.token)
            continue
        if leave(watch):
            yield False
            return
        if not told:
            told = True
            waiting(str(watch.owner or "another process"))
        time.sleep(POLL_SECONDS)
    try:
        yield True
    finally:
        lease.release()


class LeaseObserver:
    """Looks at another process's lease from time to time, and judges whether its owner still works."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = ""
        self.owner: Owner | None = None
        self._first: str | None = None
        self._seen: tuple[str, str] | None = None
        self._since = time.monotonic()

    def is_abandoned(self) -> bool:
        """Look again: has the owner gone, or been silent for `SILENT_SECONDS`?"""
        found = _read(self.path)
        if found is None:
            self._seen = None
            return False
        now = (found.token, found.counter)
        if now != self._seen:
            if self._seen is None or self._seen[0] != found.token:
                self._first = found.counter
            self._seen, self._since = now, time.monotonic()
        self.token, self.owner = found.token, found.owner
        gone = found.owner is not None and found.owner.is_gone()
        return gone or time.monotonic() - self._since > SILENT_SECONDS

    def is_alive(self) -> bool:
        """Whether a sign of life was seen: the owner's process, or its counter rising."""
        if self.owner is not None and self.owner.boot == _boot() and self.owner.host == socket.gethostname():
            return not self.owner.is_gone()
        return self._seen is not None and self._seen[1] != self._first


def remove_abandoned(path: Path) -> None:
    """Remove a lease whose owner is seen to be gone."""
    watch = LeaseObserver(path)
    if path.exists() and watch.is_abandoned():
        take_away(path, watch.token)


def take_away(path: Path, token: str) -> None:
    """Remove an abandoned lease, unless it has changed hands since it was judged."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = _read(aside)
    if found is not None and found.token != token:
        # Another process was quicker, and this is the lease of one that lives: give it back.
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _remove_asides(path: Path) -> None:
    """Remove what is left of killed processes that were in `take_away`; for the holder of the lease only."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{32}")
    with contextlib.suppress(OSError):
        for aside in path.parent.iterdir():
            if pattern.fullmatch(aside.name):
                aside.unlink(missing_ok=True)


_COUNTER_DIGITS = 12


@dataclass(frozen=True)
class _LeaseContent:
    counter: str
    token: str
    owner: Owner | None


def _read(path: Path) -> _LeaseContent | None:
    """What a lease says; None where there is none. One that is being written has no owner yet."""
    try:
        text = path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: removed by another machine while it was looked at
            return None
        raise
    counter, _, rest = text.partition("\n")
    try:
        values = json.loads(rest)
        token = values.pop("token")
        return _LeaseContent(counter, token, Owner(**values))
    except (ValueError, TypeError, KeyError, AttributeError):
        return _LeaseContent(counter, "", None)


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _machine(host: str, boot: str) -> str:
    return hashlib.sha256(f"{host} {boot}".encode()).hexdigest()[:8]


def _started(pid: int) -> str:
    try:
        # The second field is the name in parentheses, and may hold spaces; the start time is the 22nd.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    except (OSError, IndexError):
        return ""
