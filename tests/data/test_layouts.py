from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from cryoquery.data.layouts import SourceOptions, read_source, read_sources, refuse_misplaced
from cryoquery.data.layouts.discs import find_discs
from cryoquery.data.layouts.match import has_images
from cryoquery.data.preprocess import draw_mask
from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import Picks, write_coordinates, write_micrograph
from cryoquery.formats.names import SUFFIX_OF

SHAPE = (96, 128)


def particles(seed: int, n: int = 4, diameter: float = 16.0) -> np.ndarray:
    """Discs that neither touch each other nor the edge."""
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    while len(found) < n:
        center = np.rint(rng.uniform(diameter, np.array(SHAPE) - diameter))
        if all(np.hypot(*(center - other)) > 1.3 * diameter for other in found):
            found.append(center)
    return np.column_stack([np.array(found).reshape(-1, 2), np.full(n, diameter)])


def add_micrograph(path: Path, seed: int = 0, **more: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).normal(100, 10, SHAPE)
    if path.suffix == ".jpg":
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    else:
        write_micrograph(path, pixels.astype(np.float32), **more)


def add_coordinates(path: Path, seed: int = 0, **more: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_coordinates(path, particles(seed, **more))  # type: ignore[arg-type]


def add_mask(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    centers = particles(seed)
    Image.fromarray(draw_mask(SHAPE, centers[:, :2], centers[:, 2]) * 255).save(path, quality=90)


@pytest.fixture
def cryoppp(tmp_path: Path) -> Path:
    for i, group in enumerate(("10005", "10017")):
        for j in range(2):
            stem = f"May08_03.05.0{j}.bin_avg"
            add_micrograph(tmp_path / group / "micrographs" / f"{stem}.mrc", pixel_size=1.5)
            add_coordinates(tmp_path / group / "ground_truth/particle_coordinates" / f"{stem}.csv", 2 * i + j)
    return tmp_path


def test_cryoppp_as_a_whole_and_one_set_of_it(cryoppp: Path) -> None:
    source = read_source(cryoppp)
    assert [m.key for m in source.micrographs] == [
        (group, f"May08_03.05.0{j}.bin_avg") for group in ("10005", "10017") for j in range(2)
    ]
    for seed, micrograph in enumerate(source.micrographs):
        assert np.array_equal(micrograph.particles, particles(seed))
        assert micrograph.shape == SHAPE
        assert micrograph.read().shape == SHAPE
        assert micrograph.pixel_size == pytest.approx(1.5)
        assert micrograph.split is None
    assert source.notes == ()
    one = read_source(cryoppp / "10017")
    assert [m.group for m in one.micrographs] == ["10017", "10017"]
    assert one.names == ("10017",)


def test_missing_labels_are_noted_and_left_out(cryoppp: Path) -> None:
    add_micrograph(cryoppp / "10005/micrographs/extra.mrc")
    add_coordinates(cryoppp / "10017/ground_truth/particle_coordinates/orphan.csv")
    (cryoppp / "10005/micrographs/notes.txt").write_text("x")
    (cryoppp / "other").mkdir()
    source = read_source(cryoppp)
    assert len(source.micrographs) == 4
    notes = "\n".join(source.notes)
    for expected in ("extra.mrc", "orphan.csv", "notes.txt", "other"):
        assert expected in notes


def test_what_is_no_micrograph_is_passed_over(tmp_path: Path) -> None:
    """Resource forks of macOS, and folders with the ending of a file."""
    for split in ("train", "val"):
        add_micrograph(tmp_path / "plain" / "micrographs" / f"{split}.mrc")
        (tmp_path / "plain" / "micrographs" / f"._{split}.mrc").write_bytes(b"1")
        add_coordinates(tmp_path / "plain" / "coordinates" / f"{split}.csv")
        (tmp_path / "plain" / "coordinates" / f"old_{split}.csv").mkdir()
        add_mask(tmp_path / "plain" / "masks" / f"{split}_mask.png")
        (tmp_path / "plain" / "masks" / f"{split}_mask.tif").mkdir()
    source = read_source(tmp_path / "plain")
    assert [m.name for m in source.micrographs] == ["train", "val"]
    assert source.notes == ()
    root = tmp_path / "splits"
    add_micrograph(root / "train" / "a.jpg")
    add_coordinates(root / "particle_coordinates" / "a.csv")
    (root / "val").mkdir()
    (root / "val" / "._b.jpg").write_bytes(b"1")
    (root / "test" / "c.jpg").mkdir(parents=True)
    assert [m.split for m in read_source(root).micrographs] == ["train"]
    assert not has_images(root / "val")
    assert not has_images(root / "test")


def test_cryotransformer_zero_boxes_mean_no_particles(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, names in {"train": ["10005_a", "10005_b"], "val": ["10017_c"], "test": ["10017_d"]}.items():
        for name in names:
            add_micrograph(root / split / f"{name}.jpg")
    folder = root / "particle_coordinates"
    add_coordinates(folder / "10005_a.csv", 1)
    write_coordinates(folder / "10005_b.csv", np.zeros((1, 3)))
    write_coordinates(folder / "10017_d.csv", np.concatenate([particles(2), np.zeros((1, 3))]))
    source = read_source(root, SourceOptions(group_pattern=r"^(\d+)_"))
    found = {m.name: m for m in source.micrographs}
    assert {name: (m.group, m.split, len(m.particles)) for name, m in found.items()} == {
        "10005_a": ("10005", "train", 4),
        "10005_b": ("10005", "train", 0),
        "10017_c": ("10017", "val", 0),
        "10017_d": ("10017", "test", 4),
    }
    assert any("10017_c.jpg" in note and "no particles" in note for note in source.notes)
    assert {m.group for m in read_source(root).micrographs} == {"data"}


@pytest.mark.parametrize("nested", ["", "train_dataset"])
def test_cryosegnet_masks_become_centers(tmp_path: Path, nested: str) -> None:
    for i, split in enumerate(("train", "val")):
        add_micrograph(tmp_path / nested / "10028" / split / "images" / f"m.{i}.jpg")
        add_mask(tmp_path / nested / "10028" / split / "masks" / f"m.{i}_mask.jpg", i)
    add_micrograph(tmp_path / nested / "10093" / "images" / "m.2.jpg")
    add_mask(tmp_path / nested / "10093" / "masks" / "m.2_mask.jpg", 2)
    source = read_source(tmp_path)
    assert [(m.group, m.name, m.split) for m in source.micrographs] == [
        ("10028", "m.0", "train"),
        ("10028", "m.1", "val"),
        ("10093", "m.2", None),
    ]
    for seed, micrograph in enumerate(source.micrographs):
        assert_same_discs(micrograph.particles, particles(seed))
        assert micrograph.read_mask is not None
        assert micrograph.read_mask().shape == SHAPE
    assert [m.group for m in read_source(tmp_path / nested / "10028/train").micrographs] == ["10028"]


def assert_same_discs(found: np.ndarray, expected: np.ndarray, within: float = 1.5) -> None:
    assert len(found) == len(expected)
    distance, nearest = cKDTree(found[:, :2]).query(expected[:, :2])
    assert distance.max() < within
    assert len(np.unique(nearest)) == len(expected)
    assert found[0, 2] == pytest.approx(expected[0, 2], rel=0.05)


def plain(root: Path, name: str = "empiar_10146_noisy") -> Path:
    add_micrograph(root / name / "micrographs" / "a.png")
    add_coordinates(root / name / "coordinates" / "a.csv")
    return root / name


def test_plain_with_manifest(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    (folder / "coordinates/a.csv").write_text("X-Coordinate,Y-Coordinate\n5,6\n")
    (tmp_path / "manifest.csv").write_text(
        "dataset,micrograph,diameter_px,pixel_size_angstrom\nempiar_10146_noisy,a.png,60,1.77\nother,a.png,1,1\n"
    )
    for path in (tmp_path, folder):
        (micrograph,) = read_source(path).micrographs
        assert micrograph.group == "10146_noisy"
        assert micrograph.particles.tolist() == [[6, 5, 60]]
        assert micrograph.pixel_size == 1.77


def test_which_labels(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    add_mask(folder / "masks" / "a_mask.png", seed=5)
    add_micrograph(folder / "micrographs" / "only_mask.png")
    add_mask(folder / "masks" / "only_mask_mask.png", seed=6)
    auto = {m.name: m for m in read_source(folder).micrographs}
    assert auto["a"].read_mask is None
    assert auto["only_mask"].read_mask is not None
    assert_same_discs(auto["only_mask"].particles, particles(6))
    masks = {m.name: m for m in read_source(folder, SourceOptions(labels="masks")).micrographs}
    assert masks["a"].read_mask is not None
    assert np.array_equal(masks["a"].particles, particles(0))
    only = read_source(folder, SourceOptions(labels="coordinates"))
    assert [m.name for m in only.micrographs] == ["a"]
    assert any("only_mask.png" in note for note in only.notes)
    assert any("masks and coordinates disagree" in note for note in read_source(folder).notes)


def test_options_turn_labels_and_set_sizes(tmp_path: Path) -> None:
    folder, expected = plain(tmp_path), particles(0)

    def read(**options: object) -> np.ndarray:
        return read_source(folder, SourceOptions(**options)).micrographs[0].particles  # type: ignore[arg-type]

    assert np.array_equal(read(flip_y=True)[:, 0], SHAPE[0] - 1 - expected[:, 0])
    assert np.array_equal(read(flip_x=True)[:, 1], SHAPE[1] - 1 - expected[:, 1])
    assert np.array_equal(read(swap_xy=True), expected[:, [1, 0, 2]])
    assert np.array_equal(read(swap_xy=True, flip_y=True)[:, 0], SHAPE[0] - 1 - expected[:, 1])
    assert (read(diameter_px=9)[:, 2] == 9).all()
    assert (read(diameter_angstrom=30, pixel_size=2)[:, 2] == 15).all()
    with pytest.raises(DataError, match="--pixel-size"):
        read(diameter_angstrom=30)
    plain_pixels = read_source(folder).micrographs[0].read()
    assert np.array_equal(
        read_source(folder, SourceOptions(invert=True)).micrographs[0].read(), -plain_pixels
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diameter": 3}, "diameter"),
        ({"pixel_size": -1}, "pixel_size=-1"),
        ({"labels": "boxes"}, "labels='boxes'"),
        ({"group_pattern": "("}, "not a regular expression"),
        ({"diameter_px": 1, "diameter_angstrom": 2}, "give one"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SourceOptions(**options)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_groups_of_mixed_particles_are_noted(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    add_micrograph(folder / "micrographs" / "b.png")
    add_coordinates(folder / "coordinates" / "b.csv", diameter=24.0)
    assert any("--group-pattern" in note for note in read_source(folder).notes)
    source = read_source(folder, SourceOptions(group_by_diameter=True))
    assert len({micrograph.group for micrograph in source.micrographs}) == 2
    assert any(micrograph.group.endswith("_24px") for micrograph in source.micrographs)
    assert not any("--group-pattern" in note for note in source.notes)


def test_two_files_of_one_stem(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    add_micrograph(folder / "micrographs" / "a.mrc")
    with pytest.raises(DataError, match=r"a\.mrc and .*a\.png"):
        read_source(folder)


def test_two_sources_of_one_group(tmp_path: Path) -> None:
    first, second = plain(tmp_path / "x"), plain(tmp_path / "y")
    with pytest.raises(DataError, match="both have a micrograph a"):
        read_sources([first, second])
    other = plain(tmp_path / "z", "10028")
    both = read_sources([first, other])
    assert [m.group for m in both.micrographs] == ["10146_noisy", "10028"]
    assert both.names == ("empiar_10146_noisy", "10028")


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(DataError) as caught:
        read_source(tmp_path)
    assert all(name in str(caught.value) for name in ("CryoPPP", "CryoTransformer", "CryoSegNet", "plain"))
    folder = plain(tmp_path)
    (folder / "coordinates/a.csv").rename(folder / "coordinates/b.csv")
    with pytest.raises(DataError, match=r"none with coordinates or a mask; a\.png needs a\.csv"):
        read_source(folder)


def test_bad_labels_name_their_file(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    (folder / "coordinates/a.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n1,2,0\n")
    with pytest.raises(DataError, match=r"a\.csv: a diameter of 0 px"):
        read_source(folder)
    (folder / "coordinates/a.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n1,two,3\n")
    with pytest.raises(DataError, match=r"a\.csv: line 2"):
        read_source(folder)


@pytest.mark.parametrize("apart", [1.0, 0.75])
@pytest.mark.parametrize("reduction", [1, 4])
def test_touching_and_overlapping_discs_come_apart(apart: float, reduction: int) -> None:
    rng = np.random.default_rng(7)
    diameter, size = 56.0, 1024
    centers: list[np.ndarray] = []
    while len(centers) < 130:
        center = rng.uniform(0, size, 2)
        if all(np.hypot(*(center - other)) >= apart * diameter for other in centers):
            centers.append(center)
    expected = np.column_stack([centers, np.full(len(centers), diameter)])
    mask = draw_mask(
        (size // reduction,) * 2, (expected[:, :2] + 0.5) / reduction - 0.5, expected[:, 2] / reduction
    )
    found = find_discs(mask.astype(bool), (size, size))
    distance, _ = cKDTree(found[:, :2]).query(expected[:, :2])
    assert (distance < diameter / 4).mean() > 0.97
    assert abs(len(found) - len(expected)) <= 3
    assert found[0, 2] == pytest.approx(diameter, rel=0.03)


def test_masks_without_discs() -> None:
    assert find_discs(np.zeros((50, 60), bool), (50, 60)).shape == (0, 3)
    assert find_discs(np.ones((50, 60), bool), (50, 60)).shape == (0, 3)


@pytest.mark.realdata
def test_real_masks_give_their_published_centers(real_data: Path) -> None:
    folder = real_data / "empiar_10028"
    for micrograph in read_source(folder, SourceOptions(labels="masks")).micrographs:
        assert micrograph.read_mask is not None
        found = find_discs(micrograph.read_mask(), micrograph.shape)
        assert_same_discs(found, micrograph.particles, within=2.0)


@pytest.mark.realdata
def test_the_real_folder_is_read_whole(real_data: Path) -> None:
    source = read_source(real_data)
    assert len(source.micrographs) == 39
    assert {m.group for m in source.micrographs} == {"10017", "10028", "10146", "10146_noisy", "10947"}
    assert sum(len(m.particles) for m in source.micrographs if m.group == "10017") == 7612


def unlabeled(root: Path, n: int = 3) -> Path:
    for i in range(n):
        add_micrograph(root / "micrographs" / f"mic_{i}.mrc", i, pixel_size=1.5)
    (root / "coordinates").mkdir()
    return root


@pytest.mark.parametrize("file_format", ["star", "box", "cbox", "txt", "coco", "cs"])
def test_labels_of_every_format(tmp_path: Path, file_format: str) -> None:
    root = unlabeled(tmp_path / "set")
    for i in range(3):
        suffix = SUFFIX_OF[file_format]
        write_coordinates(
            root / "coordinates" / f"mic_{i}{suffix}",
            Picks.of(particles(i)[:, :2], micrograph=f"mic_{i}.mrc", diameters_px=particles(i)[:, 2]),
            micrograph_shapes=SHAPE,
        )
    found = read_source(root, SourceOptions(diameter_px=8.0)).micrographs
    for i, micrograph in enumerate(found):
        np.testing.assert_allclose(micrograph.particles[:, :2], particles(i)[:, :2], atol=1e-4)
        assert set(micrograph.particles[:, 2]) == {8.0}


def test_files_with_endings_find_their_micrograph(tmp_path: Path) -> None:
    root = unlabeled(tmp_path / "set", 2)
    for i in range(2):
        add_coordinates(root / "coordinates" / f"mic_{i}_autopick.csv", i)
    assert [len(m.particles) for m in read_source(root).micrographs] == [4, 4]
    add_coordinates(root / "coordinates" / "mic_0.csv")
    with pytest.raises(DataError, match="two files of labels for one micrograph"):
        read_source(root)


def test_one_file_for_all_micrographs(tmp_path: Path) -> None:
    root = unlabeled(tmp_path / "set")
    rows = np.concatenate([particles(0), particles(1)])
    names = ["Movies/mic_0_DW.mrc"] * len(particles(0)) + ["Movies/mic_2.mrc"] * len(particles(1))
    picks = Picks.of(rows[:, :2], micrograph=names, diameters_px=rows[:, 2])
    write_coordinates(root / "coordinates" / "particles.star", picks)
    source = read_source(root)
    assert [m.name for m in source.micrographs] == ["mic_0", "mic_2"]
    np.testing.assert_allclose(source.micrographs[1].particles, particles(1), atol=1e-5)
    assert any("does not name" in note and "mic_1.mrc" in note for note in source.notes)
    write_coordinates(
        root / "coordinates" / "particles.star", picks.replace(micrographs=np.full(8, "x", object))
    )
    with pytest.raises(DataError, match="names none of the micrographs"):
        read_source(root)


def test_boxes_are_noted_and_missing_diameters_refused(tmp_path: Path) -> None:
    root = unlabeled(tmp_path / "set", 1)
    (root / "coordinates" / "mic_0.box").write_text("10 10 8 8\n")
    source = read_source(root)
    assert source.micrographs[0].particles.tolist() == [[14, 14, 8]]
    assert any("files of boxes" in note for note in source.notes)
    assert not read_source(root, SourceOptions(diameter_px=6)).notes
    (root / "coordinates" / "mic_0.box").unlink()
    write_coordinates(root / "coordinates" / "mic_0.star", Picks.of([[14, 14]]))
    with pytest.raises(DataError, match="no diameters in it; give --diameter-px"):
        read_source(root)
    two = Picks.of([[14, 14], [1, 2]], micrograph=["other", "another"], diameters_px=8)
    write_coordinates(root / "coordinates" / "mic_0.star", two)
    with pytest.raises(DataError, match=r"picks of 2 micrographs \('other', …\), none named mic_0"):
        read_source(root)


def with_particles(folder: Path, seed: int, turn: dict[str, bool], scale: float = 1.0) -> None:
    """A micrograph of dark discs, and a file that has their centers turned and scaled."""
    rng = np.random.default_rng(seed)
    shape = (192, 256)
    centers = rng.uniform(10, np.array(shape) - 10, (40, 2))
    diameters = np.full(len(centers), 14.0)
    pixels = rng.normal(100, 10, shape) - 15 * draw_mask(shape, centers, diameters)
    (folder / "micrographs").mkdir(parents=True, exist_ok=True)
    (folder / "coordinates").mkdir(exist_ok=True)
    write_micrograph(folder / "micrographs" / f"m{seed}.mrc", pixels.astype(np.float32))
    if turn.get("flip_y"):
        centers[:, 0] = shape[0] - 1 - centers[:, 0]
    if turn.get("flip_x"):
        centers[:, 1] = shape[1] - 1 - centers[:, 1]
    if turn.get("swap_xy"):
        centers = centers[:, ::-1]
    centers = (centers + 0.5) / scale - 0.5
    write_coordinates(folder / "coordinates" / f"m{seed}.csv", np.column_stack([centers, diameters / scale]))


@pytest.mark.parametrize(
    ("turn", "scale", "options"),
    [
        ({"flip_y": True}, 1.0, "--flip-y"),
        ({"flip_x": True}, 1.0, "--flip-x"),
        ({"swap_xy": True}, 1.0, "--swap-xy"),
        ({}, 2.0, "--scale 2"),
        ({"flip_y": True}, 0.5, "--flip-y --scale 0.5"),
    ],
)
def test_misplaced_labels_are_refused_and_the_options_named(
    tmp_path: Path, turn: dict[str, bool], scale: float, options: str
) -> None:
    for seed in range(3):
        with_particles(tmp_path / "set", seed, turn, scale)
    with pytest.raises(DataError, match=f"use {options}, or --force"):
        refuse_misplaced(read_sources([tmp_path / "set"]))
    right = read_sources([tmp_path / "set"], SourceOptions(**turn, scale=scale))
    refuse_misplaced(right)
    wrong = SourceOptions(**{name: True for name in ("flip_y", "flip_x") if not turn.get(name)})
    with pytest.raises(DataError, match=f"use {options}, or --force"):
        refuse_misplaced(read_sources([tmp_path / "set"], wrong))


def test_labels_that_an_option_misplaces(tmp_path: Path) -> None:
    for seed in range(3):
        with_particles(tmp_path / "set", seed, {})
    refuse_misplaced(read_sources([tmp_path / "set"]))
    with pytest.raises(DataError, match="leave out --flip-y, or --force"):
        refuse_misplaced(read_sources([tmp_path / "set"], SourceOptions(flip_y=True)))


@pytest.mark.realdata
def test_labels_of_another_picker_are_in_the_order_of_the_mrc(real_data: Path, tmp_path: Path) -> None:
    """The JPGs of 10017 are flipped MRCs; crYOLO's boxes are not."""
    folder = real_data / "empiar_10017"
    boxes = sorted((folder / "second_labels" / "crYOLO_box").glob("*.box"))[:3]
    for name in ("micrographs", "coordinates"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for box in boxes:
        (tmp_path / "set" / "coordinates" / box.name).symlink_to(box)
        image = folder / "micrographs" / f"{box.stem}.jpg"
        (tmp_path / "set" / "micrographs" / image.name).symlink_to(image)
    with pytest.raises(DataError, match="use --flip-y, or --force"):
        refuse_misplaced(read_sources([tmp_path / "set"]))
    refuse_misplaced(read_sources([tmp_path / "set"], SourceOptions(flip_y=True)))


def test_compressed_micrographs_are_found(tmp_path: Path) -> None:
    with_particles(tmp_path / "set", 0, {})
    plain = tmp_path / "set" / "micrographs" / "m0.mrc"
    (tmp_path / "set" / "micrographs" / "m0.mrc.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    (micrograph,) = read_sources([tmp_path / "set"]).micrographs
    assert micrograph.name == "m0"
    assert len(micrograph.particles) == 40
    assert micrograph.read().shape == (192, 256)


def test_of_several_versions_the_labels_are_of_the_one_that_is_taken(tmp_path: Path) -> None:
    root = unlabeled(tmp_path / "set", 2)
    for i in range(2):
        (root / "micrographs" / f"mic_{i}_DW.mrc").write_bytes(
            (root / "micrographs" / f"mic_{i}.mrc").read_bytes()
        )
        (root / "coordinates" / f"mic_{i}.box").write_text("10 10 8 8\n")
    source = read_source(root)
    assert [one.name for one in source.micrographs] == ["mic_0_DW", "mic_1_DW"]
    assert [one.particles.tolist() for one in source.micrographs] == [[[14, 14, 8]]] * 2
    assert any("mic_0.mrc" in note for note in source.notes)


def test_what_label_files_do_not_say_is_said(tmp_path: Path) -> None:
    root = unlabeled(tmp_path / "set", 1)
    table = root / "coordinates" / "mic_0.csv"
    table.write_text("x,y,w,h\n10,10,8,8\n")
    assert read_source(root).micrographs[0].particles.tolist() == [[14, 14, 8]]
    assert any("a corner of a box" in note for note in read_source(root).notes)
    as_centers = read_source(root, SourceOptions(origin="center"))
    assert as_centers.micrographs[0].particles.tolist() == [[10, 10, 8]]
    table.write_text("8 10 10\n")
    with pytest.raises(DataError, match="--columns x=1,y=2"):
        read_source(root)
    said = SourceOptions(columns="diameter=1,x=2,y=3", origin="corner")
    assert read_source(root, said).micrographs[0].particles.tolist() == [[14, 14, 8]]
    with pytest.raises(ConfigError, match="--columns"):
        SourceOptions(columns="x=1")
    table.unlink()
    write_coordinates(
        root / "coordinates" / "mic_0.star", Picks.of([[14, 14]], micrograph="b.mrc", diameters_px=8)
    )
    with pytest.raises(DataError, match="none named mic_0"):
        read_source(root)
