"""One step of a project: train on what people labelled, measure, choose what to label next, suggest."""

from cryoquery.step.run import do_step, step

__all__ = ["do_step", "step"]
