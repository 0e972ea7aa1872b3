"""Packages that read and write STAR files agree with us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from relion_project import truth

from cryoquery.formats import Optics, read_coordinates, write_coordinates

pytestmark = pytest.mark.clients
COLUMNS = ("rlnCoordinateY", "rlnCoordinateX")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_coordinates(tmp_path / "picks.star", truth(), pixel_size=3.0, optics=Optics(200.0))
    return tmp_path / "picks.star"


def test_starfile_both_ways(written: Path) -> None:
    starfile = pytest.importorskip("starfile", reason="no starfile: make setup gets it")
    blocks = starfile.read(written)
    assert list(blocks) == ["optics", "particles"]
    np.testing.assert_array_equal(blocks["particles"][list(COLUMNS)], truth())
    assert blocks["particles"]["rlnMicrographName"].tolist() == truth().micrographs.tolist()
    starfile.write(blocks, written, overwrite=True)
    again = read_coordinates(written)
    np.testing.assert_array_equal(again, truth())
    assert again.optics["rlnVoltage"].astype(float).tolist() == [200.0]
    assert again.pixel_size == 3.0


def test_emtools_both_ways(written: Path) -> None:
    metadata = pytest.importorskip("emtools.metadata", reason="no emtools: make setup gets it")
    with metadata.StarFile(str(written)) as file:
        optics, particles = file.getTable("optics"), file.getTable("particles")
    rows = [(row.rlnCoordinateY, row.rlnCoordinateX) for row in particles]
    np.testing.assert_array_equal(rows, truth())
    with metadata.StarFile(str(written), "w") as file:
        file.writeTable("optics", optics)
        file.writeTable("particles", particles)
    again = read_coordinates(written)
    np.testing.assert_array_equal(again, truth())
    assert again.micrographs.tolist() == truth().micrographs.tolist()
