"""Go through docs/tutorial.md as its reader would, in Chromium, and make its pictures.

    python benchmarks/tutorial.py FOLDER [--micrographs 8] [--pictures docs/images]

A scripted person opens the page of the project and labels with mouse and keyboard from the truth: rejects
suggestions beside a particle, accepts the others, clicks on what was missed and submits, and waits for the
new model each time. The commands, what they print and how long they take are printed as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoquery.formats import read_coordinates
from cryoquery.picking.metrics import match_particles
from cryoquery.project.folder import finished_steps

CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1280, 800
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RADIUS_PX = 25.0
LOOK_S, JUDGE_S, ADD_S = 5.0, 0.6, 1.6
PATIENCE_S = 600.0
CRYOQUERY = (sys.executable, "-m", "cryoquery")


def say(*command: str) -> str:
    """Run a command, print it with what it says, and give that back."""
    print(f"$ {' '.join(command)}", flush=True)
    started = time.monotonic()
    program = CRYOQUERY if command[0] == "cryoquery" else (sys.executable,)
    done = subprocess.run([*program, *command[1:]], capture_output=True, text=True, check=True)
    print(done.stdout.strip(), f"[{time.monotonic() - started:.0f} s]\n", sep="\n", flush=True)
    return done.stdout


@contextmanager
def served(project: str) -> Iterator[str]:
    """The link of the labeling page."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [*CRYOQUERY, "label", project]
    with Path(f"{project}.log").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        links = Path(project) / ".links"
        try:
            while not links.exists() or "#token=" not in links.read_text():
                time.sleep(0.1)
            yield next(word for word in links.read_text().split() if "#token=" in word)
        finally:
            process.terminate()
            process.wait()


class Person:
    """Labels at the page."""

    def __init__(self, page: Any, link: str, truth: dict[str, NDArray[np.float64]]) -> None:
        self._page, self._truth = page, truth
        self.seconds = 0.0
        page.goto(link)
        page.fill("#name", "lena")
        page.keyboard.press("Enter")
        self.wait_for_task()

    def ask(self, expression: str, argument: Any = None) -> Any:
        """What ``expression`` is on the page, whose own state is ``c``."""
        return self._page.evaluate(f"(a) => {{ const c = window.cryoquery; return {expression}; }}", argument)

    def wait_until(self, expression: str) -> None:
        """Until it holds."""
        until = time.monotonic() + PATIENCE_S
        while not self.ask(expression):
            assert time.monotonic() < until, expression
            self._page.wait_for_timeout(50)

    def wait_for_task(self, but: int = -1) -> None:
        """Until another item than ``but`` is open and drawn."""
        self.wait_until(f"!!c && !!c.labeling.task && c.labeling.task.item !== {but}")
        self.wait_until(
            "c.stage.picture.bitmap !== null && !c.stage.due"
            " && c.stage.picture.level >= Math.max(...c.stage.picture.loading)"
        )

    def label(self, picture: Path | None) -> None:
        """Label what is open, and submit it; ``picture``: of the page before it is submitted."""
        item = self.ask("c.labeling.task.item")
        points = self._truth[self.ask("c.labeling.task.micrograph")]
        shown = np.array(self.ask("c.labeling.undecided.map(({ y, x }) => [y, x])")).reshape(-1, 2)
        matched = match_particles(shown, points, RADIUS_PX)
        for y, x in np.delete(shown, matched.pick_rows, axis=0).tolist():
            self._click(y, x, "right")
        if matched.n_matched:
            self._page.keyboard.press("a")
        missed = np.delete(points, matched.truth_rows, axis=0)
        for y, x in missed.tolist():
            self._click(y, x)
        self.seconds += LOOK_S + JUDGE_S * len(shown) + ADD_S * len(missed)
        print(f"{len(points)} particles: {len(shown)} suggested, {len(missed)} added")
        self._page.keyboard.press("Control+Enter")
        self._page.wait_for_selector("#submit-ok")
        if picture is not None:
            self._page.screenshot(path=picture)
        self._page.click("#submit-ok")
        self.wait_until(f"!c.labeling.task || c.labeling.task.item !== {item}")

    def _click(self, y: float, x: float, button: str = "left") -> None:
        place = self.ask(
            "(() => { const box = document.getElementById('overlay').getBoundingClientRect();"
            " const at = c.stage.view.toScreen(a[0], a[1]); return [box.left + at.x, box.top + at.y]; })()",
            [y, x],
        )
        self._page.mouse.click(*place, button=button)


def strip(pictures: list[Path], width: int = 640) -> Image.Image:
    """Pictures beside each other, two in a row."""
    images = [Image.open(path) for path in pictures]
    height = round(width * images[0].height / images[0].width)
    whole = Image.new("RGB", (2 * width + 8, -(-len(images) // 2) * (height + 8) - 8), "white")
    for i, image in enumerate(images):
        small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(small, (i % 2 * (width + 8), i // 2 * (height + 8)))
    return whole


def keep(picture: Image.Image, out: Path) -> None:
    """Write it with few colors: most of it is noise in shades of gray."""
    few = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(out, optimize=True)


def main() -> None:
    """Read the command line and go through the tutorial."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="a new one")
    parser.add_argument("--micrographs", type=int, default=8, help="how many are labeled")
    parser.add_argument("--pictures", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    pictures = given.pictures.resolve()
    say("python", str(EXAMPLES / "simulated_micrographs.py"), str(given.folder))
    os.chdir(given.folder)
    say("cryoquery", "init", "proteasome", "--micrographs", "micrographs/*.mrc", "--pixel-size", "3")
    say("cryoquery", "export", "proteasome", "first.star", "--picks")
    say("cryoquery", "evaluate", "first.star", "truth.star")
    known = read_coordinates("truth.star")
    truth = {
        Path(name).stem: known.rows(known.micrographs == name).centers_yx for name in set(known.micrographs)
    }
    shots = [Path.cwd() / f"tutorial_{name}.png" for name in ("first", "submit", "learned", "later")]
    taken = [0, 1]
    """After how many micrographs there is a picture."""
    with served("proteasome") as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        lena = Person(page, link, truth)
        page.screenshot(path=shots[0])
        for n in range(1, given.micrographs + 1):
            lena.label(shots[1] if n == 1 else None)
            if n >= 2:
                lena.wait_until(f"c.labeling.task && c.labeling.task.model === 'step_{n - 1}'")
                lena.wait_for_task()
                page.wait_for_timeout(300)
                if lena.ask("c.labeling.undecided.length") and len(taken) < 4:
                    page.screenshot(path=shots[len(taken)])
                    taken.append(n)
        until = time.monotonic() + PATIENCE_S
        while len(finished_steps(Path("proteasome/steps"))) < given.micrographs - 1:
            assert time.monotonic() < until, "no model of the last labels"
            time.sleep(0.5)
        browser.close()
    print(f"{lena.seconds / 60:.1f} minutes of a person\n")
    say("cryoquery", "status", "proteasome")
    say("cryoquery", "export", "proteasome", "picks.star", "--picks")
    say("cryoquery", "evaluate", "picks.star", "truth.star", "--out", "scores")
    taken_shots = [shot for shot in shots if shot.exists()]
    for shot in taken_shots[:3]:
        keep(Image.open(shot), pictures / shot.name)
    keep(strip(taken_shots), pictures / "tutorial_strip.png")


if __name__ == "__main__":
    main()
