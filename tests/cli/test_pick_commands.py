from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from conftest import disc_mask, make_dataset

from cryoquery.formats import read_coordinates, write_coordinates, write_micrograph
from cryoquery.network.checkpoint import save_model
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.predict import Predictor
from cryoquery.picking.threshold import picking_recipe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained model that finds something, two micrographs with their truth, and a damaged one."""
    config = ModelConfig(base_channels=2)
    network = config.build()
    network.load_state_dict(initial_weights(config, 0))
    torch.nn.init.normal_(network.head.weight, std=30.0, generator=torch.Generator().manual_seed(1))
    dataset = make_dataset(tmp_path / "data", {"train": 4, "test": 2})
    predictor = Predictor(network, DeviceConfig().fabric())
    recipe = picking_recipe(predictor, dataset, np.arange(4), ("test",)).model_dump(mode="json")
    save_model(tmp_path / "model.pt", network, config, {}, recipe | {"scale": "particle"})
    rng = np.random.default_rng(0)
    (tmp_path / "mics").mkdir()
    (tmp_path / "truth").mkdir()
    for name in ("a", "b"):
        centers = rng.uniform(10, [110, 150], (12, 2))
        pixels = rng.normal(0, 1, (120, 160)) - 2 * disc_mask((120, 160), centers, 20)
        write_micrograph(tmp_path / "mics" / f"{name}.mrc", pixels.astype(np.float32))
        write_coordinates(tmp_path / "truth" / f"{name}.csv", np.column_stack([centers, np.full(12, 20.0)]))
    (tmp_path / "bad.mrc").write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Captured = pytest.CaptureFixture[str]


def test_pick_then_evaluate_then_convert(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    picking = ["pick", "model.pt", "mics", "--out", "p.star", "--diameter-px", "20", "--threshold", "0"]
    assert run(monkeypatch, *picking, "--overlays", "o", "--histograms", "h", "--anywhere") == 0
    assert "p.star: " in capsys.readouterr().out
    picks = read_coordinates("p.star")
    assert {"mics/a.mrc", "mics/b.mrc"} >= set(picks.micrographs)
    assert len(list(Path("o").iterdir())) == len(list(Path("h").iterdir())) == 2
    assert run(monkeypatch, *picking) == 0, "a second time"
    assert run(monkeypatch, "evaluate", "p.star", "truth", "--out", "scores") == 0
    assert "AP" in capsys.readouterr().out
    assert Path("scores/scores.json").is_file()
    assert run(monkeypatch, "convert", "p.star", "p.txt") == 0
    assert len(read_coordinates("p.txt")) == len(picks)


def test_micrographs_and_their_optics_from_a_star_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    labels = ("OpticsGroup", "MicrographPixelSize", "Voltage", "SphericalAberration")
    optics = "data_optics\n\nloop_\n" + "".join(f"_rln{label}\n" for label in labels)
    named = "data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\nmics/a.mrc 1\n"
    Path("mics.star").write_text(f"{optics}1 1.5 200 1.4\n\n{named}")
    picking = ["pick", "model.pt", "mics.star", "--out", "p.star", "--diameter-px", "20", "--threshold", "0"]
    assert run(monkeypatch, *picking, "--for", "relion") == 0
    assert "on 1 micrograph" in capsys.readouterr().out
    picks = read_coordinates("p.star")
    assert picks.optics["rlnVoltage"].tolist() == ["200"]
    assert run(monkeypatch, "convert", "truth", "q.star", "--optics", "mics.star", "--voltage", "300") == 0
    assert read_coordinates("q.star").optics["rlnVoltage"].tolist() == ["300.000000"]
    assert run(monkeypatch, "convert", "truth", "q.star", "--cs", "2.7") == 1
    assert "give --voltage" in capsys.readouterr().err


def test_a_bad_micrograph_is_reported_and_the_rest_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    arguments = ["pick", "model.pt", "mics/a.mrc", "bad.mrc", "none.mrc", "-o", "p.csv", "--diameter-px", 20]
    assert run(monkeypatch, *arguments) == 1
    assert "give a new folder as --out" in capsys.readouterr().err
    arguments[arguments.index("p.csv")] = "p.star"
    assert run(monkeypatch, *arguments) == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 4
    assert "note: p.star: no table of optics groups" in shown.err
    assert "bad.mrc" in shown.err
    assert "none.mrc: no such file" in shown.err
    assert "2 of 3 could not be picked" in shown.err
    assert "on 1 micrograph" in shown.out
    assert Path("p.star").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pick", "none.pt", "mics", "-o", "p.star", "--diameter-px", "20"], "none.pt: no such model"),
        (["pick", "model.pt", "mics", "-o", "p.xyz", "--diameter-px", "20"], "p.xyz: unknown suffix"),
        (["pick", "model.pt", "truth", "-o", "p.star"], "truth: no micrographs in it"),
        (["evaluate", "none.star", "truth"], "none.star: no such file"),
        (["evaluate", "truth", "truth", "--radius", "5"], "give a number and its unit"),
        (["evaluate", "truth", "truth", "--radius", "5A"], "give --pixel-size"),
        (["convert", "truth/a.csv", "a.xyz"], "a.xyz: unknown suffix"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: list[str], message: str
) -> None:
    assert run(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert all(line.startswith("cryoquery: ") for line in error.splitlines())
    assert not Path("p.star").exists()


def test_flipped_picks_are_refused_where_micrographs_are_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    rng = np.random.default_rng(1)
    Path("m").mkdir()
    Path("t").mkdir()
    Path("f").mkdir()
    centers = rng.uniform(15, [285, 385], (60, 2))
    pixels = rng.normal(0, 1, (300, 400)) - 2 * disc_mask((300, 400), centers, 16)
    write_micrograph(Path("m/a.mrc"), pixels.astype(np.float32))
    write_coordinates(Path("t/a.csv"), np.column_stack([centers, np.full(60, 16.0)]))
    flipped = np.column_stack([299 - centers[:, 0], centers[:, 1], np.full(60, 16.0)])
    write_coordinates(Path("f/a.csv"), flipped)
    for command in (["evaluate", "f/a.csv", "t/a.csv"], ["convert", "f/a.csv", "g.csv"]):
        assert run(monkeypatch, *command, "--micrographs", "m") == 1
        assert "--flip-y" in capsys.readouterr().err
        assert run(monkeypatch, *command, "--micrographs", "m", "--force") == 0
        assert run(monkeypatch, *command, "--micrographs", "m", "--flip-y") == 0
    turned = read_coordinates("g.csv").centers_yx
    assert turned == pytest.approx(centers, abs=0.01)


def test_pick_without_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    picking = ["pick", "log", "mics", "--out", "p.star", "--diameter-px", "20", "--overlays", "o"]
    assert run(monkeypatch, *picking) == 0
    assert "p.star: " in capsys.readouterr().out
    assert len(list(Path("o").iterdir())) == 2
    assert len(read_coordinates("p.star")) > 10


def test_a_diameter_that_is_not_stated_is_estimated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert run(monkeypatch, "pick", "log", "mics", "--out", "p.star", "--diameter-plot", "d.png") == 0
    assert "no diameter is stated; estimated: " in capsys.readouterr().out
    assert Path("d.png").read_bytes().startswith(b"\x89PNG")
