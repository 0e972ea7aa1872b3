"""Fields of micrographs in which everything differs that differs between laboratories.

`simulate.micrograph` follows the electrons of one microscope. Here nothing is kept: shape, optics, noise
spectrum, contamination, denoising and quantization are drawn anew for every field, more widely than they
are found, so that a network trained on them takes a real micrograph for one more of these (domain
randomization: Tobin et al. 2017, arXiv:1703.06907). Fields are made at the scale at which a network sees
them, where a particle has some 18 px.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryoquery.simulate.assemblies import random_assembly
from cryoquery.simulate.densities import deposit, project_centers, random_quaternions
from cryoquery.simulate.optics import contrast_transfer, frequency_grid
from cryoquery.simulate.scene import thin_out

PARTICLE_PX = 18.0
"""Diameter that is stated for the particles of a field."""
STATED_WRONGLY = 0.12
"""Standard deviation of the logarithm of the true diameter over the stated one."""
EMPTY_SHARE, REAL_EMPTY_SHARE = 0.08, 0.3
"""Of the fields hold no particle: on simulated ice, and on a real picture, of which there are few."""
_CONTRASTS = 4
"""Groups of particles of a field that differ in contrast."""


@dataclass(frozen=True)
class RandomField:
    """A simulated part of a micrograph."""

    image: NDArray[np.float32]
    """(h, w) in arbitrary units, particles dark; not yet normalized."""
    centers_yx: NDArray[np.float64]
    """(n, 2) of the particles, in px; also of those whose center lies up to half a diameter outside."""


def random_field(
    rng: np.random.Generator,
    side: int = 256,
    particle_px: float = PARTICLE_PX,
    backgrounds: Sequence[NDArray[np.float32]] = (),
) -> RandomField:
    """One field of ``side`` px.

    Args:
        rng: decides everything.
        side: px.
        particle_px: diameter in px that will be stated; the true one differs by some `STATED_WRONGLY`.
        backgrounds: pictures (h, w) of real ice without particles, in standard deviations; half of the
            fields have one of them for a background where some are given.
    """
    margin = round(2 * particle_px)
    shape = (side + 2 * margin, side + 2 * margin)
    true_px = particle_px * math.exp(rng.normal(0, STATED_WRONGLY))
    pixel_size = math.exp(rng.uniform(math.log(80), math.log(350))) / true_px
    transfer = _random_transfer(rng, shape, pixel_size)
    ice = _real_background(rng, backgrounds, shape) if len(backgrounds) and rng.random() < 0.5 else None
    empty = rng.random() < (EMPTY_SHARE if ice is None else REAL_EMPTY_SHARE)
    centers, quaternions = _random_particles(rng, shape, true_px)
    if empty:
        centers, quaternions = centers[:0], quaternions[:0]
    beads = random_assembly(rng)
    # Some particles are fainter than others, for they lie deeper in the ice, or are not whole.
    group = rng.integers(_CONTRASTS, size=len(centers))
    contrasts = np.exp(-np.abs(rng.normal(0, rng.uniform(0, 0.8), _CONTRASTS)))
    signal = np.zeros(shape, dtype=np.float32)
    for number, contrast in enumerate(contrasts.astype(np.float32)):
        some = group == number
        signal += contrast * _project(beads, centers[some], quaternions[some], shape, true_px)
    signal += _distractors(rng, beads, shape, true_px, centers)
    signal = np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(signal) * transfer, s=shape), dtype=np.float32)
    within = _near(centers, shape, true_px / 2)
    strength = float(signal[within].std()) if within.any() else float(signal.std())
    signal *= np.float32(math.exp(rng.uniform(math.log(0.3), math.log(4.0))) / max(strength, 1e-6))
    image = signal + (_random_noise(rng, shape, transfer) if ice is None else ice)
    image, off_limits = _junk(rng, image, true_px, pixel_size)
    image = _processed(rng, image)
    inside = np.s_[margin : margin + side, margin : margin + side]
    image = _recorded(rng, _striped(rng, np.ascontiguousarray(image[inside])))
    if len(centers):
        at = np.clip(np.rint(centers).astype(int), 0, np.array(shape) - 1)
        centers = centers[~off_limits[at[:, 0], at[:, 1]]] - margin
        reach = particle_px / 2
        centers = centers[((centers > -reach) & (centers < side + reach)).all(axis=1)]
    return RandomField(image, centers)


def _random_transfer(
    rng: np.random.Generator, shape: tuple[int, int], pixel_size: float
) -> NDArray[np.float32]:
    """Contrast transfer of a random microscope: particles come out dark."""
    ky, kx = frequency_grid(shape, pixel_size)
    defocus = rng.uniform(0.5, 4.0) * 1e4
    plate = rng.random() < 0.1
    contrast = math.sin(rng.uniform(0.6, 1.6)) if plate else rng.uniform(0.05, 0.25)
    transfer = contrast_transfer(
        ky,
        kx,
        defocus_angstrom=(defocus + rng.uniform(0, 500), defocus),
        astigmatism_angle=rng.uniform(0, math.pi),
        voltage_kv=float(rng.choice([120, 200, 300])),
        spherical_aberration_mm=2.7,
        amplitude_contrast=min(contrast, 0.999),
        b_factor=math.exp(rng.uniform(math.log(50), math.log(3000))),
    )
    return np.asarray(transfer, dtype=np.float32)


def _random_particles(
    rng: np.random.Generator, shape: tuple[int, int], true_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centers (n, 2) and orientations (n, 4): few, crowded, or in a lattice."""
    if rng.random() < 0.09:
        spacing = true_px * rng.uniform(0.95, 1.4)
        rows, columns = np.mgrid[0 : shape[0] / spacing, 0 : shape[1] / spacing].reshape(2, -1)
        lattice = np.stack([rows * math.sqrt(0.75), columns + 0.5 * (rows % 2)], axis=1) * spacing
        centers = lattice + rng.normal(0, rng.uniform(0.02, 0.2) * true_px, lattice.shape)
        centers = centers[rng.random(len(centers)) < rng.uniform(0.4, 1.0)]
    else:
        coverage = math.exp(rng.uniform(math.log(0.02), math.log(0.5)))
        n = round(coverage * shape[0] * shape[1] / (math.pi / 4 * true_px**2))
        candidates = rng.uniform(0, shape, (4 * n + 8, 2))
        centers = thin_out(candidates, rng.uniform(0.75, 1.1) * true_px)[: max(n, 1)]
    quaternions = random_quaternions(rng, len(centers))
    if rng.random() < 0.25 and len(centers):  # preferred orientation, turned in the plane only
        views = Rotation.from_quat(random_quaternions(rng, int(rng.integers(1, 3))))
        chosen = views[rng.integers(len(views), size=len(centers))]
        in_plane = Rotation.from_rotvec(np.outer(rng.uniform(0, 2 * np.pi, len(centers)), [0, 0, 1]))
        quaternions = (in_plane * chosen).as_quat()
    return centers, quaternions


