"""Pick particles on whole micrographs, with a trained network or with the blob picker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from cryoquery.config import CheckedModel
from cryoquery.data.dataset import decode, encode
from cryoquery.data.preprocess import fit_scale, normalize
from cryoquery.data.source import MAX_DIAMETER_RATIO
from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import Micrograph, Picks, choose_pixel_size, read_header, read_micrograph
from cryoquery.formats.lengths import Length, parse_length
from cryoquery.network.checkpoint import model_path, read_model
from cryoquery.network.device import DeviceConfig
from cryoquery.network.predict import Predictor
from cryoquery.picking import log_picker
from cryoquery.picking.contamination import contaminated
from cryoquery.picking.peaks import MIN_DISTANCE, Detections, find_particles
from cryoquery.picking.threshold import PickingRecipe
from cryoquery.picking.tiles import predict_tiled, predict_turned

CONTAMINATION_STRICTNESS = 0.5
"""On contaminated areas the needed score lies so far on the way from the threshold to certainty."""
BATCH_PIXELS = 1 << 19
"""Pixels that pass the network at once."""
LOG = "log"
"""What stands for the blob picker in place of a model."""
MAX_ENLARGEMENT = 8.0
"""A micrograph that would have to be enlarged more is not of this particle."""


class PickOptions(CheckedModel):
    """What a person may ask of picking. Lengths are given as ``0.5d``, ``54px`` or ``90A``."""

    diameter_px: float | None = Field(default=None, gt=0)
    """Particle diameter in pixels of the micrographs."""
    diameter_angstrom: float | None = Field(default=None, gt=0)
    """Particle diameter in Å; needs the pixel size."""
    pixel_size: float | None = Field(default=None, gt=0)
    """Å/px of the micrographs, where their headers do not say or are wrong."""
    optics_pixel_size: float | None = Field(default=None, gt=0)
    """The same by the optics groups of a STAR file, which ``pixel_size`` overrides."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Lowest score of a pick; None: as tuned when the model was trained."""
    min_distance: Length = Length(MIN_DISTANCE, "d")
    """Smallest distance of two picks."""
    edge_margin: Length = Length(0, "d")
    """Picks closer than this to the micrograph's edge are left out."""
    avoid_contamination: bool = True
    """Ask for more on carbon, thick ice and aggregates."""
    invert: bool | None = None
    """Invert the contrast; None: as at training."""
    average: bool = False
    """Average a network's maps over the eight orientations of a micrograph."""

    @field_validator("min_distance", "edge_margin", mode="before")
    @classmethod
    def _length(cls, value: Any, info: Any) -> Length:
        return parse_length(value, info.field_name, zero=True)

    @model_validator(mode="after")
    def _one_diameter(self) -> Self:
        if self.diameter_px is not None and self.diameter_angstrom is not None:
            raise ConfigError("diameter_px and diameter_angstrom: give one of them")
        return self


@dataclass(frozen=True)
class PreparedMicrograph:
    """A micrograph as the network sees it, and what is needed to find particles in the answer.

    Much smaller than the micrograph, which is no longer needed.
    """

    name: str
    shape: tuple[int, int]
    """(height, width) of the micrograph."""
    levels: NDArray[np.uint8]
    """(h, w) see `data.dataset.decode`."""
    scale: float
    """Pixels of ``levels`` per pixel of the micrograph."""
    pixel_size: float | None
    diameter_px: float
    """This and the other lengths in pixels of the micrograph."""
    min_distance_px: float
    edge_margin_px: float
    average: bool = False
    """See `PickOptions`."""
    note: str = ""
    """One line about a doubtful pixel size, or empty."""


@dataclass(frozen=True)
class PickedMicrograph:
    """Picks of one micrograph, and what they were read from."""

    picks: Picks
    shape: tuple[int, int]
    """(height, width) of the micrograph."""
    levels: NDArray[np.uint8]
    """(h, w) what the network saw, see `data.dataset.decode`."""
    avoided: NDArray[np.bool_]
    """(h, w) areas on which more was asked for."""
    scale: float
    """Pixels of ``levels`` per pixel of the micrograph."""
    all_scores: NDArray[np.float64]
    """Scores of everything that might be a particle, picked or not."""
    threshold: float
    note: str
    """One line about a doubtful pixel size, or empty."""


