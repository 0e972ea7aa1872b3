from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import disc_mask
from PIL import Image
from rich.console import Console
from slurm_cluster import SlurmCluster, wait_until

from cryoquery.acquisition.candidates import NetworkSignals
from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.active.loop import query_from
from cryoquery.cli import main
from cryoquery.cli.status import project_status, show_project
from cryoquery.data.dataset import BACKGROUND, IGNORE, PARTICLE, UNLABELED, ImageRecord
from cryoquery.data.fields import Field
from cryoquery.data.pool import Pool, as_indices
from cryoquery.errors import DataError, ProjectError
from cryoquery.formats import write_micrograph
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig
from cryoquery.network.optimize import TrainingConfig
from cryoquery.network.predict import Predictor
from cryoquery.picking import picker as pick_module
from cryoquery.picking.picker import load_picker
from cryoquery.project.events import Command
from cryoquery.project.folder import Project, open_project
from cryoquery.project.label_set import Label, LabelSet, current_labels, read_label_set
from cryoquery.project.new_project import InitOptions, init_project
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.settings import SETTINGS_FILE, write_settings
from cryoquery.project.step import step
from cryoquery.project.step.dispatch import nothing_new
from cryoquery.project.step.labeled_dataset import LabeledImage, draw_labels, inside_any, labeled_dataset
from cryoquery.project.step.query import plan_query, query_entries, spread
from cryoquery.project.step.slurm import look_after, queued_job
from cryoquery.project.step.status import FILE, forget_ended, tell_waiting
from cryoquery.project.step_files import STALE_SECONDS, step_under_way
from cryoquery.slurm import SlurmConfig
from cryoquery.storage.atomic import read_json, write_json

DIAMETER_PX = 24.0
SIDE = 256
QUICK = {
    "model": {"base_channels": 4},
    "training": {"initial_epochs": 1, "min_steps": 6, "batch_size": 4, "focal_alpha": 0.5},
    "device": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    "query_size": 4,
    "strategy": "uncertainty",
}


def truth_yx(i: int) -> np.ndarray:
    rng = np.random.default_rng([7, i])
    grid = np.stack(np.meshgrid(np.arange(32, SIDE - 31, 48), np.arange(32, SIDE - 31, 48)), -1).reshape(
        -1, 2
    )
    chosen = grid[rng.permutation(len(grid))[:8]]
    return np.asarray(chosen + rng.uniform(-8, 8, chosen.shape))


def make_project(path: Path, n: int = 12, unit: str = "micrograph", **settings: object) -> Project:
    folder = path.parent / f"{path.name}_micrographs"
    folder.mkdir(parents=True)
    for i in range(n):
        noise = np.random.default_rng([1, i]).normal(100, 5, (SIDE, SIDE))
        pixels = noise - 10 * disc_mask((SIDE, SIDE), truth_yx(i), DIAMETER_PX)
        write_micrograph(folder / f"m{i:02d}.mrc", pixels.astype(np.float32), 2.0)
    made = init_project(
        path, [folder], InitOptions(diameter_px=DIAMETER_PX, start="random", initial_items=4, unit=unit)
    )
    values = made.project.config.model_dump(exclude_none=True) | QUICK | settings
    write_settings(path / SETTINGS_FILE, type(made.project.config)(**values))
    return open_project(path)


def label(project: Project, items: Sequence[int], n: int | None = None) -> None:
    """Answer these items with the truth, or with its first ``n`` particles."""
    commands = []
    for item in items:
        info = project.items[item]
        points = truth_yx(int(info.micrograph.removesuffix(".mrc")[1:]))
        points = np.array([p for p in points if info.contains(*p)]).reshape(-1, 2)[:n]
        said = {"particles": points.tolist(), **({} if len(points) else {"empty": True})}
        body = {"source": "truth", "labels": said}
        commands.append(Command(f"i{item}-{n}", "somebody", "imported", str(item), body))
    with_journal(project, lambda journal: journal.record(commands, 1000.0))


def with_journal(project: Project, do: Callable[[ProjectRepository], object]) -> None:
    with ProjectRepository.open(project.events_path, project.geometry) as journal:
        do(journal)


