"""What was benchmarked is what people run: a project asks for the same images as an experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from test_step import items_of, label, make_project

from cryoquery.active.loop import active_learning, initial_set
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.run import Context, Run, run_name
from cryoquery.project.folder import Project
from cryoquery.project.label_set import current_labels
from cryoquery.project.step import step
from cryoquery.project.step.labeled_dataset import labeled_dataset
from cryoquery.storage.atomic import read_json
from cryoquery.storage.cache import Cache

SEED = 0
N_TRAIN = 9
COUNTS = (3, 6, 9)
"""Of 12 micrographs 3 are held out."""


def chosen_by_experiment(project: Project, strategy: str, folder: Path) -> list[list[int]]:
    """The queries of an experiment on the project's images with all of their labels, best first."""
    everything = labeled_dataset(project.dataset, current_labels(project).labels, folder)
    config = project.config
    context = Context(
        dataset=everything,
        model=config.model,
        training=config.training,
        fabric=config.device.fabric(),
        splits=("val",),
        cache=Cache(folder / "cache"),
        device=config.device,
    )
    run = Run(run_name(strategy), strategy, SEED, COUNTS, folder / "run", from_scratch=True)
    iterations = active_learning(run, context, SimulatedOracle(everything))
    return [iteration.query.tolist() for iteration in iterations[:-1]]


def test_a_person_who_answers_from_the_truth_is_asked_for_the_same_images(tmp_path: Path) -> None:
    strategy = "clasp_pe"  # has a schedule, an ensemble and chance
    settings = {"strategy": strategy, "seed": SEED, "n_steps": len(COUNTS)}
    complete = make_project(tmp_path / "complete", 12, **settings)
    label(complete, range(12))
    expected = chosen_by_experiment(complete, strategy, tmp_path / "datasets")

    project = make_project(tmp_path / "p", 12, **settings)
    train, held_out = items_of(project, "train"), items_of(project, "val")
    assert train == list(range(N_TRAIN)), "an index into the pool is the number of an item"
    label(project, [train[i] for i in initial_set(train, COUNTS[0], SEED)] + held_out[:1])
    for number, query in enumerate(expected, 1):
        folder = step(project.path)
        assert folder == project.path / "steps" / f"step_{number}"
        entries = read_json(folder / "query.json")
        assert [entry["item"] for entry in entries if entry["purpose"] == "train"] == query
        label(project, [entry["item"] for entry in entries])
    assert len(np.unique(np.concatenate(expected))) == COUNTS[-1] - COUNTS[0]
