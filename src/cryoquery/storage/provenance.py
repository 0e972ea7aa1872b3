"""Where results come from: the commit of the program that runs, and digests of its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path


def digest(values: object) -> str:
    """SHA-256 of plain ``values``, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def source_commit() -> str | None:
    """The commit of this program's source, with ``-dirty`` where files differ from it.

    None where the source is no checkout, as in an installed package, or where there is no git.
    """
    source = Path(__file__)
    # The file must be tracked: an environment may lie in a checkout of something else.
    if _git(source, "ls-files", "--error-unmatch", source.name) is None:
        return None
    return _git(source, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(source: Path, *arguments: str) -> str | None:
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=source.parent,
            env=own | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