@dataclass(frozen=True)
class AnyPicker(ABC):
    """What makes a map of a micrograph, and how to pick with it."""

    recipe: PickingRecipe

    def pick(
        self, pixels: NDArray[np.floating], options: PickOptions, pixel_size: float | None, name: str = ""
    ) -> PickedMicrograph:
        """Pick one micrograph.

        Args:
            pixels: (height, width) intensities as recorded, finite and not all equal.
            options: what is asked for.
            pixel_size: Å/px of this micrograph; None where unknown.
            name: of the micrograph, for the picks and for errors.

        Raises:
            ConfigError: the particle diameter cannot be known, or does not fit the micrograph.
            DataError: the micrograph cannot be normalized.
        """
        prepared = self.prepare(pixels, options, pixel_size, name)
        return self.find(prepared, self.predict(prepared), options)

    def prepare(
        self, pixels: NDArray[np.floating], options: PickOptions, pixel_size: float | None, name: str = ""
    ) -> PreparedMicrograph:
        """What comes before the network, on the CPU. Arguments and errors as in `pick`."""
        height, width = pixels.shape
        diameter = self._diameter_px(options, pixel_size, (height, width), name)
        scale = self._scale((height, width), diameter, name)
        min_distance = options.min_distance.in_px(diameter, pixel_size, "min_distance")
        edge_margin = options.edge_margin.in_px(diameter, pixel_size, "edge_margin")
        invert = self.recipe.invert if options.invert is None else options.invert
        levels = encode(normalize(-pixels if invert else pixels, scale).image)
        return PreparedMicrograph(
            name, (height, width), levels, scale, pixel_size, diameter, min_distance, edge_margin,
            options.average,
        )  # fmt: skip

    @abstractmethod
    def predict(self, prepared: PreparedMicrograph) -> NDArray[np.float32]:
        """A map (h, w) of ``prepared.levels``; only one thread calls it at a time."""

    @abstractmethod
    def detect(self, prepared: PreparedMicrograph, predicted: NDArray[np.float32]) -> Detections:
        """Everything that might be a particle, in the map of `predict`."""

    def find(
        self, prepared: PreparedMicrograph, predicted: NDArray[np.float32], options: PickOptions
    ) -> PickedMicrograph:
        """What comes after the network, on the CPU: particles in the map (h, w) of `predict`."""
        levels, scale, diameter = prepared.levels, prepared.scale, prepared.diameter_px
        found = self.detect(prepared, predicted)
        avoided = np.zeros(levels.shape, dtype=bool)
        if options.avoid_contamination:
            avoided = contaminated(decode(levels), diameter * scale)
        threshold = self.recipe.threshold if options.threshold is None else options.threshold
        at = np.clip(np.rint(found.centers_yx).astype(int), 0, np.array(levels.shape) - 1)
        stricter = CONTAMINATION_STRICTNESS * (1 - threshold) * avoided[at[:, 0], at[:, 1]]
        centers = (found.centers_yx + 0.5) / scale - 0.5
        kept = found.scores >= threshold + stricter
        if (margin := prepared.edge_margin_px) > 0:
            last = np.array(prepared.shape) - 1
            kept &= ((centers >= margin) & (centers <= last - margin)).all(axis=1)
        picks = Picks.of(
            centers[kept],
            micrograph=prepared.name,
            scores=found.scores[kept],
            diameters_px=diameter,
            pixel_size=prepared.pixel_size,
        )
        return PickedMicrograph(
            picks, prepared.shape, levels, avoided, scale, found.scores, threshold, prepared.note
        )

    @property
    def needs_diameter(self) -> bool:
        """Whether the particle's diameter must be stated."""
        return self.recipe.diameter_angstrom is None and not self._size_is_known

    @property
    def _size_is_known(self) -> bool:
        """Whether particles have one size on micrographs that are scaled to fit."""
        low, high = self.recipe.particle_px_range
        return self.recipe.scale == "fit" and high <= MAX_DIAMETER_RATIO * low

    def _diameter_px(
        self, options: PickOptions, pixel_size: float | None, shape: tuple[int, int], name: str
    ) -> float:
        where = f"{name}: " if name else ""
        if options.diameter_px is not None:
            return options.diameter_px
        angstrom = options.diameter_angstrom or self.recipe.diameter_angstrom
        if angstrom is not None and pixel_size is not None:
            return angstrom / pixel_size
        if options.diameter_angstrom is not None:
            raise ConfigError(
                f"{where}diameter of {angstrom:g} Å: the pixel size is not known; give --pixel-size (Å/px)"
            )
        if self._size_is_known:
            return self.recipe.particle_px / fit_scale(shape, self.recipe.image_side)
        raise ConfigError(
            f"{where}the particle diameter is not known; give --diameter-px, or --diameter-angstrom and "
            "--pixel-size (Å/px)"
        )

    def _scale(self, shape: tuple[int, int], diameter_px: float, name: str) -> float:
        where = f"{name}: " if name else ""
        if diameter_px > min(shape):
            raise ConfigError(
                f"{where}a particle of {diameter_px:.4g} px does not fit {shape[0]}×{shape[1]} px; "
                "correct --diameter-px, or --diameter-angstrom and --pixel-size"
            )
        if self.recipe.scale == "fit":
            return fit_scale(shape, self.recipe.image_side)
        scale = self.recipe.particle_px / diameter_px
        if scale > MAX_ENLARGEMENT:
            raise ConfigError(
                f"{where}a particle of {diameter_px:.4g} px would be enlarged {scale:.0f} times; "
                "correct --diameter-px, or --diameter-angstrom and --pixel-size"
            )
        return scale


