"""Pick the micrographs of a cryoSPARC job, and give the picks back as an external job.

    pip install cryosparc-tools
    export CRYOSPARC_BASE_URL=http://localhost:39000
    python -m cryosparc.tools login
    python examples/cryosparc_external_job.py P3 W1 J12 model.pt --diameter-angstrom 180

Runs where the files of the project can be read. Connect `picks` of the new job and the same micrographs to
*Extract from Micrographs*.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from cryosparc.dataset import Dataset
from cryosparc.tools import CryoSPARC

import cryoquery
from cryoquery.formats import Picks


def pick_job(
    cs: CryoSPARC,
    project_uid: str,
    workspace_uid: str,
    source_uid: str,
    model: Path,
    *,
    output: str = "micrographs",
    diameter_angstrom: float | None = None,
    threshold: float | None = None,
) -> str:
    """Make an external job with the picks of a job's micrographs; its uid.

    Args:
        cs: the connection.
        project_uid: such as P3.
        workspace_uid: such as W1, for the new job.
        source_uid: the job that the micrographs come from, such as J12 (Patch CTF, Curate Exposures).
        model: model.pt.
        output: of that job: ``micrographs``, ``exposures`` or ``exposures_accepted``.
        diameter_angstrom: of the particle in Å; needed by most models.
        threshold: lowest score, 0 to 1.
    """
    project = cs.find_project(project_uid)
    job = project.create_external_job(workspace_uid, title="cryoquery picks", desc=f"Model: `{model}`")
    job.connect("micrographs", source_uid, output, slots=["micrograph_blob", "mscope_params"])
    job.add_output("particle", "picks", slots=["location", "pick_stats"], title="Picks")
    with job.run():
        micrographs = job.load_input("micrographs", ["micrograph_blob", "mscope_params"])
        picker = cryoquery.load_picker(model)
        found = []
        for row in micrographs.rows():
            # What cryoSPARC wrote lies in the project's folder; a path that it imported may begin with ">".
            path = Path(str(project.dir())) / str(row["micrograph_blob/path"]).lstrip(">")
            picks = cryoquery.pick_particles(
                picker,
                path,
                diameter_angstrom=diameter_angstrom,
                pixel_size=float(row["micrograph_blob/psize_A"]),
                threshold=threshold,
            )
            found.append(picks)
            job.log(f"{path.name}: {len(picks)} picks")
        counts = [len(picks) for picks in found]
        out = job.alloc_output("picks", sum(counts))
        fill(out, micrographs, counts, found)
        job.save_output("picks", out)
    return str(job.uid)


def fill(out: Dataset, micrographs: Dataset, counts: list[int], found: list[Picks]) -> None:
    """Write picks into the rows of the output: which micrograph they are of, and where in it."""
    of = np.repeat(np.arange(len(counts)), counts)
    shapes = np.asarray(micrographs["micrograph_blob/shape"])[of]  # (n, 2) height and width
    centers_yx = np.concatenate([np.empty((0, 2)), *(picks.centers_yx for picks in found)])
    scores = np.concatenate([np.empty(0), *(picks.scores for picks in found if picks.scores is not None)])
    values = {
        "location/micrograph_uid": np.asarray(micrographs["uid"])[of],
        "location/exp_group_id": np.asarray(micrographs["mscope_params/exp_group_id"])[of],
        "location/micrograph_path": np.asarray(micrographs["micrograph_blob/path"])[of],
        "location/micrograph_shape": shapes,
        "location/micrograph_psize_A": np.asarray(micrographs["micrograph_blob/psize_A"])[of],
        # Fractions of width and height; y counts from the first row stored.
        "location/center_x_frac": centers_yx[:, 1] / shapes[:, 1],
        "location/center_y_frac": centers_yx[:, 0] / shapes[:, 0],
        "pick_stats/ncc_score": scores,
    }
    for name, column in values.items():
        if name in out.fields():  # older versions of cryoSPARC have no location/micrograph_psize_A
            out[name] = column


def main() -> None:
    """Read the command line and pick."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("project", help="such as P3")
    parser.add_argument("workspace", help="such as W1")
    parser.add_argument("job", help="that the micrographs come from, such as J12")
    parser.add_argument("model", type=Path, help="model.pt")
    parser.add_argument("--output", default="micrographs", help="of that job, such as exposures")
    parser.add_argument("--diameter-angstrom", type=float, help="of the particle, Å")
    parser.add_argument("--threshold", type=float, help="lowest score, 0 to 1")
    args = parser.parse_args()
    uid = pick_job(
        CryoSPARC(),
        args.project,
        args.workspace,
        args.job,
        args.model,
        output=args.output,
        diameter_angstrom=args.diameter_angstrom,
        threshold=args.threshold,
    )
    print(f"{args.project} {uid}: picks")


if __name__ == "__main__":
    main()
