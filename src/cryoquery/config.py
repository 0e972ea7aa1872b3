"""Configurations: frozen, checked when made, with errors that a person can act on."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from cryoquery.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Config = TypeVar("Config", bound="CheckedModel")


class CheckedModel(BaseModel):
    """A frozen configuration without unknown keys.

    Raises:
        ConfigError: on making it, an unknown key or a value that cannot be used, in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        for name, field in type(self).model_fields.items():
            kind, value = _table(field.annotation), values.get(name)
            if isinstance(value, Mapping) and kind is not None:
                try:
                    values[name] = kind(**value)
                except ConfigError as error:
                    raise ConfigError(f"{name}.{error}") from None
        try:
            super().__init__(**values)
        except ValidationError as error:
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise ConfigError(_explain(type(self), error.errors()[0]) + more) from None


MAX_DOTS = 1000
"""In a line of TOML; a key of many takes time that grows with their square."""


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
            raise ValueError(f"more than {MAX_DOTS} dots in a line")
        values: dict[str, Any] = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: cannot be read as TOML ({reason})") from None
    return values


def parse(kind: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """Check ``values`` and make a configuration of them. ``source`` names them in errors.

    Raises:
        ConfigError: an unknown key (with the nearest known one) or a value that cannot be used.
    """
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def in_one_line(error: ValidationError) -> str:
    """The first thing that a validation found: where, what, and why not."""
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc']))}={found['input']!r:.60}: {found['msg']}"


def _table(annotation: Any) -> type[CheckedModel] | None:
    """The configuration that a field holds, also where it may hold None instead."""
    some = [kind for kind in get_args(annotation) if kind is not NoneType]
    kind = some[0] if len(some) == 1 and NoneType in get_args(annotation) else annotation
    return kind if isinstance(kind, type) and issubclass(kind, CheckedModel) else None


def _explain(kind: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, kind.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(kind.model_fields))}"
        return f"{key}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"{key}: missing; it must be given"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{key}={error['input']!r}: {message}" if key else message
