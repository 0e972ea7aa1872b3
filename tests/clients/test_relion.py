"""RELION's own programs read what we write, and we what they write."""

from __future__ import annotations

import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from command_line import run
from relion_project import (
    DIAMETER,
    MICS,
    SHAPE,
    cut,
    extract,
    missing_programs,
    relion,
    truth,
    write_project,
)

from cryoquery.data.layouts import read_source
from cryoquery.formats import (
    Optics,
    Picks,
    micrograph_stem,
    read_by_micrograph,
    read_coordinates,
    read_micrograph,
    write_coordinates,
    write_micrograph,
)
from cryoquery.formats.star import read_tables
from cryoquery.picking import picker, relion_job
from cryoquery.picking.batch import BatchResult
from cryoquery.project.folder import open_project
from cryoquery.project.label_set import current_labels

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"no RELION: {', '.join(missing_programs())} missing; .ci/install gets it",
    ),
]

LOG = ("--LoG", "--LoG_diam_min", 50, "--LoG_diam_max", 70, "--shrink", 0, "--lowpass", 20)
JOB = "AutoPick/job004"
KNOWN = ("--diameter-px", DIAMETER)
"""The check of where picks lie is quicker with it."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Picks:
    """The particles on the micrographs of a project of RELION, in whose folder the test runs."""
    monkeypatch.chdir(tmp_path)
    return write_project()


def autopick(*options: object) -> None:
    relion("autopick", "--i", MICS, "--odir", f"{JOB}/", "--pickname", "autopick", *LOG, *options)


def equal_boxes(job: str, picks: Picks, mics: str = MICS) -> None:
    """RELION extracts from the job's picks what NumPy cuts at ``picks``."""
    found = extract(job, mics)
    parts = picks.by_micrograph()
    assert {micrograph_stem(name) for name in parts} == found.keys()
    for name, part in parts.items():
        np.testing.assert_array_equal(found[micrograph_stem(name)], cut(read_micrograph(name).pixels, part))


