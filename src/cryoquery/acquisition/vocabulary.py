"""The words of the grammar: pixel scores, image scores and selections, by the names that configs use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, InstanceOf

from cryoquery.acquisition import image_scores, literature, selections
from cryoquery.acquisition.candidates import Candidates, ImageScore, Strategy
from cryoquery.acquisition.expressions import Word
from cryoquery.acquisition.image_scores import PixelScore, make_signal, reduced
from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.acquisition.selections import Share, SomeScore, top

SomePixels: TypeAlias = InstanceOf[PixelScore]
EnsembleName: TypeAlias = Literal["dihedral", "dihedral4", "snapshots"]


def least_confidence(ensemble: EnsembleName | None = None) -> PixelScore:
    """Distance of the probability, or of the ensemble's mean, from certainty: 1 − max(p, 1 − p)."""
    return PixelScore("least_confidence", ensemble or "")


def entropy(ensemble: EnsembleName | None = None) -> PixelScore:
    """Entropy of the probability, or of the ensemble's mean."""
    return PixelScore("entropy", ensemble or "")


def margin(ensemble: EnsembleName | None = None) -> PixelScore:
    """Twice the least confidence."""
    return PixelScore("margin", ensemble or "")


def mutual_information(ensemble: EnsembleName = "dihedral") -> PixelScore:
    """Entropy of an ensemble's mean less the mean of its entropies: what it disagrees on."""
    return PixelScore("mutual_information", ensemble)


def expected_entropy(ensemble: EnsembleName = "dihedral") -> PixelScore:
    """Mean over an ensemble of its members' entropies: what all of them are unsure of."""
    return PixelScore("expected_entropy", ensemble)


def mean(score: SomePixels) -> ImageScore:
    """Mean over the image."""
    return ImageScore.of(f"mean {_in_words(score)}", reduced(image_scores.mean, "mean", score))


def top_fraction(score: SomePixels, fraction: Share = 0.05) -> ImageScore:
    """Mean over the share of the pixels where the score is highest."""
    signal = reduced(image_scores.top_fraction, "top_fraction", score, fraction)
    return ImageScore.of(f"{_in_words(score)} of the top {100 * fraction:g} % of pixels", signal)


def foreground(score: SomePixels) -> ImageScore:
    """Mean over the predicted foreground."""
    signal = reduced(image_scores.foreground, "foreground", score)
    return ImageScore.of(f"mean {_in_words(score)} of the predicted foreground", signal)


def boundary(score: SomePixels, width_px: Annotated[int, Field(ge=1, le=64)] = 3) -> ImageScore:
    """Mean over the pixels within a few px of the predicted boundary."""
    signal = reduced(image_scores.boundary, "boundary", score, width_px)
    return ImageScore.of(f"mean {_in_words(score)} along predicted boundaries", signal)


def per_particle(score: SomePixels) -> ImageScore:
    """Sum over the image per expected particle."""
    signal = reduced(image_scores.per_particle, "per_particle", score)
    return ImageScore.of(f"{_in_words(score)} per expected particle", signal)


def objects(score: SomePixels) -> ImageScore:
    """Mean over the predicted objects of the mean within each."""
    signal = reduced(image_scores.objects, "objects", score)
    return ImageScore.of(f"mean {_in_words(score)} of the predicted objects", signal)


N_PARTICLES = make_signal("n_particles", image_scores.n_particles)


def n_particles() -> ImageScore:
    """Expected number of particles."""
    return ImageScore.of("expected number of particles", N_PARTICLES)


def skill(ensemble: EnsembleName | None = None) -> ImageScore:
    """Brier skill that the network, or the ensemble's mean, expects: 0 where it sees nothing stand out."""
    key = f"skill@{ensemble}" if ensemble else "skill"
    return ImageScore.of("clarity to the model", make_signal(key, image_scores.skill, ensemble or ""))


def per_minute(
    score: SomeScore,
    seconds_per_image: Annotated[float, Field(ge=0)] = LabelCost().seconds_per_image,
    seconds_per_particle: Annotated[float, Field(ge=0)] = LabelCost().seconds_per_particle,
) -> ImageScore:
    """An image score per minute that labeling the image is expected to take.

    Raises:
        ValueError: an image would cost nothing.
    """
    if seconds_per_image + seconds_per_particle == 0:
        raise ValueError("seconds_per_image=0 and seconds_per_particle=0: an image costs something")

    def compute(candidates: Candidates) -> NDArray[np.float64]:
        n = candidates.values(N_PARTICLES)
        # Without a cost per image an empty one would be free; half a particle is the least it holds.
        seconds = seconds_per_image + seconds_per_particle * np.maximum(n, 0.5)
        return np.asarray(60 * score(candidates) / seconds)

    return ImageScore(f"{score.label} per expected minute", compute, score.needs | {N_PARTICLES})


def cost_aware(
    score: SomeScore,
    seconds_per_image: Annotated[float, Field(ge=0)] = LabelCost().seconds_per_image,
    seconds_per_particle: Annotated[float, Field(ge=0)] = LabelCost().seconds_per_particle,
) -> Strategy:
    """The images of the highest score per expected minute (Settles et al. 2008)."""
    return top(per_minute(score, seconds_per_image, seconds_per_particle))


def _in_words(score: PixelScore) -> str:
    # A high score of this name is a small margin.
    return "smallness of the margin" if score.name == "margin" else score.name.replace("_", " ")


PIXEL_SCORE_WORDS = (least_confidence, entropy, margin, mutual_information, expected_entropy)
IMAGE_SCORE_WORDS = (
    mean,
    top_fraction,
    foreground,
    boundary,
    per_particle,
    objects,
    n_particles,
    skill,
    per_minute,
)
SELECTION_WORDS = (
    top,
    selections.random,
    selections.power,
    selections.stratified,
    selections.proportional,
    selections.clustered,
    selections.prefilter,
    selections.mix,
    selections.k_means,
    selections.k_center,
    cost_aware,
    *literature.WORDS,
)


@cache
def words() -> Mapping[str, Word]:
    """All words by their names."""
    every: tuple[Word, ...] = (*PIXEL_SCORE_WORDS, *IMAGE_SCORE_WORDS, *SELECTION_WORDS)
    return {word.__name__: word for word in every}