def items_of(project: Project, split: str) -> list[int]:
    return [item.number for item in project.items if item.split == split]


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two steps of a project."""
    project = make_project(tmp_path_factory.mktemp("stepped") / "p", 16)
    train, val = items_of(project, "train"), items_of(project, "val")
    label(project, [*train[:3], *val[:3]])
    step(project.path)
    label(project, train[3:5])
    label(project, [val[3]], 7)  # one particle was overlooked, so that F1 differs between micrographs
    step(project.path)
    return project


def test_a_step_leaves_what_the_page_reads(stepped: Project) -> None:
    folder = stepped.path / "steps" / "step_2"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.pt", "metrics.json", "query.json", "labels.json", "suggestions.json", "maps"}
    query = read_json(folder / "query.json")
    labeled = {int(item) for item in read_json(folder / "labels.json")}
    assert [entry["rank"] for entry in query] == list(range(4))
    assert not labeled & {entry["item"] for entry in query}
    for entry in query:
        split = stepped.items[entry["item"]].split
        assert (entry["purpose"], split) in {("train", "train"), ("measure", "val")}
    found = read_json(folder / "suggestions.json")
    assert set(found) == {str(entry["item"]) for entry in query}
    for item in found:
        with Image.open(folder / "maps" / f"{item}.png") as probability:
            assert probability.mode == "L"
    for said in found.values():
        assert all(score >= 0.05 and 0 <= y < SIDE and 0 <= x < SIDE for y, x, score in said["picks"])
    metrics = read_json(folder / "metrics.json")
    assert metrics["n_labeled_items"] == 5
    assert metrics["n_held_out_items"] == 4
    assert metrics["n_labeled_particles"] == 9 * 8 - 1
    assert 0 <= metrics["particle_f1_low"] <= metrics["particle_f1"] <= metrics["particle_f1_high"] <= 1
    assert 0 <= metrics["f1_low"] <= metrics["f1"] <= metrics["f1_high"] <= 1
    assert 0 <= metrics["agreement"] <= 1
    assert "expected to raise F1 by" in metrics["sentence"]
    assert not (stepped.path / FILE).exists()


def test_held_out_images_pass_the_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "p")
    train, held_out = items_of(project, "train"), items_of(project, "val")
    passed: list[int] = []
    batches = Predictor.batches

    def watched(self: Predictor, levels: np.ndarray, rows: np.ndarray) -> object:
        if len(levels) == len(project.items):  # the project's images, and no tiles of a micrograph
            passed.extend(rows.tolist())
        return batches(self, levels, rows)

    monkeypatch.setattr(Predictor, "batches", watched)
    label(project, [*train[:3], *held_out[:2]])
    step(project.path)
    assert sorted(row for row in passed if row in held_out) == sorted(held_out[:2])
    passed.clear()
    label(project, [train[3], held_out[2]])
    step(project.path)
    counts = {row: passed.count(row) for row in held_out[:3]}
    assert counts == {held_out[0]: 1, held_out[1]: 1, held_out[2]: 2}, "the last also by the model before"


def test_the_curve_is_measured_on_the_labels_of_today(stepped: Project) -> None:
    first, second = (
        read_json(stepped.path / "steps" / f"step_{n}" / "metrics.json")["curve"] for n in (1, 2)
    )
    assert [len(point["held_out"]) for point in first] == [3]
    assert [len(point["held_out"]) for point in second] == [4, 4], (
        "the first model was measured on the new one"
    )
    kept = {name: second[0]["held_out"][name] for name in first[0]["held_out"]}
    assert kept == first[0]["held_out"]


def test_nothing_new_makes_no_step(stepped: Project) -> None:
    said: list[str] = []
    assert step(stepped.path, say=said.append) == stepped.path / "steps" / "step_2"
    assert "nothing was labeled since step_2" in said[0]


@pytest.mark.parametrize(
    ("changes", "is_new"),
    [
        ({}, False),
        ({"strategy": "random"}, True),
        ({"query_size": 5}, True),
        ({"held_out_share": 0.5}, True),
        ({"model": ModelConfig(base_channels=8)}, True),
        ({"training": TrainingConfig(initial_epochs=2)}, True),
        ({"device": DeviceConfig(**{**QUICK["device"], "precision": "bf16-mixed"})}, True),
        ({"device": DeviceConfig(**{**QUICK["device"], "threads": 2})}, False),
        ({"name": "renamed", "lease_minutes": 5, "repeat_share": 0.2, "suggestion_share": 0.5}, False),
        ({"label_cost": LabelCost(seconds_per_image=9), "micrographs_folder": "/elsewhere"}, False),
        ({"executor": "slurm", "slurm": SlurmConfig(hours=1)}, False),
    ],
)
def test_changed_settings_are_new_where_they_matter(
    stepped: Project, changes: dict[str, object], is_new: bool
) -> None:
    changed = replace(stepped, config=stepped.config.model_copy(update=changes))
    last = nothing_new(changed, current_labels(stepped))
    assert last == (None if is_new else stepped.path / "steps" / "step_2")


def test_the_held_out_are_never_trained_on_and_unlabeled_ones_never_measured(stepped: Project) -> None:
    label_set = current_labels(stepped)
    data = labeled_dataset(stepped.dataset, label_set.labels, stepped.path / "work")
    assert set(data.rows("val")) == set(label_set.labels) & set(items_of(stepped, "val"))
    assert list(data.rows("train")) == items_of(stepped, "train")
    assert sum(record.split == UNLABELED for record in data.records) == 0
    fewer = {item: said for item, said in label_set.labels.items() if item in items_of(stepped, "train")}
    other = labeled_dataset(stepped.dataset, fewer, stepped.path / "work")
    assert len(other.rows("val")) == 0
    assert other.fingerprint != data.fingerprint
    assert (other.path / "images.npy").is_symlink()
    assert np.array_equal(other.images, stepped.dataset.images)
    masks = (other.path / "masks.npy").stat()
    assert masks.st_blocks * 512 < masks.st_size, "what is not labeled takes no room"


def test_too_few_labels_are_a_sentence(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", 6)
    label(project, items_of(project, "train")[:1])
    with pytest.raises(ProjectError, match="1 micrographs with 8 particles are labeled to train on"):
        step(project.path)
    assert not (project.path / "steps").exists()


def test_without_held_out_labels_nothing_is_made_up(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", 6, training={"initial_epochs": 1, "batch_size": 4})
    label(project, items_of(project, "train")[:2])
    folder = step(project.path)
    assert folder is not None
    metrics = read_json(folder / "metrics.json")
    assert metrics["f1"] is metrics["particle_f1"] is metrics["gain"] is None
    assert metrics["sentence"].startswith("F1 of picks is not known")


def test_regions_decide_what_counts(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", 4)
    item = items_of(project, "train")[0]
    square = np.array([[20.5, 20.5], [20.5, 120.5], [120.5, 120.5], [120.5, 20.5]])
    inner = np.array([[40.0, 40], [40, 60], [60, 60], [60, 40]])
    particles = np.array([[80.0, 110.0], [80.0, 80.0], [200.0, 200.0]])
    whole = labeled_dataset(project.dataset, {item: Label(1, particles)}, tmp_path / "a")
    part = labeled_dataset(project.dataset, {item: Label(1, particles, (inner,), (square,))}, tmp_path / "b")
    assert set(np.unique(whole.masks[item])) == {BACKGROUND, PARTICLE}
    scale, radius = project.dataset.records[item].scale, DIAMETER_PX / 4

    def said(y: float, x: float) -> int:
        row, column = np.rint((np.array([y, x]) + 0.5) * scale - 0.5).astype(int)
        return int(part.masks[item][row, column])

    assert said(80, 80) == said(80, 110 + radius - 2) == PARTICLE
    assert said(65, 20.5 + radius - 2) == IGNORE, "a disc's radius from the edge"
    assert said(65, 20.5 + radius + 2) == BACKGROUND
    assert said(80, 122) == IGNORE
    assert said(50, 50) == said(200, 200) == said(10, 10) == IGNORE


def two_fields(known: dict[int, Label]) -> dict[int, LabeledImage]:
    """Two fields of 60 x 50 px side by side, which are all of a micrograph of 60 x 100 px."""
    common = {"id": "m", "micrograph": "m", "group": "g", "split": "train", "height_px": 60, "width_px": 100}
    size = {"scale": 1.0, "top": 0, "content_height": 60, "content_width": 50, "diameter_px": 20.0} | {
        "pixel_size": None,
        "field_of_view": "m",
        "center": 0.0,
        "spread": 1.0,
    }
    records = {item: ImageRecord(**common, **size, left=50 * item) for item in known}
    return {item: LabeledImage(records[item], records[item].field, label) for item, label in known.items()}


def test_what_unknown_particles_may_cover_is_no_background() -> None:
    none, across = np.empty((0, 2)), np.array([[30.0, 47.0]])
    alone = draw_labels(0, two_fields({0: Label(1, none)}), none, 1.0)
    assert (alone[:, :40] == BACKGROUND).all(), "also along the edge of the micrograph"
    assert (alone[:, 40:] == IGNORE).all(), "a center at 49.5 px covers 40 px"
    known = two_fields({0: Label(1, across), 1: Label(2, none)})
    left, right = (draw_labels(item, known, across, 1.0) for item in (0, 1))
    assert set(np.unique(left)) == set(np.unique(right)) == {BACKGROUND, PARTICLE}
    y, x = np.mgrid[:60, :100]
    disc = (y - 30) ** 2 + (x - 47) ** 2 <= 10**2
    assert np.array_equal(np.hstack([left, right]) == PARTICLE, disc), "it reaches across the border"
    own = draw_labels(0, two_fields({0: Label(1, across)}), across, 1.0)
    assert np.array_equal(own == PARTICLE, disc[:, :50])
    assert (own[:, 40:] != BACKGROUND).all()
    half = draw_labels(0, two_fields({0: Label(1, none)}), none, 0.5)
    assert (half[:, 45:] == IGNORE).all()
    assert (half[:, :45] == BACKGROUND).all()


def test_people_are_not_asked_for_what_a_field_shares_with_another() -> None:
    """Beyond its own part of 50 px an image of 60 px is only known where the neighbor is labeled."""
    none = np.empty((0, 2))
    record = replace(two_fields({0: Label(1, none)})[0].record, content_width=60)
    other = replace(record, left=40)
    left = LabeledImage(record, Field(0, 0, 60, 50), Label(1, none))
    right = LabeledImage(other, Field(0, 50, 60, 50), Label(2, none))
    alone = draw_labels(0, {0: left}, none, 1.0)
    assert (alone[:, :40] == BACKGROUND).all()
    assert (alone[:, 40:] == IGNORE).all()
    both = draw_labels(0, {0: left, 1: right}, none, 1.0)
    assert (both == BACKGROUND).all()


def test_background_lies_a_radius_from_every_place_that_nobody_looked_at() -> None:
    rng = np.random.default_rng(5)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    polygon = np.array([30.0, 55.0]) + 25 * np.column_stack([np.sin(angle), np.cos(angle)])
    known = two_fields({item: Label(1, np.empty((0, 2)), (), (polygon,)) for item in (0, 1)})
    mask = np.hstack([draw_labels(item, known, np.empty((0, 2)), 1.0) for item in (0, 1)])
    background = np.argwhere(mask == BACKGROUND)
    assert 100 < len(background) < 25**2 * np.pi
    beyond = np.argwhere(~inside_any((60, 100), [polygon]))
    distances = np.linalg.norm(background[:, None] - beyond[None], axis=-1).min(axis=1)
    assert distances.min() > 10
    assert distances.min() < 11.5


def test_polygons_cover_the_pixels_whose_center_they_hold() -> None:
    triangle = np.array([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    inside = inside_any((12, 12), [triangle + 0.25])
    y, x = np.mgrid[:12, :12]
    assert np.array_equal(inside, (y > 0.25) & (x > 0.25) & (y + x < 9.5))
    assert not inside_any((4, 4), [triangle + 50]).any()


def test_a_killed_step_goes_on_and_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "p", 6)
    label(project, [*items_of(project, "train")[:2], *items_of(project, "val")[:1]])
    seen: list[dict] = []

    def interrupted(*_: object) -> None:
        seen.append(json.loads((project.path / FILE).read_text()))
        with pytest.raises(ProjectError, match=r"process \d+ on .* is doing a step"):
            step(project.path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cryoquery.project.step.run.suggestions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            step(project.path)
    assert seen[0].keys() == {"since", "message", "host", "pid", "job"}
    assert "looks for particles" in seen[0]["message"]
    assert not (project.path / FILE).exists()
    assert not list((project.path / "steps").glob("*"))

    def no_training(*_: object) -> None:
        raise AssertionError("the training was kept")

    monkeypatch.setattr("cryoquery.network.train.optimize", no_training)
    assert step(project.path) == project.path / "steps" / "step_1"
    assert not [path for path in project.path.rglob("*") if "partial" in path.name]


def test_what_was_skipped_or_is_bad_is_not_asked_for(stepped: Project) -> None:
    label_set = current_labels(stepped)
    free = [i for i in range(len(stepped.items)) if i not in label_set.labels]
    out = tuple(free[:3])
    label_set = LabelSet(label_set.labels, out, 0.0, None)
    found = _query(stepped, label_set)
    assert not {entry["item"] for entry in found} & {*out, *label_set.labels}
    nearly = LabelSet(label_set.labels, tuple(free[:-1]), 0.0, None)
    assert [entry["item"] for entry in _query(stepped, nearly)] == free[-1:]
    assert _query(stepped, LabelSet(label_set.labels, tuple(free), 0.0, None)) == []


def test_what_one_person_skipped_is_asked_of_others_beside_the_query(stepped: Project) -> None:
    labeled = dict(current_labels(stepped).labels)
    held_out = items_of(stepped, "val")[0]
    del labeled[held_out]
    train = [i for i in items_of(stepped, "train") if i not in labeled]
    skipped = (*train[:2], held_out)
    alone = _query(stepped, LabelSet(labeled, skipped, 0.0, None))
    shared = _query(stepped, LabelSet(labeled, skipped, 0.0, None, for_others=(train[0], held_out)))
    assert not {entry["item"] for entry in alone} & set(skipped)
    added = [entry for entry in shared if entry["item"] in skipped]
    assert {(entry["item"], entry["purpose"]) for entry in added} == {
        (train[0], "train"),
        (held_out, "measure"),
    }
    rest = [entry["item"] for entry in shared if entry["item"] not in skipped]
    assert rest == [entry["item"] for entry in alone], "they take nobody's place"
    assert [entry["rank"] for entry in shared] == list(range(len(shared)))


def test_held_out_micrographs_that_are_not_measured_are_counted(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", 16)
    train, val = items_of(project, "train"), items_of(project, "val")
    label(project, [*train[:2], *val[:1]])
    for item, bad in ((val[1], False), (val[2], True), (train[2], False)):
        commands = [
            Command(f"l{item}", "ana", "leased", str(item), {"until": 3000.0}),
            Command(f"s{item}", "ana", "skipped", str(item), {"reason": "dense", "bad": bad}),
        ]
        with_journal(project, lambda journal, commands=commands: journal.record(commands, 2000.0))  # type: ignore[misc]
    said = project_status(project.path)
    assert (said["n_left_out"], said["n_held_out_left_out"]) == (3, 2)
    folder = step(project.path)
    assert folder is not None
    metrics = read_json(folder / "metrics.json")
    assert (metrics["n_held_out_items"], metrics["n_held_out_left_out"]) == (1, 2)
    assert metrics["sentence"].endswith(
        "; F1 leaves out 2 held-out micrographs that people skipped or called bad"
    )
    console = Console(file=io.StringIO(), width=200)
    show_project(project.path, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "3 skipped or bad (2 of them held out: F1 is not measured on these)" in shown


def _query(project: Project, label_set: LabelSet) -> list[dict]:
    planned = plan_query(project, label_set)
    signals = NetworkSignals(
        lambda: load_picker(project.path / "steps" / "step_2" / "model.pt").predictor,
        Pool.of(project.dataset),
    )
    labeled = [item for item in label_set.labels if project.items[item].split == "train"]
    chosen = query_from(
        "uncertainty",
        Pool.of(project.dataset).groups,
        signals,
        as_indices([*labeled, *planned.skipped]),
        planned.n_chosen,
        progress=0.0,
        rng=np.random.default_rng(0),
    )
    return query_entries(chosen, planned)


def test_fields_are_labeled_and_suggested_one_by_one(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", 4, unit="field", training={"initial_epochs": 1, "batch_size": 4})
    label(project, [*items_of(project, "train")[:2], *items_of(project, "val")[:1]])
    folder = step(project.path)
    assert folder is not None
    for item, said in read_json(folder / "suggestions.json").items():
        assert all(project.items[int(item)].contains(y, x) for y, x, _ in said["picks"])


def test_a_snapshot_survives_its_file(stepped: Project, tmp_path: Path) -> None:
    label_set = current_labels(stepped)
    write_json(tmp_path / "s.json", label_set.as_json())
    again = read_label_set(tmp_path / "s.json")
    assert again.seqs == label_set.seqs
    assert again.as_json() == label_set.as_json()
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        read_label_set(tmp_path / "s.json")


def test_the_query_mixes_what_is_measured_with_what_is_learned() -> None:
    assert spread([1, 2, 3, 4, 5, 6], ["a", "b"]) == [1, 2, "a", 3, 4, 5, "b", 6]
    assert spread([], ["a"]) == ["a"]


def test_a_project_picks_with_its_newest_model(
    stepped: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    open_picker = pick_module.open_picker
    monkeypatch.setattr(pick_module, "open_picker", lambda model: opened.append(model) or open_picker(model))
    out, micrograph = tmp_path / "picks.star", stepped.micrograph_path(0)
    assert (
        run_command("pick", str(stepped.path), str(micrograph), "--diameter-px", "24", "--out", str(out)) == 0
    )
    assert opened == [stepped.path / "steps" / "step_2" / "model.pt"]
    assert out.is_file()


def test_a_damaged_micrograph_gets_no_suggestions(stepped: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryoquery.project.step.query import suggestions

    picker = pick_module.load_picker(stepped.path / "steps" / "step_2" / "model.pt", stepped.config.device)

    def damaged(*_: object) -> None:
        raise DataError("m00.mrc: damaged")

    monkeypatch.setattr("cryoquery.project.step.query.prepare_file", damaged)
    assert suggestions(picker, stepped, [0]).picks["0"]["picks"] == []


def test_a_job_that_waits_is_shown_until_it_ends(tmp_path: Path) -> None:
    tell_waiting(tmp_path, "123")
    shown = step_under_way(tmp_path)
    assert shown is not None
    assert shown["message"] == "waits in Slurm's queue, job 123"
    old = time.time() - STALE_SECONDS - 1
    os.utime(tmp_path / FILE, (old, old))
    assert step_under_way(tmp_path) is None, "nobody has looked after it for long"
    forget_ended(tmp_path, lambda: {"12", "123"})
    assert step_under_way(tmp_path) == shown
    forget_ended(tmp_path, lambda: {"12"})
    assert not (tmp_path / FILE).exists()
    write_json(
        tmp_path / FILE, {"since": 1.0, "message": "trains", "host": "elsewhere", "pid": 1, "job": None}
    )
    forget_ended(tmp_path, lambda: {"12"})
    assert step_under_way(tmp_path) == {"since": 1.0, "message": "trains"}, "it is no job"


@pytest.mark.slurm
def test_a_step_on_slurm_reads_files_only(
    tmp_path: Path, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryoquery.slurm.POLL_SECONDS", 0.5)
    asked = {"cpus": 1, "memory_gb": 2, "hours": 0.2}
    project = make_project(tmp_path / "p", 4, executor="slurm", slurm=asked)
    label(project, [*items_of(project, "train")[:2], *items_of(project, "val")[:1]])
    assert step(project.path, wait=False) is None
    shown = step_under_way(project.path)
    assert shown is not None
    assert f"job {queued_job(project.path)}" in shown["message"] or "trains" in shown["message"]
    with pytest.raises(ProjectError, match="is in Slurm's queue"):
        step(project.path)
    # The log may be out of the job's reach: all it needs was written down before.
    project.events_path.rename(tmp_path / "events")
    assert wait_until(lambda: queued_job(project.path) is None, 120)
    failure = project.path / "work" / "failure.json"
    assert (project.steps_path / "step_1").is_dir(), failure.read_text() if failure.exists() else "no step"
    look_after(project.path)
    assert step_under_way(project.path) is None
    (tmp_path / "events").rename(project.events_path)
    assert step(project.path) == project.steps_path / "step_1", "there is nothing new"


def test_the_commands_say_how_it_stands(stepped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("step", str(stepped.path)) == 0
    assert "nothing was labeled since step_2" in capsys.readouterr().out
    assert run_command("status", str(stepped.path)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "9 of 16 micrographs labeled (4 of them held out to measure F1), 71 particles" in said
    assert "expected to raise F1 by" in said
    metrics = read_json(stepped.path / "steps" / "step_2" / "metrics.json")
    assert "F1 of picks (95 %)" in said
    assert f"{metrics['particle_f1']:.3f} ({metrics['particle_f1_low']:.3f} to" in said
    assert "pixel" not in said
    assert run_command("step", str(stepped.path / "nowhere")) == 1
    assert capsys.readouterr().err.count("\n") == 1


def run_command(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.argv", ["cryoquery", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)
