from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from project_micrographs import DIAMETER_PX, SHAPE, make_project, write_micrographs

from cryoquery.data.build import BuildConfig, build_dataset
from cryoquery.data.dataset import open_dataset
from cryoquery.data.source import SourceMicrograph
from cryoquery.errors import ConfigError, CryoqueryError, DataError, ProjectError
from cryoquery.formats import write_micrograph
from cryoquery.project.folder import open_project
from cryoquery.project.image_size import choose_images
from cryoquery.project.new_project import InitOptions, draw_held_out, init_project
from cryoquery.project.settings import SETTINGS_FILE, read_settings, write_settings
from cryoquery.project.sources import find_micrographs, micrograph_paths

PX = InitOptions(diameter_px=DIAMETER_PX, start="random")


def test_a_project_opens_with_what_was_said(tmp_path: Path) -> None:
    table = tmp_path / "ctf.csv"
    table.write_text(
        "micrograph,defocus_um,ice\n" + "".join(f"mic_{i:02d},{1 + i / 10},{i}\n" for i in range(5))
    )
    made = make_project(tmp_path, 6, table=table, group_pattern=r"mic_(\d)")
    project = open_project(tmp_path / "project")
    assert project.items == made.items
    assert len(project.items) == len(project.dataset.records) == 6
    row = project.micrographs["mic_03"]
    assert (row.defocus_um, row.ice, row.group) == (1.3, 3.0, "0")
    assert (row.height_px, row.width_px, row.pixel_size) == (*SHAPE, 2.0)
    assert project.micrographs["mic_05"].defocus_um is None
    assert project.config.micrographs_folder == "../data"
    for item in project.items:
        assert project.micrograph_path(item.number).stem == item.micrograph
        assert project.diameter_px(item.number) == DIAMETER_PX
        assert (project.thumbnails_path / f"{item.number}.jpg").is_file()
    assert not (project.dataset.masks == 1).any()
    assert {path.name for path in project.path.iterdir()} == {
        "project.toml", "micrographs.csv", "events.sqlite", "dataset", "thumbnails",
    }  # fmt: skip


def test_settings_survive_the_file_and_name_what_is_wrong(tmp_path: Path) -> None:
    project = make_project(tmp_path, 2)
    file = project.path / SETTINGS_FILE
    changed = project.config.model_copy(update={"query_size": 5, "suggestion_share": 0.5})
    write_settings(file, changed)
    assert read_settings(file) == changed
    file.write_text(file.read_text().replace("query_size", "query_sice"))
    with pytest.raises(
        ConfigError, match=r"project\.toml: query_sice: unknown key; did you mean 'query_size'"
    ):
        open_project(project.path)
    with pytest.raises(ProjectError, match="no project"):
        open_project(tmp_path)


def test_regions_of_fields_tile_the_micrograph(tmp_path: Path) -> None:
    write_micrographs(tmp_path / "data", 2, (700, 530))
    options = InitOptions(diameter_px=20.0, start="random", unit="field")
    project = init_project(tmp_path / "project", [tmp_path / "data"], options).project
    for name, items in project.items_of.items():
        covered = np.zeros((700, 530), dtype=int)
        for item in items:
            assert item.region is not None
            top, left, height, width = item.region
            covered[top : top + height, left : left + width] += 1
        assert covered.max() == 1, name
        # A remainder that is narrower than a quarter of a field is left out.
        assert (covered.any(axis=1).sum(), covered.any(axis=0).sum()) >= (640, 426)
        rng = np.random.default_rng(0)
        for y, x in rng.uniform(-0.5, np.array(covered.shape) - 0.5, (50, 2)):
            n = sum(item.contains(y, x) for item in items)
            assert n == covered[int(np.rint(y)), int(np.rint(x))]


