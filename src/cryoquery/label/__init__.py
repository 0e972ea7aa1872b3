"""The labeling server: a project's page in a browser, on this machine only."""

from cryoquery.label.serve import serve

__all__ = ["serve"]
