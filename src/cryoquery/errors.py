"""Mistakes a user can make; the command line prints them in one line, without a traceback."""

import signal


class CryoqueryError(Exception):
    """A user's mistake. The message names the file or key, the value found, and the way out."""


class ConfigError(CryoqueryError):
    """A value in a configuration that cannot be used."""


class DataError(CryoqueryError):
    """A file or a folder of data that cannot be used."""


class ExperimentError(CryoqueryError):
    """An experiment's folder that does not fit what was asked of it."""


class UnfinishedRunsError(ExperimentError):
    """Some runs of an experiment could not be finished; the others are."""


class Stopped(BaseException):
    """A signal asked this process to let its work go; like `KeyboardInterrupt` it is no error."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = signal.Signals(number)
