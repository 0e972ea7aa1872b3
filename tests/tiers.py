"""What `make test` leaves to `make test-all`, which CI runs as well.

Of large numbers of the same random case the first tier takes some: such a test is marked ``thorough``, and
asks `take` how many. What is marked ``second_tier`` is in the second tier alone.
"""

from __future__ import annotations

from typing import TypeVar

import pytest

Some = TypeVar("Some")

thorough = pytest.mark.thorough
second_tier = pytest.mark.second_tier
full = False
"""Whether pytest was given ``--all``."""


def take(some: Some, everything: Some) -> Some:
    """How many cases to try, or which."""
    return everything if full else some
