"""The first screen of a report, as the documents show it.

    python benchmarks/pictures.py EXPERIMENT PICTURE.png

EXPERIMENT is the folder of an experiment that was compared, such as `demo/experiment` after `cryoquery demo`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1280, 800


def first_screen(experiment: Path, picture: Path) -> int:
    """Write the first screen of an experiment's report; returns the height of the whole page in px.

    Raises:
        FileNotFoundError: the experiment has no report.
    """
    from playwright.sync_api import sync_playwright

    report = (experiment / "comparison_results" / "report.html").resolve(strict=True)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.as_uri())
        page.screenshot(path=str(picture))
        height = int(page.evaluate("document.documentElement.scrollHeight"))
        browser.close()
    return height


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture, and print how long the page is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args(argv)
    print(f"the report is {first_screen(args.experiment, args.picture)} px high at {WIDTH} px")


if __name__ == "__main__":
    main()
