"""Files as other programs write them, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoquery.errors import DataError
from cryoquery.formats import read_coordinates, write_coordinates

REAL_FORMATS = Path(__file__).parents[3] / "shared" / "formats"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(
        not REAL_FORMATS.is_dir(), reason=f"no files of other programs: {REAL_FORMATS} is missing"
    ),
]

EXPECTED = {
    "cryolo_cbox/ActLifeact_02885.cbox": ("cbox", 223, (2540.4258, 83.5926)),
    "cryolo_cbox/TcdA1-0018_frames_sum.cbox": ("cbox", 120, (3984.4556, 3810.3672)),
    "cryolo_cbox/empty.cbox": ("cbox", 0, None),
    "cryolo_star/TcdA1-0018_frames.star": ("star", 81, (4022.5, 3260.0)),
    "cryoppp_csv/Falcon_2012_06_12-14_33_35_0.csv": ("csv", 629, (693, 3752)),
    "cryosparc_cs/4k_dataset.cs": ("cs", 0, None),
    "eman_box/cryolo_TcdA1-0018_frames.box": ("box", 81, (4022.5, 3260.0)),
    "eman_box/repic_cryolo_5col_Falcon_14_33_35.box": ("box", 719, (3975, 2979)),
    "eman_box/repic_topaz_5col_Falcon_14_33_35.box": ("box", 789, (912, 2092)),
    "gautomatch_star/Falcon_2012_06_12-14_33_35_0.star": ("star", 308, (136, 1272)),
    "relion_star/EMPIAR-10025_particles.star": ("star", 1500, (2481, 6924)),
    "relion_star/casspper_Falcon_14_33_35.star": ("star", 567, (3912, 579)),
    "relion_star/cryofsl_10028_with_rlnDiameter.star": ("star", 8, (20, 2448)),
    "relion_star/cryosegnet_sample_10017.star": ("star", 629, (693, 3752)),
    "relion_star/relion31.star": ("star", 5, (983, 3277)),
    "relion_star/rln3.1_data_style.star": ("star", 2, (1268, 587)),
    "relion_star/sample_particles_relion30.star": ("star", 17, (3073.912, 2158.1119)),
    "relion_star/sample_particles_relion31.star": ("star", 17, (3073.912, 2158.1119)),
    "topaz_txt/EMPIAR-10025_particles.txt": ("txt", 1500, (2481, 6924)),
}
"""Format, number of picks, and (y, x) of the first center in pixels."""

REFUSED = {
    "cryosparc_cs/cryosparc_P12_J24_001_particles.cs": "passthrough",
    "eman_box/boxmanager_synthetic_2d_corrupt_has_string.box": "line 2, column x: 'sixty_three'",
    "eman_box/boxmanager_synthetic_2d.box": "line 1 has 1 values",
    "relion_star/EMPIAR-10025_ctf_params.star": "no coordinates",
    "relion_star/default_pipeline.star": "no coordinates",
    "relion_star/loop_single_quote.star": "no coordinates",
    "relion_star/one_loop.star": "three dimensions",
    "relion_star/sample_data_model.star": "no coordinates",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_files_of_other_programs(name: str, tmp_path: Path) -> None:
    file_format, n, first = EXPECTED[name]
    picks = read_coordinates(REAL_FORMATS / name)
    assert (picks.file_format, len(picks)) == (file_format, n)
    if first is not None:
        np.testing.assert_allclose(picks.centers_yx[0], first, atol=1e-3)
    copy = tmp_path / Path(name).name
    write_coordinates(copy, picks)
    again = read_coordinates(copy)
    np.testing.assert_allclose(again.centers_yx, picks.centers_yx, atol=1e-5)
    assert again.micrographs.tolist() == picks.micrographs.tolist()
    assert again.extra.keys() >= picks.extra.keys()
    assert again.optics.keys() == picks.optics.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_files_without_picks_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=REFUSED[name]):
        read_coordinates(REAL_FORMATS / name)


def test_the_box_and_the_star_of_one_run_agree() -> None:
    box = read_coordinates(REAL_FORMATS / "eman_box/cryolo_TcdA1-0018_frames.box")
    star = read_coordinates(REAL_FORMATS / "cryolo_star/TcdA1-0018_frames.star")
    assert np.array_equal(box, star)


def test_the_old_and_the_new_cbox_of_one_run_agree() -> None:
    stem = "FoilHole_8535783_Data_6461108_6461110_20220309_161226_fractions"
    new = read_coordinates(REAL_FORMATS / f"cryolo_cbox/{stem}.cbox")
    old = read_coordinates(REAL_FORMATS / f"cryolo_cbox/{stem}_OLD_FORMAT.cbox")
    np.testing.assert_allclose(new, old, atol=0.11)
    np.testing.assert_allclose(new.scores, old.scores)
