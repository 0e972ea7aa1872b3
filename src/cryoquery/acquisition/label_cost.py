"""What labels cost a person in time."""

from __future__ import annotations

from pydantic import Field

from cryoquery.config import CheckedModel


class LabelCost(CheckedModel):
    """What a person's labels cost in time. The defaults are an assumption, not a measurement."""

    seconds_per_image: float = Field(default=60.0, ge=0)
    """To open a micrograph, set its contrast and look it over."""
    seconds_per_particle: float = Field(default=2.0, ge=0)

    def minutes(self, n_images: float, n_particles: float) -> float:
        """Minutes to label so many images that hold so many particles."""
        return (n_images * self.seconds_per_image + n_particles * self.seconds_per_particle) / 60
