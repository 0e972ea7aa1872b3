"""From a network's map to picks: peaks, scores against labels, whole micrographs, files."""

from cryoquery.picking import metrics
from cryoquery.picking.picker import Picker, PickOptions, load_picker, pick_particles

__all__ = ["PickOptions", "Picker", "load_picker", "metrics", "pick_particles"]
