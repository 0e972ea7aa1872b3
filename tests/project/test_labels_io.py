from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from project_micrographs import (
    DIAMETER_PX,
    SHAPE,
    known_picks,
    make_project,
    particles,
    write_micrographs,
)

from cryoquery.errors import CryoqueryError, DataError, ProjectError
from cryoquery.formats import Picks, read_coordinates, write_coordinates
from cryoquery.formats.placement import Orientation, Placement
from cryoquery.formats.reading import Reading
from cryoquery.network.checkpoint import save_model
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig
from cryoquery.picking.batch import BatchResult, pick_micrographs
from cryoquery.picking.picker import Picker
from cryoquery.picking.threshold import PickingRecipe
from cryoquery.project.events import Command, EventLog
from cryoquery.project.folder import Project, open_project
from cryoquery.project.label_files import JSON_KIND
from cryoquery.project.labels_io import export_labels, import_labels, label_picks
from cryoquery.project.pick_all import export_picks, newest_model
from cryoquery.project.picks_in import import_picks
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.settings import SETTINGS_FILE, write_settings
from cryoquery.project.state import ItemLabels, ProjectState, labels, replay
from cryoquery.project.step_files import StepFiles

N = 4


def state_of(project: Project) -> ProjectState:
    with EventLog.open(project.events_path, write=False) as log:
        return replay(log.read(), project.geometry)


def found(project: Project) -> dict[str, ItemLabels]:
    """Labels by micrograph."""
    return {project.items[item].micrograph: one for item, one in labels(state_of(project)).items()}


def in_order(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.T[::-1])]


def assert_all_known(project: Project, numbers: range = range(N), atol: float = 1e-3) -> None:
    own = found(project)
    assert sorted(own) == [f"mic_{i:02d}" for i in numbers]
    for i in numbers:
        np.testing.assert_allclose(
            in_order(own[f"mic_{i:02d}"].particles_yx), in_order(particles(i)), atol=atol
        )


def answer(project: Project, item: int, person: str, ops: list[dict[str, object]]) -> None:
    """What a person does: open, draft, submit."""
    now = time.time()
    commands = [
        Command(
            f"{person}-{item}-lease", person, "leased", str(item), {"until": now + 60, "suggested": False}
        )
    ]
    commands += [
        Command(f"{person}-{item}-{i}", person, "drafted", str(item), {"op": op, "active_seconds": 1.0})
        for i, op in enumerate(ops)
    ]
    commands.append(
        Command(
            f"{person}-{item}-end", person, "submitted", str(item), {"active_seconds": 2.0, "model": None}
        )
    )
    with ProjectRepository.open(project.events_path, project.geometry) as repository:
        repository.record(commands, now)


def write_untrained(path: Path, project: Project) -> None:
    """A model that has learned nothing."""
    model = ModelConfig(base_channels=2)
    size = project.config.particle_px
    recipe = PickingRecipe(
        scale="particle",
        image_side=project.config.image_size,
        particle_px=size,
        particle_px_range=(size, size),
        disc_fraction=1.0,
    )
    torch.manual_seed(0)
    save_model(path, model.build(), model, {}, recipe.model_dump(mode="json"))


@pytest.fixture
def labeled(tmp_path: Path) -> Project:
    write_coordinates(tmp_path / "known.star", known_picks(range(N)))
    return make_project(tmp_path, N, labels=[tmp_path / "known.star"])


def test_known_picks_seed_the_labels_of_a_new_project(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "known.star", known_picks(range(2)))
    project = make_project(tmp_path, N, labels=[tmp_path / "known.star"])
    assert_all_known(project, range(2))
    assert {project.items[entry.item].micrograph for entry in state_of(project).queue.entries} == {
        "mic_02", "mic_03",
    }  # fmt: skip


