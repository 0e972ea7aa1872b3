from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cryoquery.data.source import SourceMicrograph
from cryoquery.data.splits import assign_splits, tie_near_duplicates
from cryoquery.errors import ConfigError, DataError


def micrograph(name: str, group: str = "a", n_particles: int = 0, **more: object) -> SourceMicrograph:
    seed = [ord(c) for c in group + name]
    particles = np.random.default_rng(seed).uniform(0, 100, (n_particles, 3))
    return SourceMicrograph(
        name, group, (100, 100), lambda: np.zeros((100, 100), np.float32), particles, **more
    )  # type: ignore[arg-type]


def several(**sizes: int) -> list[SourceMicrograph]:
    return [micrograph(f"m{i:03d}", group) for group, n in sizes.items() for i in range(n)]


def by_key(micrographs: list[SourceMicrograph], splits: list[str]) -> dict[tuple[str, str], str]:
    return {m.key: split for m, split in zip(micrographs, splits, strict=True)}


def test_fractions_hold_in_every_group() -> None:
    micrographs = several(a=40, b=8, c=100)
    splits = assign_splits(micrographs, 0.25, 0.25, seed=3)
    counts = Counter(zip([m.group for m in micrographs], splits, strict=True))
    for group, n in (("a", 40), ("b", 8), ("c", 100)):
        assert counts[group, "val"] == counts[group, "test"] == n / 4


def test_neither_order_nor_other_groups_matter() -> None:
    micrographs = several(a=12, b=9)
    splits = by_key(micrographs, assign_splits(micrographs, 0.2, 0.2, seed=1))
    order = np.random.default_rng(0).permutation(len(micrographs))
    shuffled = [micrographs[i] for i in order]
    assert by_key(shuffled, assign_splits(shuffled, 0.2, 0.2, seed=1)) == splits
    alone = [m for m in micrographs if m.group == "a"]
    assert by_key(alone, assign_splits(alone, 0.2, 0.2, seed=1)).items() <= splits.items()
    assert by_key(micrographs, assign_splits(micrographs, 0.2, 0.2, seed=2)) != splits


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_small_groups_keep_one_for_training(n: int) -> None:
    splits = Counter(assign_splits(several(a=n), 0.4, 0.5))
    assert splits["train"] >= 1
    assert splits["test"] == {1: 0, 2: 1, 3: 2, 4: 2}[n]


def test_fixed_splits_are_kept() -> None:
    micrographs = [micrograph(f"m{i}", split="val" if i % 2 else "train") for i in range(10)]
    assert assign_splits(micrographs, 0, 0) == ["train", "val"] * 5
    micrographs += several(b=8)
    splits = assign_splits(micrographs, 0, 0.25)
    assert splits[:10] == ["train", "val"] * 5
    assert Counter(splits[10:]) == {"train": 6, "test": 2}


def test_near_duplicates_share_a_split_and_small_groups_still_train() -> None:
    """As in EMPIAR-10146: four of eleven micrographs have a noisy near-duplicate in a group of their own."""
    micrographs = [micrograph(f"m{i}_avg", "clean") for i in range(11)]
    micrographs += [micrograph(f"m{i}", "noisy") for i in range(4)]
    for seed in range(20):
        tied, notes = tie_near_duplicates(micrographs, r"(m\d+)")
        assert not notes
        splits = by_key(tied, assign_splits(tied, 0, 0.25, seed=seed))
        for i in range(4):
            assert splits["clean", f"m{i}_avg"] == splits["noisy", f"m{i}"]
        assert Counter(split for (group, _), split in splits.items() if group == "noisy") == {
            "train": 3,
            "test": 1,
        }


def test_equal_particles_mean_near_duplicates() -> None:
    first = micrograph("a", "g", 6)
    binned = replace(micrograph("b", "h"), shape=(50, 50), particles=first.particles[::-1] / 2 - 0.25)
    few = [
        micrograph("c", "g", 4),
        replace(micrograph("c", "h"), particles=micrograph("c", "g", 4).particles),
    ]
    tied, notes = tie_near_duplicates([first, binned, *few, micrograph("d", "g", 6)])
    assert len(notes) == 1
    assert "g/a" in notes[0]
    assert "h/b" in notes[0]
    views = [m.field_of_view for m in tied]
    assert views[0] == views[1]
    assert len(set(views)) == 4


def test_near_duplicates_in_two_splits_of_the_source_are_refused() -> None:
    micrographs = [
        micrograph("x", split="train", field_of_view="p"),
        micrograph("y", split="test", field_of_view="p"),
    ]
    with pytest.raises(DataError, match="a/x is in train, a/y in test"):
        assign_splits(micrographs, 0, 0)
    with pytest.raises(DataError, match="a/x is in train"):
        assign_splits([replace(m, field_of_view=None) for m in micrographs], 0, 0, by="group")


def test_whole_groups() -> None:
    micrographs = several(**{f"g{i}": 3 + i for i in range(6)})
    splits = assign_splits(micrographs, 0, 0.33, by="group", seed=4)
    per_group = {
        m.group: {s for n, s in zip(micrographs, splits, strict=True) if n.group == m.group}
        for m in micrographs
    }
    assert all(len(found) == 1 for found in per_group.values())
    assert sum(found == {"test"} for found in per_group.values()) == 2
    with pytest.raises(DataError, match="only one group"):
        assign_splits(several(a=5), 0, 0.2, by="group")


def test_fractions_must_leave_something() -> None:
    with pytest.raises(ConfigError, match="together below 1"):
        assign_splits(several(a=4), 0.5, 0.5)
