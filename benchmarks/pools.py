"""The standing pools that strategies are compared on, as datasets of 64 px fields.

    python benchmarks/pools.py data/pools --shared ../shared/data

Real micrographs (the particle at 12 px), the same held-out fields for all, equally many of each clean set:

- ``real``: β-galactosidase, ribosome and apoferritin as published;
- ``real_noisy``: beside them apoferritin without frame averaging, and the set with doubtful labels;
- ``real_imbalanced``: ten fields of β-galactosidase to one of all others.

Simulated micrographs of five proteins (the particle at 12 px, four fields each), held-out ones balanced:

- ``sim_balanced``, ``sim_imbalanced`` (ten fields of one protein to one of each other),
- ``sim_junk``: in half of the micrographs something is wrong,
- ``sim_redundant``: two thirds of the micrographs are near-duplicates, eight to a place,
- ``protocol``: whole micrographs, all proteins, as many of each.

Noisy and doubtful fields are in the pool only: nobody would measure a picker on frames that nobody can pick,
nor against labels that do not match the particles. What a strategy spends on them shows in the curve.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoquery.data.array_file import read_rows
from cryoquery.data.build import BuildConfig, build_dataset
from cryoquery.data.contact_sheet import contact_sheet
from cryoquery.data.dataset import Dataset, ImageRecord, new_dataset, open_dataset
from cryoquery.data.layouts import read_sources
from cryoquery.data.source import SourceMicrograph
from cryoquery.simulate import PROTEINS, Junk, Protein, SimulationConfig, simulate_micrographs

FIELD, PARTICLE_PX = 64, 12.0
SEED = 8

HELD_OUT = {"10017": (2, 4), "10028": (1, 2), "10146": (2, 3)}
"""Micrographs of each clean set in val and in test."""
ALWAYS_TRAIN = ("10146_noisy", "10947")
NEAR_DUPLICATES = r"^(May08_\d\d\.\d\d\.\d\d)"
FIELDS_HELD_OUT = {"val": 16, "test": 32}
"""Fields of each group in val and in test."""
DOMINANT, DOMINANCE = "10017", 10

PROTEINS_USED = ("apoferritin", "ribosome", "proteasome", "rod", "dimer")
ALL_PROTEINS = (*PROTEINS_USED, "chaperonin")
RAW_PARTICLE_PX = 16.0
RAW_SIZE = 176
"""Side of a simulated micrograph in px: 132 px at the fields' scale, which is two fields by two."""
WHOLE_SIZE = 96
"""The same for those that are not cut: one of them makes one image, its particles 10.7 px wide."""
N_VAL, N_TEST = 4, 8
"""Simulated micrographs of each protein that are held out."""
USUAL = Junk(crystals=0.1, aggregates=0.1, fragments=1.0, carbon=0.05, hot_pixels=0.5)
DOSE = {"apoferritin": 6.0, "ribosome": 3.0, "proteasome": 4.0, "rod": 8.0, "dimer": 8.0, "chaperonin": 2.0}
"""Counted electrons per Å². Pixels are large here, so that the usual doses would leave nothing to learn."""

WRONG = {
    "contaminated": (USUAL.model_copy(update={"crystals": 8.0, "fragments": 8.0}), 1.0),
    "carbon": (USUAL.model_copy(update={"carbon": 1.0, "crystals": 1.0}), 1.0),
    "aggregated": (USUAL.model_copy(update={"aggregates": 4.0}), 1.0),
    "fatal": (USUAL, 0.04),
}
"""What is wrong with a micrograph of ``sim_junk``: its junk, and its dose relative to the usual one."""

Rows = Mapping[str, Sequence[int]]


def real_micrographs(shared: Path) -> list[SourceMicrograph]:
    """All published micrographs with their splits; near-duplicates of the noisy ones train, too."""
    folders = [shared / f"empiar_{name}" for name in (*HELD_OUT, *ALWAYS_TRAIN)]
    micrographs = sorted(read_sources(folders).micrographs, key=lambda m: (m.group, m.name))
    noisy = {m.name.removesuffix(".bin") for m in micrographs if m.group in ALWAYS_TRAIN}
    split = dict.fromkeys((m.key for m in micrographs), "train")
    rng = np.random.default_rng(SEED)
    for group, (n_val, n_test) in HELD_OUT.items():
        free = [
            m.key for m in micrographs if m.group == group and m.name.removesuffix(".bin_avg") not in noisy
        ]
        drawn = [free[i] for i in rng.permutation(len(free))]
        split |= dict.fromkeys(drawn[:n_test], "test")
        split |= dict.fromkeys(drawn[n_test : n_test + n_val], "val")
    return [replace(m, split=split[m.key]) for m in micrographs]


