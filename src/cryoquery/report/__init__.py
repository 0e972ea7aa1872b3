"""What finished runs add up to: curves, tables, numbers."""

from __future__ import annotations

from pathlib import Path

from cryoquery.records import write_json, write_text
from cryoquery.report.efficiency import efficiency_analysis
from cryoquery.report.figures import learning_curves
from cryoquery.report.runs import read_results
from cryoquery.report.tables import performance_table, results_table

__all__ = ["compare"]


def compare(experiment_dir: Path | str) -> Path:
    """Write `comparison_results/` of an experiment from what has finished, and return that folder.

    It holds `learning_curves.png`, `performance_table.json`, `efficiency_analysis.json` and
    `results_table.md`. Runs that are not finished are left out and listed.

    Raises:
        ExperimentError: the folder holds no experiment, or no run in it is finished.
    """
    results = read_results(experiment_dir)
    out = Path(experiment_dir) / "comparison_results"
    out.mkdir(exist_ok=True)
    table = performance_table(results)
    write_json(out / "performance_table.json", table)
    write_json(out / "efficiency_analysis.json", efficiency_analysis(results))
    write_text(out / "results_table.md", results_table(table))
    learning_curves(results, out / "learning_curves.png")
    return out