def _project(
    beads: NDArray[np.float32],
    centers: NDArray[np.float64],
    quaternions: NDArray[np.float64],
    shape: tuple[int, int],
    true_px: float,
) -> NDArray[np.float32]:
    """Projected mass (h, w) of copies of the ``beads``."""
    if not len(centers):
        return np.zeros(shape, dtype=np.float32)
    projected = project_centers(beads, quaternions) * (0.46 * true_px)
    points = (projected + centers[:, None, :]).reshape(-1, 2)
    mass = deposit(points, shape, 100.0 / len(beads))
    return np.asarray(ndimage.gaussian_filter(mass, 0.04 * true_px, mode="wrap"), dtype=np.float32)


def _distractors(
    rng: np.random.Generator,
    beads: NDArray[np.float32],
    shape: tuple[int, int],
    true_px: float,
    centers: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Broken particles and clumps of particles (h, w): mass that no label names."""
    mass = np.zeros(shape, dtype=np.float32)
    n_pieces = rng.poisson(rng.choice([0, 2, 15]))
    if n_pieces:
        some = beads[np.argsort(np.linalg.norm(beads - beads[0], axis=1))][: max(len(beads) // 5, 1)]
        places = rng.uniform(0, shape, (n_pieces, 2))
        piece = _project(some - some.mean(axis=0), places, random_quaternions(rng, n_pieces), shape, true_px)
        mass += np.float32(0.2) * piece
    if rng.random() < 0.2:
        middle = rng.uniform(0, shape, 2)
        if not len(centers) or np.linalg.norm(centers - middle, axis=1).min() > 1.5 * true_px:
            members = middle + rng.normal(0, 0.55 * true_px, (int(rng.integers(6, 17)), 2))
            mass += _project(beads, members, random_quaternions(rng, len(members)), shape, true_px)
    return mass


def _near(centers: NDArray[np.float64], shape: tuple[int, int], radius: float) -> NDArray[np.bool_]:
    """Pixels (h, w) at most ``radius`` from a center."""
    points = np.ones(shape, dtype=bool)
    at = np.rint(centers).astype(int) % np.array(shape)
    points[at[:, 0], at[:, 1]] = False
    if points.all():
        return ~points
    return np.asarray(ndimage.distance_transform_edt(points) <= radius)


def _random_noise(
    rng: np.random.Generator, shape: tuple[int, int], transfer: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Shot noise, structured ice and slow changes (h, w), standard deviation 1."""
    ky, kx = frequency_grid(shape, 1.0)
    k = np.sqrt(ky**2 + kx**2)
    k[0, 0] = 1 / max(shape)
    white = 1.0
    ice = (
        rng.choice([0.0, rng.uniform(0.2, 3.0)]) * np.abs(transfer) / max(float(np.abs(transfer).max()), 1e-6)
    )
    slow = rng.choice([0.0, rng.uniform(0.2, 1.5)]) * (k / 0.05) ** -rng.uniform(0.5, 1.5)
    power = white + ice**2 + np.minimum(slow, 30.0) ** 2
    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * np.sqrt(power)
    noise = scipy.fft.irfft2(spectrum, s=shape)
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _real_background(
    rng: np.random.Generator, backgrounds: Sequence[NDArray[np.float32]], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """A random part of a real picture (h, w), turned and zoomed."""
    picture = backgrounds[int(rng.integers(len(backgrounds)))]
    least = math.log(max(s / p for s, p in zip(shape, picture.shape, strict=True)))
    scaled = ndimage.zoom(picture, math.exp(rng.uniform(least, max(least, 0.6))), order=1)
    scaled = np.pad(
        scaled, [(0, max(0, s - n)) for s, n in zip(shape, scaled.shape, strict=True)], mode="reflect"
    )
    top, left = (int(rng.integers(n - s + 1)) for n, s in zip(scaled.shape, shape, strict=True))
    part = np.rot90(scaled[top : top + shape[0], left : left + shape[1]], int(rng.integers(4)))
    return np.asarray(part[:, :: int(rng.choice([-1, 1]))], dtype=np.float32)


def _junk(
    rng: np.random.Generator, image: NDArray[np.float32], true_px: float, pixel_size: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Crystals, drops, gold, a film's edge; and where (h, w) nothing can be a particle that is labeled."""
    shape = image.shape
    covered = np.zeros(shape, dtype=bool)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    noise = float(image.std())
    for _ in range(rng.poisson(rng.choice([0.0, 1.0, 6.0]))):
        center, radius = (
            rng.uniform(0, shape, 2),
            true_px * math.exp(rng.uniform(math.log(0.15), math.log(2.5))),
        )
        angle, stretch = rng.uniform(0, math.pi), math.exp(rng.normal(0, 0.25))
        along = (y - center[0]) * math.sin(angle) + (x - center[1]) * math.cos(angle)
        across = (y - center[0]) * math.cos(angle) - (x - center[1]) * math.sin(angle)
        if rng.random() < 0.4:  # faceted
            sides = [np.abs(along * math.cos(a) + across * math.sin(a)) for a in np.arange(3) * math.pi / 3]
            distance = np.max(sides, axis=0)
        else:
            distance = np.sqrt((along * stretch) ** 2 + (across / stretch) ** 2)
        profile = np.clip((radius - distance) / rng.uniform(0.5, 0.6 * radius + 0.6), 0, 1)
        if rng.random() < 0.3:  # a ring: a rim brighter or darker than what is in it
            profile = profile * np.clip((distance - 0.6 * radius) / (0.2 * radius), 0.2, 1)
        image = image - np.float32(noise * rng.uniform(1, 8) * rng.choice([1, 1, 1, -0.6])) * profile
        covered |= profile > 0.3
    if rng.random() < 0.15:  # gold: small, round, black
        radius = rng.uniform(0.1, 0.4) * true_px
        for center in rng.uniform(0, shape, (int(rng.integers(1, 12)), 2)):
            spot = np.hypot(y - center[0], x - center[1]) < radius
            image = np.where(spot, image.min() - noise, image)
            covered |= spot
    if rng.random() < 0.2:
        image, film = _film(rng, image, y, x, pixel_size)
        covered |= film
    if rng.random() < 0.06:  # crystalline ice: a lattice over a part of the field
        period = rng.uniform(2.2, 8)
        angle = rng.uniform(0, math.pi)
        wave = sum(
            np.cos(2 * math.pi / period * (y * math.sin(angle + turn) + x * math.cos(angle + turn)))
            for turn in np.arange(3) * math.pi / 3
        )
        where = ndimage.gaussian_filter(rng.standard_normal(shape), 20)
        part = where > np.quantile(where, rng.uniform(0, 0.8))
        image = image + np.float32(noise * rng.uniform(0.5, 2)) * wave * part
    return np.asarray(image, dtype=np.float32), covered


def _film(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    y: NDArray[np.float32],
    x: NDArray[np.float32],
    pixel_size: float,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Carbon beyond the edge of a hole: darker, of another texture, with a bright or dark rim."""
    radius = rng.choice([6000, 10_000, 25_000]) / pixel_size
    angle = rng.uniform(0, 2 * math.pi)
    middle = np.array(image.shape) / 2
    edge = rng.uniform(-0.1, 0.5) * image.shape[0]
    center = middle + (edge - radius) * np.array([math.sin(angle), math.cos(angle)])
    beyond = np.hypot(y - center[0], x - center[1]) - radius
    film = np.clip(beyond / rng.uniform(1, 6), 0, 1)
    noise = float(image.std())
    texture = ndimage.gaussian_filter(rng.standard_normal(image.shape), rng.uniform(0.5, 1.5))
    texture *= noise * rng.uniform(0.2, 1.5) / texture.std()
    rim = np.exp(-((beyond / rng.uniform(2, 6)) ** 2)) * noise * rng.normal(0, 3)
    image = image + film * (texture - noise * rng.uniform(-1, 6)) - rim
    return np.asarray(image, dtype=np.float32), film > 0.5


def _processed(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What programs do before pickers see a micrograph: blur, denoise, filter, stretch."""
    kind = rng.random()
    if kind < 0.35:
        image = ndimage.gaussian_filter(image, rng.uniform(0.4, 2.2))
    elif kind < 0.45:
        image = ndimage.median_filter(image, int(rng.choice([3, 5])))
    elif kind < 0.52:  # Wiener-like: more is smoothed where less happens
        smooth = ndimage.gaussian_filter(image, rng.uniform(1, 2))
        local = ndimage.gaussian_filter((image - smooth) ** 2, 4)
        gain = np.clip(1 - rng.uniform(0.6, 1.1) * float(np.median(local)) / np.maximum(local, 1e-9), 0, 1)
        image = smooth + gain * (image - smooth)
    if rng.random() < 0.25:  # high-pass
        image = image - np.float32(rng.uniform(0.3, 1)) * ndimage.gaussian_filter(image, rng.uniform(12, 40))
    if rng.random() < 0.2:  # local contrast, as of CLAHE
        spread = np.sqrt(ndimage.gaussian_filter((image - image.mean()) ** 2, rng.uniform(15, 40)))
        image = image / np.maximum(spread, 1e-6) ** np.float32(rng.uniform(0.3, 1))
    if rng.random() < 0.2:
        z = (image - image.mean()) / image.std()
        image = np.tanh(z / rng.uniform(1.2, 3))
    return np.asarray(image, dtype=np.float32)


def _striped(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stripes at the rim that filters leave, and lines of the camera's gain."""
    if rng.random() < 0.1:
        width = int(rng.integers(2, 14))
        for _ in range(int(rng.integers(1, 3))):
            rim = image[:width].mean(axis=0, keepdims=True) * np.linspace(1, 0, width)[:, None]
            image[:width] = (1 - np.linspace(1, 0, width)[:, None]) * image[:width] + rim
            image = np.rot90(image).copy()
    if rng.random() < 0.08:
        lines = rng.random(image.shape[0]) < 0.02
        image[lines] += np.float32(image.std() * rng.normal(0, 1))
    return np.asarray(image, dtype=np.float32)


def _recorded(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hot pixels; 8 bits and JPEG as of exported pictures; the field on its side."""
    if rng.random() < 0.3:
        hot = rng.integers(image.size, size=rng.poisson(3))
        image.flat[hot] = image.max() * rng.uniform(1, 2, len(hot))
    if rng.random() < 0.3:
        low, high = np.percentile(image, (0.1, 99.9))
        levels = np.clip((image - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
        if rng.random() < 0.5:
            stream = io.BytesIO()
            Image.fromarray(levels).save(stream, "JPEG", quality=int(rng.integers(40, 95)))
            levels = np.asarray(Image.open(stream))
        image = levels.astype(np.float32)
    return image
