"""Whether what an experiment left on disk holds: everything in it that can be recomputed without training.

Nothing is written, in the experiment or in its store.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cryoquery.errors import ConfigError
from cryoquery.experiment import plan_runs
from cryoquery.loop import Run
from cryoquery.verify.files import Files
from cryoquery.verify.findings import Findings, Problem, Verification
from cryoquery.verify.ground import Ground, read_ground
from cryoquery.verify.runs import check_run
from cryoquery.verify.trainings import check_fingerprints, check_keys, check_model, check_store

__all__ = ["Problem", "Verification", "verify"]


def verify(experiment: Path | str) -> Verification:
    """Recompute what can be recomputed of an experiment, and compare.

    Labelled images follow from the schedule, the seed and the queries; queries from the signals in the
    store; scores from the counts on each micrograph; keys from labels, configuration and versions;
    fingerprints and digests from the files. What cannot be checked (a dataset that is elsewhere, models
    and signals that were not kept) is said, and is no problem; nor is a run that is not finished.

    Raises:
        ExperimentError: the folder holds no experiment.
    """
    findings = Findings()
    ground = read_ground(Path(experiment), findings)
    if ground is None:
        return findings.done()
    try:
        runs = plan_runs(ground.config, ground.n_train)
    except ConfigError as error:
        findings.check(False, ground.folder / "config.toml", str(error))
        return findings.done()
    files = Files()
    finished = [done for run in runs for done in check_run(run, ground, findings)]
    check_fingerprints(finished, ground, findings)
    keys = check_keys(finished, ground, findings)
    for done in finished:
        check_model(done, keys.get(done.folder), ground, files, findings)
    check_store(finished, ground, files, findings)
    _check_nothing_else(runs, ground, findings)
    return findings.done()


def _check_nothing_else(runs: Collection[Run], ground: Ground, findings: Findings) -> None:
    """Check that there are no iterations but those of the runs."""
    planned = {run.folder / f"iteration_{i}" for run in runs for i in range(len(run.counts))}
    for pattern in ("*/iteration_*", "*/seed_*/iteration_*"):
        for folder in sorted(ground.folder.glob(pattern)):
            if not folder.name.startswith(".") and folder.is_dir():
                findings.check(folder in planned, folder, "belongs to no run of config.toml")
