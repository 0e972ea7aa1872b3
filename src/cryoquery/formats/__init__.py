"""Files of micrographs and of coordinates. Only here are other conventions than the package's known."""

from cryoquery.formats.coordinates import COORDINATE_SUFFIXES, read_coordinates, write_coordinates
from cryoquery.formats.micrographs import (
    MICROGRAPH_SUFFIXES,
    Header,
    Micrograph,
    micrograph_shape,
    read_header,
    read_image,
    read_micrograph,
    write_micrograph,
)

__all__ = [
    "COORDINATE_SUFFIXES",
    "MICROGRAPH_SUFFIXES",
    "Header",
    "Micrograph",
    "micrograph_shape",
    "read_coordinates",
    "read_header",
    "read_image",
    "read_micrograph",
    "write_coordinates",
    "write_micrograph",
]
