"""cryosparc-tools reads what we write, and we what it writes; the example keeps to its interface."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
from relion_project import PIXEL_SIZE, SHAPE, truth

import cryoquery
from cryoquery.formats import Picks, read_coordinates, write_coordinates

pytestmark = pytest.mark.clients
tools = pytest.importorskip("cryosparc.tools", reason="no cryosparc-tools: make setup gets it")
dataset = pytest.importorskip("cryosparc.dataset")
job_module = pytest.importorskip("cryosparc.controllers.job")
project_module = pytest.importorskip("cryosparc.controllers.project")

SLOTS = {
    "location": {
        "micrograph_uid": "<u8",
        "exp_group_id": "<u4",
        "micrograph_path": "O",
        "micrograph_shape": ("<u4", (2,)),
        "micrograph_psize_A": "<f4",
        "center_x_frac": "<f4",
        "center_y_frac": "<f4",
    },
    "pick_stats": {"ncc_score": "<f4", "power": "<f4", "template_idx": "<u4", "angle_rad": "<f4"},
}
"""The fields of what cryoSPARC takes for picks."""


def fields(*slots: str) -> list[tuple[Any, ...]]:
    pairs = [(f"{slot}/{name}", kind) for slot in slots for name, kind in SLOTS[slot].items()]
    return [(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in pairs]


def kinds(data: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (np.dtype(data[name].dtype).str, data[name].shape[1:]) for name in data.fields()}


def test_cryosparc_tools_reads_what_we_write(tmp_path: Path) -> None:
    picks = truth()
    write_coordinates(tmp_path / "picks.cs", picks, pixel_size=PIXEL_SIZE, micrograph_shapes=SHAPE)
    loaded = dataset.Dataset.load(tmp_path / "picks.cs")
    expected = dataset.Dataset.allocate(len(picks), fields("location", "pick_stats"))
    assert kinds(loaded) == kinds(expected)
    assert loaded["location/micrograph_path"].tolist() == picks.micrographs.tolist()
    assert loaded["location/micrograph_shape"].tolist() == [list(SHAPE)] * len(picks)
    assert len(set(loaded["uid"].tolist())) == len(picks)
    x, y = (np.asarray(loaded[f"location/center_{axis}_frac"]) for axis in "xy")
    centers_yx = np.column_stack([y, x]) * SHAPE
    np.testing.assert_allclose(centers_yx, picks.centers_yx, atol=1e-4)
    np.testing.assert_allclose(loaded["pick_stats/ncc_score"], picks.scores, rtol=1e-6)
    assert set(loaded["location/micrograph_psize_A"].tolist()) == {PIXEL_SIZE}


def test_what_cryosparc_tools_writes_is_read(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "a.cs", truth(), pixel_size=PIXEL_SIZE, micrograph_shapes=SHAPE)
    dataset.Dataset.load(tmp_path / "a.cs").save(tmp_path / "b.cs")
    picks = read_coordinates(tmp_path / "b.cs")
    np.testing.assert_allclose(picks.centers_yx, truth().centers_yx, atol=1e-4)
    assert picks.micrographs.tolist() == truth().micrographs.tolist()
    assert picks.pixel_size == PIXEL_SIZE


class Connection:
    """cryoSPARC as the example sees it: the calls are checked against the signatures of cryosparc-tools."""

    def __init__(self) -> None:
        self.micrographs = dataset.Dataset.allocate(
            2,
            [
                ("micrograph_blob/path", "O"),
                ("micrograph_blob/shape", "<u4", (2,)),
                ("micrograph_blob/psize_A", "<f4"),
                ("mscope_params/exp_group_id", "<u4"),
            ],
        )
        self.micrographs["micrograph_blob/path"] = list(truth(folder="J12/motioncorrected").by_micrograph())
        self.micrographs["micrograph_blob/shape"] = [SHAPE] * 2
        self.micrographs["micrograph_blob/psize_A"] = [PIXEL_SIZE] * 2
        self.micrographs["mscope_params/exp_group_id"] = [1, 2]
        self.job = create_autospec(job_module.ExternalJobController, instance=True)
        self.job.uid = "J99"
        self.job.run = self.run
        self.job.load_input.return_value = self.micrographs
        self.job.alloc_output.side_effect = self.allocate
        self.project = create_autospec(project_module.ProjectController, instance=True)
        self.project.dir = lambda: PurePosixPath("/projects/P3")
        self.project.create_external_job.return_value = self.job
        self.cs = create_autospec(tools.CryoSPARC, instance=True)
        self.cs.find_project.return_value = self.project
        self.states: list[str] = []

    @contextmanager
    def run(self) -> Any:
        self.states.append("running")
        try:
            yield
            self.states.append("completed")
        except BaseException:
            self.states.append("failed")
            raise

    def allocate(self, name: str, n: int) -> Any:
        (added,) = self.job.add_output.call_args_list
        assert name == added.args[1]
        return dataset.Dataset.allocate(n, fields(*added.kwargs["slots"]))


def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "cryosparc_external_job.py"
    spec = importlib.util.spec_from_file_location("cryosparc_external_job", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picks_become_an_external_job(monkeypatch: pytest.MonkeyPatch) -> None:
    stub, asked = Connection(), []
    particles = truth(folder="J12/motioncorrected").by_micrograph()

    def pick(_: object, path: Path, **options: object) -> Picks:
        asked.append((path, options))
        return particles[path.relative_to("/projects/P3").as_posix()]

    monkeypatch.setattr(cryoquery, "load_picker", lambda path: path)
    monkeypatch.setattr(cryoquery, "pick_particles", pick)
    uid = example().pick_job(stub.cs, "P3", "W1", "J12", Path("model.pt"), diameter_angstrom=60)
    assert uid == "J99"
    assert stub.states == ["running", "completed"]
    stub.cs.find_project.assert_called_once_with("P3")
    assert stub.project.create_external_job.call_args.args == ("W1",)
    assert stub.job.connect.call_args.args == ("micrographs", "J12", "micrographs")
    assert [options["pixel_size"] for _, options in asked] == [PIXEL_SIZE] * 2
    assert asked[0][1]["diameter_angstrom"] == 60
    name, saved = stub.job.save_output.call_args.args
    assert name == "picks"
    assert kinds(saved) == kinds(dataset.Dataset.allocate(0, fields("location", "pick_stats")))
    assert len(saved) == sum(map(len, particles.values()))
    for i, (path, picks) in enumerate(particles.items()):
        own = saved.query({"location/micrograph_uid": stub.micrographs["uid"][i]})
        assert set(own["location/micrograph_path"]) == {path}
        assert set(own["location/exp_group_id"]) == {i + 1}
        assert np.unique(own["location/micrograph_shape"], axis=0).tolist() == [list(SHAPE)]
        assert set(own["location/micrograph_psize_A"]) == {PIXEL_SIZE}
        y, x = (np.asarray(own[f"location/center_{axis}_frac"]) for axis in "yx")
        np.testing.assert_allclose(np.column_stack([y, x]) * SHAPE, picks.centers_yx, atol=1e-4)
        np.testing.assert_allclose(own["pick_stats/ncc_score"], picks.scores, rtol=1e-6)


def test_an_external_job_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Connection()
    monkeypatch.setattr(cryoquery, "load_picker", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        example().pick_job(stub.cs, "P3", "W1", "J12", Path("model.pt"))
    assert stub.states == ["running", "failed"]
    stub.job.save_output.assert_not_called()
