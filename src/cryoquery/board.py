"""The course of a run for TensorBoard, where somebody wants it (``tensorboard = true`` in a config)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryoquery.errors import ConfigError
from cryoquery.progress import Progress, Silent

if TYPE_CHECKING:
    from cryoquery.run_state import RunState


class Board:
    """Writes the loss of each epoch and the F1 of each iteration, and passes on what it is told."""

    def __init__(self, folder: Path, passed_on: Progress | None = None) -> None:
        """Open the events of one run.

        Raises:
            ConfigError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "tensorboard=true: TensorBoard is not installed; pip install 'cryoquery[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(folder))
        self._passed_on = passed_on or Silent()
        self._epochs = self._n_labeled = 0

    def begin(self, run: str, seed: int, iteration: int, n_iterations: int, n_labeled: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.begin(run, seed, iteration, n_iterations, n_labeled)
        self._n_labeled = n_labeled

    def epoch(self, epoch: int, n_epochs: int, loss: float) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.epoch(epoch, n_epochs, loss)
        self._epochs += 1
        self._writer.add_scalar("loss by epoch", loss, self._epochs)

    def trained(self, n_images: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.trained(n_images)

    def predicted(self, n_images: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.predicted(n_images)

    def waiting(self, owner: str) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.waiting(owner)

    def standing(self, states: Sequence[RunState]) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.standing(states)

    def end(self, f1: float, how: str) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.end(f1, how)
        self._writer.add_scalar("F1 by labelled images", f1, self._n_labeled)
        self._writer.flush()