def test_diameters_that_labels_came_with_are_kept(tmp_path: Path) -> None:
    known = known_picks(range(N))
    stated = np.where(np.arange(len(known)) % 3, 17.0, np.nan)
    stated[:12] = 30.0
    write_coordinates(tmp_path / "known.star", known.replace(diameters_px=stated))
    project = make_project(tmp_path, N, labels=[tmp_path / "known.star"])
    expected = np.where(np.isnan(stated), DIAMETER_PX, stated)
    now, moved = time.time(), {"op": "move", "key": "i0", "y": 11.0, "x": 13.0}
    with ProjectRepository.open(project.events_path, project.geometry) as repository:
        bodies = {
            "reopened": {"until": now + 60},
            "drafted": {"op": moved, "active_seconds": 1.0},
            "submitted": {"active_seconds": 2.0, "model": None},
        }
        repository.record([Command(kind, "anna", kind, "0", body) for kind, body in bodies.items()], now)
    expected[0] = DIAMETER_PX
    for name in ("out.star", "out.json"):
        export_labels(project, state_of(project), tmp_path / name)
        again = project
        if name == "out.json":
            again = make_project(tmp_path / "again", N)
            import_labels(again, tmp_path / name)
        centers = known.centers_yx.copy()
        centers[0] = 11, 13
        picks = label_picks(again, labels(state_of(again)))
        order = [int(np.argmin(np.abs(centers - point).sum(axis=1))) for point in picks.centers_yx]
        np.testing.assert_array_equal(picks.diameters_px, expected[order])
    assert read_coordinates(tmp_path / "out.star").diameters_px.tolist() == expected[order].tolist()


