"""Ensembles from one training: more labels remove what members disagree on, not what all are unsure of.

The mean of the members' entropies is the uncertainty that the image itself leaves (aleatoric); the
entropy of their mean exceeds it by the mutual information of label and member (epistemic; Houlsby et
al. 2011, arXiv:1112.5745; Gal et al. 2017, arXiv:1703.02910).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoquery.errors import ConfigError
from cryoquery.network.model import AttentionUNet
from cryoquery.network.predict import Ensemble, Predictor


@dataclass(frozen=True)
class DihedralEnsemble:
    """The network on an image as it is, turned and mirrored (Wang et al. 2019, arXiv:1807.07356)."""

    n: int
    """8: all symmetries of the square; 4: the quarter turns. An image that is not square has four in all."""

    def symmetries(self, image_shape: tuple[int, int]) -> list[tuple[int, bool]]:
        """Quarter turns, and whether to mirror before them, of each member."""
        if image_shape[0] != image_shape[1]:
            return [(k, mirrored) for mirrored in (False, True) for k in (0, 2)]
        return [(k, mirrored) for mirrored in (False, True)[: self.n // 4] for k in range(4)]

    def n_members(self, image_shape: tuple[int, int], n_snapshots: int) -> int:  # noqa: ARG002
        """See `Ensemble`."""
        return len(self.symmetries(image_shape))

    def probabilities(self, predictor: Predictor, images: Tensor) -> Iterator[Tensor]:
        """See `Ensemble`."""
        for quarters, mirrored in self.symmetries((images.shape[-2], images.shape[-1])):
            turned = images.flip(-1) if mirrored else images
            turned = torch.rot90(turned, quarters, (-2, -1))
            p = torch.rot90(_probability(predictor, predictor.network, turned), -quarters, (-2, -1))
            yield p.flip(-1) if mirrored else p


@dataclass(frozen=True)
class Snapshots:
    """The network and earlier weights of its training (Huang et al. 2017, arXiv:1704.00109)."""

    def n_members(self, image_shape: tuple[int, int], n_snapshots: int) -> int:  # noqa: ARG002
        """See `Ensemble`.

        Raises:
            ConfigError: the training kept no weights but the last.
        """
        if n_snapshots < 2:
            raise ConfigError(
                'ensemble "snapshots": this training kept none; set training.snapshots to at least 2, '
                'or use the ensemble "dihedral"'
            )
        return n_snapshots

    def probabilities(self, predictor: Predictor, images: Tensor) -> Iterator[Tensor]:
        """See `Ensemble`."""
        for network in (predictor.network, *predictor.snapshots):
            yield _probability(predictor, network, images)


def _probability(predictor: Predictor, network: AttentionUNet, images: Tensor) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    with predictor.fabric.autocast():
        logits = network(images)
    return torch.sigmoid(logits[:, 0].float())


ENSEMBLES: dict[str, Ensemble] = {
    "dihedral": DihedralEnsemble(8),
    "dihedral4": DihedralEnsemble(4),
    "snapshots": Snapshots(),
}
