"""What learning while a person labels rests on: what is asked for next, and what is known of F1."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import label_project
import numpy as np
import pytest
from project_micrographs import make_project, particles

from cryoquery.errors import CryoqueryError
from cryoquery.picking.metrics import match_particles
from cryoquery.picking.picker import load_picker
from cryoquery.project import learner, new_project
from cryoquery.project.events import Command
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.label_set import LabelSet, current_labels, read_label_set
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.settings import SETTINGS_FILE, write_settings
from cryoquery.project.state import Label, QueueEntry
from cryoquery.project.step import step
from cryoquery.project.step.forecast import forecast
from cryoquery.project.step.prequential import Trial, trial_score, trials_of
from cryoquery.project.step.query import is_trial, plan_query, query_entries, suggestions
from cryoquery.storage.atomic import read_json, write_json

QUICK: dict[str, Any] = {
    "model": {"base_channels": 4},
    "training": {"initial_epochs": 1, "min_steps": 3, "batch_size": 4},
    "device": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    "query_size": 6,
    "trial_every": 3,
}


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Fields of six micrographs, none of them held out. Not to be changed."""
    project = make_project(tmp_path_factory.mktemp("fields"), unit="field", diameter_px=10.0)
    values = project.config.model_dump(exclude_none=True) | QUICK
    write_settings(project.path / SETTINGS_FILE, type(project.config)(**values))
    return open_project(project.path)


def labels_of(items: Sequence[int]) -> LabelSet:
    return LabelSet({item: Label(item + 1, np.ones((1, 2))) for item in items}, (), 0.0, None)


def entries_of(project: Project, label_set: LabelSet) -> list[dict[str, Any]]:
    planned = plan_query(project, label_set, shortlist=8)
    assert planned.among is not None
    chosen = [{"index": int(item), "score": 1.0, "reason": ""} for item in planned.among[: planned.n_chosen]]
    return query_entries(chosen, planned)


def test_of_fields_nothing_is_held_out(fields: Project) -> None:
    assert fields.config.held_out_share == 0
    assert {item.split for item in fields.items} == {"train"}


@pytest.mark.parametrize("n_labeled", [2, 3, 4])
def test_every_third_item_is_drawn_at_random_and_tries_the_model(fields: Project, n_labeled: int) -> None:
    label_set = labels_of(range(n_labeled))
    entries = entries_of(fields, label_set)
    assert len({entry["item"] for entry in entries} - set(range(n_labeled))) == 6
    purposes = [entry["purpose"] for entry in entries]
    assert purposes == ["measure" if is_trial(n_labeled + rank, 3) else "train" for rank in range(6)]


def test_what_the_strategy_looks_at_comes_from_fresh_micrographs(fields: Project) -> None:
    labeled = [fields.items_of[f"mic_{i:02d}"][0].number for i in range(3)]
    planned = plan_query(fields, labels_of(labeled), shortlist=3)
    assert planned.among is not None
    assert len(planned.among) >= planned.n_chosen
    micrographs = [fields.items[item].micrograph for item in [*planned.measured, *planned.among][:3]]
    assert not set(micrographs[: len(planned.measured)]) & {f"mic_{i:02d}" for i in range(3)}
    assert not set(planned.among.tolist()) & {*labeled, *planned.measured}


def test_which_items_try_the_model_does_not_depend_on_what_it_chose(fields: Project) -> None:
    one, other = (
        plan_query(fields, labels_of([fields.items_of[f"mic_{i:02d}"][k].number for i in range(3)]))
        for k in (0, 1)
    )
    assert one.measured == other.measured


def test_what_people_have_open_stays_in_the_query_and_takes_no_place(fields: Project, tmp_path: Path) -> None:
    begun = QueueEntry(40, 0, "drawn", None, "measure")
    label_set = LabelSet(labels_of([0, 1]).labels, (), 0.0, None, (), (begun,))
    entries = entries_of(fields, label_set)
    assert entries[0] == begun._asdict()
    assert [entry["item"] for entry in entries].count(40) == 1
    assert [entry["purpose"] for entry in entries[1:]] == [
        "measure" if is_trial(3 + rank, 3) else "train" for rank in range(6)
    ]
    write_json(tmp_path / "set.json", label_set.as_json())
    assert read_label_set(tmp_path / "set.json").begun == (begun,)


def test_when_all_is_labeled_nothing_is_asked_for(fields: Project) -> None:
    everything = labels_of(range(len(fields.items)))
    assert query_entries([], plan_query(fields, everything, shortlist=8)) == []
    nearly = labels_of(range(1, len(fields.items)))
    assert [entry["item"] for entry in query_entries([], plan_query(fields, nearly))] in ([0], [])


