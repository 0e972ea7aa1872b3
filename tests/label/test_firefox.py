"""The main flow in Firefox: what is clicked, typed and undone is what is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from firefox import FIREFOX, firefox
from test_page import Person, label_two_micrographs, labeled_project
from tiers import second_tier

pytestmark = [
    second_tier,
    pytest.mark.browser,
    pytest.mark.skipif(not FIREFOX.exists(), reason=f"there is no {FIREFOX}: run .ci/install"),
]


class OnWholePixels(Person):
    """Firefox moves its mouse to whole pixels of the window, each 1.2 px of the micrograph."""

    tolerance_px = 1.5


def test_a_person_labels_two_micrographs_in_firefox(tmp_path: Path) -> None:
    with labeled_project(tmp_path) as server, firefox() as browser:
        label_two_micrographs(OnWholePixels(browser, server.link, "anna"), server, tmp_path)
