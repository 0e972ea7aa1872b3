from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from project_micrographs import DIAMETER_PX, make_project

from cryoquery.data.preprocess import draw_mask
from cryoquery.formats import write_micrograph
from cryoquery.project.cold_start import held_out_order, image_features, propose
from cryoquery.project.events import EventLog
from cryoquery.project.folder import Project, open_project
from cryoquery.project.new_project import InitOptions, init_project
from cryoquery.project.state import replay

KINDS = ("plain", "crowded", "carbon")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """18 plain micrographs, 9 crowded and 9 with carbon; the defocus grows."""
    root = tmp_path_factory.mktemp("cold")
    (root / "data").mkdir()
    shape, lines = (220, 220), ["micrograph,defocus_um"]
    for i in range(36):
        rng = np.random.default_rng(i)
        kind = KINDS[0] if i % 4 < 2 else KINDS[i % 4 - 1]
        n = 60 if kind == "crowded" else 6
        image = rng.normal(0, 1, shape) - draw_mask(
            shape, rng.uniform(0, 220, (n, 2)), np.full(n, DIAMETER_PX)
        )
        if kind == "carbon":
            image[:, :60] += rng.normal(0, 1.5, (220, 60)) - 1
        name = f"{kind}_{i:02d}.mrc"
        write_micrograph(root / "data" / name, image.astype(np.float32))
        lines.append(f"{name},{0.5 + i / 18:.3f}")
    (root / "ctf.csv").write_text("\n".join(lines))
    options = InitOptions(diameter_px=DIAMETER_PX, start="random", initial_items=8)
    return init_project(root / "p", [root / "data"], options, table=root / "ctf.csv").project


def kind(project: Project, item: int) -> str:
    return project.items[item].micrograph.split("_")[0]


def test_the_first_queue_is_the_proposal(project: Project) -> None:
    with EventLog.open(project.events_path, write=False) as log:
        queue = replay(log.read(), project.geometry).queue
    proposed = propose(project, 8)
    assert [tuple(entry) for entry in queue.entries] == [
        (one.item, one.rank, one.reason, one.score, one.purpose) for one in proposed
    ]
    assert (queue.step, queue.model, len(queue.entries)) == (0, None, 8)
    assert proposed == propose(open_project(project.path), 8)


def test_the_held_out_share_comes_from_the_reservoir_in_its_order(project: Project) -> None:
    proposed = propose(project, 8)
    measured = [one.item for one in proposed if one.purpose == "measure"]
    assert measured == held_out_order(project)[:2]
    assert {project.items[item].split for item in measured} == {"val"}
    assert {project.items[one.item].split for one in proposed if one.purpose == "train"} == {"train"}
    assert len({one.item for one in proposed}) == 8
    assert sorted(held_out_order(project)) == project.dataset.rows("val").tolist()
    assert held_out_order(project) != sorted(held_out_order(project))


def test_different_kinds_and_all_defoci_are_among_the_first(project: Project) -> None:
    train = [one for one in propose(project, 12) if one.purpose == "train"]
    assert {kind(project, one.item) for one in train} == set(KINDS)
    values = [project.micrograph_of(one.item).defocus_um for one in train]
    assert min(values) < 1.2
    assert max(values) > 1.8
    assert all(one.reason.startswith("defocus ") and " µm: " in one.reason for one in train)
    assert sum(one.score for one in train) == pytest.approx(1.0)


def test_what_is_labeled_is_not_proposed_again(project: Project) -> None:
    first = {one.item for one in propose(project, 8)}
    second = {one.item for one in propose(project, 8, exclude=first)}
    assert len(second) == 8
    assert not first & second
    everything = {item.number for item in project.items}
    assert propose(project, 8, exclude=everything) == []
    assert {one.item for one in propose(project, 100)} == everything


def test_features_tell_the_kinds_apart(project: Project) -> None:
    items = np.arange(len(project.items))
    features, avoided = image_features(project, items)
    assert features.shape[0] == len(items)
    assert np.abs(features).max() <= 4.0
    assert np.isfinite(features).all()
    kinds = np.array([kind(project, item) for item in items])
    assert avoided[kinds == "carbon"].mean() > avoided[kinds == "plain"].mean() + 0.1
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (kinds[distances.argmin(axis=1)] == kinds).mean() > 0.8


def test_fields_of_different_micrographs_are_proposed(tmp_path: Path) -> None:
    project = make_project(tmp_path, 8, unit="field", initial_items=5, diameter_px=10.0)
    assert len(project.items) > len(project.micrographs)
    train = [one for one in propose(project, 5) if one.purpose == "train"]
    assert len({project.items[one.item].micrograph for one in train}) == len(train)
    assert all("fields" in one.reason or "of its kind" in one.reason for one in train)
