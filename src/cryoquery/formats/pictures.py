"""PNG and JPG, of any size and depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cryoquery.formats.image_file import Header, ImageReader, refuse_size, refuse_stack


def _reader(file_type: type[ImageFile]) -> ImageReader:
    """Opens with the plugin itself: `Image.open` refuses the size of an ordinary micrograph as a bomb."""

    def header(path: Path) -> Header:
        with file_type(path) as image:
            refuse_size(path, image.height, image.width)
            return Header((image.height, image.width), None)

    def pixels(path: Path) -> NDArray[Any]:
        with file_type(path) as image:
            refuse_size(path, image.height, image.width)
            refuse_stack(path, getattr(image, "n_frames", 1))
            is_gray = image.mode in ("L", "I", "F") or image.mode.startswith("I;16")
            return np.asarray(image if is_gray else image.convert("L"))

    return ImageReader(header, pixels)


PNG = _reader(PngImageFile)
JPG = _reader(JpegImageFile)
