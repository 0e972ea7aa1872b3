"""Large numbers of the same random case: `make test` takes some of them, `make test-all` takes all.

A test that does so is marked ``thorough``, and asks `take` how many.
"""

from __future__ import annotations

from typing import TypeVar

import pytest

Some = TypeVar("Some")

thorough = pytest.mark.thorough
full = False
"""Whether pytest was given ``--all``."""


def take(some: Some, everything: Some) -> Some:
    """How many cases to try, or which."""
    return everything if full else some