def test_micrographs_of_all_sizes_have_particles_of_one_size(tmp_path: Path) -> None:
    write_micrographs(tmp_path / "data", 3, (300, 400))
    write_micrographs(tmp_path / "more", 2, (500, 350))
    for i in range(2):
        (tmp_path / "more" / f"mic_{i:02d}.mrc").rename(tmp_path / "more" / f"other_{i}.mrc")
    project = init_project(tmp_path / "p", [tmp_path / "data", tmp_path / "more"], PX).project
    for record in project.dataset.records:
        assert record.diameter_px * record.scale == pytest.approx(project.config.particle_px)
        assert max(record.content_height, record.content_width) <= project.config.image_size
    assert project.config.image_size == 464  # 500 px at 18 px for 20, in steps of 16


@pytest.mark.parametrize(
    ("side", "diameter", "expected"),
    [(4096, 170.0, (448, 18.0)), (8000, 60.0, (1024, 7.68)), (300, 60.0, (96, 18.0))],
)
def test_images_have_a_side_between_64_and_1024(
    side: int, diameter: float, expected: tuple[int, float]
) -> None:
    one = SourceMicrograph(
        "a", "g", (side, side // 2), lambda: np.empty(0), np.empty((0, 3)), diameter_px=diameter
    )
    config = choose_images([one], "micrograph")
    assert (config.side, config.particle_px) == (expected[0], pytest.approx(expected[1]))


def test_the_held_out_share_is_drawn_of_every_group() -> None:
    groups = ["a"] * 100 + ["b"] * 40 + ["c"] * 8
    drawn = draw_held_out(groups, 0.25, 3)
    counts = {group: sum(drawn[i] for i, own in enumerate(groups) if own == group) for group in "abc"}
    assert sum(counts.values()) == 37
    assert all(abs(counts[group] - groups.count(group) / 4) <= 1 for group in counts)
    assert (draw_held_out(groups, 0.25, 3) == drawn).all()
    assert (draw_held_out(groups, 0.25, 4) != drawn).any()
    for n in range(2, 9):
        assert draw_held_out([str(i) for i in range(n)], 0.25, 0).sum() == max(1, round(n / 4))


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    paths = write_micrographs(data, 6)
    paths[1].write_bytes(paths[1].read_bytes()[:3000])
    blank = np.zeros(SHAPE, dtype=np.float32)
    write_micrograph(paths[2], blank)
    made = init_project(tmp_path / "p", [data], PX)
    assert sorted(made.project.micrographs) == ["mic_00", "mic_03", "mic_04", "mic_05"]
    assert len(made.project.items) == 4
    assert [next(name for name in ("mic_01", "mic_02") if name in line) for line in made.failures] == [
        "mic_01", "mic_02",
    ]  # fmt: skip
    for path in paths:
        write_micrograph(path, blank)
    with pytest.raises(DataError, match="none of the 6 micrographs can be used"):
        init_project(tmp_path / "q", [data], PX)
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(ProjectError, match="none of the 6 micrographs can be read"):
        init_project(tmp_path / "q", [data], PX)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "p"]


def test_leaving_out_gives_the_dataset_of_the_others(tmp_path: Path) -> None:
    def source(i: int, fails: bool = False) -> SourceMicrograph:
        def read() -> np.ndarray:
            if fails:
                raise DataError(f"m{i} is damaged")
            return np.random.default_rng(i).normal(size=(64, 96)).astype(np.float32)

        split = "val" if i > 3 else "train"
        return SourceMicrograph(f"m{i}", "g", (64, 96), read, np.array([[9.0, 9.0, 8.0]]), split=split)

    config = BuildConfig(field=32, particle_px=8.0)
    failures: dict[tuple[str, str], str] = {}
    some = [source(i, i in (0, 3)) for i in range(6)]
    left = build_dataset(some, tmp_path / "left", config, failures=failures)
    alone = build_dataset([one for one in some if one.name not in ("m0", "m3")], tmp_path / "alone", config)
    assert failures == {("g", "m0"): "m0 is damaged", ("g", "m3"): "m3 is damaged"}
    assert left.fingerprint == alone.fingerprint
    open_dataset(tmp_path / "left").check_unchanged()
    with pytest.raises(DataError, match="m0 is damaged"):
        build_dataset(some, tmp_path / "none", config)


