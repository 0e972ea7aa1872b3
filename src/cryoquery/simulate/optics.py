"""Image formation of a thin specimen: electron wavelength, contrast transfer, interaction constant.

Sources: Reimer & Kohl, Transmission Electron Microscopy (2008), chapter 2, for wavelength and
interaction constant; Rohou & Grigorieff, J. Struct. Biol. 192 (2015) 216 for the contrast transfer
function and its sign; Frank, Three-Dimensional Electron Microscopy of Macromolecular Assemblies
(2006), chapter 2, for the weak-phase object and the envelope.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

_PLANCK = 6.62607015e-34
_ELECTRON_MASS = 9.1093837015e-31
_CHARGE = 1.602176634e-19
_LIGHT_SPEED = 2.99792458e8
_REST_ENERGY_EV = _ELECTRON_MASS * _LIGHT_SPEED**2 / _CHARGE


def wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic wavelength of electrons, Å: 0.0197 at 300 kV, 0.0251 at 200 kV."""
    volts = voltage_kv * 1e3
    momentum_squared = 2 * _ELECTRON_MASS * _CHARGE * volts * (1 + volts / (2 * _REST_ENERGY_EV))
    return _PLANCK / math.sqrt(momentum_squared) * 1e10


def interaction_constant(voltage_kv: float) -> float:
    """Phase shift per projected potential, rad/(V Å): 6.53e-4 at 300 kV."""
    volts = voltage_kv * 1e3
    ratio = (_REST_ENERGY_EV + volts) / (2 * _REST_ENERGY_EV + volts)
    return 2 * math.pi / (wavelength_angstrom(voltage_kv) * volts) * ratio


def frequency_grid(
    shape: tuple[int, int], pixel_size: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Spatial frequencies ky (h, 1) and kx (1, w/2+1) of `scipy.fft.rfft2` of an image ``shape``, 1/Å."""
    height, width = shape
    ky = scipy.fft.fftfreq(height, pixel_size).astype(np.float32)[:, None]
    kx = scipy.fft.rfftfreq(width, pixel_size).astype(np.float32)[None, :]
    return ky, kx


def contrast_transfer(
    ky: NDArray[np.float32],
    kx: NDArray[np.float32],
    *,
    defocus_angstrom: tuple[float, float],
    astigmatism_angle: float = 0.0,
    voltage_kv: float = 300.0,
    spherical_aberration_mm: float = 2.7,
    amplitude_contrast: float = 0.1,
    b_factor: float = 0.0,
) -> NDArray[np.float32]:
    """Contrast transfer function CTF(k) = −sin(χ(k) + asin(w)) · exp(−B k²/4).

    χ = π λ k² (Δf − λ² k² Cs / 2), with underfocus Δf positive (Rohou & Grigorieff 2015). An
    image of a weak phase object φ is 1 + 2 φ∗ctf: negative where the CTF is, so particles are dark
    at underfocus.

    Args:
        ky: spatial frequency down the image, 1/Å.
        kx: spatial frequency along the rows, 1/Å; must broadcast with ``ky``.
        defocus_angstrom: underfocus along ``astigmatism_angle`` and across it.
        astigmatism_angle: of the first defocus, radians from x towards y.
        voltage_kv: acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: w, in [0, 1).
        b_factor: B in Å².

    """
    wavelength = wavelength_angstrom(voltage_kv)
    first, second = defocus_angstrom
    squared = kx**2 + ky**2
    # Δf(θ)·k², with cos 2(θ−θ₀) written in kx and ky: no arctangent per pixel.
    along = math.cos(2 * astigmatism_angle) * (kx**2 - ky**2) + math.sin(2 * astigmatism_angle) * (
        2 * kx * ky
    )
    defocus_term = np.float32((first + second) / 2) * squared + np.float32((first - second) / 2) * along
    aberration = np.float32(wavelength**2 * spherical_aberration_mm * 1e7 / 2) * squared**2
    phase = np.float32(math.pi * wavelength) * (defocus_term - aberration)
    phase += np.float32(math.asin(amplitude_contrast))
    result = -np.sin(phase)
    if b_factor:
        result *= np.exp(np.float32(-b_factor / 4) * squared)
    return np.asarray(result, dtype=np.float32)