@pytest.mark.parametrize("named", [True, False], ids=["named", "boxes without names"])
def test_boxes_are_those_at_our_picks(project: Picks, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    write_coordinates("picks.star", project)
    write_coordinates("boxes", project, format="box")
    source = "picks.star" if named else "boxes"
    assert run(monkeypatch, "convert", source, "AutoPick/cryoquery", *KNOWN, "--micrographs", MICS) == 0
    equal_boxes("AutoPick/cryoquery", project)
    assert (
        run(
            monkeypatch,
            "convert",
            source,
            "AutoPick/again",
            *KNOWN,
            "--micrographs",
            "MotionCorr/job002/Movies",
        )
        == 0
    )
    assert read_coordinates("AutoPick/again").micrographs.tolist() == project.micrographs.tolist()


def test_picks_between_pixels_are_cut_at_the_nearest(project: Picks, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELION itself drops what comes after the point."""
    offsets = np.random.default_rng(1).uniform(-0.49, 0.49, (len(project), 2))
    write_coordinates("picks.star", project.replace(centers_yx=project.centers_yx + offsets))
    assert run(monkeypatch, "convert", "picks.star", JOB, "--for", "relion") == 0
    equal_boxes(JOB, project)


def test_what_relion_has_picked_is_read_by_every_command(
    project: Picks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    autopick()
    n = {
        name: len(read_tables(path, path.read_text())[0].columns["rlnCoordinateX"]) for name, path in files()
    }
    assert {name: len(picks) for name, picks in read_by_micrograph(JOB).items()} == n
    write_coordinates("truth.star", project)
    assert run(monkeypatch, "evaluate", JOB, "truth.star") == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[5]) > 0.8
    assert run(monkeypatch, "convert", JOB, "all.star", *KNOWN, "--micrographs", MICS) == 0
    assert len(read_coordinates("all.star")) == sum(n.values())
    init = ["init", "p", "--micrographs", "MotionCorr/job002/Movies/*.mrc", "--diameter-px", "20"]
    assert run(monkeypatch, *init, "--labels", JOB) == 0
    labels = current_labels(open_project("p")).labels.values()
    assert sum(len(label.particles_yx) for label in labels) == sum(n.values())
    Path("source").mkdir()
    Path("source/micrographs").symlink_to(Path("MotionCorr/job002/Movies").resolve())
    Path("source/coordinates").symlink_to(Path(JOB).resolve())
    imported = read_source("source", options(diameter_px=20)).micrographs
    assert {f"MotionCorr/job002/Movies/{m.name}.mrc": len(m.particles) for m in imported} == n


def files() -> list[tuple[str, Path]]:
    return [(name, Path(JOB, "Movies", f"{micrograph_stem(name)}_autopick.star")) for name in names()]


def names() -> list[str]:
    return list(truth().by_micrograph())


def options(**also: object):  # type: ignore[no-untyped-def]
    from cryoquery.data.layouts import SourceOptions

    return SourceOptions(**also)  # type: ignore[arg-type]


def test_a_micrograph_on_which_relion_finds_nothing_has_no_picks(project: Picks) -> None:
    """RELION leaves an empty file for it."""
    autopick()
    Path(JOB, "Movies/b_autopick.star").write_bytes(b"")
    counts = {name: len(picks) for name, picks in read_by_micrograph(JOB).items()}
    assert counts["MotionCorr/job002/Movies/b.mrc"] == 0
    assert counts["MotionCorr/job002/Movies/a.mrc"] > 0


def test_a_job_of_relion_3_1_says_what_is_in_it(project: Picks) -> None:
    autopick()
    Path(JOB, "summary.star").unlink()
    Path(JOB, "coords_suffix_autopick.star").write_text(f"{MICS}\n")
    Path(JOB, "job.star").write_text("data_job\n\n_rlnJobType 4\n")
    for path in (JOB, f"{JOB}/coords_suffix_autopick.star"):
        assert list(read_by_micrograph(path)) == names()


def test_the_way_through_import(project: Picks, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the documentation says it."""
    page = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
    folder, pattern = "Cryoquery/job001", "Cryoquery/job001/Movies/*_autopick.star"
    assert f"cryoquery convert picks.star {folder} --micrographs {MICS}" in page
    assert f"`{pattern}`" in page.replace("\\*", "*")
    write_coordinates("picks.star", project)
    assert run(monkeypatch, "convert", "picks.star", folder, *KNOWN, "--micrographs", MICS) == 0
    Path("Import/job008").mkdir(parents=True)
    suffix_list = "coords_suffix_autopick.star"
    relion("import", "--do_coordinates", "--i", pattern, "--odir", "Import/job008/", "--ofile", suffix_list)
    equal_boxes("Import/job008", project)
    assert read_coordinates("Import/job008").micrographs.tolist() == ["a"] * 20 + ["b"] * 20


def test_a_table_of_optics_groups_is_complete_or_not_there(
    project: Picks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coordinates("picks.star", project)
    select = ("--select", "rlnAutopickFigureOfMerit", "--minval", "0.5")
    for number, said in enumerate((("--optics", MICS), ("--voltage", "300", "--pixel-size", "3"))):
        out = f"p{number}.star"
        assert run(monkeypatch, "convert", "picks.star", out, *said) == 0
        assert "optics" not in capsys.readouterr().err
        relion("star_handler", "--i", out, "--o", "some.star", *select)
        assert len(read_coordinates("some.star")) == np.count_nonzero(project.scores >= 0.5)
        relion("star_handler", "--combine", "--i", f"{out} {out}", "--o", "both.star")
        assert len(read_coordinates("both.star")) == 2 * len(project)
    assert read_coordinates("p0.star").optics["rlnVoltage"].tolist() == ["200.0"]
    for said in ((), ("--pixel-size", "3"), ("--voltage", "300")):
        assert run(monkeypatch, "convert", "picks.star", "without.star", *said) == 0
        assert "no table of optics groups, which RELION needs: give --" in capsys.readouterr().err
        assert "data_optics" not in Path("without.star").read_text()
        assert run(monkeypatch, "convert", "picks.star", "x.star", *said, "--for", "relion") == 1
        assert "relion needs a table of optics groups; give --" in capsys.readouterr().err


def test_particles_are_extracted_again_from_one_file_for_all(project: Picks) -> None:
    write_coordinates("all.star", project, pixel_size=3.0, optics=Optics(300.0))
    relion(
        *("preprocess", "--i", MICS, "--reextract_data_star", "all.star", "--part_dir", "Extract/job009/"),
        *("--part_star", "Extract/job009/particles.star", "--extract", "--extract_size", 32),
    )
    assert len(read_coordinates("Extract/job009/particles.star")) == len(project)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int8, np.int16, np.float16, np.float32, np.float64]
)
def test_relion_reads_the_numbers_that_were_written(tmp_path: Path, dtype: type[np.generic]) -> None:
    pixels = np.full((8, 8), 100, dtype)
    pixels[0] = -3 if np.dtype(dtype).kind != "u" else np.iinfo(dtype).max
    write_micrograph(tmp_path / "a.mrc", pixels, pixel_size=2.0)
    said = relion("image_handler", "--i", tmp_path / "a.mrc", "--stats")
    mean, lowest = (float(re.search(rf"{name}= *(\S+)", said)[1]) for name in ("avg", "minval"))  # type: ignore[index]
    assert mean == pytest.approx(pixels.mean(dtype=np.float64), rel=1e-5)
    assert lowest == pixels.min()
    np.testing.assert_array_equal(mrcfile.read(tmp_path / "a.mrc"), pixels)


def test_relion_reads_tiff_from_the_last_row_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    particles = write_project(".tif", "Micrographs")
    write_coordinates("picks.star", particles)
    converting = ["convert", "picks.star", *KNOWN, "--micrographs", MICS, "--for"]
    assert run(monkeypatch, *converting, "relion", JOB) == 0
    found = extract(JOB)
    for name, part in particles.by_micrograph().items():
        turned = part.centers_yx * (-1, 1) + (SHAPE[0] - 1, 0)
        expected = cut(read_micrograph(name).pixels[::-1], Picks.of(turned))
        np.testing.assert_array_equal(found[micrograph_stem(name)], expected)
    assert run(monkeypatch, *converting, "cryosparc", "AutoPick/sparc") == 0
    np.testing.assert_array_equal(read_coordinates("AutoPick/sparc"), particles)
    capsys.readouterr()
    assert run(monkeypatch, "evaluate", JOB, "picks.star", *KNOWN, "--micrographs", "Micrographs") == 1
    assert "--flip-y" in capsys.readouterr().err


@pytest.fixture
def knowing_picker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Picking finds the particles of `truth`, without a network."""

    def find(_: object, micrographs: list[Path], *args: object, **options: object) -> BatchResult:
        picks = truth(micrographs[0].suffix, str(micrographs[0].parent))
        shapes = {str(path): SHAPE for path in micrographs}
        return BatchResult(picks.replace(shapes=shapes), len(micrographs), {}, ())

    monkeypatch.setattr(relion_job, "find_picks", find)
    monkeypatch.setattr(picker, "load_picker", lambda *_: None)


@pytest.mark.usefixtures("knowing_picker")
def test_an_external_job_of_the_pipeline(project: Picks, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Path("default_pipeline.star")
    pipeline.write_text("data_pipeline_general\n\n_rlnPipeLineJobCounter 1\n")
    params = "param1_label == model;param1_value == model.pt;param2_label == diameter-px;param2_value == 20"
    said = f"fn_exe == cryoquery relion-job;in_mic == {MICS};{params};nr_threads == 2"
    relion("pipeliner", "--addJob", "External", "--addJobOptions", said)
    assert Path("External/job001/job.star").is_file()
    # What the pipeliner runs, see note.txt of such a job.
    call = f"--o External/job001/ --in_mics {MICS} --model model.pt --diameter-px 20 --j 2"
    assert run(monkeypatch, "relion-job", *call.split()) == 0
    pipeline.write_text(re.sub(r"(External/job001/ +None +99 +)1", r"\g<1>0", pipeline.read_text()))
    relion("pipeliner", "--check_job_completion")
    blocks = {table.block: table.columns for table in read_tables(pipeline, pipeline.read_text())}
    assert list(blocks["pipeline_processes"]["rlnPipeLineProcessStatus"]) == ["2"], "finished"
    nodes = dict(
        zip(*(blocks["pipeline_nodes"][f"rlnPipeLineNode{x}"] for x in ("Name", "Type")), strict=True)
    )
    assert nodes["External/job001/coords_suffix_autopick.star"] == "2", "picks, in RELION 3.1"
    equal_boxes("External/job001", project)


@pytest.mark.usefixtures("knowing_picker")
def test_an_external_job_with_coordinates(
    project: Picks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    autopick()
    Path(JOB, "coords_suffix_autopick.star").write_text(f"{MICS}\n")
    call = f"relion-job --in_mics {MICS} --in_coords {JOB}/coords_suffix_autopick.star --diameter-px 20 --j 1"
    assert run(monkeypatch, *call.split(), "--o", "External/job005/", "--model", "model.pt") == 0
    assert "recall" in capsys.readouterr().out
    assert Path("External/job005/evaluation/scores.json").is_file()
    assert run(monkeypatch, *call.split(), "--o", "External/job006/", "--project", "labeling") == 0
    labels = current_labels(open_project("labeling")).labels.values()
    assert sum(len(label.particles_yx) for label in labels) == len(read_coordinates(JOB))
    assert Path("External/job006/RELION_JOB_EXIT_SUCCESS").exists()
    assert open_project("labeling").config.diameter_px == DIAMETER
