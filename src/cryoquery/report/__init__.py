"""What finished runs add up to: curves, tables, statistics, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.report import figures
from cryoquery.report.findings import Comparison, find
from cryoquery.report.methods import methods
from cryoquery.report.page import page
from cryoquery.report.selection import selection_record
from cryoquery.report.tables import latex_table, results_table
from cryoquery.storage.atomic import remove_leftovers, write_bytes, write_json, write_text

__all__ = ["compare"]


def compare(experiment_dir: Path | str, label_cost: LabelCost | Mapping[str, float] | None = None) -> Path:
    """Write `comparison_results/` of an experiment from what has finished, and return that folder.

    It holds `report.html` (everything, on one page without links to a network), `methods.md`,
    `results_table.md` and `.tex`, `performance_table.json`, `efficiency_analysis.json`,
    `selection.json` and `learning_curves.png`. Runs that are not finished are left out and listed.

    Args:
        experiment_dir: folder of an experiment.
        label_cost: what a label is taken to cost, or some of it, instead of what the experiment's
            config says.

    Raises:
        ConfigError: a cost that cannot be used.
        ExperimentError: the folder holds no experiment, no run in it is finished, or its runs were
            not made alike.
        DataError: a file of a finished run is damaged.
    """
    # A group may be called $x$: nothing in a name is a formula.
    with mpl.rc_context({"text.parse_math": False}):
        return _write(find(Path(experiment_dir).resolve(), label_cost))


def _write(findings: Comparison) -> Path:
    out = findings.results.config.out / "comparison_results"
    out.mkdir(exist_ok=True)
    remove_leftovers(out)
    write_json(out / "performance_table.json", findings.table)
    write_json(out / "efficiency_analysis.json", findings.analysis)
    asked = selection_record(findings.overlaps, findings.selections, findings.pool)
    write_json(out / "selection.json", asked)
    write_text(out / "results_table.md", results_table(findings.table))
    write_text(out / "results_table.tex", latex_table(findings.table))
    write_text(out / "methods.md", methods(findings))
    curves = figures.as_png(figures.learning_curves(findings.results))
    write_bytes(out / "learning_curves.png", curves)
    write_text(out / "report.html", page(findings))
    return out
