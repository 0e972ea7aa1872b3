"""What to simulate: the proteins, the microscope, the junk. Frozen, checked when made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cryoquery.config import CheckedModel

MAX_PACKING = 0.45
"""Discs dropped at random without overlap cover at most 0.547 of the plane, and slowly (Feder 1980)."""

Shape = Literal["shell", "barrel", "rod", "lobes", "blob"]


class Protein(CheckedModel):
    """One kind of particle, and how its micrographs were taken.

    The proteins are caricatures: they have the size, the mass and the shape of the real thing, not
    its structure.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The group of its micrographs."""
    shape: Shape
    """A hollow ball, a cylinder with a hole, a thin cylinder, two balls of unequal size, or an
    irregular clump of balls."""
    length_angstrom: float = Field(gt=20, le=2000)
    """Greatest extent, and the diameter that the labels state; outer diameter of a shell or blob."""
    width_angstrom: float | None = Field(default=None, gt=10, le=2000)
    """Extent across the long axis of a barrel, rod or pair of lobes; None: half the length."""
    hollow: float = Field(default=0.0, ge=0, le=0.95)
    """Inner diameter of a shell or barrel as a fraction of the outer one."""
    mass_kda: float = Field(gt=5, le=50_000)
    """Mass; at a given shape, more mass means more contrast."""
    contrast: float = Field(default=1.0, gt=0, le=10)
    """Scattering relative to protein in water; nucleic acid scatters more."""
    share: float = Field(default=1.0, gt=0)
    """Share of the micrographs that show this protein, relative to the other shares."""
    coverage: float = Field(default=0.15, ge=0, le=1.0)
    """Expected part of the clean ice that the labeled discs would cover without overlap."""
    min_distance: float = Field(default=1.0, ge=0.2, le=5)
    """Smallest distance of two labeled centers in diameters; below 1 particles overlap."""
    dose: float = Field(default=20.0, gt=0, le=1000)
    """Electrons per Å² that are counted where there is no ice: the dose on the specimen times the
    camera's efficiency. It decides the noise."""
    ice_angstrom: float = Field(default=350.0, ge=0, le=5000)
    """Mean thickness of the ice."""
    support_angstrom: float = Field(default=0.0, ge=0, le=500)
    """Thickness of a continuous carbon film under the ice: texture everywhere, with Thon rings."""

    @model_validator(mode="after")
    def _fits_together(self) -> Protein:
        if self.width_angstrom is not None and self.width_angstrom > self.length_angstrom:
            raise ValueError(
                f"width_angstrom={self.width_angstrom:g}: must not exceed length_angstrom="
                f"{self.length_angstrom:g}"
            )
        packing = self.coverage * self.min_distance**2
        if packing > MAX_PACKING:
            most = MAX_PACKING / self.min_distance**2
            raise ValueError(
                f"coverage={self.coverage:g}: cannot be reached with min_distance={self.min_distance:g}; "
                f"use at most {most:.2g} or a smaller min_distance"
            )
        return self

    @property
    def width(self) -> float:
        """Extent across the long axis, Å."""
        return self.length_angstrom / 2 if self.width_angstrom is None else self.width_angstrom


PROTEINS = {
    protein.name: protein
    for protein in (
        Protein(
            name="apoferritin", shape="shell", length_angstrom=130, hollow=0.62, mass_kda=480,
            share=0.28, coverage=0.28, min_distance=0.95, dose=28, ice_angstrom=300,
        ),
        Protein(
            name="ribosome", shape="blob", length_angstrom=250, mass_kda=3300, contrast=1.1,
            share=0.24, coverage=0.14, min_distance=0.7, dose=12, ice_angstrom=400, support_angstrom=60,
        ),
        Protein(
            name="proteasome", shape="barrel", length_angstrom=150, width_angstrom=115, hollow=0.4,
            mass_kda=700, share=0.2, coverage=0.15, min_distance=0.8, dose=18, ice_angstrom=400,
        ),
        Protein(
            name="rod", shape="rod", length_angstrom=180, width_angstrom=50, mass_kda=270,
            share=0.12, coverage=0.12, min_distance=0.6, dose=24, ice_angstrom=350,
        ),
        Protein(
            name="dimer", shape="lobes", length_angstrom=105, width_angstrom=68, mass_kda=160,
            share=0.1, coverage=0.1, min_distance=1.0, dose=16, ice_angstrom=500,
        ),
        Protein(
            name="chaperonin", shape="barrel", length_angstrom=145, width_angstrom=140, hollow=0.35,
            mass_kda=800, share=0.06, coverage=0.18, min_distance=0.9, dose=2, ice_angstrom=700,
        ),
    )
}  # fmt: skip
"""Proteins that a config can call by name: from easy (apoferritin) to hardly visible (chaperonin)."""


