"""A trained network on whole micrographs: particles, files of them, pictures to judge them by."""

from cryoquery.pick.picker import Picker, PickOptions, load_picker, pick_particles

__all__ = ["PickOptions", "Picker", "load_picker", "pick_particles"]
