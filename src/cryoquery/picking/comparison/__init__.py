"""How well picks agree with the truth: particle precision, recall, F1 and average precision."""

from cryoquery.picking.comparison.output import format_table, write_agreement
from cryoquery.picking.comparison.scores import Agreement, MicrographScores, compare_picks
from cryoquery.picking.comparison.sources import Comparison, PickFile, evaluate_picks, read_comparison

__all__ = [
    "Agreement",
    "Comparison",
    "MicrographScores",
    "PickFile",
    "compare_picks",
    "evaluate_picks",
    "format_table",
    "read_comparison",
    "write_agreement",
]
