from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from project_micrographs import DIAMETER_PX, make_project, particles, write_micrographs

from cryoquery.errors import DataError, ProjectError
from cryoquery.network.checkpoint import SHIPPED, model_path, read_model, save_model
from cryoquery.network.model import ModelConfig
from cryoquery.picking.metrics import match_particles
from cryoquery.project.folder import open_project
from cryoquery.project.new_project import InitOptions, init_project
from cryoquery.project.pick_all import newest_model
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.step_files import StepFiles


def test_the_first_suggestions_are_those_of_the_general_model(tmp_path: Path) -> None:
    project = make_project(tmp_path, 4, start="general", initial_items=3)
    with ProjectRepository.open(project.events_path, project.geometry) as repository:
        entries = repository.state.queue.entries
    files, scores = StepFiles(project.path), []
    for entry in entries:
        found = files.suggestions(files.newest_picks(), entry.item)
        shown = np.array([(pick.y, pick.x) for pick in found.picks if pick.score >= found.threshold])
        number = int(project.items[entry.item].micrograph.removeprefix("mic_"))
        scores.append(match_particles(shown.reshape(-1, 2), particles(number), DIAMETER_PX / 2).f1)
    assert np.mean(scores) > 0.6
    assert newest_model(project) == SHIPPED["general"]
    assert project.config.model == read_model(SHIPPED["general"]).model


def test_from_random_weights_nothing_is_suggested(tmp_path: Path) -> None:
    project = make_project(tmp_path, 3, start="random", initial_items=2)
    assert StepFiles(project.path).newest_picks() is None
    with pytest.raises(ProjectError, match="no model yet"):
        newest_model(project)


def test_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is kept from whichever folder it was given; the network gets its size."""
    saved = read_model(SHIPPED["general"])
    small = ModelConfig(base_channels=2)
    save_model(tmp_path / "own.pt", small.build(), small, {}, saved.picking)
    monkeypatch.chdir(tmp_path)
    config = open_project(make_project(tmp_path, 3, start="own.pt", initial_items=2).path).config
    assert (config.start, config.model) == (str(tmp_path / "own.pt"), small)
    with pytest.raises(DataError, match=r"nothing\.pt: no such model"):
        make_project(tmp_path / "other", 3, start="nothing.pt")


def test_a_diameter_is_estimated_or_doubted(tmp_path: Path) -> None:
    write_micrographs(tmp_path / "data", 2)
    made = init_project(tmp_path / "p", [tmp_path / "data"], InitOptions(initial_items=1))
    assert any("no diameter is stated; estimated: " in note for note in made.notes)
    assert made.project.config.diameter_px == pytest.approx(DIAMETER_PX, rel=0.4)
    wrong = InitOptions(initial_items=1, diameter_px=3 * DIAMETER_PX)
    notes = init_project(tmp_path / "q", [tmp_path / "data"], wrong).notes
    assert any("60 px is stated" in note and "fits far better" in note for note in notes)


def test_the_general_model_comes_with_the_package() -> None:
    path = model_path("general")
    assert path.stat().st_size < 8e6
    saved = read_model(path)
    assert saved.picking is not None
    assert saved.made_by["command"] == "make general-model"
