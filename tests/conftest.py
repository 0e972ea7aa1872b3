from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiers
from forks import Forked
from slurm_cluster import SlurmCluster, missing_programs, slurm_cluster

if TYPE_CHECKING:
    import numpy as np

    from cryoquery.data.dataset import Dataset

# The process that shares out the tests reads this too: what imports torch is imported where it is needed.

TESTS = Path(__file__).parent
REAL_DATA = TESTS.parents[1] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="try all random cases of tests marked thorough")


def pytest_configure(config: pytest.Config) -> None:
    tiers.full = config.getoption("--all")


LONGEST = (
    "experiment/test_faults.py",
    "label/test_page.py",
    "report/test_report.py",
    "label/test_page_learns.py",
    "experiment/test_verify.py",
    "experiment/test_executors_slurm.py",
    "project/test_step_by_person.py",
    "experiment/test_executors.py",
    "experiment/test_experiment.py",
    "project/test_step.py",
    "experiment/test_slurm_cluster.py",
)
"""Files to begin with, so that no process is left alone with one of them in the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not tiers.full:
        left = [item for item in items if item.get_closest_marker("second_tier")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    first = {str(TESTS / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(str(item.path), len(first)))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_reaches_children() -> Iterator[None]:
    """A shell has what it starts in the background ignore Ctrl-C, and children would inherit that."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that run Python need not import torch again."""
    monkeypatch.setattr(subprocess, "Popen", Forked)


@pytest.fixture
def forked_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that share a training need not import torch again either."""
    import torch

    start = torch.multiprocessing.start_processes

    def start_forked(*arguments: Any, **options: Any) -> Any:
        return start(*arguments, **options | {"start_method": "forkserver"})

    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_forked)


@pytest.fixture(scope="session")
def few_discs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """What `four_runs` are made of. Not to be changed."""
    return make_dataset(tmp_path_factory.mktemp("few") / "discs", {"train": 10, "val": 3})


@pytest.fixture(scope="session")
def alone(few_discs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`four_runs`, done in one process. To be copied before it is changed."""
    from four_runs import four_runs

    from cryoquery import run_experiment

    return run_experiment(four_runs(few_discs, tmp_path_factory.mktemp("alone") / "e", workers=1))


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not (REAL_DATA / "manifest.csv").is_file():
        pytest.skip(f"no real micrographs: {REAL_DATA} is missing")
    return REAL_DATA


@pytest.fixture(scope="session")
def started_slurm() -> Iterator[SlurmCluster]:
    if missing := missing_programs():
        pytest.skip(f"no Slurm: {', '.join(missing)} missing; .ci/install gets them")
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(started_slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A cluster that sbatch and its like reach from the test; idle before and after."""
    for name, value in started_slurm.environment.items():
        monkeypatch.setenv(name, value)
    yield started_slurm
    started_slurm.clear()


def disc_mask(shape: tuple[int, int], centers_yx: np.ndarray, diameter_px: float) -> np.ndarray:
    """A mask (h, w) of discs, drawn the slow way."""
    import numpy as np

    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=np.uint8)
    for cy, cx in centers_yx:
        mask[(y - cy) ** 2 + (x - cx) ** 2 <= (diameter_px / 2) ** 2] = 1
    return mask


def make_dataset(
    path: Path,
    n_images: dict[str, int] | None = None,
    size: int = 32,
    content: tuple[int, int] | None = None,
    diameter_px: float = 8.0,
    seed: int = 0,
) -> Dataset:
    """A dataset of dark discs on noise, a few per image, easy enough to learn in seconds."""
    import numpy as np

    from cryoquery.data.dataset import SPLITS, ImageRecord, encode, new_dataset, open_dataset

    n_images = n_images or {"train": 20, "val": 6}
    rng = np.random.default_rng(seed)
    height, width = content or (size, size)
    records, particles = [], {}
    with new_dataset(path, sum(n_images.values()), size, size) as writer:
        for split in SPLITS:
            for i in range(n_images.get(split, 0)):
                row, name = len(records), f"{split}_{i:03d}"
                centers = rng.uniform(4, [height - 5, width - 5], (int(rng.integers(1, 4)), 2))
                mask = disc_mask((height, width), centers, diameter_px)
                noise = rng.normal(0, 0.5 + 0.5 * (i % 3), (height, width))
                writer.put(row, encode(noise - 2.0 * mask), mask)
                particles[("AB"[i % 2], name)] = np.column_stack(
                    [centers, np.full(len(centers), diameter_px)]
                )
                records.append(
                    ImageRecord(
                        id=name,
                        micrograph=name,
                        group="AB"[i % 2],
                        split=split,
                        height_px=height,
                        width_px=width,
                        scale=1.0,
                        top=0,
                        left=0,
                        content_height=height,
                        content_width=width,
                        pixel_size=None,
                        diameter_px=diameter_px,
                        field_of_view=name,
                        center=0.0,
                        spread=1.0,
                    )
                )
        writer.finish(records, particles, {"config": {"disc_fraction": 1.0}})
    return open_dataset(path)
