"""Everything that a comparison finds in an experiment, before any of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.data.dataset import Dataset
from cryoquery.report.analysis import analyze
from cryoquery.report.efficiency import Measurements
from cryoquery.report.runs import Results, read_results
from cryoquery.report.selection import (
    Overlap,
    PoolFacts,
    Selection,
    find_dataset,
    overlaps,
    selections,
)
from cryoquery.report.tables import performance_table


@dataclass(frozen=True)
class Comparison:
    """What the tables, figures and pages are drawn from."""

    results: Results
    measurements: Measurements
    table: dict[str, Any]
    analysis: dict[str, Any]
    overlaps: list[Overlap]
    selections: list[Selection]
    pool: PoolFacts | None
    dataset: Dataset | None
    """None where it is not to be found any more."""
    missing: str
    """Why the dataset is not there."""


def find(experiment_dir: Path | str, label_cost: LabelCost | Mapping[str, float] | None = None) -> Comparison:
    """Read an experiment and work out everything that its report says.

    Raises:
        ExperimentError, DataError: see `read_results`.
    """
    results = read_results(experiment_dir, label_cost)
    measurements = Measurements(results)
    dataset, missing = find_dataset(results)
    pool = PoolFacts.of(dataset) if dataset else None
    return Comparison(
        results,
        measurements,
        performance_table(results),
        analyze(measurements),
        overlaps(results),
        selections(results, pool) if pool else [],
        pool,
        dataset,
        missing,
    )