@dataclass(frozen=True)
class Picker(AnyPicker):
    """A trained network on its device, and how to pick with it."""

    predictor: Predictor

    def predict(self, prepared: PreparedMicrograph) -> NDArray[np.float32]:
        """Probability of a particle (h, w) in [0, 1], computed on the device."""
        predict = predict_turned if prepared.average else predict_tiled
        return predict(self.predictor, prepared.levels, self.recipe.image_side)

    def detect(self, prepared: PreparedMicrograph, predicted: NDArray[np.float32]) -> Detections:
        """Discs in the map of probabilities, see `find_particles`; with calibrated scores."""
        disc_diameter = prepared.diameter_px * prepared.scale * self.recipe.disc_fraction
        found = find_particles(predicted, disc_diameter, 0.0, prepared.min_distance_px * prepared.scale)
        return Detections(found.centers_yx, self.recipe.calibration.of(found.scores))


def _log_recipe() -> PickingRecipe:
    size = log_picker.PARTICLE_PX
    return PickingRecipe(
        scale="particle", image_side=1, particle_px=size, particle_px_range=(size, size), disc_fraction=1
    )


@dataclass(frozen=True)
class LogPicker(AnyPicker):
    """Dark discs of the stated diameter, without a network, see `log_picker`."""

    recipe: PickingRecipe = field(default_factory=_log_recipe)

    def predict(self, prepared: PreparedMicrograph) -> NDArray[np.float32]:
        """The `log_picker.blob_response` (h, w)."""
        return log_picker.blob_response(decode(prepared.levels), log_picker.DIAMETERS_PX)

    def detect(self, prepared: PreparedMicrograph, predicted: NDArray[np.float32]) -> Detections:
        """Maxima of the response, see `log_picker.find_blobs`."""
        return log_picker.find_blobs(predicted, prepared.min_distance_px * prepared.scale)


def open_picker(model: Path | str, device: DeviceConfig | None = None) -> AnyPicker:
    """The picker that ``model`` names: ``log``, the blob picker, or a network, see `load_picker`."""
    return LogPicker() if str(model) == LOG else load_picker(model, device)


