"""One step of a project: train on what people labeled, measure, choose what to label next, suggest."""

from cryoquery.project.step.dispatch import step
from cryoquery.project.step.run import do_step

__all__ = ["do_step", "step"]
