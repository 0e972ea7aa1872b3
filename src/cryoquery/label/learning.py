"""The process that learns while people label, kept alive beside the server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

RESTART_SECONDS = 5.0
"""Between two starts at least; twice as long after each failure."""
LONGEST_SECONDS = 300.0
END_SECONDS = 2.0
"""So long it may take to let its work go."""


class Learning:
    """Starts `cryoquery.project.learner` for a project, and again where it was killed."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._started, self._pause = -RESTART_SECONDS, RESTART_SECONDS
        self.process: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Start it unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        if time.monotonic() - self._started < self._pause:
            return
        failed = self.process is not None and self.process.returncode > 0  # below 0: it was killed
        self._pause = min(2 * self._pause, LONGEST_SECONDS) if failed else RESTART_SECONDS
        self._started = time.monotonic()
        self._close_pipe()
        # In a session of its own, since Ctrl-C is for the server; where that is killed, the pipe ends.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cryoquery.project.learner", str(self._project)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """End it; what it was at is done again later."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
