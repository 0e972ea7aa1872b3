from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryoquery.data.build import BuildConfig, build_dataset
from cryoquery.data.dataset import Dataset
from cryoquery.data.fields import field_grid, own_parts
from cryoquery.data.source import SourceMicrograph

SIDES = st.integers(1, 500)


@given(SIDES, SIDES, st.sampled_from([16, 64, 128]))
def test_no_field_sticks_out_and_only_a_narrow_rim_is_left_out(height: int, width: int, side: int) -> None:
    seen = np.zeros((height, width), int)
    fields = field_grid((height, width), side)
    for field in fields:
        assert (field.height, field.width) == (min(side, height), min(side, width))
        seen[field.place] += 1
    covered = np.argwhere(seen)
    first, last = covered.min(axis=0), covered.max(axis=0)
    assert seen[first[0] : last[0] + 1, first[1] : last[1] + 1].all()
    rim = np.array([height, width]) - (last - first + 1)
    assert (rim < side / 4).all()
    assert (np.abs(first - (np.array([height, width]) - 1 - last)) <= 1).all()
    if (rim > 0).all():
        assert seen.max() == 1, "where something is left out nothing is covered twice"


@given(SIDES, SIDES, st.sampled_from([16, 64, 128]))
def test_own_parts_divide_what_fields_cover(height: int, width: int, side: int) -> None:
    covered, owners = np.zeros((height, width), int), np.zeros((height, width), int)
    fields = field_grid((height, width), side)
    for field, own in zip(fields, own_parts(fields), strict=True):
        covered[field.place] = 1
        owners[own.place] += 1
        assert own.top >= field.top
        assert own.left >= field.left
        assert own.top + own.height <= field.top + field.height
        assert own.left + own.width <= field.left + field.width
    assert np.array_equal(owners, covered)


def test_a_rest_of_a_quarter_stays() -> None:
    assert len(field_grid((128, 128 + 32), 128)) == 2
    assert len(field_grid((128, 128 + 31), 128)) == 1
    assert len(field_grid((5, 5), 128)) == 1


@pytest.fixture
def overlapping(tmp_path: Path) -> Dataset:
    """Two fields of 32 px of a micrograph of 32 x 48 px, with a particle in each half and one in both."""
    particles = np.array([[16.0, 8.0, 8.0], [16.0, 24.0, 8.0], [16.0, 40.0, 8.0]])
    pixels = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
    source = SourceMicrograph("m", "g", (32, 48), lambda: pixels, particles)
    config = BuildConfig(field=32, particle_px=8, test_fraction=0)
    return build_dataset([source], tmp_path / "d", config)


def test_a_particle_in_two_fields_counts_once(overlapping: Dataset) -> None:
    assert [record.left for record in overlapping.records] == [0, 16]
    assert [overlapping.n_particles([row]) for row in (0, 1)] == [2, 2]
    assert overlapping.n_particles([0, 1]) == 3
    assert overlapping.centers_in(1).tolist() == [[16, 8], [16, 24]]
    assert overlapping.centers_among([0, 1]).tolist() == [[16, 8], [16, 24], [16, 40]]
    assert [(part.left, part.width) for part in overlapping.own_parts] == [(0, 24), (24, 24)]
