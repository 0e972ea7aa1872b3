from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cryoquery.data.build import BuildConfig, build_dataset
from cryoquery.data.contact_sheet import contact_sheet
from cryoquery.data.dataset import Dataset
from cryoquery.data.inspection import inspect_dataset, stitch
from cryoquery.data.layouts import SourceOptions, read_sources
from cryoquery.data.preprocess import draw_mask
from cryoquery.data.source import SourceMicrograph

SHAPE = (300, 420)


def source(name: str, group: str = "a", n: int = 60, **more: object) -> SourceMicrograph:
    rng = np.random.default_rng([ord(c) for c in group + name])
    centers = rng.uniform(0, np.array(SHAPE) - 1, (n, 2))
    discs = draw_mask(SHAPE, centers, np.full(n, 20.0))
    pixels = (rng.normal(100, 10, SHAPE) - 8.0 * discs).astype(np.float32)
    particles = np.column_stack([centers, np.full(n, 20.0)])
    return SourceMicrograph(name, group, SHAPE, lambda: pixels, particles, **more)  # type: ignore[arg-type]


def moved(micrograph: SourceMicrograph, particles: np.ndarray) -> SourceMicrograph:
    return replace(micrograph, particles=particles)


def build(folder: Path, micrographs: list[SourceMicrograph], **config: object) -> Dataset:
    return build_dataset(micrographs, folder / "d", BuildConfig(**config))  # type: ignore[arg-type]


FIELDS = {"field": 64, "particle_px": 10.0}
WHOLE = {"size": 256}


@pytest.mark.parametrize("config", [FIELDS, WHOLE])
def test_a_sound_dataset_is_counted_without_warnings(tmp_path: Path, config: dict[str, object]) -> None:
    dataset = build(tmp_path, [source(f"m{i}", group) for group in "ab" for i in range(4)], **config)
    inspection = inspect_dataset(dataset)
    assert not [w for w in inspection.warnings if "no particles" not in w]
    assert [(c.group, c.split, c.n_micrographs) for c in inspection.counts] == [
        (group, split, n) for group in "ab" for split, n in (("train", 3), ("test", 1))
    ]
    for counts in inspection.counts:
        assert counts.n_particles == pytest.approx(60 * counts.n_micrographs, rel=0.1)
        assert counts.diameter_px == 20
        assert 0.08 < counts.foreground < 0.16
    assert {verdict.finding for verdict in inspection.orientations.values()} == {"fits"}


@pytest.mark.parametrize("config", [FIELDS, WHOLE])
def test_turned_labels_are_loud(tmp_path: Path, config: dict[str, object]) -> None:
    right = [source(f"m{i}") for i in range(4)]
    flipped = [
        moved(m, np.column_stack([SHAPE[0] - 1 - m.particles[:, 0], m.particles[:, 1:]])) for m in right
    ]
    others = [source(f"m{i}", "sound") for i in range(4)]
    inspection = inspect_dataset(build(tmp_path, flipped + others, **config))
    (first, *rest) = inspection.warnings
    assert "group a: WRONG ORIENTATION" in first
    assert first.endswith("--flip-y")
    assert not any("ORIENTATION" in warning for warning in rest)


def test_swapped_labels_are_found_though_some_fall_outside(tmp_path: Path) -> None:
    swapped = [moved(m, m.particles[:, [1, 0, 2]]) for m in (source(f"m{i}") for i in range(4))]
    warnings = inspect_dataset(build(tmp_path, swapped, **FIELDS)).warnings
    assert warnings[0].endswith("--swap-xy")
    assert any("lie outside their micrograph" in warning for warning in warnings)


def test_the_remedy_counts_in_how_labels_were_imported(tmp_path: Path) -> None:
    flipped = [
        moved(m, np.column_stack([SHAPE[0] - 1 - m.particles[:, 0], m.particles[:, 1:]]))
        for m in (source(f"m{i}") for i in range(4))
    ]
    for options, remedy in (
        ({"flip_y": True}, "without --flip-y"),
        ({"flip_x": True}, "with --flip-y --flip-x"),
    ):
        dataset = build_dataset(
            flipped, tmp_path / remedy.split()[0], BuildConfig(size=256), origin={"options": options}
        )
        assert inspect_dataset(dataset).warnings[0].endswith(f"import again {remedy}")


