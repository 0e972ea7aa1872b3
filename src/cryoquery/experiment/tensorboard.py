"""The course of a run for TensorBoard (``tensorboard = true`` in a config)."""

from __future__ import annotations

from pathlib import Path

from cryoquery.active.progress import EpochEnded, Event, IterationEnded, IterationStarted
from cryoquery.errors import ConfigError


class TensorBoardLog:
    """Writes the loss of each epoch and the F1 of each iteration."""

    def __init__(self, folder: Path) -> None:
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
        self._epochs = self._n_labeled = 0

    def __call__(self, event: Event) -> None:
        """Write down an event; a `cryoquery.active.progress.Progress`."""
        match event:
            case IterationStarted():
                self._n_labeled = event.n_labeled
            case EpochEnded():
                self._epochs += 1
                self._writer.add_scalar("loss by epoch", event.loss, self._epochs)
            case IterationEnded():
                self._writer.add_scalar("F1 by labeled images", event.f1, self._n_labeled)
                self._writer.flush()
