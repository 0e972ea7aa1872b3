"""A real and a simulated micrograph side by side, with their histograms and power spectra.

    python examples/simulated_beside_real.py DATA OUT.png

DATA holds folders `empiar_10028`, `empiar_10146` and `empiar_10146_noisy`, each with `micrographs/`.
The simulation is told what can be read off the real micrograph: its sampling, its defocus, how
crowded it is; nothing is fitted pixel by pixel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoquery.formats import read_micrograph
from cryoquery.simulate import PROTEINS, Junk, Protein, SimulationConfig, simulate_micrographs

SIZE = 512
Image = NDArray[np.float32]


def real(folder: Path, number: int, binning: int) -> Image:
    """The upper left corner of the ``number``-th micrograph of a folder, binned: noise stays white."""
    path = sorted((folder / "micrographs").iterdir())[number]
    corner = read_micrograph(path).pixels[16 : 16 + SIZE * binning, 16 : 16 + SIZE * binning]
    return corner.reshape(SIZE, binning, SIZE, binning).mean(axis=(1, 3))


def simulated(name: str, number: int, protein: dict[str, Any], **settings: Any) -> Image:
    """The ``number``-th simulated micrograph of one protein with other parameters."""
    config = SimulationConfig(
        n_micrographs=number + 1,
        height_px=SIZE,
        width_px=SIZE,
        proteins=(Protein(**(PROTEINS[name].model_dump() | protein)),),
        junk=Junk(crystals=0.5, aggregates=0.3, fragments=2, carbon=0, hot_pixels=0),
        empty=0,
        crowding_variation=0,
        seed=1,
        **settings,
    )
    return simulate_micrographs(config)[number].read()


def normalized(image: Image) -> Image:
    """In standard deviations, which the outliers have no say in."""
    low, high = np.percentile(image, [0.5, 99.5])
    return (image - np.median(image)) / np.clip(image, low, high).std()


def spectrum(image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotational average of the power over spatial frequency (cycles per pixel), 1 at Nyquist."""
    window = np.hanning(len(image))[:, None] * np.hanning(image.shape[1])
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(len(image))[:, None], np.fft.fftfreq(image.shape[1]))
    bins = np.linspace(0, 0.5, 60)
    at = np.digitize(radius.ravel(), bins)
    values = np.array([power.ravel()[at == k].mean() for k in range(2, len(bins))])
    return (bins[1:-1] + bins[2:]) / 2, values / values[-8:].mean()


def main(data: Path, out: Path) -> None:
    """Draw the three pairs."""
    ferritin = {"pixel_size": 3.0, "defocus_um": (2.2, 2.4), "detector_blur_px": 0}
    ribosome = {"pixel_size": 5.36, "defocus_um": (2.6, 2.7), "detector_blur_px": 0.5}
    on_carbon = {"support_angstrom": 110, "coverage": 0.2, "length_angstrom": 265.0}
    pairs = {
        "EMPIAR-10028, ribosome": (
            real(data / "empiar_10028", 1, 1),
            simulated("ribosome", 3, on_carbon, **ribosome),
        ),
        "EMPIAR-10146, apoferritin": (
            real(data / "empiar_10146", 5, 2),
            simulated("apoferritin", 4, {"coverage": 0.48}, **ferritin),
        ),
        "EMPIAR-10146 without frame averaging": (
            real(data / "empiar_10146_noisy", 2, 2),
            simulated("apoferritin", 4, {"coverage": 0.48, "dose": 1.5}, **ferritin),
        ),
    }
    figure = Figure(figsize=(22, 5.6 * len(pairs)), layout="constrained")
    for row, (name, images) in zip(figure.subplots(len(pairs), 4), pairs.items(), strict=True):
        for axes, image, title in zip(row, images, (f"real: {name}", "simulated"), strict=False):
            axes.imshow(normalized(image), cmap="gray", vmin=-3.2, vmax=3.2)
            axes.set_title(title)
            axes.set_axis_off()
        for image, title in zip(images, ("real", "simulated"), strict=True):
            row[2].hist(normalized(image).ravel(), bins=25, range=(-5, 5), histtype="step", density=True)
            row[3].semilogy(*spectrum(image), label=title)
        row[2].set(title="histogram", xlabel="intensity (standard deviations)")
        row[3].set(title="power spectrum", xlabel="cycles per pixel", ylabel="power / power at Nyquist")
        row[3].legend()
    figure.savefig(out, dpi=72)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
