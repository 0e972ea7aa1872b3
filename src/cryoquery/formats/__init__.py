"""Files of micrographs and of coordinates. Only here are other conventions than the package's known."""

from cryoquery.formats.coordinates import read_by_micrograph as read_by_micrograph
from cryoquery.formats.coordinates import read_coordinates as read_coordinates
from cryoquery.formats.coordinates import read_optics_pixel_size as read_optics_pixel_size
from cryoquery.formats.folders import micrograph_files as micrograph_files
from cryoquery.formats.image_file import Header as Header
from cryoquery.formats.matching import match_micrographs as match_micrographs
from cryoquery.formats.micrographs import MICROGRAPH_SUFFIXES as MICROGRAPH_SUFFIXES
from cryoquery.formats.micrographs import Micrograph as Micrograph
from cryoquery.formats.micrographs import micrograph_shape as micrograph_shape
from cryoquery.formats.micrographs import micrograph_suffix as micrograph_suffix
from cryoquery.formats.micrographs import read_header as read_header
from cryoquery.formats.micrographs import read_image as read_image
from cryoquery.formats.micrographs import read_micrograph as read_micrograph
from cryoquery.formats.micrographs import write_micrograph as write_micrograph
from cryoquery.formats.names import COORDINATE_FORMATS as COORDINATE_FORMATS
from cryoquery.formats.names import COORDINATE_SUFFIXES as COORDINATE_SUFFIXES
from cryoquery.formats.names import ONE_PER_FILE as ONE_PER_FILE
from cryoquery.formats.names import micrograph_key as micrograph_key
from cryoquery.formats.names import micrograph_stem as micrograph_stem
from cryoquery.formats.picks import Picks as Picks
from cryoquery.formats.picks import concatenate as concatenate
from cryoquery.formats.pixel_size import PixelSize as PixelSize
from cryoquery.formats.pixel_size import believable_pixel_size as believable_pixel_size
from cryoquery.formats.pixel_size import choose_pixel_size as choose_pixel_size
from cryoquery.formats.relion import Optics as Optics
from cryoquery.formats.writing import write_coordinates as write_coordinates