def test_an_interrupted_start_leaves_nothing(tmp_path: Path) -> None:
    write_micrographs(tmp_path / "data", 3)

    def interrupt(stage: str) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        init_project(tmp_path / "p", [tmp_path / "data"], PX, report=interrupt)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert init_project(tmp_path / "p", [tmp_path / "data"], PX).project.path == tmp_path / "p"


def test_mistakes_are_refused_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    paths = write_micrographs(data, 2, pixel_size=None)

    def refusal(micrographs: list[Path | str], **options: object) -> str:
        given = InitOptions(unit="micrograph", start="random", **options)  # type: ignore[arg-type]
        with pytest.raises(CryoqueryError) as caught:
            init_project(tmp_path / "p", micrographs, given)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no pattern that finds any" in refusal([f"{data}/*.tif"], diameter_px=20)
    assert "no micrographs" in refusal([str(Path(__file__))], diameter_px=20)
    assert "does not fit into 220 x 160" in refusal([data], diameter_px=160)
    assert "cannot be seen" in refusal([data], diameter_px=2)
    assert "--pixel-size" in refusal([data], diameter_angstrom=80)
    assert "at least 2" in refusal([paths[0]], diameter_px=20)
    assert "finds nothing in" in refusal([data], diameter_px=20, group_pattern="nowhere")
    shutil.copy(paths[0], data / "mic_00.mrcs")
    assert "have the same name" in refusal([data], diameter_px=20)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "file").touch()
    assert "exists already" in refusal([data], diameter_px=20)


def test_equal_names_get_their_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_micrographs(tmp_path / folder, 2)
    project = init_project(tmp_path / "p", [f"{tmp_path}/*/*.mrc"], PX).project
    assert sorted(project.micrographs) == ["a/mic_00", "a/mic_01", "b/mic_00", "b/mic_01"]
    assert {project.micrograph_path(i.number).parent.name for i in project.items} == {"a", "b"}


def test_patterns_folders_and_files_name_each_file_once(tmp_path: Path) -> None:
    paths = write_micrographs(tmp_path / "d [1]", 3)
    assert micrograph_paths([tmp_path / "d [1]", paths[1], str(paths[0])]) == paths


def test_what_is_no_micrograph_is_passed_over(tmp_path: Path) -> None:
    paths = write_micrographs(tmp_path / "data", 2)
    (tmp_path / "data" / f"._{paths[0].name}").write_bytes(b"1")
    (tmp_path / "data" / "movies.mrc").mkdir()
    for given in ("data", "data/*.mrc", "**/*.mrc"):
        assert micrograph_paths([tmp_path / given]) == paths
    with pytest.raises(ProjectError, match="no micrographs"):
        micrograph_paths([tmp_path / "data" / ".*.mrc"])