def real_pools(shared: Path, out: Path, names: Sequence[str], n_workers: int) -> dict[str, Dataset]:
    """The pools of real fields: all fields are cut once, and each pool is some of them."""
    config = BuildConfig(
        field=FIELD, particle_px=PARTICLE_PX, near_duplicates=NEAR_DUPLICATES, n_workers=n_workers
    )
    with tempfile.TemporaryDirectory() as folder:
        micrographs = real_micrographs(shared)
        everything = build_dataset(
            micrographs, Path(folder) / "all", config, origin={"kind": "published sets"}
        )
        train, held_out = fields_by_group(everything, "train"), []
        for split, n in FIELDS_HELD_OUT.items():
            for rows in fields_by_group(everything, split).values():
                held_out += spread(everything, rows, n)
        clean = {group: train[group] for group in HELD_OUT}
        n_others = len(train[DOMINANT]) // DOMINANCE // (len(clean) - 1)
        few = {g: rows if g == DOMINANT else spread(everything, rows, n_others) for g, rows in clean.items()}
        chosen: dict[str, Rows] = {"real": clean, "real_noisy": train, "real_imbalanced": few}
        return {
            name: keep(
                everything, [*(row for rows in chosen[name].values() for row in rows), *held_out], out / name
            )
            for name in names
        }


def fields_by_group(dataset: Dataset, split: str) -> dict[str, list[int]]:
    """Rows of a split by group."""
    found: dict[str, list[int]] = {}
    for row in dataset.rows(split).tolist():
        found.setdefault(dataset.records[row].group, []).append(row)
    return found


def spread(dataset: Dataset, rows: Sequence[int], n: int) -> list[int]:
    """At most ``n`` of the fields ``rows`` drawn at random, the micrographs in turn, whole fields first."""
    rng = np.random.default_rng([SEED, n])
    seen: dict[str, int] = {}
    ranked = []
    for row in sorted(rng.permutation(rows).tolist(), key=lambda row: -int(dataset.n_valid([row])[0])):
        record = dataset.records[row]
        turn = seen[record.id.split(":")[0]] = seen.get(record.id.split(":")[0], -1) + 1
        ranked.append((turn, row))
    return sorted(row for _, row in sorted(ranked)[:n])


def keep(dataset: Dataset, rows: Sequence[int], out: Path) -> Dataset:
    """A dataset at ``out`` of some of the images of another."""
    rows = sorted(rows)
    _, height, width = dataset.images.shape
    records: list[ImageRecord] = [dataset.records[row] for row in rows]
    with new_dataset(out, len(rows), height, width) as writer:
        for i, row in enumerate(rows):
            writer.put(i, read_rows(dataset.images, [row])[0], read_rows(dataset.masks, [row])[0])
        keys = {record.key for record in records}
        particles = {key: value for key, value in dataset.particles.items() if key in keys}
        writer.finish(records, particles, dataset.recipe, dataset.notes)
    return open_dataset(out)


def simulated(
    name: str,
    start: int,
    n: int,
    split: str,
    junk: Junk = USUAL,
    dose: float = 1.0,
    exposures: int = 1,
    size: int = RAW_SIZE,
) -> list[SourceMicrograph]:
    """``n`` scenes of one protein from number ``start`` on, each ``exposures`` times.

    The scenes of a protein are numbered through, so that no two calls show the same one; the dose is
    relative to the protein's own.
    """
    usual = PROTEINS[name]
    protein = Protein(**(usual.model_dump() | {"dose": dose * DOSE[name]}))
    config = SimulationConfig(
        n_micrographs=(start + n) * exposures,
        exposures=exposures,
        height_px=size,
        width_px=size,
        pixel_size=protein.length_angstrom / RAW_PARTICLE_PX,
        seed=SEED + list(PROTEINS).index(name),  # or micrographs of one number would be alike in all proteins
        proteins=(protein,),
        junk=junk,
    )
    found = simulate_micrographs(config)[start * exposures :]
    return [
        replace(m, name=f"{m.name}_of_{exposures}" if exposures > 1 else m.name, split=split) for m in found
    ]


def held_out(names: Sequence[str]) -> list[SourceMicrograph]:
    """The simulated micrographs that are measured on: the first of each protein."""
    return [
        m
        for name in names
        for split, start, n in (("test", 0, N_TEST), ("val", N_TEST, N_VAL))
        for m in simulated(name, start, n, split)
    ]