def test_labels_for_another_program(
    labeled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.star"
    for more, status, said in (
        ([], 0, "no table of optics groups"),
        (["--for", "relion"], 1, "relion needs a table of optics groups; give --voltage"),
        (["--for", "relion", "--voltage", "300", "--cs", "2.7"], 0, ""),
    ):
        assert run(monkeypatch, "export", labeled.path, out, *more) == status
        assert said in capsys.readouterr().err
    optics = read_coordinates(out).optics
    assert optics["rlnVoltage"].tolist() == ["300.000000"]
    assert optics["rlnMicrographPixelSize"].tolist() == ["2.000000"], "of the headers"


def test_the_size_of_a_box_is_not_a_diameter(tmp_path: Path) -> None:
    write_coordinates(
        tmp_path / "boxes", known_picks(range(N)).replace(diameters_px=np.full(12 * N, 40.0)), format="box"
    )
    project = make_project(tmp_path, N, labels=[tmp_path / "boxes"])
    assert label_picks(project, labels(state_of(project))).diameter_px == DIAMETER_PX


@pytest.mark.parametrize("name", ["out.star", "out.txt", "out.cs", "out.json", "star", "box", "cbox", "csv"])
def test_labels_survive_every_format(labeled: Project, tmp_path: Path, name: str) -> None:
    before = found(labeled)
    out = tmp_path / name
    written = export_labels(labeled, state_of(labeled), out, file_format=None if out.suffix else name)
    assert (written.n_micrographs, written.n_particles) == (N, 12 * N)
    again = make_project(tmp_path / "again", N)
    imported = import_labels(again, out)
    assert (imported.n_items, imported.n_particles, imported.notes) == (N, 12 * N, ())
    whole = 0.5 if name == "txt" else 1e-3
    assert_all_known(again, atol=whole)
    if name == "out.json":
        for key, own in found(again).items():
            np.testing.assert_array_equal(own.particles_yx, before[key].particles_yx)


def test_exports_name_micrographs_as_they_were_given(labeled: Project, tmp_path: Path) -> None:
    export_labels(labeled, state_of(labeled), tmp_path / "o.star")
    picks = read_coordinates(tmp_path / "o.star")
    assert set(picks.micrographs) == {str(tmp_path / "data" / f"mic_{i:02d}.mrc") for i in range(N)}
    assert (picks.pixel_size, picks.diameter_px) == (2.0, DIAMETER_PX)
    export_labels(labeled, state_of(labeled), tmp_path / "o.json", file_format="coco")
    assert read_coordinates(tmp_path / "o.json").file_format == "coco"


def test_what_is_ignored_is_not_exported(tmp_path: Path) -> None:
    project = make_project(tmp_path, 2, labels=())
    (item,) = project.items_of["mic_00"]
    points = particles(0)
    left = points[:, 1] < SHAPE[1] / 2
    polygon = [[0, 0], [0, SHAPE[1] / 2], [SHAPE[0] - 1, SHAPE[1] / 2], [SHAPE[0] - 1, 0]]
    said = {"particles": points.tolist(), "regions": [{"kind": "ignore", "polygon": polygon}]}
    with ProjectRepository.open(project.events_path, project.geometry) as journal:
        body = {"source": "test", "labels": said}
        journal.record([Command("one", "cryoquery", "imported", str(item.number), body)], time.time())
    export_labels(project, state_of(project), tmp_path / "labels.star")
    written = read_coordinates(tmp_path / "labels.star").centers_yx
    assert 0 < left.sum() < len(points)
    np.testing.assert_allclose(in_order(written), in_order(points[~left]), atol=1e-3)


def test_the_own_format_holds_regions_and_what_was_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path, N)
    polygon = [[10.0, 10.0], [10.0, 60.5], [50.0, 30.0]]
    answer(project, 0, "ann", [
        {"op": "add", "key": "p1", "y": 20.25, "x": 31.5},
        {"op": "region", "key": "r1", "kind": "ignore", "polygon": polygon},
    ])  # fmt: skip
    answer(project, 1, "ann", [{"op": "region", "key": "r1", "kind": "done", "polygon": polygon}])
    answer(project, 2, "bob", [{"op": "empty", "value": True}])
    with ProjectRepository.open(project.events_path, project.geometry) as repository:
        now = time.time()
        lease = Command("l", "bob", "leased", "3", {"until": now + 60, "suggested": False})
        skip = Command("s", "bob", "skipped", "3", {"reason": "ice", "bad": True, "active_seconds": 1.0})
        repository.record([lease, skip], now)
    export_labels(project, state_of(project), tmp_path / "out.json")
    entries = json.loads((tmp_path / "out.json").read_text())["labels"]
    assert [entry["status"] for entry in entries] == ["submitted", "submitted", "submitted", "bad"]
    again = make_project(tmp_path / "again", N)
    assert import_labels(again, tmp_path / "out.json").n_items == 3
    before, after = found(project), found(again)
    assert before.keys() == after.keys()
    for name, own in before.items():
        np.testing.assert_array_equal(after[name].particles_yx, own.particles_yx)
        assert [region.tolist() for region in after[name].ignore] == [r.tolist() for r in own.ignore]
        assert [region.tolist() for region in after[name].done] == [r.tolist() for r in own.done]
        assert after[name].empty == own.empty


def test_labels_of_whole_micrographs_are_dealt_to_fields(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "known.star", known_picks(range(2)))
    project = make_project(tmp_path, N, unit="field", diameter_px=10.0, labels=[tmp_path / "known.star"])
    own = labels(state_of(project))
    assert {project.items[item].micrograph for item in own} == {"mic_00", "mic_01"}
    for i in range(2):
        items = [item.number for item in project.items_of[f"mic_{i:02d}"]]
        assert len(items) > 1
        together = np.concatenate([own[item].particles_yx for item in items])
        np.testing.assert_allclose(in_order(together), in_order(particles(i)), atol=1e-3)
    picks = label_picks(project, own)
    assert len(picks.by_micrograph()) == 2


