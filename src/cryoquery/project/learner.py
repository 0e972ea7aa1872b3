"""The learner: does a step of a project whenever people have labeled something new.

`cryoquery label` starts it as a process beside its server, with low priority. It may be killed at any moment,
as a step may, and ends with the process that started it: when its standard input does.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from cryoquery.errors import CryoqueryError, Stopped
from cryoquery.project.folder import open_project
from cryoquery.project.label_set import current_labels
from cryoquery.project.step.dispatch import nothing_new
from cryoquery.project.step.run import do_step, is_enough
from cryoquery.project.step.status import StepUnderWayError

PAUSE_SECONDS = 0.5
"""Between two looks at the log; for so long labels must have stayed as they are."""
SHORTLIST = 64
"""Items among which the model chooses what to label next: as quick for any pool."""
NICENESS = 10


def learn(path: Path, say: Callable[[str], None], stop: threading.Event) -> None:
    """Do a step of the project in ``path`` after new labels, until ``stop`` is set.

    Labels that cannot be trained on are told once to ``say``, and are tried again when there are others.

    Raises:
        ProjectError, ConfigError, DataError: there is no project, or its log is damaged.
    """
    project = open_project(path)
    seen, seqs, tried = (0, 0), dict[str, int](), dict[str, int]()
    while not stop.wait(PAUSE_SECONDS):
        about = project.events_path.stat()
        if (now := (about.st_mtime_ns, about.st_size)) != seen:
            seen = now
            seqs, before = current_labels(project).seqs, seqs
            if seqs != before:
                continue  # perhaps there are more in a moment
        if seqs != tried and _step(path, seqs, say):
            tried = seqs


def _step(path: Path, seqs: Mapping[str, int], say: Callable[[str], None]) -> bool:
    """Do a step where there is something new; whether there is nothing left to do with these labels."""
    project = open_project(path)  # its settings may have changed
    label_set = current_labels(project)
    try:
        if is_enough(project, label_set) and not nothing_new(project, label_set):
            do_step(project, label_set, shortlist=SHORTLIST)
    except StepUnderWayError:
        return False
    except CryoqueryError as error:
        say(f"{path}: cannot learn from what is labeled so far: {error}")
    return label_set.seqs == seqs


def main(path: str) -> None:
    """Learn in this process until its standard input ends."""
    os.nice(NICENESS)
    # One core is left to the page: threads that wait for one that has no core come to a standstill together.
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os._exit(0)  # also in the middle of a step

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        learn(Path(path), lambda line: print(line, file=sys.stderr, flush=True), threading.Event())
    except Stopped:
        sys.exit(0)
    except CryoqueryError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1])