def training(counts: Mapping[str, int]) -> list[SourceMicrograph]:
    """So many usual micrographs of each protein for the pool, after those that are held out."""
    return [m for name, n in counts.items() for m in simulated(name, N_TEST + N_VAL, n, "train")]


def balanced() -> list[SourceMicrograph]:
    """As many of each protein."""
    return held_out(PROTEINS_USED) + training(dict.fromkeys(PROTEINS_USED, 24))


def imbalanced() -> list[SourceMicrograph]:
    """Ten of one protein to one of each other."""
    return held_out(PROTEINS_USED) + training(
        {name: 80 if name == "apoferritin" else 8 for name in PROTEINS_USED}
    )


def junk() -> list[SourceMicrograph]:
    """Half of the micrographs usual, an eighth each of the four kinds of `WRONG`."""
    found = held_out(PROTEINS_USED) + training(dict.fromkeys(PROTEINS_USED, 12))
    for name in PROTEINS_USED:
        start = N_TEST + N_VAL + 12
        for kind, (junk, dose) in WRONG.items():
            wrong = simulated(name, start, 3, "train", junk, dose)
            found += [replace(m, name=f"{m.name}_{kind}") for m in wrong]
            start += 3
    return found


def redundant() -> list[SourceMicrograph]:
    """Of each protein eight usual micrographs, and eight each of two more places."""
    found = held_out(PROTEINS_USED) + training(dict.fromkeys(PROTEINS_USED, 8))
    for name in PROTEINS_USED:
        found += simulated(name, N_TEST + N_VAL + 8, 2, "train", exposures=8)
    return found


def protocol() -> list[SourceMicrograph]:
    """As many of each of all proteins, small ones: each is one image."""
    return [
        m
        for name in ALL_PROTEINS
        for split, start, n in (("test", 0, 32), ("val", 32, 16), ("train", 48, 20))
        for m in simulated(name, start, n, split, size=WHOLE_SIZE)
    ]


SIMULATED: dict[str, Callable[[], list[SourceMicrograph]]] = {
    "sim_balanced": balanced,
    "sim_imbalanced": imbalanced,
    "sim_junk": junk,
    "sim_redundant": redundant,
    "protocol": protocol,
}
REAL = ("real", "real_noisy", "real_imbalanced")


def simulated_pool(name: str, out: Path, n_workers: int) -> Dataset:
    """One of the simulated pools: fields of the micrographs, of ``protocol`` whole ones."""
    field = {} if name == "protocol" else {"field": FIELD}
    config = BuildConfig(size=FIELD, particle_px=PARTICLE_PX, n_workers=n_workers, **field)
    return build_dataset(SIMULATED[name](), out / name, config, origin={"benchmark": name})


def table(name: str, dataset: Dataset) -> str:
    """Counts of a pool by group and split."""
    lines = [f"{name}: {len(dataset.rows('train'))} images to choose from"]
    groups = sorted({record.group for record in dataset.records})
    lines.append(f"  {'group':14}" + "".join(f"{split:>32}" for split in ("train", "val", "test")))
    for group in groups:
        cells = []
        for split in ("train", "val", "test"):
            rows = fields_by_group(dataset, split).get(group, [])
            n = len({dataset.records[row].micrograph for row in rows})
            share = dataset.n_foreground(rows).sum() / max(dataset.n_valid(rows).sum(), 1)
            cells.append(
                f"{n} mic. {len(rows)} img. {dataset.n_particles(rows)} part. {share:.0%}" if rows else "–"
            )
        lines.append(f"  {group:14}" + "".join(f"{cell:>32}" for cell in cells))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the pools and print what is in them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of the datasets")
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared/data"), help="the published micrographs"
    )
    parser.add_argument("--only", nargs="+", choices=[*REAL, *SIMULATED], help="these pools (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="threads (default: 1)")
    args = parser.parse_args(argv)
    names = args.only or [*REAL, *SIMULATED]
    args.out.mkdir(parents=True, exist_ok=True)
    real = [name for name in names if name in REAL]
    made = real_pools(args.shared, args.out, real, args.workers) if real else {}
    for name in names:
        dataset = made.get(name) or simulated_pool(name, args.out, args.workers)
        contact_sheet(dataset, args.out / f"{name}.png")
        print(table(name, dataset), flush=True)


if __name__ == "__main__":
    main()