def test_labels_at_random_and_of_another_binning(tmp_path: Path) -> None:
    binned = [moved(m, m.particles / [2, 2, 1]) for m in (source(f"m{i}") for i in range(3))]
    text = "\n".join(inspect_dataset(build(tmp_path, binned, **WHOLE)).warnings)
    assert "do not stand out" in text
    assert "no label lies beyond 50%" in text


def test_masks_that_disagree(tmp_path: Path) -> None:
    def with_mask(micrograph: SourceMicrograph) -> SourceMicrograph:
        mask = draw_mask(SHAPE, micrograph.particles[:, :2], np.full(len(micrograph.particles), 20.0))[::-1]
        return replace(micrograph, read_mask=lambda: mask.astype(bool))

    text = "\n".join(
        inspect_dataset(build(tmp_path, [with_mask(source(f"m{i}")) for i in range(2)], **WHOLE)).warnings
    )
    assert "of the centers lie on background" in text
    assert "of the particles in the masks have no center" in text


def test_empty_images_missing_groups_and_enlarged_ones(tmp_path: Path) -> None:
    micrographs = [source(f"m{i}", split="train") for i in range(3)]
    micrographs += [source("e", n=0, split="test"), source("x", "b", split="test")]
    text = "\n".join(inspect_dataset(build(tmp_path, micrographs, size=640)).warnings)
    assert "group a: 1 of 4 images have no particles" in text
    assert "split train: no micrographs of group b" in text
    assert "enlarged 1.52 times" in text


def test_near_duplicates_across_splits(tmp_path: Path) -> None:
    dataset = build(tmp_path, [source(f"m{i}") for i in range(4)], **WHOLE)
    records = tuple(replace(record, field_of_view="same") for record in dataset.records)
    text = "\n".join(inspect_dataset(replace(dataset, records=records)).warnings)
    assert "near-duplicates in different splits: a/" in text


def test_fields_put_together_are_the_micrograph(tmp_path: Path) -> None:
    micrographs = [source(f"m{i}") for i in range(2)]
    dataset = build(tmp_path, micrographs, **FIELDS)
    rows = [row for row, record in enumerate(dataset.records) if record.micrograph == "m0"]
    stitched = stitch(dataset, rows)
    assert stitched.extent == (150, 210)
    assert stitched.image.shape == (150, 210)
    assert len(stitched.centers_yx) == 60
    at = np.rint(stitched.centers_yx).astype(int)
    at = at[(at >= 0).all(axis=1) & (at < stitched.mask.shape).all(axis=1)]
    assert (stitched.mask[at[:, 0], at[:, 1]] == 1).all()


def test_contact_sheet(tmp_path: Path) -> None:
    micrographs = [source(f"m{i}") for i in range(2)] + [source("e", "b", n=0, diameter_px=20.0)]
    dataset = build(tmp_path, micrographs, **WHOLE)
    contact_sheet(dataset, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    orange = (pixels[..., 0] > 200) & (pixels[..., 2] < 90)
    assert orange.sum() > 1000
    assert not orange[pixels.shape[0] // 2 + 20 :].any(), "no circles where there are no particles"


@pytest.mark.realdata
def test_real_groups_are_judged_as_they_deserve(tmp_path: Path, real_data: Path) -> None:
    names = ("empiar_10028", "empiar_10146", "empiar_10146_noisy", "empiar_10947")
    paths = [real_data / name for name in names]
    sound = read_sources(paths)
    inspection = inspect_dataset(build(tmp_path, list(sound.micrographs), field=128))
    assert {group: verdict.finding for group, verdict in inspection.orientations.items()} == {
        "10028": "fits",
        "10146": "fits",
        "10146_noisy": "fits",
        "10947": "undecided",
    }
    assert not any(
        "ORIENTATION" in warning or "near_duplicates" in warning for warning in inspection.warnings
    )
    assert sum("taken for near-duplicates" in note for note in inspection.notes) == 4
    turned = read_sources(paths[:2], SourceOptions(flip_y=True))
    warnings = inspect_dataset(
        build_dataset(turned.micrographs, tmp_path / "turned", BuildConfig(field=128))
    ).warnings
    assert sum(warning.endswith("--flip-y") for warning in warnings) == 2
