"""Mistakes a user can make; the command line prints them in one line, without a traceback."""


class CryoqueryError(Exception):
    """A user's mistake. The message names the file or key, the value found, and the way out."""


class ConfigError(CryoqueryError):
    """A value in a configuration that cannot be used."""


class DataError(CryoqueryError):
    """A file or a folder of data that cannot be used."""


class ExperimentError(CryoqueryError):
    """An experiment's folder that does not fit what was asked of it."""
