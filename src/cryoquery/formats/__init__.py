"""Files of micrographs and of coordinates. Only here are other conventions than the package's known."""

from cryoquery.formats.coordinates import (
    read_by_micrograph,
    read_coordinates,
    read_optics_pixel_size,
)
from cryoquery.formats.folders import micrograph_files
from cryoquery.formats.image_file import Header
from cryoquery.formats.matching import match_micrographs
from cryoquery.formats.micrographs import (
    MICROGRAPH_SUFFIXES,
    Micrograph,
    micrograph_shape,
    micrograph_suffix,
    read_header,
    read_image,
    read_micrograph,
    write_micrograph,
)
from cryoquery.formats.names import (
    COORDINATE_FORMATS,
    COORDINATE_SUFFIXES,
    ONE_PER_FILE,
    micrograph_key,
    micrograph_stem,
)
from cryoquery.formats.picks import Picks, concatenate
from cryoquery.formats.pixel_size import PixelSize, believable_pixel_size, choose_pixel_size
from cryoquery.formats.relion import Optics
from cryoquery.formats.writing import write_coordinates

__all__ = [
    "COORDINATE_FORMATS",
    "COORDINATE_SUFFIXES",
    "MICROGRAPH_SUFFIXES",
    "ONE_PER_FILE",
    "Header",
    "Micrograph",
    "Optics",
    "Picks",
    "PixelSize",
    "believable_pixel_size",
    "choose_pixel_size",
    "concatenate",
    "match_micrographs",
    "micrograph_files",
    "micrograph_key",
    "micrograph_shape",
    "micrograph_stem",
    "micrograph_suffix",
    "read_by_micrograph",
    "read_coordinates",
    "read_header",
    "read_image",
    "read_micrograph",
    "read_optics_pixel_size",
    "write_coordinates",
    "write_micrograph",
]
