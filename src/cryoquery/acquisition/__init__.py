"""From a network's uncertainty to the next query: pixel scores → image scores → selection."""

from cryoquery.acquisition.diversity import k_center, k_means
from cryoquery.acquisition.scores import entropy, least_confidence, margin
from cryoquery.acquisition.strategies import STRATEGIES, Choice, select

__all__ = ["STRATEGIES", "Choice", "entropy", "k_center", "k_means", "least_confidence", "margin", "select"]
