from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryoquery.data.build import BuildConfig, build_dataset, micrograph_diameters
from cryoquery.data.dataset import IGNORE, decode, open_dataset
from cryoquery.data.preprocess import draw_mask
from cryoquery.data.source import SourceMicrograph
from cryoquery.errors import ConfigError, DataError


def source(
    name: str,
    group: str = "a",
    shape: tuple[int, int] = (90, 120),
    n: int = 5,
    diameter: float = 12.0,
    **more: object,
) -> SourceMicrograph:
    rng = np.random.default_rng([ord(c) for c in group + name])
    centers = np.rint(rng.uniform(0, np.array(shape) - 1, (n, 2)))
    particles = np.column_stack([centers, np.full(n, diameter)])
    discs = draw_mask(shape, centers, np.full(n, diameter))
    pixels = (rng.normal(100, 5, shape) - 20.0 * discs).astype(np.float32)
    return SourceMicrograph(name, group, shape, lambda: pixels, particles, **more)  # type: ignore[arg-type]


def several(n: int = 4) -> list[SourceMicrograph]:
    return [
        source(f"m{i}", group, shape)
        for group, shape in (("a", (90, 120)), ("b", (100, 64)))
        for i in range(n)
    ]


def test_whole_micrographs_keep_their_shape(tmp_path: Path) -> None:
    dataset = build_dataset(several(), tmp_path / "d", BuildConfig(size=64))
    assert dataset.images.shape == (8, 64, 64)
    for row, record in enumerate(dataset.records):
        scale = 64 / max(record.height_px, record.width_px)
        assert record.scale == scale
        assert (record.content_height, record.content_width) == (
            int(record.height_px * scale + 1e-6),
            int(record.width_px * scale + 1e-6),
        )
        mask = dataset.masks[row]
        assert (mask[record.content_height :] == IGNORE).all()
        assert (mask[:, record.content_width :] == IGNORE).all()
        content = np.s_[: record.content_height, : record.content_width]
        assert set(np.unique(mask[content])) <= {0, 1}
        image = decode(dataset.images[row])
        assert (image[record.content_height :] == 0).all()
        assert image[content][mask[content] == 1].mean() < image[content][mask[content] == 0].mean() - 1
        at = np.rint(dataset.centers_in(row)).astype(int)
        assert len(at) == 5
        assert (mask[at[:, 0], at[:, 1]] == 1).all()


def test_fields_have_the_particle_at_the_asked_diameter(tmp_path: Path) -> None:
    micrographs = [
        source("m0", diameter=12),
        source("m1", diameter=14),
        source("m2", diameter=12),
        source("e", n=0),
    ]
    dataset = build_dataset(
        micrographs, tmp_path / "d", BuildConfig(field=32, particle_px=6.0, test_fraction=0)
    )
    assert {record.diameter_px for record in dataset.records} == {12.0}
    assert {record.scale for record in dataset.records} == {0.5}
    one = [record for record in dataset.records if record.micrograph == "m0"]
    assert [(r.top, r.left) for r in one] == [(top, left) for top in (0, 13) for left in (0, 28)]
    assert {(r.content_height, r.content_width) for r in one} == {(32, 32)}
    assert dataset.n_particles(range(len(dataset.records))) == 15
    assert len({record.id for record in dataset.records}) == len(dataset.records)
    assert [r.micrograph for r in dataset.records] == sorted(r.micrograph for r in dataset.records)


def test_center_and_spread_give_the_intensities_back(tmp_path: Path) -> None:
    micrograph = source("m", shape=(64, 64))
    dataset = build_dataset([micrograph], tmp_path / "d", BuildConfig(size=64, test_fraction=0))
    record = dataset.records[0]
    recovered = decode(dataset.images[0]) * record.spread + record.center
    inside = np.abs(decode(dataset.images[0])) < 3
    assert np.abs(recovered - micrograph.read())[inside].mean() < 1.0


def test_same_bits_in_any_order_and_with_any_threads(tmp_path: Path) -> None:
    first = build_dataset(several(), tmp_path / "a", BuildConfig(field=32, particle_px=8, n_workers=1))
    second = build_dataset(several()[::-1], tmp_path / "b", BuildConfig(field=32, particle_px=8, n_workers=4))
    assert first.fingerprint == second.fingerprint
    others = (
        build_dataset(several(), tmp_path / f"{seed}", BuildConfig(field=32, particle_px=8, seed=seed))
        for seed in range(1, 5)
    )
    assert any(other.fingerprint != first.fingerprint for other in others)


def test_default_splits(tmp_path: Path) -> None:
    drawn = build_dataset(several(), tmp_path / "a", BuildConfig(size=32))
    assert [record.split for record in drawn.records] == ["train"] * 6 + ["test"] * 2
    fixed = [replace(m, split="val" if m.name == "m0" else "train") for m in several()]
    kept = build_dataset(fixed, tmp_path / "b", BuildConfig(size=32))
    assert {r.key: r.split for r in kept.records} == {m.key: m.split for m in fixed}


