"""How well picks agree with the truth: particle precision, recall, F1 and average precision."""

from cryoquery.agreement.output import format_table, write_agreement
from cryoquery.agreement.scores import Agreement, MicrographScores, compare_picks
from cryoquery.agreement.sources import Comparison, PickFile, evaluate_picks, read_comparison

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
