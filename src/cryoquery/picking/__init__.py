"""From a network's map to picks: peaks, scores against labels, whole micrographs, files."""

from cryoquery.picking import metrics
from cryoquery.picking.picker import LogPicker, Picker, PickOptions, load_picker, open_picker, pick_particles

__all__ = ["LogPicker", "PickOptions", "Picker", "load_picker", "metrics", "open_picker", "pick_particles"]
