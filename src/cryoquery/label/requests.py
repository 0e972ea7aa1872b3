"""What the page may send, checked before it is used; unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LONGEST_REASON = 500
MOST_COMMANDS = 500
"""In one request."""
LONGEST_ABSENCE_SECONDS = 24 * 3600.0


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PersonRequest(_Strict):
    """Who sits at this browser."""

    person: Annotated[str, Field(max_length=200)]


class LeaseRequest(_Strict):
    """Ask for a task; without one, for the next."""

    task: Annotated[str, Field(max_length=40)] | None = None


class CommandRequest(_Strict):
    """One thing that a person did."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    """Chosen by the page; a command that is sent again under its id counts once."""
    kind: Literal[
        "drafted", "undone", "redone", "submitted", "skipped", "renewed", "released", "reopened", "served"
    ]
    op: dict[str, Any] | None = None
    """Of ``drafted``: what to do, see `cryoquery.project.state`."""
    active_seconds: Annotated[float, Field(ge=0, le=LONGEST_ABSENCE_SECONDS)] = 0.0
    """How long the person was at work since the command before."""
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] | None = None
    """Of ``skipped``."""
    bad: bool | None = None
    """Of ``skipped``: the micrograph is bad and shall never be asked for again."""

    @property
    def foreign(self) -> list[str]:
        """Fields that do not belong to a command of this kind."""
        own = {"drafted": ("op",), "skipped": ("reason", "bad")}.get(self.kind, ())
        foreign = {"op", "reason", "bad"}.difference(own)
        return sorted(name for name in foreign if getattr(self, name) is not None)


class CommandsRequest(_Strict):
    """Commands on one task, in order; all are taken or none."""

    commands: Annotated[list[CommandRequest], Field(min_length=1, max_length=MOST_COMMANDS)]
