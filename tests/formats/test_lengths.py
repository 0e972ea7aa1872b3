from __future__ import annotations

import pytest

from cryoquery.errors import ConfigError
from cryoquery.formats.lengths import Length, parse_length


@pytest.mark.parametrize(
    ("text", "px"),
    [("0.5d", 30.0), ("54px", 54.0), ("90A", 45.0), ("90 Å", 45.0), ("1e2a", 50.0), (" 2 D ", 120.0)],
)
def test_a_length_in_pixels(text: str, px: float) -> None:
    assert parse_length(text).in_px(diameter_px=60, pixel_size=2.0) == pytest.approx(px)


@pytest.mark.parametrize(
    "text", ["", "54", "px", "half", "-1px", "0d", "nan d", "5 nm", "1.2.3px", "1e999px"]
)
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^radius "):
        parse_length(text, "radius")


def test_zero_only_where_it_may_be() -> None:
    assert parse_length("0d", zero=True) == Length(0, "d")


def test_what_the_unit_needs_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="--pixel-size"):
        parse_length("90A").in_px(60, None)
    with pytest.raises(ConfigError, match="--diameter-px"):
        parse_length("0.5d").in_px(None, 1.5)
