"""Mistakes a user can make; the command line prints them in one line, without a traceback."""

from __future__ import annotations

import errno
import signal


class CryoqueryError(Exception):
    """A user's mistake. The message names the file or key, the value found, and the way out."""


class ConfigError(CryoqueryError):
    """A value in a configuration that cannot be used."""


class DataError(CryoqueryError):
    """A file or a folder of data that cannot be used."""


class ExperimentError(CryoqueryError):
    """An experiment's folder that does not fit what was asked of it."""


class ProjectError(CryoqueryError):
    """A project that does not fit what was asked of it, or a command that it cannot take."""


class SlurmError(CryoqueryError):
    """Slurm is not there, does not answer, or refuses a job."""


class UnfinishedRunsError(ExperimentError):
    """Some runs of an experiment could not be finished; the others are."""


class Stopped(BaseException):
    """A signal asked this process to let its work go; like `KeyboardInterrupt` it is no error."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = signal.Signals(number)


_KEPT = "and run again; what is finished is kept"
_WAYS_OUT = {
    errno.ENOSPC: f"free some {_KEPT}",
    errno.EDQUOT: f"free some {_KEPT}",
    errno.EIO: f"see that the disk or its server works {_KEPT}",
    errno.ESTALE: f"see that the file server works {_KEPT}",
    errno.ETIMEDOUT: f"see that the file server works {_KEPT}",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "ask for access, or choose another folder",
    errno.EPERM: "ask for access, or choose another folder",
    errno.EMFILE: f"allow more open files (ulimit -n) {_KEPT}",
    errno.ENFILE: f"see that other programs close files {_KEPT}",
}
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
)
"""Parts of what torch and Python say in a RuntimeError, on CPUs and GPUs."""
_NO_MEMORY_IN_ONEDNN = ("could not create a primitive", "could not execute a primitive")
"""All that it says; longer messages of the kind are of other origin."""


def explain(error: BaseException) -> str | None:
    """One line on what went wrong and the way out; None where it is a mistake of this program."""
    if isinstance(error, CryoqueryError):
        return str(error)
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"{error.object[:200]!a}: a name that is not UTF-8; rename the file, and run again"
    if _is_lack_of_memory(error):
        return f"out of memory; use a smaller batch_size or image size, or run less at the same time, {_KEPT}"
    if isinstance(error, OSError):
        way_out = _WAYS_OUT.get(error.errno or 0)
        return f"{_without_number(error)}; {way_out}" if way_out else str(error)
    return None


def _is_lack_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        said = str(error)
        return said in _NO_MEMORY_IN_ONEDNN or any(sign in said for sign in _NO_MEMORY)
    return isinstance(error, MemoryError)


def _without_number(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename is not None else reason
