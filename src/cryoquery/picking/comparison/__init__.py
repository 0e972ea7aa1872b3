"""How well picks agree with the truth: particle precision, recall, F1 and average precision."""

from cryoquery.picking.comparison.output import format_table as format_table
from cryoquery.picking.comparison.output import write_agreement as write_agreement
from cryoquery.picking.comparison.scores import Agreement as Agreement
from cryoquery.picking.comparison.scores import MicrographScores as MicrographScores
from cryoquery.picking.comparison.scores import compare_picks as compare_picks
from cryoquery.picking.comparison.sources import Comparison as Comparison
from cryoquery.picking.comparison.sources import PickFile as PickFile
from cryoquery.picking.comparison.sources import evaluate_picks as evaluate_picks
from cryoquery.picking.comparison.sources import read_comparison as read_comparison
