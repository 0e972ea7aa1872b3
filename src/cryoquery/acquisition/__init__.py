"""From a network's uncertainty to the next query: pixel scores → image scores → selection."""

from cryoquery.acquisition.candidates import Candidates, Choice
from cryoquery.acquisition.diversity import k_center, k_means
from cryoquery.acquisition.scores import entropy, least_confidence, margin
from cryoquery.acquisition.strategies import STRATEGIES, image_score, register, select

__all__ = [
    "STRATEGIES",
    "Candidates",
    "Choice",
    "entropy",
    "image_score",
    "k_center",
    "k_means",
    "least_confidence",
    "margin",
    "register",
    "select",
]
