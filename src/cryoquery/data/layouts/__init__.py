"""Folders of micrographs with labels, as others lay them out, read into what a dataset is built from."""

from cryoquery.data.layouts.detect import LAYOUTS
from cryoquery.data.layouts.options import SourceOptions
from cryoquery.data.layouts.read import Source, read_source, read_sources, refuse_misplaced

__all__ = ["LAYOUTS", "Source", "SourceOptions", "read_source", "read_sources", "refuse_misplaced"]
