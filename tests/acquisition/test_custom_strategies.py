from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_dataset

from cryoquery import compare, load_config, run_experiment
from cryoquery.acquisition import strategies
from cryoquery.active.progress import Event, ImagesPassed
from cryoquery.cli.status import experiment_states, summary
from cryoquery.errors import ConfigError, ExperimentError
from cryoquery.experiment.config import ExperimentConfig
from cryoquery.experiment.folder import enter
from cryoquery.experiment.plan import make_plan
from cryoquery.experiment.verify import verify
from cryoquery.storage.atomic import read_json


class Counting:
    """Counts the images that pass the network without being learned from."""

    def __init__(self) -> None:
        self.n_predicted = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, ImagesPassed) and not event.trained:
            self.n_predicted += event.n_images


@pytest.fixture(autouse=True)
def table_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "STRATEGIES", strategies.STRATEGIES.copy())
    monkeypatch.setattr(strategies, "_LOADED", set())


def small(folder: Path, **changes: object) -> dict[str, object]:
    return {
        "dataset": folder / "data",
        "out": folder / "e",
        "baselines": (),
        "seeds": (1,),
        "schedule": {"counts": (2, 4)},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 1, "epochs": 1},
        "workers": 1,
        **changes,
    }


def test_expressions_of_a_config(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    config = ExperimentConfig(
        **small(
            tmp_path,
            strategies=("random", "mine"),
            expressions={"mine": "power(foreground(mutual_information('dihedral4')), beta=10)"},
        )
    )
    run_experiment(config)
    query = read_json(tmp_path / "e" / "mine_sampling" / "iteration_0" / "query.json")
    assert len(query) == 2
    assert enter(tmp_path / "e").strategy("mine") == config.expressions["mine"]
    other = config.model_copy(update={"expressions": {"mine": "top(mean(entropy))"}})
    with pytest.raises(ExperimentError, match="strategy mine was begun as power"):
        run_experiment(other)


def test_the_plan_knows_what_an_ensemble_costs(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    costs = []
    for strategy in ("random", "entropy", "bald", "hybrid", "typiclust", "badge"):
        config = ExperimentConfig(**small(tmp_path, strategies=(strategy,)))
        costs.append(make_plan(config).cost.n_inference)
    assert [cost - costs[0] for cost in costs] == [0, 6, 8 * 6, 6, 6 + 2, 6]


@pytest.mark.parametrize("name", ["foreground_entropy", "clasp_pe", "badge", "prob_cover"])
def test_the_plan_is_what_is_done(tmp_path: Path, name: str) -> None:
    make_dataset(tmp_path / "data", {"train": 10, "val": 2})
    config = ExperimentConfig(**small(tmp_path, strategies=(name,), schedule={"counts": (2, 4, 7)}))
    counting = Counting()
    run_experiment(config, counting)
    assert counting.n_predicted == make_plan(config).cost.n_inference
    found = verify(tmp_path / "e")
    assert found.holds, found.problems


def test_snapshots_are_kept_beside_the_model_and_asked(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    changes = {
        "strategies": ("mine",),
        "expressions": {"mine": "top(mean(mutual_information('snapshots')))"},
        "schedule": {"counts": (2, 4, 6)},
    }
    with pytest.raises(ConfigError, match=r"mine: needs snapshots of each training; set training.snapshots"):
        ExperimentConfig(**small(tmp_path, **changes))
    changes["training"] = {"initial_epochs": 3, "epochs": 2, "snapshots": 3}
    config = ExperimentConfig(**small(tmp_path, **changes))
    counting = Counting()
    run_experiment(config, counting)
    assert counting.n_predicted == make_plan(config).cost.n_inference
    assert len(list((tmp_path / "e" / ".cache").rglob("snapshots.pt"))) == 3
    assert verify(tmp_path / "e").holds


def test_errors_name_the_config_and_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    for text, said in (
        ("strategies = ['forground(entropy)']", "e.toml: strategies: .*did you mean 'foreground'"),
        ("strategies = ['top(mean(entropy))']", "give it a name under"),
        ("strategies = ['entropie']", "'entropie': unknown; choose from uncertainty"),
        ("strategies = ['a']\n[expressions]\na = 'top(forground(entropy))'", "expressions.a: .*did you mean"),
        ("strategies = ['a']\n[expressions]\na = 'mean(entropy)'", "expected a selection"),
        ("strategies = ['entropy']\n[expressions]\nentropy = 'random'", "'entropy': is taken"),
        ("plugins = ['none.py']", "none.py: cannot be read"),
    ):
        file.write_text(f"dataset = 'd'\n{text}\n")
        with pytest.raises(ConfigError, match=said) as refused:
            load_config(file)
        assert str(file) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_one_group_cannot_be_stratified(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", {"train": 1, "val": 2})
    config = ExperimentConfig(**small(tmp_path, strategies=("stratified_random",), schedule={"counts": (1,)}))
    for check in (make_plan, run_experiment):
        with pytest.raises(
            ConfigError, match=r"stratified_random: all training images of .* belong to one group"
        ):
            check(config)


EXAMPLE = Path(__file__).parents[2] / "examples" / "strategy_of_your_own.py"


def test_a_plugin_adds_to_the_table(forked: None, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text())
    (tmp_path / "e.toml").write_text(
        f"""dataset = "{tmp_path / "data"}"
plugins = ["mine.py"]
strategies = ["comfortable", "doubtful_crowds"]
baselines = []
seeds = [1]
workers = 2
schedule.counts = [2, 4]
model.base_channels = 2
training.initial_epochs = 1
"""
    )
    run_experiment(load_config(tmp_path / "e.toml", out=tmp_path / "e"))
    query = read_json(tmp_path / "e" / "comfortable_sampling" / "iteration_0" / "query.json")
    assert [choice["reason"] for choice in query] == ["about 100 particles"] * 2
    assert make_plan(load_config(tmp_path / "e.toml", out=tmp_path / "f")).cost.n_inference


@pytest.mark.parametrize("left", ["nothing", "code that fails"])
def test_results_are_read_without_the_plugin(tmp_path: Path, left: str) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    plugin = tmp_path / "mine.py"
    plugin.write_text(EXAMPLE.read_text())
    names = ("comfortable", "doubtful_crowds", "random")
    out = run_experiment(small(tmp_path, plugins=(plugin,), strategies=names))
    for name in names[:2]:
        del strategies.STRATEGIES[name]
    strategies._LOADED.clear()
    plugin.unlink()
    if left != "nothing":
        plugin.write_text("raise SystemExit('ran')")
    assert (compare(out) / "report.html").is_file()
    assert summary(experiment_states(out)) == "3 runs: 3 finished"
    found = verify(out)
    assert [str(problem) for problem in found.problems] == []
    assert found.not_checked == tuple(
        f"queries of {name}, a strategy that is not known here (plugins are not run)" for name in names[:2]
    )
    if left == "nothing":
        with pytest.raises(ConfigError, match=r"mine\.py: cannot be read"):
            enter(out)
        (tmp_path / "moved.py").write_text(EXAMPLE.read_text())
        run_experiment(small(tmp_path, plugins=(tmp_path / "moved.py",), strategies=names))
        assert enter(out).plugins == (tmp_path / "moved.py",)


def test_a_plugin_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"bad.py: fails when it is imported .ZeroDivisionError"):
        ExperimentConfig(dataset=tmp_path, plugins=(tmp_path / "bad.py",))