def label_on_page(project: Project, item: int, model: str, points: np.ndarray) -> None:
    """As the page's server records it."""
    name = str(item)
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("leased", {"until": 9e9, "suggested": True}),
        ("served", {"model": model, "n_suggestions": 0, "suggested": True}),
    ]
    for i, (y, x) in enumerate(points.tolist()):
        bodies.append(("drafted", {"op": {"op": "add", "key": f"p{i}", "y": y, "x": x}}))
    if not len(points):
        bodies.append(("drafted", {"op": {"op": "empty", "value": True}}))
    bodies.append(("submitted", {"model": model}))
    commands = [Command(f"{name}-{i}", "ana", kind, name, body) for i, (kind, body) in enumerate(bodies)]
    with ProjectRepository.open(project.events_path, project.geometry) as journal:
        journal.record(commands, 1000.0)


def inside(project: Project, item: int) -> np.ndarray:
    info = project.items[item]
    points = particles(int(info.micrograph[-2:]))
    return np.array([p for p in points if info.contains(*p)]).reshape(-1, 2)


def test_an_item_drawn_at_random_tries_the_model_that_asked_for_it(tmp_path: Path) -> None:
    project = make_project(tmp_path, 4, unit="field", diameter_px=10.0)
    write_settings(
        project.path / SETTINGS_FILE,
        type(project.config)(**project.config.model_dump(exclude_none=True) | QUICK),
    )
    project = open_project(project.path)
    with_particles = [item.number for item in project.items if len(inside(project, item.number))]
    for item in with_particles[:2]:
        label_on_page(project, item, "picks_0", inside(project, item))
    folder = step(project.path)
    assert folder is not None
    query = read_json(folder / "query.json")
    assert read_json(folder / "metrics.json")["particle_f1"] is None
    # The model's own picks as the label would be an F1 of 1: two of them are left out, and one is added.
    tried = next(entry["item"] for entry in query if entry["purpose"] == "measure")
    chosen = next(entry["item"] for entry in query if entry["purpose"] == "train")
    suggested = read_json(folder / "suggestions.json")
    top, left, height, width = project.items[tried].region or (0, 0, 0, 0)
    grid = np.stack(np.meshgrid(top + np.arange(2, height - 2, 11), left + np.arange(2, width - 2, 11)), -1)
    picks = grid.reshape(-1, 2)[:6].astype(float)
    suggested[str(tried)] = {"threshold": 0.5, "picks": [[*pick, 0.9] for pick in picks.tolist()]}
    write_json(folder / "suggestions.json", suggested)
    label_on_page(project, tried, "step_1", picks[:4] + 1.0)
    label_on_page(project, chosen, "step_1", inside(project, chosen))
    trials = trials_of(project, current_labels(project))
    assert trials == [Trial(tried, "step_1", 2, 6, 4, 4)]
    metrics = read_json((step(project.path) or folder) / "metrics.json")
    assert metrics["particle_f1"] == pytest.approx(0.8)
    assert metrics["particle_f1_low"] is None
    assert metrics["n_trials"] == 1
    assert "tried on 1 field only" in metrics["sentence"]


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(("drop", "exponent"), [(0.0, 1.0), (0.1, 0.7)])
def test_intervals_from_few_trials_hold_the_f1_of_the_newest_model(
    n: int, drop: float, exponent: float
) -> None:
    """Also where the models that were tried were worse; fields of about 18 particles, some more difficult."""
    rng = np.random.default_rng([n, int(100 * drop)])

    def f1_of(n_trained: float) -> float:
        return float(0.93 - drop * (n_trained / 2) ** -exponent)

    held, n_said = 0, 0
    for _ in range(400):
        trials = []
        for n_trained in range(2, 2 + 3 * n, 3):
            f1 = f1_of(n_trained)
            of_field = rng.beta(30 * f1, 30 * (1 - f1))
            n_particles = max(1, int(rng.poisson(18)))
            n_matched = int(rng.binomial(n_particles, of_field))
            n_picks = n_matched + int(rng.binomial(n_particles, 1 - of_field))
            trials.append(Trial(0, "step_1", n_trained, n_picks, n_particles, n_matched))
        interval = trial_score(trials, 2 + 3 * n).interval
        if interval is not None:
            n_said += 1
            held += interval.low <= f1_of(2 + 3 * n) <= interval.high
    assert n_said > 300
    assert held / n_said > 0.91


