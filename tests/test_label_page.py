"""A person in a real browser: what is clicked is what is recorded, to half a pixel of the micrograph."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import disc_mask
from label_project import Served, make_project, served, truth_yx, write_step
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cryoquery.errors import ProjectError
from cryoquery.formats import read_coordinates, write_micrograph
from cryoquery.label.pages import load_pages
from cryoquery.project.document import Document, Extent
from cryoquery.project.events import Event, EventLog

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium: run .ci/install"),
]
SHAPE = (768, 1024)
TOLERANCE_PX = 0.5

playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


class Person:
    """Somebody at a browser."""

    def __init__(self, context: Any, link: str, name: str) -> None:
        self.context = context
        self.page = context.new_page()
        self.mistakes: list[str] = []
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.set_default_timeout(10_000)
        self.page.goto(link)
        self.page.fill("#name", name)
        self.page.keyboard.press("Enter")
        self.wait_for_task()

    def ask(self, expression: str, argument: Any = None) -> Any:
        """What ``expression`` is on the page; ``c`` is the page's own state."""
        return self.page.evaluate(f"(a) => {{ const c = window.cryoquery; return {expression}; }}", argument)

    def wait_until(self, expression: str) -> None:
        self.page.wait_for_function(f"() => {{ const c = window.cryoquery; return {expression}; }}")

    def wait_for_task(self, but: str | None = None) -> str:
        """Until another task than ``but`` is open and its picture shown."""
        self.wait_until(f"c && c.labeling.name !== {json.dumps(but)} && c.labeling.name !== null")
        self.wait_until("c.stage.picture.bitmap !== null")
        return str(self.ask("c.labeling.name"))

    def wait_until_saved(self) -> None:
        self.page.wait_for_selector('#save[data-state="saved"]')

    def screen(self, y: float, x: float) -> tuple[float, float]:
        """Where (y, x) px of the micrograph are in the window."""
        place = self.ask(
            "(() => { const box = document.getElementById('overlay').getBoundingClientRect();"
            " const at = c.stage.view.toScreen(a[0], a[1]); return [box.left + at.x, box.top + at.y]; })()",
            [float(y), float(x)],
        )
        return place[0], place[1]

    def click(self, y: float, x: float, **options: Any) -> None:
        self.page.mouse.click(*self.screen(y, x), **options)

    def drag(self, path: list[tuple[float, float]], button: str = "left", steps: int = 4) -> None:
        places = [self.screen(y, x) for y, x in path]
        self.page.mouse.move(*places[0])
        self.page.mouse.down(button=button)
        for place in places[1:]:
            self.page.mouse.move(*place, steps=steps)
        self.page.mouse.up(button=button)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def zoom_to(self, y: float, x: float, scale: float) -> None:
        """Show (y, x) in the middle, ``scale`` CSS px per px, by wheel and drag."""
        self.page.mouse.move(*self.screen(y, x))
        while abs(ratio := np.log(scale / self.ask("c.stage.view.scale"))) > 1e-3:
            self.page.mouse.wheel(0, -float(np.clip(500 * ratio, -240, 240)))
            self.page.wait_for_timeout(30)
        middle = self.ask("c.stage.view.toImage(c.stage.view.width / 2, c.stage.view.height / 2)")
        self.drag([(y, x), (middle["y"], middle["x"])], button="right")
        self.page.wait_for_timeout(50)

    def particles(self) -> NDArray[np.float64]:
        """(n, 2) centers as the page has them, by y."""
        return _sorted([(p["y"], p["x"]) for p in self.ask("c.labeling.particles")])


def _sorted(points: Any) -> NDArray[np.float64]:
    array = np.array(points, dtype=float).reshape(-1, 2)
    return array[np.lexsort(array.T[::-1])]


@pytest.fixture()
def person(chromium: Any) -> Iterator[Callable[..., Person]]:
    """Opens a browser of their own for people, and sees that no script of the page failed."""
    people: list[Person] = []

    def come(link: str, name: str = "anna", ratio: float = 1.0, width: int = 1280, height: int = 720) -> Person:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=ratio, accept_downloads=True
        )
        people.append(Person(context, link, name))
        return people[-1]

    yield come
    for one in people:
        assert one.mistakes == []
        one.context.close()


@contextmanager
def labeled_project(folder: Path, **settings: Any) -> Iterator[Served]:
    """A project of two micrographs whose model suggests, served."""
    project = make_project(folder / "p", 2, shape=SHAPE, suggestion_share=1.0, repeat_share=0.0, **settings)
    write_step(project, 1, [0, 1], sentence="5 more are expected to raise F1 by 0.4 ± 0.5 points")
    with served(project) as server:
        yield server


def events(server: Served) -> list[Event]:
    log = EventLog.open(server.project / "events.sqlite", write=False)
    try:
        return log.read()
    finally:
        log.close()


