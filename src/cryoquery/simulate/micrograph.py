"""From a scene to the electrons that a camera counts."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryoquery.data.source import SourceMicrograph
from cryoquery.simulate.config import SimulationConfig
from cryoquery.simulate.densities import bead_envelope, bead_model
from cryoquery.simulate.optics import contrast_transfer, frequency_grid
from cryoquery.simulate.scene import (
    Scene,
    assign_proteins,
    diameter_px,
    draw_scene,
    expose_again,
    margin_px,
)
from cryoquery.simulate.specimen import (
    CARBON,
    ICE,
    Canvas,
    carbon_thickness,
    crystal_thickness,
    ice_thickness,
    mean_phase,
    protein_phase,
)


def simulate_micrographs(config: SimulationConfig) -> list[SourceMicrograph]:
    """Micrographs whose particles are known; pixels are made when they are read.

    Micrograph ``i`` depends on the proteins, the optics, the seed, the number of exposures and ``i``
    alone: not on how many there are, nor on the order or the threads in which they are read. Its
    group is the protein's name. Intensities are counted electrons per pixel, so particles are dark.
    """
    sources = []
    proteins = assign_proteins(config)
    scenes = [draw_scene(config, index, protein) for index, protein in enumerate(proteins)]
    for index in range(config.n_micrographs):
        place, exposure = divmod(index, config.exposures)
        scene = expose_again(config, scenes[place], exposure)
        name = scene.protein.name
        sources.append(
            SourceMicrograph(
                name=f"{name}_{index:05d}",
                group=name,
                shape=(config.height_px, config.width_px),
                read=partial(render, config, scene),
                particles=scene.labels(config),
                pixel_size=config.pixel_size,
                field_of_view=f"{name}/place_{place:05d}" if config.exposures > 1 else None,
                diameter_px=diameter_px(scene.protein, config),
            )
        )
    return sources


def render(config: SimulationConfig, scene: Scene) -> NDArray[np.float32]:
    """The micrograph (height, width) of ``scene`` in electrons per pixel, noise included."""
    exposure = [scene.exposure] if scene.exposure else []
    rng = np.random.default_rng([config.seed, scene.index, 1, *exposure])
    expected = expected_electrons(config, scene, rng)
    return detect(expected, rng, config.detector_blur_px, config.junk.hot_pixels)


def expected_electrons(
    config: SimulationConfig, scene: Scene, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Mean number of electrons (height, width) per pixel: the image without shot noise.

    ``rng`` draws the ice: its molecules, which move under the beam, and in the first exposure its
    thickness.
    """
    margin = margin_px(scene.protein, config)
    height, width = (
        scipy.fft.next_fast_len(n + 2 * margin, real=True) for n in (config.height_px, config.width_px)
    )
    canvas = Canvas((height, width), margin)
    volt, pixel = config.voltage_kv, config.pixel_size

    first = np.random.default_rng([config.seed, scene.index, 1]) if scene.exposure else rng
    ice = ice_thickness(config, scene, canvas, first)
    crystals = crystal_thickness(scene.crystals, canvas)
    phase = mean_phase(crystals, ICE, volt)
    carbon = np.full(canvas.shape, scene.protein.support_angstrom, dtype=np.float32)
    if scene.carbon is not None:
        film = carbon_thickness(scene.carbon, canvas)
        phase += mean_phase(film, CARBON, volt)
        carbon += film
    depth = (ice + crystals) / np.float32(ICE.mean_free_path_angstrom)
    depth += carbon / np.float32(CARBON.mean_free_path_angstrom)
    variance = ice * np.float32(ICE.phase_noise(volt, pixel) ** 2)
    variance += carbon * np.float32(CARBON.phase_noise(volt, pixel) ** 2)
    phase += np.sqrt(variance) * rng.standard_normal(canvas.shape, dtype=np.float32)

    protein = protein_phase(config, scene, bead_model(scene.protein, config.seed), canvas)
    contrast = _image(config, scene, phase, protein)
    electrons = np.float32(scene.protein.dose * pixel**2) * np.exp(-depth) * np.maximum(1 + contrast, 0)
    inside = slice(margin, margin + config.height_px), slice(margin, margin + config.width_px)
    return np.asarray(electrons[inside])


def detect(
    expected: NDArray[np.float32], rng: np.random.Generator, blur_px: float = 0.0, n_hot: float = 0.0
) -> NDArray[np.float32]:
    """What a camera counts where ``expected`` (h, w) electrons arrive: Poisson numbers.

    Args:
        expected: mean number of electrons per pixel.
        rng: draws the counts.
        blur_px: standard deviation of the detector's point spread.
        n_hot: mean number of hot pixels.

    """
    counts = rng.poisson(expected).astype(np.float32)
    if blur_px > 0:
        counts = gaussian_filter(counts, blur_px, mode="nearest", truncate=3)
    hot = rng.integers(counts.size, size=rng.poisson(n_hot))
    counts.flat[hot] = expected.mean() * rng.uniform(1.5, 5, len(hot))
    return counts


def _image(
    config: SimulationConfig, scene: Scene, phase: NDArray[np.float32], protein: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Contrast (canvas) of a weak phase object: 2 φ through the contrast transfer function."""
    ky, kx = frequency_grid(phase.shape, config.pixel_size)
    spectrum = scipy.fft.rfft2(protein) * bead_envelope(ky**2 + kx**2)
    spectrum += scipy.fft.rfft2(phase)
    spectrum *= 2 * contrast_transfer(
        ky,
        kx,
        defocus_angstrom=scene.defocus_angstrom,
        astigmatism_angle=scene.astigmatism_angle,
        voltage_kv=config.voltage_kv,
        spherical_aberration_mm=config.spherical_aberration_mm,
        amplitude_contrast=config.amplitude_contrast,
        b_factor=config.b_factor,
    )
    return np.asarray(scipy.fft.irfft2(spectrum, s=phase.shape))
