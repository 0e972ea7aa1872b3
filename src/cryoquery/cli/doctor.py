"""The command doctor: what this machine has, and whether it computes what a CPU in single precision does."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cryoquery.cli.terminal import make_console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryoquery.network.device import DeviceConfig

N_FIELDS, SIDE, PART = 4, 256, 128
"""Simulated fields of the self-test, their side in px, and that of the parts that are trained on."""
N_EPOCHS = 5
LARGEST_DIFFERENCE = 0.05
"""Of F1, of mean scores and, relatively, of losses: what another precision may change."""
WRITTEN_MB = 64


def doctor() -> None:
    """What this machine has, and a self-test in about a minute: the first thing to run on a new one.

    Exit status 1 where the self-test fails. Paste all of it into a report of a problem.
    """
    from cryoquery.cli.console import say
    from cryoquery.network.device import DeviceConfig

    console = make_console()
    for name, fact in _facts():
        say(console, f"{name:<15} {fact}")
    say(console, "self-test: picking, scoring and training on simulated fields …")
    reference = _computed(DeviceConfig(accelerator="cpu", precision="32-true"))
    here = _computed(DeviceConfig())
    for name, value in (("cpu, float32", reference), (here.device, here)):
        say(
            console,
            f"  {name}: F1 {value.f1:.3f}, mean entropy {value.entropy:.4f}, loss after training "
            f"{value.loss:.4f}; {value.picking_seconds:.1f} s to pick, {value.training_seconds:.1f} s to "
            "train",
        )
    if problems := list(here.differences(reference)):
        text = "FAILED: this device does not compute what a CPU does: " + "; ".join(problems)
        say(console, text, "bold red")
        raise typer.Exit(1)
    say(console, "passed: this device computes what a CPU in single precision does")


def _facts() -> Iterator[tuple[str, str]]:
    """What is here, as pairs of name and value."""
    import torch

    from cryoquery import __version__
    from cryoquery.network import capability
    from cryoquery.network.device import DeviceConfig, describe
    from cryoquery.storage.provenance import source_commit

    commit = source_commit()
    yield "cryoquery", __version__ + (f", commit {commit}" if commit else "")
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    yield "torch", torch.__version__
    for i in range(capability.n_gpus()):
        gpu = torch.cuda.get_device_properties(i)
        yield f"GPU {i}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    if not capability.n_gpus():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
        yield "GPU", f"none that torch can use (it was built for {built})"
    fabric = DeviceConfig().fabric()
    yield "device", f"{describe(fabric)}, precision {fabric.strategy.precision.precision}"
    yield "CPU", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores may be used"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield "memory", f"{memory:.0f} GiB"
    for name, folder in (("here", Path.cwd()), ("temporary", Path(tempfile.gettempdir()))):
        yield f"disk, {name}", _disk(folder)
    slurm = shutil.which("sbatch")
    yield "Slurm", slurm or "no sbatch on PATH: experiments run in local processes only"
    without = 'no TIFF with LZW, no EER: pip install "cryoquery[eer]"'
    yield "imagecodecs", _installed("imagecodecs", without)
    yield "tensorboard", _installed("tensorboard", "no event files are written")


def _disk(folder: Path) -> str:
    """Free space, and the rate at which a file is written and synchronized."""
    free = f"{folder}: {shutil.disk_usage(folder).free / 2**30:.0f} GiB free"
    block = os.urandom(2**20)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            started = time.perf_counter()
            for _ in range(WRITTEN_MB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return f"{free}, writes {WRITTEN_MB / (time.perf_counter() - started):.0f} MB/s"
    except OSError as error:
        return f"{free}, cannot be written to ({error.strerror})"


def _installed(name: str, otherwise: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return f"not installed: {otherwise}"


@dataclass(frozen=True)
class Computed:
    """What a device makes of the simulated fields."""

    device: str
    f1: float
    """Of the picks of `general`, over all fields."""
    entropy: float
    """Mean over the pixels of all fields."""
    loss: float
    """Of the last epoch of a short training that goes on from `general`."""
    picking_seconds: float
    training_seconds: float

    def differences(self, reference: Computed) -> Iterator[str]:
        """What differs by more than another precision may make it."""
        limits = {
            "F1": (self.f1, reference.f1, LARGEST_DIFFERENCE),
            "mean entropy": (self.entropy, reference.entropy, LARGEST_DIFFERENCE),
            "loss after training": (self.loss, reference.loss, LARGEST_DIFFERENCE * reference.loss),
        }
        for name, (here, there, limit) in limits.items():
            if not abs(here - there) <= limit:  # also where it is no number
                yield f"{name} is {here:.4f}, there {there:.4f}"


def _computed(device: DeviceConfig) -> Computed:
    import numpy as np

    from cryoquery.acquisition import entropy
    from cryoquery.data.dataset import encode
    from cryoquery.data.preprocess import draw_mask, normalize
    from cryoquery.network.device import describe
    from cryoquery.picking.metrics import match_particles
    from cryoquery.picking.picker import PickOptions, load_picker
    from cryoquery.picking.tiles import predict_tiled
    from cryoquery.simulate.randomized import PARTICLE_PX, random_field

    fields = [random_field(np.random.default_rng([1, i]), SIDE) for i in range(N_FIELDS)]
    levels = [encode(normalize(field.image).image) for field in fields]
    picker = load_picker("general", device)
    options = PickOptions(diameter_px=PARTICLE_PX)
    picker.pick(fields[0].image, options, None)  # the first time a device sets itself up
    started = time.perf_counter()
    found = [picker.pick(field.image, options, None).picks.centers_yx for field in fields]
    picked = time.perf_counter()
    maps = [predict_tiled(picker.predictor, each, SIDE) for each in levels]
    discs = PARTICLE_PX * picker.recipe.disc_fraction
    masks = [
        draw_mask((SIDE, SIDE), field.centers_yx, np.full(len(field.centers_yx), discs)) for field in fields
    ]
    scored = time.perf_counter()
    loss = _trained(levels, masks, device)
    matches = [
        match_particles(c, field.centers_yx, PARTICLE_PX / 2) for c, field in zip(found, fields, strict=True)
    ]
    n_matched, n_all = sum(m.n_matched for m in matches), sum(m.n_picks + m.n_truth for m in matches)
    fabric = picker.predictor.fabric
    return Computed(
        device=f"{describe(fabric)}, {fabric.strategy.precision.precision}",
        f1=2 * n_matched / n_all,
        entropy=float(np.mean([entropy(each).mean() for each in maps])),
        loss=loss,
        picking_seconds=picked - started,
        training_seconds=time.perf_counter() - scored,
    )


def _trained(levels: list[NDArray[np.uint8]], masks: list[NDArray[np.uint8]], device: DeviceConfig) -> float:
    """Loss of the last epoch of a short training of `general` on quarters of the fields."""
    import numpy as np

    from cryoquery.data.fields import field_grid
    from cryoquery.data.pool import LabeledImages, Pool
    from cryoquery.network.checkpoint import model_path, read_model
    from cryoquery.network.optimize import Training, TrainingConfig, TrainingStep
    from cryoquery.network.train import fit

    def quarters(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        parts = field_grid((SIDE, SIDE), PART)
        return np.stack([image[part.place] for image in images for part in parts])

    images, truth = quarters(levels), quarters(masks)
    pool = Pool(images, np.full((len(images), 2), PART), ("",) * len(images), ("",) * len(images))
    labeled = LabeledImages(pool, np.arange(len(images)), lambda indices: truth[indices])
    start = read_model(model_path("general"))
    config = TrainingConfig(
        initial_epochs=N_EPOCHS, batch_size=N_FIELDS, focal_alpha=0.5, initial_learning_rate=2e-4
    )
    losses: list[float] = []

    def watch(step: TrainingStep) -> None:
        if step.loss is not None:
            losses.append(step.loss)

    training = Training(start.weights, start.model, labeled, config, from_scratch=True, seed=0)
    fit(training, device.fabric(), watch, device)
    return losses[-1]