def exported(person: Person, path: Path) -> dict[str, NDArray[np.float64]]:
    """Micrograph → (n, 2) centers of the STAR file that the server sends."""
    path.write_text(person.page.evaluate("fetch('/api/export?what=labels&format=star').then((r) => r.text())"))
    picks = read_coordinates(path)
    names = np.array([Path(str(name)).stem for name in picks.micrographs])
    return {str(name): _sorted(picks.centers_yx[names == name]) for name in set(names)}


def last_document(server: Served, task: str) -> Document:
    """What the recorded events of a task come to."""
    document, extent = Document(), Extent(10_000, 10_000)
    for event in events(server):
        if event.task == task and event.kind == "drafted":
            document.apply(event.body["op"], extent)
        elif event.task == task and event.kind == "undone":
            document.undo()
        elif event.task == task and event.kind == "redone":
            document.redo()
    return document


def recorded(server: Served, task: str) -> NDArray[np.float64]:
    return _sorted([(p.y, p.x) for p in last_document(server, task).particles.values()])


def test_the_page_asks_nothing_of_other_sites() -> None:
    for name, file in load_pages().items():
        text = file.content.decode()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", ""), name
        assert "https://" not in text, name
        assert "innerHTML" not in text, name
        assert "<script>" not in text and " style=" not in text and " onclick=" not in text, name


def test_a_person_labels_two_micrographs(tmp_path: Path, person: Callable[..., Person]) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        first = _label_with_the_mouse(anna, server)
        second = _label_with_keys(anna, server)
        assert anna.ask("c.labeling.task === null")
        labels = exported(anna, tmp_path / "labels.star")
        assert {name: len(points) for name, points in labels.items()} == {"m0000": len(first), "m0001": len(second)}
        np.testing.assert_allclose(labels["m0000"], first, atol=TOLERANCE_PX)
        np.testing.assert_allclose(labels["m0001"], second, atol=TOLERANCE_PX)
        kinds = [event.kind for event in events(server) if event.person == "anna"]
        assert kinds.count("submitted") == 2
        assert sum(event.body.get("active_seconds", 0) for event in events(server)) > 1


def _label_with_the_mouse(anna: Person, server: Served) -> NDArray[np.float64]:
    """Label the first micrograph; returns the centers that were meant."""
    assert anna.ask("c.labeling.name") == "0"
    suggested = truth_yx(0)  # scores 0.9, 0.8 …; the last one has 0.4
    accepted, corrected, rejected = suggested[0], suggested[1], suggested[2]
    anna.click(*accepted)
    anna.drag([tuple(corrected), tuple(corrected + (4.0, -5.0))])
    anna.click(*rejected, button="right")
    added = [(400.0, 300.0), (500.25, 620.5), (300.0, 700.0), (700.0, 100.0), (720.0, 130.0), (690.0, 160.0)]
    for place in added:
        anna.click(*place)
    anna.drag([added[1], (510.5, 640.0)])
    anna.click(*added[2], button="right")
    meant = [accepted, corrected + (4.0, -5.0), added[0], (510.5, 640.0), *added[3:]]
    np.testing.assert_allclose(anna.particles(), _sorted(meant), atol=TOLERANCE_PX)

    anna.press("l")
    anna.drag([(670, 80), (670, 190), (750, 190), (750, 80), (672, 78)])
    assert "3 particles" in anna.page.inner_text("#loop-text")
    anna.press("Delete")
    meant = meant[:-3]
    anna.press("i")
    for corner in [(20.0, 800.0), (20.0, 1000.0), (300.0, 1000.0)]:
        anna.click(*corner)
    anna.page.mouse.dblclick(*anna.screen(250.0, 820.0))
    anna.wait_until_saved()
    np.testing.assert_allclose(recorded(server, "0"), _sorted(meant), atol=TOLERANCE_PX)
    (region,) = last_document(server, "0").regions.values()
    assert region.kind == "ignore"
    corners = [(20, 800), (20, 1000), (300, 1000), (250, 820)]
    np.testing.assert_allclose(region.polygon, corners, atol=TOLERANCE_PX)
    assert list(last_document(server, "0").rejected) == ["s2"]

    before = anna.particles()
    anna.page.reload()
    anna.wait_for_task()
    np.testing.assert_array_equal(anna.particles(), before)
    anna.press("Control+z", "Control+z")  # the region, the lasso: made before the page was loaded
    anna.wait_until("c.labeling.particles.length === 7 && c.labeling.regions.length === 0")
    anna.press("Control+z")
    anna.wait_until("c.labeling.particles.length === 8")
    anna.press("Control+Shift+z", "Control+y")
    anna.wait_until("c.labeling.particles.length === 4")
    anna.press("Control+y")
    anna.wait_until("c.labeling.regions.length === 1")
    anna.wait_until_saved()
    np.testing.assert_allclose(recorded(server, "0"), _sorted(meant), atol=TOLERANCE_PX)

    anna.press("Control+Enter")
    summary = anna.page.inner_text("#summary")
    assert "4 particles" in summary and "3 suggestions are undecided" in summary and "1 ignored" in summary
    anna.press("Enter")
    assert anna.wait_for_task(but="0") == "1"
    return _sorted(meant)


