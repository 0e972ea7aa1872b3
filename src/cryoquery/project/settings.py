"""What a project is told once: ``project.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import Field, model_validator
from typing_extensions import Self

from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.config import CheckedModel, parse, read_toml
from cryoquery.errors import ConfigError
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig
from cryoquery.network.optimize import TrainingConfig
from cryoquery.slurm import SlurmConfig
from cryoquery.storage.atomic import write_text
from cryoquery.storage.provenance import digest

SETTINGS_FILE = "project.toml"

PARTICLE_PX = 18.0
"""A particle's diameter in the images that the network sees, where the sizes allow it: that of `general`."""

WITHOUT_EFFECT = frozenset(
    {
        "name",
        "project_id",
        "micrographs_folder",
        "initial_items",
        "suggestion_share",
        "repeat_share",
        "lease_minutes",
        "executor",
        "slurm",
        "label_cost",
    }
)
"""What neither training nor the next query depends on: names, places, who trains, what people are shown."""

_HEAD = """\
# Settings of a cryoquery project; see docs/labeling.md. What the images were made with
# (unit, diameters, pixel_size, image_size, particle_px, invert) cannot be changed afterwards.

"""


class ProjectConfig(CheckedModel):
    """Settings of a project. Times are given in the unit of their name, shares as fractions."""

    name: str = Field(min_length=1)
    project_id: str | None = Field(default=None, pattern=r"^[0-9a-f]{16}$")
    """Drawn when the project is made, to tell it from others of its name; None: made by an older version."""
    micrographs_folder: str
    """The folder that the paths in ``micrographs.csv`` begin at, relative to the project, or absolute."""
    unit: Literal["micrograph", "field"] = "micrograph"
    """What a person labels at a time: a whole micrograph, or one field of it."""
    diameter_angstrom: float | None = Field(default=None, gt=0)
    """Particle diameter in Å; needs a pixel size."""
    diameter_px: float | None = Field(default=None, gt=0)
    """Particle diameter in pixels of the micrographs."""
    pixel_size: float | None = Field(default=None, gt=0)
    """Å/px as stated; None: as the headers say, see the column of ``micrographs.csv``."""
    image_size: int = Field(ge=16, multiple_of=16)
    """Side in px of the images that the network sees."""
    particle_px: float = Field(default=PARTICLE_PX, gt=0)
    """Particle diameter in px of these images."""
    invert: bool = False
    """Particles are bright as stored; the network gets the inverse."""
    query_size: int = Field(default=8, ge=1)
    """Items of a query."""
    initial_items: int = Field(default=8, ge=1)
    """Items of the first query, which no model chooses."""
    held_out_share: float = Field(default=0.25, ge=0, lt=1)
    """Share of the micrographs, and of every query, that is never trained on and measures F1; 0: see
    ``trial_every``."""
    trial_every: int = Field(default=3, ge=2)
    """Where no micrograph is held out, of all items every so-many-th is drawn at random: it tests the model,
    and is then trained on."""
    suggestion_share: float = Field(default=0.8, ge=0, le=1)
    """Share of the items that are shown with the model's picks; the others measure anchoring."""
    repeat_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the tasks that are blind repeats, which measure a person's consistency."""
    lease_minutes: float = Field(default=30, gt=0)
    """A person keeps an item for so long without doing anything."""
    n_steps: int = Field(default=10, ge=2)
    """Steps over which a strategy's schedules, such as ``beta=(1, 100)``, are spread; those after it stay at
    their end."""
    strategy: str = "auto"
    """Which acquisition strategy chooses the next query."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    executor: Literal["local", "slurm"] = "local"
    """Who trains: this machine, or a job of Slurm."""
    start: str = "general"
    """What every step's training starts from, and what the first suggestions are of: ``general``, the model
    that comes with the package, or the path of a `model.pt`; ``random``: random weights, no suggestions."""
    model: ModelConfig = ModelConfig(base_channels=16)
    training: TrainingConfig = TrainingConfig(
        batch_size=8,
        min_steps=100,
        focal_alpha=0.5,
        fine_tune=False,
        initial_epochs=20,
        distort=True,
        doubtful_background=0.9,
        decay="cosine",
        averaging=0.98,
    )
    """Every step trains from ``start``; ``min_steps`` lets few images be seen often enough."""
    device: DeviceConfig = DeviceConfig()
    slurm: SlurmConfig = SlurmConfig()
    label_cost: LabelCost = LabelCost()
    """Labeling time until enough was measured of the people themselves."""

    @model_validator(mode="after")
    def _one_diameter(self) -> Self:
        if (self.diameter_px is None) == (self.diameter_angstrom is None):
            raise ConfigError("diameter_px and diameter_angstrom: give one of them")
        return self


def settings_digest(config: ProjectConfig) -> str:
    """SHA-256 of the settings that a step's model and query depend on, see `WITHOUT_EFFECT`."""
    device = config.device.model_dump(mode="json", exclude={"accelerator", "threads"})
    return digest({**config.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)), "device": device})


def read_settings(path: Path) -> ProjectConfig:
    """The settings in the file ``path``.

    Raises:
        ConfigError: the file is missing, damaged, or has a key or a value that cannot be used.
    """
    return parse(ProjectConfig, read_toml(path), str(path))


def write_settings(path: Path, config: ProjectConfig) -> None:
    """Write settings as TOML, whole or not at all; keys without a value are left out."""
    write_text(path, _HEAD + tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
