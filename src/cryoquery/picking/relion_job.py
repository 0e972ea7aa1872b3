"""A job of RELION's type External that picks: called by RELION, and its folder left as RELION wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cryoquery.errors import CryoqueryError, DataError
from cryoquery.formats.micrograph_star import MicrographStar
from cryoquery.formats.relion import PICKS_OF_MICROGRAPHS, nodes_text
from cryoquery.formats.writing import as_client_takes, job_files
from cryoquery.picking.batch import BatchResult, find_picks
from cryoquery.picking.picker import Picker, PickOptions
from cryoquery.storage.atomic import write_bytes, write_text

SUCCESS, FAILURE, ABORTED = (f"RELION_JOB_EXIT_{how}" for how in ("SUCCESS", "FAILURE", "ABORTED"))
"""Empty files that tell RELION how a job has ended."""
ABORT_NOW = "RELION_JOB_ABORT_NOW"
"""What RELION leaves in the folder of a job that is to end."""
OUTPUT_NODES = "RELION_OUTPUT_NODES.star"
LISTS = ("autopick.star", "coords_suffix_autopick.star")
"""Of a job's picks: for RELION 4 and 5, and for RELION 3.1."""


class AbortedError(CryoqueryError):
    """A person has ended the job in RELION."""


@contextmanager
def told_to_relion(folder: Path) -> Iterator[None]:
    """Leave the file in a job's folder that says how the job has ended, whatever ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SUCCESS, FAILURE, ABORTED):
        (folder / name).unlink(missing_ok=True)
    outcome = FAILURE
    try:
        yield
        outcome = SUCCESS
    except AbortedError:
        outcome = ABORTED
        (folder / ABORT_NOW).unlink(missing_ok=True)
        raise
    finally:
        (folder / outcome).touch()


def pick_as_job(
    picker: Picker,
    folder: Path,
    star: MicrographStar,
    options: PickOptions,
    *,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BatchResult:
    """Pick the micrographs of a STAR file and write the picks into the folder of a job.

    Args:
        picker: the network.
        folder: of the job, by its path from the folder of RELION's project, which this must run in.
        star: the micrographs.
        options: what is asked for.
        n_workers: see `pick_micrographs`.
        progress: called with (micrographs done, all of them).

    Returns:
        the picks, with rows counted as RELION does.

    Raises:
        DataError: no micrograph could be picked, or the STAR file names none.
        AbortedError: a person has ended the job in RELION.
    """
    if not star.names:
        raise DataError(f"{star.path}: names no micrographs; give a file like micrographs_ctf.star")

    def tell(done: int, total: int) -> None:
        if (folder / ABORT_NOW).exists():
            raise AbortedError(f"{folder}: aborted")
        progress(done, total)

    paths = [Path(name) for name in star.names]
    found = find_picks(picker, paths, options, n_workers=n_workers, progress=tell)
    if not found.n_done:
        raise DataError(f"{star.path}: no micrograph could be picked; {next(iter(found.failures.values()))}")
    picks = as_client_takes(folder, found.picks, found.picks.shapes, "relion")
    for name, content in job_files(folder, picks, picks.shapes, star=star).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, content)
    nodes = {(folder / name).as_posix(): PICKS_OF_MICROGRAPHS for name in LISTS}
    write_text(folder / OUTPUT_NODES, nodes_text(nodes))
    return replace(found, picks=picks)