def test_a_given_mask_is_used_at_its_own_size(tmp_path: Path) -> None:
    micrograph = source("m", shape=(128, 128), n=3, diameter=30)
    small = draw_mask((32, 32), (micrograph.particles[:, :2] + 0.5) / 4 - 0.5, np.full(3, 7.5)).astype(bool)
    given = replace(micrograph, name="given", read_mask=lambda: small)
    dataset = build_dataset([micrograph, given], tmp_path / "d", BuildConfig(size=64, test_fraction=0))
    assert [r.micrograph for r in dataset.records] == ["given", "m"]
    assert (dataset.masks[0] != dataset.masks[1]).mean() < 0.03


def test_discs_can_be_smaller(tmp_path: Path) -> None:
    whole, half = (
        build_dataset(
            [source("m", n=1)], tmp_path / f"{f}", BuildConfig(size=128, disc_fraction=f, test_fraction=0)
        )
        for f in (1.0, 0.5)
    )
    assert np.sum(half.masks[0] == 1) / np.sum(whole.masks[0] == 1) == pytest.approx(0.25, abs=0.06)


def test_the_recipe_says_it_all(tmp_path: Path) -> None:
    build_dataset(several(), tmp_path / "d", BuildConfig(size=32), notes=["seen"], origin={"sources": ["x"]})
    info = json.loads((tmp_path / "d/dataset.json").read_text())
    assert info["notes"] == ["seen"]
    assert info["recipe"]["origin"] == {"sources": ["x"]}
    assert info["recipe"]["config"]["seed"] == 0
    assert info["recipe"]["normalization"]["center"] == "median"
    assert info["recipe"]["cryoquery"]


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_dataset(several(), tmp_path / "d", BuildConfig(size=32), progress=lambda *at: seen.append(at))
    assert seen == [(i + 1, 8) for i in range(8)]


def failing() -> np.ndarray:
    raise DataError("bad.mrc: truncated")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (failing, "bad.mrc: truncated"),
        (lambda: np.ones((3, 3), np.float32), "a/bad: (3, 3) pixels"),
        (lambda: np.ones((90, 120), np.float32), "a/bad: a constant image"),
    ],
)
def test_an_error_leaves_nothing(tmp_path: Path, read: Callable[[], np.ndarray], message: str) -> None:
    micrographs = [*several(), replace(source("bad"), read=read)]
    with pytest.raises(DataError) as caught:
        build_dataset(micrographs, tmp_path / "d", BuildConfig(size=32))
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no micrographs"):
        build_dataset([], tmp_path / "d")
    with pytest.raises(DataError, match="group a: no particles"):
        build_dataset([source("m", n=0)], tmp_path / "d")
    with pytest.raises(DataError, match="two micrographs named m in group a"):
        build_dataset([source("m"), source("m")], tmp_path / "d")
    monkeypatch.setattr("cryoquery.data.build.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match=r"need 0\.0 GB"):
        build_dataset([source("m")], tmp_path / "d")
    assert not list(tmp_path.iterdir())
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "precious").write_text("x")
    with pytest.raises(DataError, match="exists already"):
        build_dataset([source("m")], tmp_path / "d")


def test_diameters() -> None:
    stated = source("x", "stated", n=0, diameter_px=33.0)
    alike = [source("a", diameter=10), source("b", diameter=12), source("c", diameter=11), stated]
    assert micrograph_diameters(alike) == {
        ("a", "a"): 11.0,
        ("a", "b"): 11.0,
        ("a", "c"): 11.0,
        ("stated", "x"): 33.0,
    }
    mixed = [source("a", diameter=10), source("b", diameter=20), source("c", diameter=11), source("d", n=0)]
    assert list(micrograph_diameters(mixed).values()) == [10.0, 20.0, 11.0, 11.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 750}, "size=750: must be a multiple of 16; try 752"),
        ({"field": 100}, "field=100: must be a multiple of 16; try 112"),
        ({"sizes": 64}, "sizes"),
        ({"particle_px": 0}, "particle_px=0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "together below 1"),
        ({"near_duplicates": "["}, "near_duplicates='[': not a regular expression"),
    ],
)
def test_the_configuration_is_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BuildConfig(**options)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_opening_again_gives_the_same(tmp_path: Path) -> None:
    built = build_dataset(several(), tmp_path / "d", BuildConfig(size=32))
    opened = open_dataset(tmp_path / "d")
    assert opened.records == built.records
    opened.check_unchanged()
    for micrograph in several():
        assert np.array_equal(opened.particles[micrograph.key], micrograph.particles)


def test_there_is_a_worker_for_each_core_and_its_number_is_not_in_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n_cores, n_workers in ((1, 1), (3, 3), (100, 16)):
        with monkeypatch.context() as patched:
            patched.setattr(os, "sched_getaffinity", lambda pid, n=n_cores: set(range(n)), raising=False)
            assert BuildConfig().n_workers == n_workers
    built = build_dataset(several(), tmp_path / "d", BuildConfig(size=32, n_workers=3))
    assert "n_workers" not in built.recipe["config"]
