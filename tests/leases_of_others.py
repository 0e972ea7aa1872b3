"""Leases as other processes, living or dead, leave them on the disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cryoquery.storage.leases import Owner


def write_lease(path: Path, owner: Owner, token: str = "theirs", beat: int = 0) -> None:
    path.write_text(f"{beat:12d}\n{json.dumps({'token': token, **asdict(owner)})}\n")