@pytest.mark.parametrize("unit", ["micrograph", "field"])
@pytest.mark.parametrize("flip", [False, True])
def test_classes_that_are_to_be_ignored_become_regions(tmp_path: Path, unit: str, flip: bool) -> None:
    project = make_project(tmp_path, 2, unit=unit, diameter_px=20.0 if unit == "micrograph" else 10.0)
    rows = SHAPE[0] - 1 - particles(0)[:, 0] if flip else particles(0)[:, 0]
    boxes = [[x - 10, y - 10, 20, 20] for y, x in zip(rows, particles(0)[:, 1], strict=True)]
    ice = [-30, 100, 90, 90]  # over the left and the lower edge
    marks = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    marks.append({"image_id": 1, "category_id": 2, "bbox": ice})
    classes = [{"id": 1, "name": "particle"}, {"id": 2, "name": "ice"}]
    images = [{"id": 1, "file_name": "mic_00.mrc"}]
    content = {"images": images, "annotations": marks, "categories": classes}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    placed = Placement(Orientation(False, flip, False))
    reading = Reading.of(ignored="Ice")
    imported = import_labels(project, tmp_path / "coco.json", placed=placed, reading=reading)
    assert not any("ice" in note for note in imported.notes)
    own = labels(state_of(project))
    regions = np.concatenate([polygon for one in own.values() for polygon in one.ignore])
    lowest, highest = (-0.5, 59) if flip else (100, SHAPE[0] - 0.5)
    assert (regions[:, 0].min(), regions[:, 0].max()) == (lowest, highest)
    left = min(item.region[1] if item.region else 0 for item in project.items) - 0.5
    assert (regions[:, 1].min(), regions[:, 1].max()) == (left, 60)
    if unit == "micrograph":
        assert [polygon.shape for one in own.values() for polygon in one.ignore] == [(4, 2)]
    else:
        assert 1 <= sum(bool(one.ignore) for one in own.values()) < len(own)


def test_what_people_labeled_stays(labeled: Project, tmp_path: Path) -> None:
    project = make_project(tmp_path / "other", N)
    answer(project, 1, "ann", [{"op": "empty", "value": True}])
    export_labels(labeled, state_of(labeled), tmp_path / "o.star")
    first = import_labels(project, tmp_path / "o.star")
    assert first.n_items == N - 1
    assert "left out 1 that people have labeled" in first.notes[0]
    assert import_labels(project, tmp_path / "o.star").n_items == N - 1
    assert labels(state_of(project))[1].empty


def test_a_file_without_picks_says_that_there_are_no_particles(tmp_path: Path) -> None:
    project = make_project(tmp_path, N)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "mic_02.box").touch()
    picks = Picks.of(particles(0), diameters_px=DIAMETER_PX)
    write_coordinates(tmp_path / "boxes" / "mic_00.box", picks)
    import_labels(project, tmp_path / "boxes")
    own = found(project)
    assert sorted(own) == ["mic_00", "mic_02"]
    assert own["mic_02"].empty


def test_misplaced_labels_are_refused_and_can_be_turned(tmp_path: Path) -> None:
    project = make_project(tmp_path, N)
    flipped = known_picks(range(N))
    centers = flipped.centers_yx * [-1, 1] + [SHAPE[0] - 1, 0]
    write_coordinates(tmp_path / "flipped.star", flipped.replace(centers_yx=centers))
    with pytest.raises(DataError, match=r"flipped\.star: .*use --flip-y, or --force"):
        import_labels(project, tmp_path / "flipped.star")
    assert not labels(state_of(project))
    import_labels(project, tmp_path / "flipped.star", placed=Placement(Orientation(False, True, False)))
    assert_all_known(project)
    assert import_labels(project, tmp_path / "flipped.star", force=True).n_items == N


