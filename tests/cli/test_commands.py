from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from command_line import run
from conftest import make_dataset

from cryoquery import run_experiment
from cryoquery.acquisition import STRATEGIES
from cryoquery.data.build import build_dataset, default_workers
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.formats import write_micrograph

PROTOCOL = Path(__file__).parents[2] / "configs" / "protocol.toml"


def test_dry_run_of_the_protocol_without_its_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cryoquery.experiment.plan.PROBE_BUDGET", 64 * 64 * 64)
    assert run(monkeypatch, "experiment", PROTOCOL, "--dry-run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "517, 1034, 1551, 2069, 2586, 3103, 3620, 4137, 4655, 5172" in shown
    assert shown.count("_sampling") == 18
    assert "24 runs" in shown
    assert "no such dataset folder" in shown
    assert "s per training pass" in shown
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


def test_an_experiment_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    config = {
        "dataset": "replaced",
        "out": str(tmp_path / "e"),
        "strategies": ["entropy", "random"],
        "seeds": [1],
        "schedule": {"counts": [2, 4]},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 1, "epochs": 1},
    }
    (tmp_path / "c.toml").write_text(tomli_w.dumps(config))
    command = ("experiment", tmp_path / "c.toml", "--dataset", tmp_path / "data", "--workers", "1")
    assert run(monkeypatch, *command) == 0
    shown = capsys.readouterr().out
    assert "entropy_sampling seed 1 · iteration 1/2 · 2 labeled · F1" in shown
    assert "7 of 7 trainings" in shown
    assert (tmp_path / "e" / "comparison_results" / "learning_curves.png").is_file()
    assert run(monkeypatch, "status", tmp_path / "e") == 0
    assert "4 runs: 4 finished" in capsys.readouterr().out
    assert run(monkeypatch, "verify", tmp_path / "e") == 0
    assert "all hold" in capsys.readouterr().out
    assert run(monkeypatch, "compare", tmp_path / "e") == 0
    assert "| Random Sampling (50%) |" in capsys.readouterr().out


def test_results_are_read_from_any_working_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    config = {
        "dataset": "data",
        "strategies": ["random"],
        "baselines": [],
        "seeds": [1],
        "schedule": {"counts": [2, 4]},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 1, "epochs": 1},
        "workers": 1,
    }
    run_experiment(config | {"out": "e"})
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in ("status", "compare", "verify"):
        assert run(monkeypatch, command, tmp_path / "e") == 0, command
    assert "1 runs: 1 finished" in capsys.readouterr().out


def test_simulate_and_inspect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "simulate", tmp_path / "d", "-n", 12, "--size", 128, "--seed", 3) == 0
    assert run(monkeypatch, "inspect", tmp_path / "d") == 0
    shown = capsys.readouterr().out
    assert "apoferritin  train" in shown
    assert (tmp_path / "d" / "contact_sheet.png").is_file()


def test_an_import_does_not_depend_on_its_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "s" / "micrographs").mkdir(parents=True)
    (tmp_path / "s" / "coordinates").mkdir()
    rng = np.random.default_rng(0)
    for name in "abcdef":
        write_micrograph(tmp_path / f"s/micrographs/{name}.mrc", rng.normal(size=(64, 64)).astype(np.float32))
        (tmp_path / f"s/coordinates/{name}.csv").write_text("X-Coordinate,Y-Coordinate\n20,30\n")
    used, fingerprints = [], set()

    def build(*arguments: Any, **more: Any) -> Dataset:
        used.append(arguments[2].n_workers)
        return build_dataset(*arguments, **more)

    monkeypatch.setattr("cryoquery.data.build.build_dataset", build)
    for out, workers in (("a", ["--workers", 1]), ("b", ["--workers", 5]), ("c", [])):
        arguments = ["import", tmp_path / "s", tmp_path / out, "--size", 64, "--diameter-px", 8, *workers]
        assert run(monkeypatch, *arguments, "--force") == 0, capsys.readouterr().err
        fingerprints.add(open_dataset(tmp_path / out).fingerprint)
    assert used == [1, 5, default_workers()]
    assert len(fingerprints) == 1


def test_strategies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "strategies") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(STRATEGIES)
    assert {"uncertainty", "entropy", "margin", "diversity", "hybrid", "random", "auto"} <= set(STRATEGIES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment", "missing.toml"], "missing.toml: no such config file"),
        (["inspect", "missing"], "missing: no such dataset folder"),
        (["compare", "missing"], "missing: holds no experiment"),
        (["import", "missing", "out"], "missing: no such folder"),
        (["simulate", "out", "--size", "32"], "height_px=32: Input should be greater than or equal to 64"),
        (["simulate", "file"], "file: exists already"),
        (["import", "missing", "out", "--field", "100"], "try 112"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("precious")
    assert run(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("cryoquery: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [["experiment"], ["nonsense"], ["demo", "--speed", "11"], ["import", "a", "b", "--workers", "0"]],
)
def test_wrong_usage_is_status_2(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert run(monkeypatch, *arguments) == 2


def test_an_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cryoquery.data.dataset.open_dataset", interrupt)
    assert run(monkeypatch, "inspect", tmp_path) == 130
    assert "run the same command again to go on" in capsys.readouterr().err


def test_help_is_quick_because_torch_is_not_loaded() -> None:
    code = "import sys, cryoquery.cli; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "False"]


def test_the_names_of_the_package() -> None:
    import cryoquery

    for name in cryoquery.__all__:
        assert getattr(cryoquery, name) is not None
    with pytest.raises(AttributeError, match="No cryoquery attribute nonsense"):
        _ = cryoquery.nonsense
