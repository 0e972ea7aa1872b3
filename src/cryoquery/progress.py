"""What long work tells whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cryoquery.run_state import RunState

TRAINING_WEIGHT = 3
"""A training pass costs about three inference passes: one forward, two backward."""


class Progress(Protocol):
    """Watches an experiment. Work is counted in images passed through the network."""

    def begin(self, run: str, seed: int, iteration: int, n_iterations: int, n_labeled: int) -> None:
        """A run starts an iteration with so many labelled images."""

    def epoch(self, epoch: int, n_epochs: int, loss: float) -> None:
        """An epoch of the training ended."""

    def trained(self, n_images: int) -> None:
        """So many images passed the network forward and backward."""

    def predicted(self, n_images: int) -> None:
        """So many images passed the network forward."""

    def waiting(self, owner: str) -> None:
        """Another process is doing the same training; this one waits for it."""

    def end(self, f1: float, how: str) -> None:
        """The iteration is on disk; ``how`` says whether it was trained, reused or already there."""

    def standing(self, states: Sequence[RunState]) -> None:
        """Several processes are at work; this is how each run stands now."""


class Silent:
    """Watches and says nothing."""

    def begin(self, run: str, seed: int, iteration: int, n_iterations: int, n_labeled: int) -> None:
        """See `Progress`."""

    def epoch(self, epoch: int, n_epochs: int, loss: float) -> None:
        """See `Progress`."""

    def trained(self, n_images: int) -> None:
        """See `Progress`."""

    def predicted(self, n_images: int) -> None:
        """See `Progress`."""

    def waiting(self, owner: str) -> None:
        """See `Progress`."""

    def end(self, f1: float, how: str) -> None:
        """See `Progress`."""

    def standing(self, states: Sequence[RunState]) -> None:
        """See `Progress`."""