def _named(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in PROTEINS:
        raise ValueError(f"protein {value!r}: not one of {', '.join(PROTEINS)}; or give its parameters")
    return PROTEINS[value]


class Junk(CheckedModel):
    """What lies in micrographs and is not a particle. Numbers are means per micrograph."""

    crystals: float = Field(default=0.8, ge=0, le=50)
    """Ice crystals and other dark contamination, 60–240 Å in radius."""
    aggregates: float = Field(default=0.5, ge=0, le=20)
    """Clumps of particles that lie on top of each other. They are not labeled."""
    fragments: float = Field(default=4.0, ge=0, le=1000)
    """Broken pieces of the protein. They are not labeled."""
    carbon: float = Field(default=0.15, ge=0, le=1)
    """Probability that carbon film covers a part of the micrograph."""
    hot_pixels: float = Field(default=2.0, ge=0, le=10_000)


class SimulationConfig(CheckedModel):
    """A set of simulated micrographs.

    Raises:
        ConfigError: a key that does not exist, or a value that cannot be used.

    """

    n_micrographs: int = Field(default=100, ge=1, le=1_000_000)
    exposures: int = Field(default=1, ge=1, le=1000)
    """Micrographs of each scene, one after the other: the same particles in the same ice, with noise of their
    own and a little displaced. They are near-duplicates, and stay together in every split."""
    displacement_angstrom: float = Field(default=50.0, ge=0, le=1000)
    """Further exposures of a scene are displaced by up to so much along each axis."""
    height_px: int = Field(default=512, ge=64, le=8192, multiple_of=16)
    width_px: int = Field(default=512, ge=64, le=8192, multiple_of=16)
    pixel_size: float = Field(default=6.0, ge=0.5, le=20)
    """Å per pixel of the simulated micrograph."""
    seed: int = Field(default=0, ge=0)

    proteins: tuple[Annotated[Protein, BeforeValidator(_named)], ...] = Field(
        default=tuple(PROTEINS.values()), min_length=1
    )
    """Names of `PROTEINS` or tables of parameters."""
    junk: Junk = Junk()
    empty: float = Field(default=0.03, ge=0, le=1)
    """Probability that a micrograph shows no particle."""
    crowding_variation: float = Field(default=0.5, ge=0, le=2)
    """Relative spread of the particle density from micrograph to micrograph."""
    ice_variation: float = Field(default=0.15, ge=0, le=1)
    """Relative spread of the ice thickness within a micrograph."""

    voltage_kv: float = Field(default=300.0, ge=60, le=1250)
    spherical_aberration_mm: float = Field(default=2.7, ge=0, le=10)
    amplitude_contrast: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the contrast that comes from amplitude: 0.07–0.1 for ice."""
    defocus_um: tuple[float, float] = (1.2, 3.0)
    """Range of underfocus in µm, drawn uniformly for each micrograph."""
    astigmatism_angstrom: float = Field(default=400.0, ge=0, le=5000)
    """Largest difference of the two defoci."""
    b_factor: float = Field(default=150.0, ge=0, le=5000)
    """Envelope of the contrast transfer, Å²."""
    detector_blur_px: float = Field(default=0.35, ge=0, le=3)
    """Standard deviation of the detector's point spread; correlates the shot noise."""

    @property
    def n_scenes(self) -> int:
        """Places that the micrographs show."""
        return -(-self.n_micrographs // self.exposures)

    @property
    def image_size(self) -> int:
        """Side in px of the smallest square that holds a micrograph."""
        return max(self.height_px, self.width_px)

    @field_validator("defocus_um")
    @classmethod
    def _underfocus(cls, value: tuple[float, float]) -> tuple[float, float]:
        low, high = value
        if not 0.1 <= low <= high <= 10:
            raise ValueError(f"defocus_um={list(value)}: must rise within 0.1 to 10 µm, such as [1.2, 3.0]")
        return value

    @model_validator(mode="after")
    def _particles_fit(self) -> SimulationConfig:
        names = [protein.name for protein in self.proteins]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"proteins: {twice[0]!r} stands there twice; give each its own name")
        smallest = min(self.height_px, self.width_px)
        for protein in self.proteins:
            length_px = protein.length_angstrom / self.pixel_size
            if not 4 <= length_px <= smallest / 2:
                remedy = protein.length_angstrom / 24
                raise ValueError(
                    f"pixel_size={self.pixel_size:g}: {protein.name} would be {length_px:.3g} px long in "
                    f"{smallest} px; try {remedy:.2g}"
                )
        return self
