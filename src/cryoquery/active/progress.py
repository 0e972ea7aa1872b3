"""How far long work has come, as events that a listener shows or records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

TRAINING_WEIGHT = 3
"""A training pass costs about three inference passes: one forward, two backward."""


Standing = Literal["waiting", "running", "finished", "stopped", "failed", "lost"]


@dataclass(frozen=True)
class RunState:
    """Where a run stands."""

    run: str
    seed: int
    state: Standing = "waiting"
    n_finished: int = 0
    """Finished iterations."""
    n_iterations: int = 0
    epoch: int = 0
    """Of the training under way."""
    n_epochs: int = 0
    f1: float | None = None
    """Of the last finished iteration."""
    done: int = 0
    """Work done, as `cryoquery.experiment.plan.Cost.work` counts it."""
    total: int = 0
    seconds_left: float | None = None
    node: str = ""
    pid: int = 0
    job: str = ""
    """Slurm's number, where it is one of its jobs."""
    message: str = ""
    """Why it failed, or what it waits for."""
    updated: float = 0.0
    """Wall clock, in seconds; for display only."""


@dataclass(frozen=True)
class IterationStarted:
    """A run starts an iteration."""

    run: str
    seed: int
    iteration: int
    """From 0 on."""
    n_iterations: int
    n_labeled: int
    """Labeled images."""


@dataclass(frozen=True)
class PhaseStarted:
    """Another part of an iteration begins; one whose training is in the cache starts with the query."""

    phase: Literal["training", "evaluation", "query"]


@dataclass(frozen=True)
class EpochEnded:
    """An epoch of the training has ended."""

    epoch: int
    """From 1 on."""
    n_epochs: int
    loss: float


@dataclass(frozen=True)
class ImagesPassed:
    """Images passed the network."""

    n_images: int
    trained: bool
    """Forward and backward; False: forward only."""

    @property
    def work(self) -> int:
        """In inference passes of one image."""
        return self.n_images * (TRAINING_WEIGHT if self.trained else 1)


@dataclass(frozen=True)
class Waiting:
    """Another process is doing the same work; this one waits for it."""

    owner: str


@dataclass(frozen=True)
class IterationEnded:
    """An iteration is on disk."""

    f1: float
    how: str
    """Whether it was trained, reused or already there."""


@dataclass(frozen=True)
class RunStates:
    """Several processes are at work; this is how each run stands now."""

    states: Sequence[RunState]


Event: TypeAlias = (
    IterationStarted | PhaseStarted | EpochEnded | ImagesPassed | Waiting | IterationEnded | RunStates
)
Progress: TypeAlias = Callable[[Event], None]
"""Called with every event; must not raise."""


def silent(event: Event) -> None:
    """Ignore every event."""


def all_of(*listeners: Progress) -> Progress:
    """Pass every event to the ``listeners``, in this order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def duration(seconds: float) -> str:
    """A time as a person says it: ``45 s``, ``12 min``, ``3 h 20 min``, ``12.1 days``, ``14 years``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min"
    days = seconds / 86400
    return f"{days:.1f} days" if days < 2 * 365.25 else f"{days / 365.25:.0f} years"