def test_a_project_moves_with_its_micrographs_and_without(tmp_path: Path) -> None:
    home = tmp_path / "home"
    project = make_project(home, 3)
    before = [project.micrograph_path(i.number).read_bytes() for i in project.items]
    home.rename(tmp_path / "away")
    moved = open_project(tmp_path / "away" / "project")
    assert [moved.micrograph_path(i.number).read_bytes() for i in moved.items] == before
    (tmp_path / "away" / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(
        ProjectError, match=r"set micrographs_folder in .*project\.toml to the folder"
    ) as caught:
        moved.micrograph_path(0)
    assert "\n" not in str(caught.value)
    write_settings(
        moved.path / SETTINGS_FILE,
        moved.config.model_copy(update={"micrographs_folder": str(tmp_path / "elsewhere")}),
    )
    again = open_project(moved.path)
    assert [again.micrograph_path(i.number).read_bytes() for i in again.items] == before


def test_micrographs_that_are_not_beside_have_an_absolute_folder(tmp_path: Path) -> None:
    write_micrographs(tmp_path / "raid" / "run", 2)
    project = init_project(tmp_path / "home" / "me" / "p", [tmp_path / "raid" / "run"], PX).project
    assert project.config.micrographs_folder == str((tmp_path / "raid" / "run").resolve())
    (tmp_path / "home").rename(tmp_path / "house")
    assert open_project(tmp_path / "house" / "me" / "p").micrograph_path(0).is_file()


def test_relion_tables_are_read(tmp_path: Path) -> None:
    paths = write_micrographs(tmp_path / "data", 3, pixel_size=None)
    rows = "\n".join(
        f"MotionCorr/job002/{p.name} {i % 2 + 1} {8000 + 1000 * i} {9000 + 1000 * i}"
        for i, p in enumerate(paths)
    )
    table = tmp_path / "micrographs_ctf.star"
    table.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n"
        "left 1 1.5\nright 2 1.5\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
        f"_rlnDefocusU #3\n_rlnDefocusV #4\n{rows}\n"
    )
    options = InitOptions(diameter_angstrom=30.0, start="random")
    project = init_project(tmp_path / "p", [tmp_path / "data"], options, table=table).project
    found = [project.micrographs[p.stem] for p in paths]
    assert [row.defocus_um for row in found] == pytest.approx([0.85, 0.95, 1.05])
    assert [row.group for row in found] == ["left", "right", "left"]
    assert {row.pixel_size for row in found} == {1.5}
    assert project.diameter_px(0) == pytest.approx(20.0)
    table.write_text(table.read_text().replace("mic_", "other_"))
    with pytest.raises(DataError, match="knows none of the micrographs"):
        init_project(tmp_path / "q", [tmp_path / "data"], options, table=table)


def test_a_row_that_is_missing_is_noticed(tmp_path: Path) -> None:
    project = make_project(tmp_path, 2)
    file = project.path / "micrographs.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ProjectError, match="has no row of mic_01"):
        open_project(project.path)
    file.write_text("name\nx\n")
    with pytest.raises(DataError, match="cannot be read as the table"):
        open_project(project.path)


def test_projects_of_one_name_are_told_apart_wherever_they_are(tmp_path: Path) -> None:
    one, other = (make_project(tmp_path / name, 2) for name in "ab")
    assert one.config.name == other.config.name
    assert one.id != other.id
    one.path.rename(tmp_path / "moved")
    assert open_project(tmp_path / "moved").id == one.id
    older = one.config.model_copy(update={"project_id": None})
    write_settings(tmp_path / "moved" / SETTINGS_FILE, older)
    assert open_project(tmp_path / "moved").id == one.dataset.fingerprint[:16]


def test_brackets_in_a_name_are_no_pattern_where_they_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "grid [1]"
    write_micrographs(folder, 2)
    (tmp_path / "grid 1").mkdir()
    assert len(micrograph_paths([f"{folder}/*.mrc"])) == 2
    assert len(micrograph_paths([f"{tmp_path}/gri[cd] *1*/mic_0[01].mrc"])) == 2


def test_versions_and_names_that_are_not_text_are_left_out_and_named(tmp_path: Path) -> None:
    paths = write_micrographs(tmp_path, 3)
    shutil.copy(paths[0], tmp_path / "mic_00_noDW.mrc")
    shutil.copy(paths[0], tmp_path / "\udce9chant.mrc")
    found = find_micrographs(micrograph_paths([tmp_path]))
    assert [one.name for one in found.micrographs] == ["mic_00", "mic_01", "mic_02"]
    assert "mic_00_noDW.mrc" in found.notes[0]
    assert "chant.mrc: its name is not UTF-8; rename it" in found.failures[0]