def test_a_model_that_got_worse_is_said(fields: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [Trial(i, "step_1", 2, 10, 10, matched) for i, matched in enumerate((8, 9, 7))]
    monkeypatch.setattr("cryoquery.project.step.forecast.trials_of", lambda *_: trials)
    curve = [{"step": "step_2", "n_labeled_items": 5, "held_out": {}, "agreement": 0.9}]
    said, silent = (
        forecast(fields, labels_of(range(5)), curve, [{"item": 9}], [], {"particle_f1": before})
        for before in (0.9, 0.8)
    )
    assert said["particle_f1"] == pytest.approx(0.8)
    assert said["sentence"].startswith("F1 of picks fell from 90.0 to 80.0 %; ")
    assert "fell" not in silent["sentence"]


def test_what_is_suggested_on_a_field_needs_no_micrograph(tmp_path: Path) -> None:
    project = make_project(tmp_path, 2, unit="field", diameter_px=20.0)
    picker, items = load_picker("general"), [item.number for item in project.items]
    whole = replaced_unit(project, "micrograph")
    expected = suggestions(picker, whole, [project.items_of[name][0].number for name in project.items_of])
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    found = suggestions(picker, project, items)
    assert found.maps.keys() == expected.maps.keys()
    for name, its in project.items_of.items():
        first = its[0].number
        together = np.concatenate([rows_of(found, item.number) for item in its])
        from_file = rows_of(expected, first)
        confident = from_file[from_file[:, 2] > 0.7]
        # The narrow rest on all sides is in no field.
        inner = [
            r
            for r in confident
            if all(any(i.contains(r[0] + by, r[1] + by) for i in its) for by in (-10, 10))
        ]
        confident = np.array(inner)
        assert len(confident) > 3, name
        match = match_particles(confident[:, :2], together[:, :2], 2.0)
        assert match.n_matched == len(confident)
        scores = together[match.truth_rows, 2] - confident[match.pick_rows, 2]
        assert np.abs(scores).max() < 0.1


def replaced_unit(project: Project, unit: str) -> Project:
    """The same with items that are looked at through their files."""
    items = tuple(replace(item, region=None) for item in project.items)
    return replace(project, config=project.config.model_copy(update={"unit": unit}), items=items)


def rows_of(found: Any, item: int) -> np.ndarray:
    return np.array(found.picks[str(item)]["picks"]).reshape(-1, 3)


def test_it_learns_when_something_is_new_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "PAUSE_SECONDS", 0.02)
    path = label_project.make_project(tmp_path / "p", 6, n_files=2, n_held_out=0, start="random", **QUICK)
    project, said, stop = open_project(path), list[str](), threading.Event()
    tried: list[int] = []
    do_step, fails = learner.do_step, [2]

    def counted(project: Project, label_set: LabelSet, **options: Any) -> Path:
        tried.append(len(label_set.labels))
        if len(label_set.labels) in fails:
            raise CryoqueryError("the disk is full")
        return do_step(project, label_set, **options)

    monkeypatch.setattr(learner, "do_step", counted)
    thread = threading.Thread(target=learner.learn, args=(path, said.append, stop))
    thread.start()

    def wait(done: Any) -> None:
        until = time.monotonic() + 60
        while not done():
            assert time.monotonic() < until
            time.sleep(0.02)

    try:
        for n in range(1, 5):
            label_on_page(project, n, "picks_0", label_project.truth_yx(n % 2))
            if n > 1:
                wait(lambda n=n: tried and tried[-1] == n)
            if n > 2:
                wait(lambda n=n: len(finished_steps(project.steps_path)) == n - 2)
            time.sleep(0.1)  # five looks at the log
    finally:
        stop.set()
        thread.join(60)
    assert tried == [2, 3, 4], "once for each set of labels, also after a failure, and not on one item"
    assert said == [f"{path}: cannot learn from what is labeled so far: the disk is full"]


@pytest.mark.parametrize(
    ("n_particles", "unit", "share"), [(200.0, "field", 0.0), (20.0, "micrograph", 0.25)]
)
def test_micrographs_of_many_particles_are_labeled_field_by_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_particles: float, unit: str, share: float
) -> None:
    monkeypatch.setattr(new_project, "estimated_count", lambda *_: n_particles)
    label_files = label_project.make_project(tmp_path / "m", 4)
    options = new_project.InitOptions(diameter_px=10.0, start="random", initial_items=2)
    made = new_project.init_project(tmp_path / "p", [label_files / "micrographs"], options)
    assert (made.project.config.unit, made.project.config.held_out_share) == (unit, share)
    assert any("holds about 200 particles" in note for note in made.notes) == (unit == "field")
    stated = options.model_copy(update={"unit": "micrograph", "held_out_share": 0.5})
    other = new_project.init_project(tmp_path / "q", [label_files / "micrographs"], stated).project
    assert other.config.unit == "micrograph"
    assert [item.split for item in other.items].count("val") == 2