def load_picker(path: Path | str, device: DeviceConfig | None = None) -> Picker:
    """The network of a `model.pt`, or of ``general``, on its device, with the recipe to pick with it.

    Raises:
        DataError: the file is missing, damaged, or of a version that kept no recipe.
        ConfigError: there is no such device.
    """
    path = model_path(path)
    saved = read_model(path)
    if saved.picking is None:
        raise DataError(f"{path}: does not say how to pick with it (an older cryoquery made it); train again")
    try:
        recipe = PickingRecipe(**saved.picking)
    except ConfigError as error:
        raise DataError(f"{path}: its recipe for picking cannot be used ({error}); train again") from None
    batch_size = int(np.clip(BATCH_PIXELS // recipe.image_side**2, 1, 16))
    return Picker(recipe, Predictor(saved.build(), (device or DeviceConfig()).fabric(), batch_size))


def pick_particles(
    model: AnyPicker | Path | str,
    micrograph: Micrograph | Path | str | ArrayLike,
    *,
    diameter_px: float | None = None,
    diameter_angstrom: float | None = None,
    pixel_size: float | None = None,
    threshold: float | None = None,
    min_distance: Length | str = "0.5d",
    edge_margin: Length | str = "0d",
    avoid_contamination: bool = True,
    invert: bool | None = None,
    average: bool = False,
) -> Picks:
    """Pick the particles of one micrograph.

    The micrograph is brought to the scale of the training images, normalized and quantized as they
    were, and the network runs over it in overlapping tiles (`tiles.predict_tiled`). Particles are the
    maxima of `picking.disc_scores`.

    Args:
        model: a `model.pt`, or what `load_picker` made of it (quicker for several micrographs); or ``log``
            for the blob picker, which needs no training (`LogPicker`).
        micrograph: a file, a `Micrograph`, or intensities (height, width).
        diameter_px: particle diameter in pixels of the micrograph.
        diameter_angstrom: or in Å, with the pixel size; may be left out where the model was trained on
            one particle and both pixel sizes are known.
        pixel_size: Å/px, where the file does not say or is wrong.
        threshold: lowest score in [0, 1]; None: as tuned when the model was trained.
        min_distance: of two picks, such as ``0.5d``, ``54px`` or ``90A``.
        edge_margin: picks closer to the edge are left out.
        avoid_contamination: ask for more on carbon, thick ice and aggregates.
        invert: invert the contrast; None: as at training.
        average: average the network's maps over the eight orientations: eight times the work.

    Returns:
        Centers in pixels of the micrograph, best first, with scores in [0, 1] and the diameter.

    Raises:
        DataError: a file is missing, damaged or not what it must be.
        ConfigError: an option cannot be used, or the particle diameter cannot be known.
    """
    options = PickOptions(
        diameter_px=diameter_px,
        diameter_angstrom=diameter_angstrom,
        pixel_size=pixel_size,
        threshold=threshold,
        min_distance=parse_length(min_distance, "min_distance", zero=True),
        edge_margin=parse_length(edge_margin, "edge_margin", zero=True),
        avoid_contamination=avoid_contamination,
        invert=invert,
        average=average,
    )
    picker = model if isinstance(model, AnyPicker) else open_picker(model)
    if isinstance(micrograph, (str, Path)):
        return pick_file(picker, Path(micrograph), options).picks
    if isinstance(micrograph, Micrograph):
        return picker.pick(micrograph.pixels, options, pixel_size or micrograph.pixel_size).picks
    pixels = np.asarray(micrograph, dtype=np.float32)
    if pixels.ndim != 2 or not np.isfinite(pixels).all():
        raise DataError(f"micrograph of shape {pixels.shape}: expected (height, width) of finite intensities")
    return picker.pick(pixels, options, pixel_size).picks


def pick_file(picker: AnyPicker, path: Path, options: PickOptions) -> PickedMicrograph:
    """Pick the micrograph in a file; its picks carry the path as the micrograph's name.

    Raises:
        DataError: the file is missing, damaged, or not a micrograph.
        ConfigError: the particle diameter cannot be known, or does not fit.
    """
    prepared = prepare_file(picker, path, options)
    return picker.find(prepared, picker.predict(prepared), options)


def prepare_file(picker: AnyPicker, path: Path, options: PickOptions) -> PreparedMicrograph:
    """Read a file and do what comes before the network. Errors as in `pick_file`."""
    pixels = read_micrograph(path).pixels
    size = choose_pixel_size(
        stated=options.pixel_size,
        optics=options.optics_pixel_size,
        header=read_header(path).stated_pixel_size,
        micrograph=str(path),
    )
    try:
        prepared = picker.prepare(pixels, options, size.value, str(path))
    except ConfigError as error:
        raise ConfigError(f"{error} ({size.note})" if size.note else str(error)) from None
    return prepared if size.source == "unknown" else replace(prepared, note=size.note)
