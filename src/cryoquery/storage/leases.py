"""Leases: which process works on something, on a file system that several machines may share.

A lease is a small file that exists while its owner works. It is made with ``O_EXCL``, which NFS keeps
since version 3, and holds its owner and a counter that the owner raises every few seconds (the heartbeat).
No lock of the operating system is involved, and clocks are not compared: an owner counts as gone when its
process is gone, where that can be seen, or when its counter stood still for two minutes of the observer's
own monotonic clock.

A lease saves work and protects nothing: while an owner is suspended for longer, another process may take
over. What is done under a lease must therefore appear whole or not at all, and be the same whichever
process does it.

``filelock.SoftFileLease`` (tried: 4.3.1) does not replace this module. It takes an abandoned lease over by
``renameat2(RENAME_EXCHANGE)`` only, which NFS refuses with EINVAL: there neither a killed owner on the same
machine nor a silent one elsewhere is ever replaced (seen with that call made to return EINVAL: a lease of
0.4 s was still held after 6 s). And a process that is killed between making the file and writing into it
leaves an empty file that is never taken over, on any file system (seen by a SIGKILL there, which our kill
tests do at random). It cannot say either whether a heartbeat was seen, which `alone` needs to refuse at once.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cryoquery.errors import CryoqueryError, ExperimentError

BEAT_SECONDS = 10.0
"""Between two heartbeats of an owner."""
SILENT_SECONDS = 120.0
"""After so long without a heartbeat an owner on another machine counts as gone."""
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

    @property
    def is_here(self) -> bool:
        """Whether it can be seen from here: on this machine, since it was started, among its processes."""
        return bool(self.boot) and (self.host, self.boot) == (socket.gethostname(), _boot())

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; False also where that cannot be seen from here."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # another user's, and alive
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
        """Give it up; the file disappears, unless another process has taken it over.

        Where the disk fails the file stays, and counts as abandoned after `SILENT_SECONDS`; no error is
        raised, so that one of the work itself is not hidden.
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
    """Lease ``path`` for this process; None where another one holds it.

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
    with contextlib.suppress(OSError):  # what processes left that were killed in `take_away`
        for aside in path.parent.glob(glob.escape(f"{path.name}.") + "[0-9a-f]" * 32):
            aside.unlink(missing_ok=True)
    return lease


@contextmanager
def leased(
    path: Path,
    *,
    settled: Callable[[], bool] = lambda: False,
    refusal: Callable[[Owner | None], CryoqueryError] | None = None,
    waiting: Callable[[str], None] = lambda owner: None,
) -> Iterator[bool]:
    """Hold the lease ``path`` while the block runs, waiting for it as long as a living owner has it.

    Args:
        path: of the lease; its folder is made.
        settled: asked again and again while waiting; when it is true the wait ends without the lease.
        refusal: makes the error to raise as soon as the owner is seen to live, in place of waiting.
        waiting: called once with the name of the owner.

    Yields:
        Whether the lease is held; False: what was waited for is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    observer = LeaseObserver(path)
    announced = False
    while (lease := try_lease(path)) is None:
        if observer.remove_abandoned():
            continue
        if refusal is not None and observer.is_alive():
            raise refusal(observer.owner)
        if settled():
            yield False
            return
        if not announced:
            announced = True
            waiting(str(observer.owner or "another process"))
        time.sleep(POLL_SECONDS)
    try:
        yield True
    finally:
        lease.release()


@contextmanager
def alone(folder: Path, waiting: Callable[[str], None] = lambda owner: None) -> Iterator[None]:
    """Make ``folder`` and keep other processes, also on other machines, out of it while the block runs.

    What a killed process left is removed at once on the same machine, and after `SILENT_SECONDS` without
    a heartbeat on another.

    Args:
        folder: where to be alone.
        waiting: called once with the name of the process whose heartbeat is waited for.

    Raises:
        ExperimentError: another process is at work in it, or ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ExperimentError(f"{folder}: is a file; choose another folder")

    def refusal(owner: Owner | None) -> ExperimentError:
        return ExperimentError(f"{folder}: {owner} is running this experiment; wait for it, or stop it first")

    with leased(folder / ".running", refusal=refusal, waiting=waiting):
        yield


class LeaseObserver:
    """Looks at another process's lease from time to time, and judges whether its owner still works."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: _LeaseContent | None = None
        self._has_beaten = False
        self._since = time.monotonic()

    @property
    def owner(self) -> Owner | None:
        """Who held the lease at the last look."""
        return self._found.owner if self._found is not None else None

    def is_abandoned(self) -> bool:
        """Look again: has the owner gone, or been silent for `SILENT_SECONDS`?"""
        before, self._found = self._found, _read(self.path)
        if self._found is None:
            return False
        if self._found != before:
            self._has_beaten = before is not None and before.token == self._found.token
            self._since = time.monotonic()
        gone = self.owner is not None and self.owner.is_gone()
        return gone or time.monotonic() - self._since > SILENT_SECONDS

    def is_alive(self) -> bool:
        """Whether the last look showed that the owner works: its process, or a counter that rises."""
        if self.owner is not None and self.owner.is_here:
            return not self.owner.is_gone()
        return self._found is not None and self._has_beaten

    def remove_abandoned(self) -> bool:
        """Look again, and remove the lease if it is abandoned; whether it was."""
        if not self.is_abandoned() or self._found is None:
            return False
        take_away(self.path, self._found.token)
        return True


def take_away(path: Path, token: str) -> None:
    """Remove an abandoned lease, unless it has changed hands since it was judged."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = _read(aside)
    if found is not None and found.token != token:
        # Another process was quicker, and this is its lease: give it back.
        with contextlib.suppress(OSError):
            os.link(aside, path)
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
