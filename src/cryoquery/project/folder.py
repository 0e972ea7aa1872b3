"""A project on disk: its settings, its micrographs, and the items that people label.

::

    PROJECT/
      project.toml            settings, see `settings`
      micrographs.csv         one row per micrograph, see `micrographs`
      events.sqlite           everything that was done, append only
      dataset/                an image of every item, without labels
      thumbnails/<item>.jpg
      previews/               pictures made on demand; may be deleted
      picks/                  picks of other programs that are suggested until the first step
      steps/step_<n>/         what each step left
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cryoquery.data.dataset import Dataset, ImageRecord, open_dataset
from cryoquery.data.fields import Field
from cryoquery.errors import ProjectError
from cryoquery.project.micrographs import MICROGRAPHS_FILE, MicrographRow, read_rows
from cryoquery.project.settings import SETTINGS_FILE, ProjectConfig, read_settings

STEP = re.compile(r"step_(0|[1-9][0-9]{0,5})")
"""Name of the folder of a step."""


@dataclass(frozen=True)
class ItemInfo:
    """What a person labels at a time: a row of the project's dataset."""

    number: int
    """The row; its name in events and queries."""
    micrograph: str
    """The name, unique in the project."""
    region: tuple[int, int, int, int] | None
    """(top, left, height, width) in pixels of the original micrograph; None: all of it."""
    split: str
    """``train``: may be trained on; ``val``: is only measured on."""
    group: str

    def contains(self, y: float, x: float) -> bool:
        """Whether a point of the micrograph, in its pixels, belongs to this item and to no neighbor."""
        if self.region is None:
            return True
        top, left, height, width = self.region
        return -0.5 <= y - top < height - 0.5 and -0.5 <= x - left < width - 0.5


@dataclass(frozen=True)
class Project:
    """An opened project."""

    path: Path
    config: ProjectConfig
    micrographs: Mapping[str, MicrographRow]
    """By name."""
    dataset: Dataset
    """An image of every item, without labels."""
    items: tuple[ItemInfo, ...]
    """In the order of the dataset's rows."""

    @property
    def id(self) -> str:
        """Tells the project from all others, wherever it is moved to; 16 hexadecimal digits."""
        return self.config.project_id or self.dataset.fingerprint[:16]

    @property
    def events_path(self) -> Path:
        """The log of everything that was done."""
        return self.path / "events.sqlite"

    @property
    def steps_path(self) -> Path:
        """The folder of the steps."""
        return self.path / "steps"

    @property
    def previews_path(self) -> Path:
        """The cache of pictures."""
        return self.path / "previews"

    @property
    def thumbnails_path(self) -> Path:
        """The folder of the thumbnails."""
        return self.path / "thumbnails"

    @cached_property
    def geometry(self) -> Mapping[int, tuple[int, int, tuple[int, int, int, int] | None]]:
        """Item → (height, width, region) of its micrograph in pixels: what a replay of events needs."""
        return {
            number: (record.height_px, record.width_px, self.items[number].region)
            for number, record in enumerate(self.dataset.records)
        }

    @property
    def micrographs_folder(self) -> Path:
        """The folder that the paths of the micrographs begin at."""
        return self.path / self.config.micrographs_folder

    @cached_property
    def items_of(self) -> Mapping[str, tuple[ItemInfo, ...]]:
        """The items of each micrograph, by its name."""
        found: dict[str, tuple[ItemInfo, ...]] = {}
        for item in self.items:
            found[item.micrograph] = (*found.get(item.micrograph, ()), item)
        return found

    @cached_property
    def median_diameter_px(self) -> float:
        """Median particle diameter in pixels of the original micrographs."""
        return float(np.median([record.diameter_px for record in self.dataset.records]))

    def diameter_px(self, item: int) -> float:
        """Particle diameter in pixels of the item's original micrograph."""
        return self.dataset.records[item].diameter_px

    def micrograph_of(self, item: int) -> MicrographRow:
        """The micrograph of an item."""
        return self.micrographs[self.items[item].micrograph]

    def micrograph_path(self, item: int) -> Path:
        """The file of an item's micrograph.

        Raises:
            ProjectError: it is not there; the message says which setting tells where it is.
        """
        return self.file_of(self.micrograph_of(item))

    def files(self) -> dict[str, Path]:
        """Where the file of each micrograph is expected, by name."""
        return {name: self.micrographs_folder / row.path for name, row in self.micrographs.items()}

    def file_of(self, micrograph: MicrographRow) -> Path:
        """The file of a micrograph.

        Raises:
            ProjectError: as `micrograph_path`.
        """
        path = self.micrographs_folder / micrograph.path
        if not path.is_file():
            raise ProjectError(
                f"{path}: no such micrograph; if the micrographs were moved, set micrographs_folder in "
                f"{self.path / SETTINGS_FILE} to the folder that holds {micrograph.path}"
            )
        return path


def is_project(path: Path | str) -> bool:
    """Whether a project is in folder ``path``."""
    return (Path(path) / SETTINGS_FILE).is_file()


def open_project(path: Path | str) -> Project:
    """Open the project in folder ``path``. The micrographs themselves need not be there.

    Raises:
        ProjectError: there is no project.
        ConfigError: ``project.toml`` cannot be used.
        DataError: the table or the dataset is damaged.
    """
    path = Path(path)
    if not is_project(path):
        raise ProjectError(f"{path}: no project (no {SETTINGS_FILE}); make one with 'cryoquery init'")
    config = read_settings(path / SETTINGS_FILE)
    micrographs = {row.name: row for row in read_rows(path / MICROGRAPHS_FILE)}
    dataset = open_dataset(path / "dataset")
    unknown = {record.micrograph for record in dataset.records} - micrographs.keys()
    if unknown:
        raise ProjectError(f"{path / MICROGRAPHS_FILE}: has no row of {min(unknown)}; put it back")
    whole = config.unit == "micrograph"
    items = tuple(
        ItemInfo(
            number,
            record.micrograph,
            None if whole else region_of(record, dataset.own_parts[number]),
            record.split,
            record.group,
        )
        for number, record in enumerate(dataset.records)
    )
    return Project(path, config, micrographs, dataset, items)


def region_of(record: ImageRecord, own: Field) -> tuple[int, int, int, int]:
    """(top, left, height, width) of an image's ``own`` part in whole pixels of its original micrograph.

    Neighboring fields meet without a gap, and do not overlap.
    """
    top, left = round(own.top / record.scale), round(own.left / record.scale)
    bottom = min(round((own.top + own.height) / record.scale), record.height_px)
    right = min(round((own.left + own.width) / record.scale), record.width_px)
    return top, left, bottom - top, right - left


def finished_steps(folder: Path) -> dict[int, Path]:
    """The folders of the steps in ``folder`` (`Project.steps_path`) by their numbers, ascending."""
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return {}
    found = {int(match[1]): path for path in paths if (match := STEP.fullmatch(path.name))}
    return dict(sorted(found.items()))