def _label_with_keys(anna: Person, server: Served) -> NDArray[np.float64]:
    """Label the second micrograph without the mouse."""
    suggested = truth_yx(1)
    anna.press("n", "n", "[", "]", "j")
    order = sorted(suggested, key=lambda place: (place[0] // 24, place[1]))
    anna.press("Enter", "j", "r")
    anna.press("a")  # all but the rejected one
    meant = [place for i, place in enumerate(order) if i != 1]
    np.testing.assert_allclose(anna.particles(), _sorted(meant), atol=TOLERANCE_PX)
    scale = anna.ask("c.stage.view.scale")
    at = order[1]
    anna.press(*["ArrowDown"] * 15, *["Shift+ArrowRight"] * 4, "Enter")
    at = at + np.array([15 * 12, 4]) / scale
    anna.press(*["ArrowRight"] * 10, "Enter", "Delete", *["ArrowLeft"] * 9)
    anna.press("ArrowLeft", "m", "ArrowDown", "Enter")  # carry the added one
    meant.append(at + np.array([12, 0]) / scale)
    np.testing.assert_allclose(anna.particles(), _sorted(meant), atol=TOLERANCE_PX)
    anna.press("Control+z", "Control+Shift+z")
    anna.wait_until_saved()
    np.testing.assert_allclose(recorded(server, "1"), _sorted(meant), atol=TOLERANCE_PX)
    anna.press("?")
    assert anna.page.locator("#help").is_visible()
    anna.press("Escape", "Control+Enter", "Enter")
    anna.wait_until("c.labeling.task === null && c.outbox.pending() === 0 && c.flow.nothing.startsWith('Nothing')")
    return _sorted(meant)


DOTS_YX = np.stack(np.meshgrid(np.arange(40, 1000, 48), np.arange(30, 1300, 48), indexing="ij"), -1).reshape(-1, 2)


def _dotted(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A micrograph with bright spots at `DOTS_YX`."""
    image = np.zeros(shape)
    image[DOTS_YX[:, 0], DOTS_YX[:, 1]] = 1
    noise = np.random.default_rng(3).normal(0, 0.002, shape)
    return (ndimage.gaussian_filter(image, 4.0) * 100 + noise).astype(np.float32)


def _calibrate(person: Person, ratio: float) -> NDArray[np.float64]:
    """(2, 2): per axis scale and origin with which px of the micrograph are seen at places of the window.

    It is fitted to the spots of a screenshot; what the page believes serves only to tell which is which.
    """
    seen = np.asarray(Image.open(io.BytesIO(person.page.locator("#picture").screenshot())).convert("L"), float)
    box = person.page.locator("#picture").bounding_box()
    spots, n = ndimage.label(seen > 0.7 * seen.max())
    areas = ndimage.sum_labels(np.ones_like(seen), spots, range(1, n + 1))
    weights = np.where(spots > 0, seen, 0)
    centers = np.array(ndimage.center_of_mass(weights, spots, range(1, n + 1)))
    places = (centers + 0.5) / ratio + (box["y"], box["x"])
    view = person.ask("[c.stage.view.top, c.stage.view.left, c.stage.view.scale]")
    expected = (DOTS_YX + 0.5) * view[2] + view[:2] + (box["y"], box["x"])
    pairs = []
    for place, area in zip(places, areas, strict=True):
        distances = np.hypot(*(expected - place).T)
        if distances.min() < 6 and 0.85 < area / np.median(areas) < 1.15:
            pairs.append((DOTS_YX[distances.argmin()], place))
    assert len(pairs) >= 9
    dots, where = (np.array(part) for part in zip(*pairs, strict=True))
    return np.array([np.polyfit(dots[:, axis], where[:, axis], 1) for axis in (0, 1)])


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_centers_are_where_the_picture_shows_them(
    tmp_path: Path, person: Callable[..., Person], ratio: float
) -> None:
    shape = (1024, 1340)
    project = make_project(tmp_path / "p", 1, shape=shape)
    write_micrograph(project / "micrographs" / "m0000.mrc", _dotted(shape), 2.0)
    with served(project) as server:
        anna = person(server.link, ratio=ratio)
        anna.page.select_option("#lowpass", "0")
        meant: list[tuple[float, float]] = []
        for scale, middle in [(None, (0, 0)), (1.0, (600, 700)), (2.7, (300, 1000)), (0.8, (500, 600))]:
            if scale is not None:
                anna.zoom_to(*middle, scale)
            anna.press("h")
            anna.wait_until("c.stage.picture.loading.size === 0 || c.stage.picture.level !== null")
            anna.page.wait_for_timeout(400)
            calibration = _calibrate(anna, ratio)
            anna.press("h")
            for x, y in [(500, 200), (622, 333), (901.5, 561.5)]:
                anna.page.mouse.click(x, y)
                meant.append(tuple((np.array([y, x]) - calibration[:, 1]) / calibration[:, 0]))
        anna.wait_until_saved()
        np.testing.assert_allclose(recorded(server, "0"), _sorted(meant), atol=TOLERANCE_PX)