def test_files_that_do_not_fit_are_refused_or_noted(tmp_path: Path) -> None:
    project = make_project(tmp_path, N)
    write_coordinates(tmp_path / "other.star", Picks.of([[5.0, 5.0]], micrograph="nowhere.mrc"))
    with pytest.raises(DataError, match="names none of the micrographs"):
        import_labels(project, tmp_path / "other.star")
    more = Picks.of(
        [*particles(0), [9.0, 9.0], [500.0, 3.0]],
        micrograph=[*["mic_00.mrc"] * 12, "nowhere.mrc", "mic_00.mrc"],
    )
    write_coordinates(tmp_path / "more.star", more)
    imported = import_labels(project, tmp_path / "more.star")
    assert (imported.n_items, imported.n_particles) == (1, 12)
    assert "such as 'nowhere.mrc'" in imported.notes[0]
    assert "1 picks outside" in imported.notes[1]
    empty = make_project(tmp_path / "empty", 2)
    with pytest.raises(ProjectError, match="nothing is labeled"):
        export_labels(empty, state_of(empty), tmp_path / "o.star")
    (tmp_path / "bad.json").write_text(
        json.dumps({"kind": "cryoquery labels", "version": 1, "labels": [{"particles": 3}]})
    )
    with pytest.raises(DataError, match=r"bad\.json: not labels as cryoquery writes them"):
        import_labels(project, tmp_path / "bad.json")
    (tmp_path / "new.json").write_text(json.dumps({"kind": "cryoquery labels", "version": 2, "labels": []}))
    with pytest.raises(DataError, match="version 2"):
        import_labels(project, tmp_path / "new.json")


@pytest.mark.parametrize(
    "entry",
    [
        "[" * 100_000,
        "9" * 5000,
        '{"region": [1e400, 0, 1, 1], "particles": []}',
        '{"region": [0], "particles": []}',
        '{"region": 7, "particles": []}',
        '{"region": null, "particles": [[' + "9" * 400 + ", 1]]}",
        '{"region": null, "particles": [[1e400, 1]]}',
        '{"region": null, "particles": [[NaN, 1]]}',
        '{"region": null, "particles": [], "regions": 3}',
        '{"region": null, "particles": [], "regions": [3]}',
        '{"region": null, "particles": [], "regions": [{"kind": "done", "polygon": [[1e400, 1]]}]}',
        '{"region": null, "particles": [], "regions": [{"kind": "done", "polygon": '
        + "[" * 900
        + "]" * 900
        + "}]}",
    ],
)
def test_labels_that_cannot_be_are_refused_in_a_line(labeled: Project, tmp_path: Path, entry: str) -> None:
    path = tmp_path / "labels.json"
    name = next(iter(labeled.micrographs))
    entry = entry.replace('{"region"', f'{{"micrograph": "{name}", "path": "{name}", "empty": true, "region"')
    path.write_text(f'{{"kind": "{JSON_KIND}", "version": 1, "labels": [{entry}]}}')
    with pytest.raises(CryoqueryError) as refused:
        import_labels(labeled, path)
    assert "\n" not in str(refused.value)


def test_all_micrographs_are_picked_with_the_newest_model(tmp_path: Path) -> None:
    project = make_project(tmp_path, 3)
    with pytest.raises(ProjectError, match="no model yet"):
        export_picks(project, tmp_path / "picks.star")
    for step in (2, 10):
        folder = project.steps_path / f"step_{step}"
        folder.mkdir(parents=True)
        write_untrained(folder / "model.pt", project)
    (project.steps_path / "step_11").mkdir()
    assert newest_model(project) == project.steps_path / "step_10" / "model.pt"
    outcome = export_picks(open_project(project.path), tmp_path / "picks.star", threshold=0.0)
    assert (outcome.n_done, outcome.failures) == (3, {})
    names = set(read_coordinates(tmp_path / "picks.star").micrographs)
    assert names <= {str(tmp_path / "data" / f"mic_{i:02d}.mrc") for i in range(3)}


