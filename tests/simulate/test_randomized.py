from __future__ import annotations

import numpy as np
import pytest

from cryoquery.simulate.assemblies import SYMMETRIES, random_assembly
from cryoquery.simulate.randomized import PARTICLE_PX, random_field


def fields(n: int, **options: object) -> list[tuple[np.ndarray, np.ndarray]]:
    made = [random_field(np.random.default_rng([5, i]), side=128, **options) for i in range(n)]
    return [(field.image, field.centers_yx) for field in made]


def test_assemblies_fill_a_ball_of_radius_one() -> None:
    for seed in range(60):
        beads = random_assembly(np.random.default_rng(seed))
        assert 4 <= len(beads) <= 400
        assert np.linalg.norm(beads, axis=1).max() == pytest.approx(1, abs=1e-6)
        assert np.abs(beads.mean(axis=0)).max() < 0.2


def test_every_symmetry_can_be_made() -> None:
    from scipy.spatial.transform import Rotation

    orders = {name: len(Rotation.create_group(name)) for name in SYMMETRIES}
    assert orders["C1"] == 1
    assert orders["D7"] == 14
    assert orders["O"] == 24
    assert orders["I"] == 60


def test_fields_are_a_function_of_the_generator() -> None:
    (image, centers), (again, same) = fields(1)[0], fields(1)[0]
    assert np.array_equal(image, again)
    assert np.array_equal(centers, same)


def test_particles_are_dark_and_where_the_centers_say() -> None:
    darker = []
    for image, centers in fields(40):
        assert image.shape == (128, 128)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        reach = PARTICLE_PX / 2
        assert ((centers >= -reach) & (centers < 128 + reach)).all()
        inside = centers[((centers >= 4) & (centers < 124)).all(axis=1)].round().astype(int)
        if len(inside) < 3:
            continue
        there = np.mean([image[y - 3 : y + 4, x - 3 : x + 4].mean() for y, x in inside])
        darker.append((np.median(image) - there) / image.std())
    assert len(darker) > 15
    assert np.mean(np.array(darker) > 0) > 0.8, "rings apart, particles are darker than what is around them"


def test_real_backgrounds_are_used() -> None:
    picture = np.full((90, 110), 7.0, dtype=np.float32)
    picture += np.random.default_rng(0).normal(0, 0.01, picture.shape).astype(np.float32)
    means = [float(np.median(image)) for image, _ in fields(12, backgrounds=[picture])]
    assert sum(6 < mean < 8 for mean in means) >= 1
