"""A job of RELION's type External, called as RELION calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import run

from cryoquery.formats import Picks, read_by_micrograph
from cryoquery.formats.star import read_tables
from cryoquery.picking import picker, relion_job
from cryoquery.picking.batch import BatchResult

JOB = Path("External/job004")
MICS = "CtfFind/job003/micrographs_ctf.star"
NAMES = ("MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/b.tif")
CALL = (
    "relion-job",
    "--o",
    f"{JOB}/",
    "--in_mics",
    MICS,
    "--model",
    "model.pt",
    "--diameter-px",
    "20",
    "--j",
    "1",
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELION makes the folder of a job before it calls the program."""
    monkeypatch.chdir(tmp_path)
    JOB.mkdir(parents=True)
    (JOB / "run.out").touch()
    Path(MICS).parent.mkdir(parents=True)
    rows = "".join(f"{name} 1\n" for name in NAMES)
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 1.5\n\n"
    Path(MICS).write_text(f"{optics}data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n{rows}")
    monkeypatch.setattr(picker, "load_picker", lambda *_: None)
    monkeypatch.setattr(relion_job, "find_picks", find)


def find(_: object, paths: list[Path], options: picker.PickOptions, **also: object) -> BatchResult:
    """One pick on each micrograph."""
    assert options.optics_pixel_size == 1.5
    also["progress"](1, 2)  # type: ignore[operator]
    names = [str(path) for path in paths]
    picks = Picks.of([[10, 20], [10, 20]], micrograph=names, scores=[0.5, 0.6], diameters_px=20)
    return BatchResult(picks.replace(shapes=dict.fromkeys(names, (100, 200))), 2, {}, ())


def outcomes() -> list[str]:
    return [path.name for path in JOB.glob("RELION_JOB_*")]


def test_its_folder_is_that_of_a_picking_job(monkeypatch: pytest.MonkeyPatch) -> None:
    (JOB / "RELION_JOB_EXIT_FAILURE").touch()
    assert run(monkeypatch, *CALL) == 0
    assert outcomes() == ["RELION_JOB_EXIT_SUCCESS"]
    found = read_by_micrograph(JOB)
    assert list(found) == list(NAMES)
    assert [np.asarray(picks).tolist() for picks in found.values()] == [[[10, 20]], [[89, 20]]], "TIFF"
    assert (JOB / "coords_suffix_autopick.star").read_text() == f"{MICS}\n"
    assert (JOB / "Movies" / "a_autopick.star").is_file()
    path = JOB / "RELION_OUTPUT_NODES.star"
    (nodes,) = read_tables(path, path.read_text())
    assert nodes.block == "output_nodes"
    assert {name: list(values) for name, values in nodes.columns.items()} == {
        "rlnPipeLineNodeName": [f"{JOB}/autopick.star", f"{JOB}/coords_suffix_autopick.star"],
        "rlnPipeLineNodeType": ["2", "2"],
        "rlnPipeLineNodeTypeLabel": ["MicrographCoordsGroup.star.relion.autopick"] * 2,
    }


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (["--in_mics", "none.star"], 1),
        (["--project", "p"], 1),
        (["--colour", "red"], 2),
        (["--threshold", "x"], 2),
    ],
)
def test_a_job_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, more: list[str], status: int) -> None:
    assert run(monkeypatch, *CALL, *more) == status
    assert outcomes() == ["RELION_JOB_EXIT_FAILURE"]


def test_a_job_of_which_nothing_can_be_picked_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = BatchResult(Picks.of(np.empty((0, 2))), 0, {Path(NAMES[0]): "a.mrc: no such file"}, ())
    monkeypatch.setattr(relion_job, "find_picks", lambda *_, **__: nothing)
    assert run(monkeypatch, *CALL) == 1
    assert "no micrograph could be picked; a.mrc: no such file" in capsys.readouterr().err
    assert outcomes() == ["RELION_JOB_EXIT_FAILURE"]


def test_a_job_can_be_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    (JOB / "RELION_JOB_ABORT_NOW").touch()
    assert run(monkeypatch, *CALL) == 1
    assert outcomes() == ["RELION_JOB_EXIT_ABORTED"]
    assert not (JOB / "autopick.star").exists()