def test_micrographs_are_picked_on_the_device_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = DeviceConfig(accelerator="cpu", precision="bf16-mixed", threads=torch.get_num_threads() + 1)
    project = make_project(tmp_path, 3)
    settings = project.config.model_copy(update={"device": device})
    write_settings(project.path / SETTINGS_FILE, settings)
    folder = project.steps_path / "step_1"
    folder.mkdir(parents=True)
    write_untrained(folder / "model.pt", project)
    seen: list[tuple[str, str, int]] = []

    def watched(picker: Picker, *arguments: Any, **options: Any) -> BatchResult:
        fabric = picker.predictor.fabric
        precision = str(fabric.strategy.precision.precision)
        seen.append((fabric.device.type, precision, torch.get_num_threads()))
        return pick_micrographs(picker, *arguments, **options)

    monkeypatch.setattr("cryoquery.project.pick_all.pick_micrographs", watched)
    before = torch.get_num_threads()
    outcome = export_picks(open_project(project.path), tmp_path / "picks.star", threshold=0.0)
    assert (outcome.n_done, seen) == (3, [("cpu", "bf16-mixed", device.threads)])
    assert torch.get_num_threads() == before


def test_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_micrographs(tmp_path / "data", N)
    write_coordinates(tmp_path / "known.star", known_picks(range(2)))
    monkeypatch.chdir(tmp_path)
    size = ("--pixel-size", 2.0, "--diameter-angstrom", 40)
    assert run(monkeypatch, "init", "p", "--micrographs", "data/*.mrc", *size, "--initial", 3) == 0
    assert (
        f"p: {N} micrographs, 0 with labels, 3 to label first; next: cryoquery label p"
        in capsys.readouterr().out
    )
    assert run(monkeypatch, "export", "p", "out.star") == 1
    assert run(monkeypatch, "import-labels", "p", "known.star") == 0
    assert "p: 24 particles for 2 items from known.star" in capsys.readouterr().out
    assert run(monkeypatch, "export", "p", "out.star") == 0
    assert "out.star: 24 particles on 2 micrographs" in capsys.readouterr().out
    assert set(read_coordinates("out.star").micrographs) == {"data/mic_00.mrc", "data/mic_01.mrc"}
    assert run(monkeypatch, "export", "p", "picks.star", "--picks") == 0
    assert f"picks on {N} micrographs" in capsys.readouterr().out, "those of the general model"


def test_a_pattern_that_the_shell_expanded_is_recognized(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = write_micrographs(tmp_path / "data", 3)
    for arguments in (
        ("p", "--micrographs", *paths, "--diameter-px", 20),
        ("--diameter-px", 20, "--micrographs", *paths, "p"),
    ):
        assert run(monkeypatch, "init", *arguments) == 1
        said = capsys.readouterr().err
        assert "put it in quotes: --micrographs 'DIR/*.mrc'" in said
        assert said.count("\n") == 1
    assert run(monkeypatch, "init", "p", "--diameter-px", 20) == 2


def test_picks_of_another_program_are_suggested_until_the_first_step(tmp_path: Path) -> None:
    project = make_project(tmp_path, N)
    scores = np.linspace(-3, 9, len(known_picks(range(2))))
    write_coordinates(tmp_path / "topaz.star", known_picks(range(2)).replace(scores=scores))
    imported = import_picks(project, tmp_path / "topaz.star")
    assert (imported.n_items, imported.n_particles) == (2, len(scores))
    assert found(project) == {}
    files = StepFiles(project.path)
    assert files.newest_picks() == "picks_1"
    (item,) = project.items_of["mic_01"]
    shown = files.suggestions("picks_1", item.number)
    np.testing.assert_allclose(
        in_order(np.array([(pick.y, pick.x) for pick in shown.picks])), in_order(particles(1)), atol=1e-3
    )
    ranks = [pick.score for pick in shown.picks]
    assert ranks == sorted(ranks, reverse=True)
    assert 0.5 < min(ranks) < max(ranks) < 1
    assert sum(files.scores("picks_1").counts) == len(scores)
    import_picks(project, tmp_path / "topaz.star")
    assert files.newest_picks() == "picks_2"
    (project.steps_path / "step_1").mkdir(parents=True)
    (project.steps_path / "step_1" / "metrics.json").write_text("{}")
    with pytest.raises(ProjectError, match="step_1 suggests now"):
        import_picks(project, tmp_path / "topaz.star")
