"""A person in a real browser: what is clicked is what is recorded, to half a pixel of the micrograph."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_project import DIAMETER_PX, Served, Signed, make_project, served, truth_yx, write_step
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from strangers import stranger
from tiers import second_tier, take, thorough

from cryoquery.errors import ProjectError
from cryoquery.formats import read_coordinates, write_micrograph
from cryoquery.label.pages import load_pages
from cryoquery.project.document import Document, Extent
from cryoquery.project.events import Command, Event, EventLog
from cryoquery.project.new_project import InitOptions, init_project

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium: run .ci/install"),
]
SHAPE = (768, 1024)
TOLERANCE_PX = 0.5

WAIT_MS = 30_000.0
"""Enough for a busy machine; what works costs none of it."""
KEEP_TOASTS = """addEventListener("DOMContentLoaded", () => {
  window.toasts = [];
  const keep = (changes) => changes.forEach((change) =>
    change.addedNodes.forEach((toast) => window.toasts.push(toast.textContent)));
  const toasts = document.getElementById("toasts"); // the page of a stranger has none
  if (toasts) new MutationObserver(keep).observe(toasts, { childList: true });
})"""
"""They vanish after some seconds, and on a busy machine before they are looked at."""

playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


def wait_until(page: Any, expression: str, seconds: float = WAIT_MS / 1000) -> None:
    """Until ``expression`` holds; ``c`` is the page's own state.

    Playwright's own `wait_for_function` repeats an ``eval`` within the page, which the page's policy forbids:
    it works only where the expression holds at once.
    """
    deadline = time.monotonic() + seconds
    while not _holds(page, expression):
        if time.monotonic() > deadline:
            shown = " ".join(page.inner_text("body").split())
            raise AssertionError(f"in vain: {expression}; the page shows: {shown}")
        page.wait_for_timeout(20)


def _holds(page: Any, expression: str) -> bool:
    try:
        return bool(page.evaluate(f"() => {{ const c = window.cryoquery; return {expression}; }}"))
    except playwright.Error:  # the page is about to be another one, or not yet what is asked for
        return False


class Person:
    """Somebody at a browser."""

    tolerance_px = TOLERANCE_PX
    """How far from a place that is meant a click may come down, px of the micrograph."""

    def __init__(self, context: Any, link: str, name: str) -> None:
        self.context = context
        self.page = context.new_page()
        self.mistakes: list[str] = []
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.set_default_timeout(WAIT_MS)
        self.page.add_init_script(KEEP_TOASTS)
        self.come(link, name)

    def come(self, link: str, name: str) -> None:
        """Open a link that works once. A fresh session has no name, unless the link had one."""
        self.page.goto(link)
        if name:
            self.page.fill("#name", name)
            self.page.keyboard.press("Enter")
        self.wait_for_task()

    def ask(self, expression: str, argument: Any = None) -> Any:
        """What ``expression`` is on the page; ``c`` is the page's own state."""
        return self.page.evaluate(f"(a) => {{ const c = window.cryoquery; return {expression}; }}", argument)

    def wait_until(self, expression: str) -> None:
        wait_until(self.page, expression)

    def wait_for_words(self, selector: str, words: str) -> None:
        self.wait_until(
            f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(words)})"
        )

    def wait_until_told(self, words: str) -> None:
        self.wait_until(f"window.toasts.some((toast) => toast.includes({json.dumps(words)}))")

    def wait_for_picture(self) -> None:
        """Until the best one that was asked for is drawn."""
        self.wait_until(
            "c.stage.picture.level !== null && !c.stage.due"
            " && c.stage.picture.level >= Math.max(...c.stage.picture.loading)"
        )

    def wait_for_task(self, but: str | None = None) -> str:
        """Until another item than ``but`` is open and its picture shown."""
        self.wait_until(f"c && c.labeling.task && String(c.labeling.task.item) !== {json.dumps(but)}")
        self.wait_until("c.stage.picture.bitmap !== null")
        return self.item()

    def item(self) -> str:
        """The number of the open one."""
        return str(self.ask("c.labeling.task.item"))

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

    def drag(
        self, path: list[tuple[float, float]], button: str = "left", steps: int = 4, key: str | None = None
    ) -> None:
        """Drag from the first place of ``path`` to the last, while ``key`` is held."""
        places = [self.screen(y, x) for y, x in path]
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.move(*places[0])
        self.page.mouse.down(button=button)
        for place in places[1:]:
            self.page.mouse.move(*place, steps=steps)
        self.page.mouse.up(button=button)
        if key:
            self.page.keyboard.up(key)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def zoom_to(self, y: float, x: float, scale: float) -> None:
        """Show (y, x) in the middle, ``scale`` CSS px per px, by wheel and drag."""
        self.press("0")
        self.page.mouse.move(*self.screen(y, x))
        for _ in range(12):
            before = self.ask("c.stage.view.scale")
            turn = round(float(np.clip(125 * np.log(scale / before), -240, 240)))
            if turn == 0:
                break
            self.page.keyboard.down("Control")  # a few px of it zoom too, and do not pan
            self.page.mouse.wheel(0, -turn)
            self.page.keyboard.up("Control")
            self.wait_until(f"c.stage.view.scale !== {before!r}")
        middle = self.ask("c.stage.view.toImage(c.stage.view.width / 2, c.stage.view.height / 2)")
        self.drag([(y, x), (middle["y"], middle["x"])], button="right")

    def particles(self) -> NDArray[np.float64]:
        """(n, 2) centers as the page has them, by y."""
        return _sorted([(p["y"], p["x"]) for p in self.ask("c.labeling.particles")])


def _sorted(points: Any) -> NDArray[np.float64]:
    array = np.array(points, dtype=float).reshape(-1, 2)
    return array[np.lexsort(array.T[::-1])]


@pytest.fixture
def person(chromium: Any) -> Iterator[Callable[..., Person]]:
    """Opens a browser of their own for people, and sees that no script of the page failed."""
    people: list[Person] = []

    def come(
        link: str, name: str = "anna", ratio: float = 1.0, width: int = 1280, height: int = 720
    ) -> Person:
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
    path.write_text(
        person.ask("c.api.picture('/api/export?what=labels&format=star').then((found) => found.text())")
    )
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
        assert not any(inline in text for inline in ("<script>", " style=", " onclick=")), name


def test_a_person_labels_two_micrographs(tmp_path: Path, person: Callable[..., Person]) -> None:
    with labeled_project(tmp_path) as server:
        label_two_micrographs(person(server.link), server, tmp_path)


def label_two_micrographs(anna: Person, server: Served, folder: Path) -> None:
    """Label both with mouse and keys, and find all of it in the log and in an export."""
    f1 = "F1 of picks: too early to say"
    anna.wait_until(f"document.getElementById('f1').textContent === '{f1}'")
    first = _label_with_the_mouse(anna, server)
    second = _label_with_keys(anna, server)
    assert anna.ask("c.labeling.task === null")
    labels = exported(anna, folder / "labels.star")
    assert {name: len(points) for name, points in labels.items()} == {
        "m0000": len(first),
        "m0001": len(second),
    }
    np.testing.assert_allclose(labels["m0000"], first, atol=anna.tolerance_px)
    np.testing.assert_allclose(labels["m0001"], second, atol=anna.tolerance_px)
    kinds = [event.kind for event in events(server) if event.person == "anna"]
    assert kinds.count("submitted") == 2
    assert sum(event.body.get("active_seconds", 0) for event in events(server)) > 1


def _label_with_the_mouse(anna: Person, server: Served) -> NDArray[np.float64]:
    """Label the first micrograph; returns the centers that were meant."""
    assert anna.item() == "0"
    suggested = truth_yx(0)  # scores 0.9, 0.8 …; the last one has 0.4
    accepted, corrected, rejected = suggested[0], suggested[1], suggested[2]
    correction = np.add(corrected, (4.0, -5.0))
    anna.click(*accepted)
    anna.drag([tuple(corrected), tuple(correction)], key="Control")
    anna.click(*rejected, button="right")
    added = [(400.0, 300.0), (500.25, 620.5), (300.0, 700.0), (700.0, 100.0), (720.0, 130.0), (690.0, 160.0)]
    for place in added:
        anna.click(*place)
    anna.drag([added[1], (510.5, 640.0)], key="Control")
    anna.click(*added[2], button="right")
    meant = [accepted, correction, added[0], (510.5, 640.0), *added[3:]]
    np.testing.assert_allclose(anna.particles(), _sorted(meant), atol=anna.tolerance_px)

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
    np.testing.assert_allclose(recorded(server, "0"), _sorted(meant), atol=anna.tolerance_px)
    (region,) = last_document(server, "0").regions.values()
    assert region.kind == "ignore"
    corners = [(20, 800), (20, 1000), (300, 1000), (250, 820)]
    np.testing.assert_allclose(region.polygon, corners, atol=anna.tolerance_px)
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
    np.testing.assert_allclose(recorded(server, "0"), _sorted(meant), atol=anna.tolerance_px)

    anna.press("Control+Enter")
    summary = anna.page.inner_text("#summary")
    assert "4 particles" in summary
    assert "3 suggestions are undecided" in summary
    assert "1 ignored" in summary
    anna.press("Enter")
    assert anna.wait_for_task(but="0") == "1"
    return _sorted(meant)


def _label_with_keys(anna: Person, server: Served) -> NDArray[np.float64]:
    """Label the second micrograph without the mouse."""
    suggested = truth_yx(1)
    anna.press("n", "n", "[", "]", "j")
    order = sorted(suggested, key=lambda place: (place[0] // 24, place[1]))
    anna.press("Enter", "r")
    anna.press("a")  # all but the rejected one
    meant = [place for i, place in enumerate(order) if i != 1]
    np.testing.assert_allclose(anna.particles(), _sorted(meant), atol=anna.tolerance_px)
    scale = anna.ask("c.stage.view.scale")
    at = order[2]  # `R` has gone on to it
    anna.press(*["ArrowDown"] * 15, *["Shift+ArrowRight"] * 4, "Enter")
    at = at + np.array([15 * 12, 4]) / scale
    anna.press(*["ArrowRight"] * 10, "Enter", "Delete", *["ArrowLeft"] * 9)
    anna.press("ArrowLeft", "m", "ArrowDown", "Enter")  # carry the added one
    meant.append(at + np.array([12, 0]) / scale)
    np.testing.assert_allclose(anna.particles(), _sorted(meant), atol=anna.tolerance_px)
    anna.press("Control+z", "Control+Shift+z")
    anna.wait_until_saved()
    np.testing.assert_allclose(recorded(server, "1"), _sorted(meant), atol=anna.tolerance_px)
    anna.press("?")
    assert anna.page.is_visible("#help")
    anna.press("Escape", "Control+Enter", "Enter")
    anna.wait_until(
        "c.labeling.task === null && c.outbox.pending() === 0 && c.flow.nothing.startsWith('Nothing')"
    )
    return _sorted(meant)


DOTS_YX = np.stack(np.meshgrid(np.arange(40, 1000, 48), np.arange(30, 1300, 48), indexing="ij"), -1).reshape(
    -1, 2
)


def _dotted(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A micrograph with bright spots at `DOTS_YX`."""
    image = np.zeros(shape)
    image[DOTS_YX[:, 0], DOTS_YX[:, 1]] = 1
    noise = np.random.default_rng(3).normal(0, 0.002, shape)
    return (ndimage.gaussian_filter(image, 4.0) * 100 + noise).astype(np.float32)


def _calibrate(person: Person, ratio: float, n_least: int = 9) -> NDArray[np.float64]:
    """(2, 2): per axis scale and origin with which px of the micrograph are seen at places of the window.

    It is fitted to the spots of a screenshot; what the page believes serves only to tell which is which.
    """
    seen = np.asarray(
        Image.open(io.BytesIO(person.page.locator("#picture").screenshot())).convert("L"), float
    )
    box = person.page.locator("#picture").bounding_box()
    spots, n = ndimage.label(seen > 0.7 * seen.max())
    areas = ndimage.sum_labels(np.ones_like(seen), spots, range(1, n + 1))
    weights = np.where(spots > 0, seen, 0)
    centers = np.array(ndimage.center_of_mass(weights, spots, range(1, n + 1)))
    places = (centers + 0.5) / ratio + (box["y"], box["x"])
    view = person.ask("[c.stage.view.top, c.stage.view.left, c.stage.view.scale]")
    expected = (DOTS_YX + 0.5) * view[2] + view[:2] + (box["y"], box["x"])
    distances = np.hypot(*(expected[:, None] - places).T)  # (spots, dots)
    near = distances.min(1) < 6
    typical = np.median(areas[near])
    whole = near & (areas > 0.85 * typical) & (areas < 1.15 * typical)
    assert whole.sum() >= n_least
    dots, where = DOTS_YX[distances.argmin(1)[whole]], places[whole]
    return np.array([np.polyfit(dots[:, axis], where[:, axis], 1) for axis in (0, 1)])


@thorough
@pytest.mark.parametrize("ratio", take([2.0], [1.0, 2.0]))
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
        for scale, middle in [(None, (0, 0)), (1.0, (600, 700)), (2.7, (300, 1000)), (0.8, (420, 560))]:
            if scale is not None:
                anna.zoom_to(*middle, scale)
            anna.press("h")
            anna.wait_for_picture()
            calibration = _calibrate(anna, ratio)
            anna.press("h")
            for x, y in [(500, 200), (622, 333), (901.5, 561.5)]:
                anna.page.mouse.click(x, y)
                meant.append(tuple((np.array([y, x]) - calibration[:, 1]) / calibration[:, 0]))
        anna.wait_until_saved()
        np.testing.assert_allclose(recorded(server, "0"), _sorted(meant), atol=TOLERANCE_PX)


def test_centers_in_a_field_are_where_the_picture_shows_them(
    tmp_path: Path, person: Callable[..., Person]
) -> None:
    """Also at its border, beyond which a diameter of the micrograph is seen."""
    shape, project = (700, 820), tmp_path / "p"
    for i in range(2):
        (tmp_path / "data").mkdir(exist_ok=True)
        write_micrograph(tmp_path / "data" / f"m{i}.mrc", _dotted((1024, 1340))[: shape[0], : shape[1]], 2.0)
    made = init_project(
        project, [tmp_path / "data"], InitOptions(diameter_px=DIAMETER_PX, start="random", unit="field")
    ).project
    inner = next(i for i in made.items if i.region and min(i.region[:2]) > DIAMETER_PX)
    assert inner.region is not None
    top, left, height, _ = inner.region
    with EventLog.open(made.events_path, write=True) as log:
        entry = {"item": inner.number, "rank": 0, "reason": "", "score": None, "purpose": "train"}
        queue = {"step": 0, "entries": [entry], "model": None}
        log.append([Command("queued-one", "cryoquery", "queued", None, queue)])
    with served(project) as server:
        anna = person(server.link)
        assert anna.item() == str(inner.number)
        assert anna.ask("c.stage.view.extent")[:2] == [top - DIAMETER_PX, left - DIAMETER_PX]
        anna.page.select_option("#lowpass", "0")
        anna.press("h")
        anna.wait_for_picture()
        calibration = _calibrate(anna, 1.0, n_least=6)
        anna.press("h")
        meant = [(top + 3, left + 5), (top + height / 2, left + 2.25), (top + 90.5, left + 120)]
        for place in meant:
            y, x = np.array(place) * calibration[:, 0] + calibration[:, 1]
            anna.page.mouse.click(x, y)
        y, x = np.array((top - 8.0, left + 40)) * calibration[:, 0] + calibration[:, 1]
        anna.page.mouse.click(x, y)
        anna.wait_until_told("outside of the field")
        anna.wait_until_saved()
        np.testing.assert_allclose(recorded(server, str(inner.number)), _sorted(meant), atol=TOLERANCE_PX)


def test_what_is_done_offline_is_kept_and_sent(tmp_path: Path, person: Callable[..., Person]) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        anna.click(600, 600)
        anna.wait_until_saved()
        anna.context.set_offline(True)
        anna.click(600, 700)
        anna.page.wait_for_selector('#save[data-state="offline"], #save[data-state="retrying"]')
        anna.click(600, 800)
        anna.wait_for_words("#save-text", "2 kept here")
        assert len(recorded(server, "0")) == 1
        anna.context.set_offline(False)
        anna.wait_until_saved()
        assert len(recorded(server, "0")) == 3
        anna.page.reload()
        anna.wait_for_task()
        anna.context.set_offline(True)
        anna.press("Control+z", "Control+z", "Control+Shift+z")
        assert len(anna.particles()) == 2, (
            "what was done before the page was loaded is undone without the server"
        )
        anna.press("Control+Shift+z")
        anna.context.set_offline(False)
        anna.wait_until_saved()
        assert len(recorded(server, "0")) == 3

        server.kill()
        anna.click(500, 600)
        anna.page.wait_for_selector('#save[data-state="retrying"]')
        anna.press("Control+z", "Control+Shift+z")
        anna.drag([(500, 600), (520, 610)], key="Control")
        server.start()
        anna.page.wait_for_selector('#save[data-state="signed out"]')
        anna.come(server.link, "anna")
        anna.wait_until_saved()
        expected = [(520, 610), (600, 600), (600, 700), (600, 800)]
        np.testing.assert_allclose(anna.particles(), expected, atol=TOLERANCE_PX)
        np.testing.assert_allclose(recorded(server, "0"), expected, atol=TOLERANCE_PX)
        ids = [event.id for event in events(server)]
        assert len(set(ids)) == len(ids)


def test_another_user_who_takes_the_port_gets_nothing_and_loses_nothing(
    tmp_path: Path, person: Callable[..., Person], chromium: Any
) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        anna.click(600, 600)
        anna.wait_until_saved()
        port = httpx.URL(server.url).port or 0
        server.kill()
        with stranger(port) as eve:
            n_marks = 0
            for status in (404, 400, 401, 403, 405, 413, 422, 200, 500):
                eve.answer(status)
                n_seen = len(eve.seen())
                anna.click(100 + 60 * n_marks, 700)
                n_marks += 1
                anna.ask("void c.outbox.retryNow()")
                anna.page.wait_for_selector('#save[data-state="signed out"]')
                deadline = time.monotonic() + 30
                while len(eve.seen()) == n_seen and time.monotonic() < deadline:
                    anna.page.wait_for_timeout(50)
                assert anna.ask("c.outbox.pending()") == n_marks, status
                assert f"{n_marks} kept here" in anna.page.inner_text("#save-text")
            asked = eve.seen()
            assert len(asked) >= 9
            assert not any(body for _, _, body in asked), "nothing that anna did is told to eve"
            anna.page.reload()  # now eve's page has all that this browser keeps for the address
            while not (stolen := [body for line, _, body in eve.seen() if "/stolen" in line]):
                anna.page.wait_for_timeout(50)
            wait_until(anna.page, "document.title === 'eve'")  # her script is in the cache now
        keys = json.loads(json.loads(stolen[0])["cryoquery/session"])
        assert json.loads(stolen[0])["cookie"] == ""
        server.start()
        for _, headers, _ in asked:
            again = {"authorization": headers.get("Authorization", "")}
            assert httpx.get(f"{server.url}/api/session", headers=again).status_code == 401
        thief = Signed(server.links[0])
        thief.id, thief.key = keys["id"], bytes.fromhex(keys["key"])
        assert httpx.get(f"{server.url}/api/session", auth=thief).status_code == 401
        context = chromium.new_context()
        eves = context.new_page()
        eves.goto(server.url)
        eves.evaluate("(kept) => localStorage.setItem('cryoquery/session', JSON.stringify(kept))", keys)
        eves.reload()
        wait_until(eves, "document.getElementById('nothing').textContent.includes('not logged in')")
        context.close()
        anna.page.goto(server.link)
        anna.page.fill("#name", "anna")
        anna.press("Enter")
        anna.wait_for_task()
        anna.wait_until_saved()
        assert len(recorded(server, "0")) == n_marks + 1


def test_what_is_refused_for_good_is_kept_as_a_file(tmp_path: Path, person: Callable[..., Person]) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        anna.ask("void c.outbox.put('0', {kind: 'drafted', op: {op: 'explode'}, active_seconds: 0})")
        for _ in range(2):
            anna.page.wait_for_selector('#save[data-state="refused"]')
            assert "not all is saved" in anna.page.inner_text("#save-text")
            with anna.page.expect_download() as started:
                anna.page.click("#refused")
            (refused,) = json.loads(Path(started.value.path()).read_text())
            assert refused["command"]["op"] == {"op": "explode"}
            assert "explode" in refused["refused"]
            anna.page.reload()
            anna.wait_for_task()
        anna.page.click("#refused")
        anna.page.click("#forget")
        anna.wait_until_saved()
        anna.page.reload()
        anna.wait_for_task()
        anna.wait_until_saved()


def test_two_people_and_a_lost_lease(tmp_path: Path, person: Callable[..., Person]) -> None:
    project = make_project(tmp_path / "p", 3, shape=SHAPE, repeat_share=0.0)
    with served(project, people=["anna", "ben"]) as server:
        anna, ben = (_named(person, link) for link in server.links[-2:])
        one, other = anna.item(), ben.item()
        assert one != other
        anna.page.click(f'#queue [data-item="{other}"]')
        anna.wait_until_told("ben")

        # Anna leaves her task for Ben in another window; what she then does in this one cannot be saved.
        anna.ask(
            "c.api.sendCommands(a, [{id: 'left', kind: 'released'}])",
            one,
        )
        ben.page.click(f'#queue [data-item="{one}"]')
        ben.wait_until(f"String(c.labeling.task.item) === '{one}'")
        anna.click(600, 600)
        anna.page.wait_for_selector("#lost-dialog[open]")
        assert "ben" in anna.page.inner_text("#lost-text")
        assert "1 change" in anna.page.inner_text("#lost-text")
        anna.page.click("#lost-next")
        assert anna.wait_for_task(but=one) not in (one,)
        anna.page.wait_for_selector('#save[data-state="refused"]')
        assert anna.page.inner_text("#refused") == "Download 1 refused"


def _named(person: Callable[..., Person], link: str) -> Person:
    return person(link, name="")


def test_a_new_model_arrives_without_disturbing(tmp_path: Path, person: Callable[..., Person]) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        anna.click(600, 600)
        before = anna.particles()
        write_step(server.project, 2, [1], sentence="2 more are expected to raise F1 by 0.1 ± 0.2 points")
        anna.wait_until(
            "(window.dispatchEvent(new Event('focus')),"
            " document.getElementById('sentence').textContent.startsWith('2 more'))"
        )
        anna.wait_until_told("new model")
        np.testing.assert_array_equal(anna.particles(), before)
        assert anna.item() == "0"
        anna.press("x")
        anna.page.fill("#reason", "a hole in the ice")
        anna.press("Enter")
        assert anna.wait_for_task(but="0") == "1"
        anna.wait_until_saved()
        (skipped,) = [event for event in events(server) if event.kind == "skipped"]
        assert skipped.body["bad"] is True
        assert skipped.body["reason"] == "a hole in the ice"


def test_a_submitted_micrograph_is_corrected(tmp_path: Path, person: Callable[..., Person]) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        anna.press("Control+Enter")
        anna.wait_until_told("Nothing is marked")
        anna.press("n", "Control+Enter")
        assert "No particles." in anna.page.inner_text("#summary")
        anna.press("Enter")
        anna.wait_for_task(but="0")
        anna.page.click('#queue [data-item="0"]')
        anna.wait_for_task(but="1")
        anna.click(600, 600)
        anna.wait_until_told("reopen")
        anna.page.click("#banner-action")
        anna.wait_until("c.labeling.editable")
        anna.click(600, 600)
        anna.press("Control+Enter", "Enter")
        anna.wait_for_task(but="0")
        anna.wait_until_saved()
        kinds = [event.kind for event in events(server) if event.task == "0"]
        assert kinds.count("submitted") == 1
        assert kinds.count("corrected") == 1
        np.testing.assert_allclose(
            exported(anna, tmp_path / "l.star")["m0000"], [(600, 600)], atol=TOLERANCE_PX
        )


def test_outside_of_a_field_nothing_is_added(tmp_path: Path, person: Callable[..., Person]) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        anna.ask(
            "(c.labeling.show({...c.labeling.task, region: [100, 200, 300, 400],"
            " shown: [76, 176, 348, 448], suggestions: [], cursor: 0,"
            " n_ops: 0, document: {particles: [], regions: [], rejected: [], empty: false}}), c.stage.open())"
        )
        anna.click(80, 300)
        anna.wait_until_told("outside of the field")
        anna.click(200, 599.4)
        np.testing.assert_allclose(anna.particles(), [(200, 599.4)], atol=TOLERANCE_PX)


@second_tier
def test_two_thousand_circles(tmp_path: Path, person: Callable[..., Person]) -> None:
    shape = (2160, 4096)
    project = make_project(tmp_path / "p", 1, shape=shape, repeat_share=0.0)
    with served(project) as server:
        anna = person(server.link)
        grid = np.stack(np.meshgrid(np.arange(30, 2130, 52), np.arange(40, 4060, 80), indexing="ij"), -1)
        places = grid.reshape(-1, 2)[:2000].tolist()
        anna.ask("a.forEach(([y, x]) => c.labeling.add(y, x))", places)
        anna.ask("c.stage.frames.splice(0)")
        anna.page.mouse.move(*anna.screen(1000, 2000))
        for turn in range(30):
            anna.page.mouse.wheel(0, -120 if turn < 15 else 120)
        anna.drag([(1000, 2000), (900, 1900), (1000, 2000)], button="right", steps=15)
        frames = sorted(anna.ask("c.stage.frames"))
        print(f"2,000 circles: median {np.median(frames):.1f} ms, longest {frames[-1]:.1f} ms per frame")
        anna.press("0")
        anna.page.set_default_timeout(2 * WAIT_MS)
        anna.wait_until_saved()
        np.testing.assert_array_equal(recorded(server, "0"), _sorted(places))
        anna.page.reload()
        anna.wait_for_task()
        np.testing.assert_array_equal(anna.particles(), _sorted(places))


EXTENT = {"height": 100, "width": 120, "region": [10, 20, 60, 70]}


def _random_commands(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Operations and steps of undo and redo, some of which cannot be done."""
    commands: list[dict[str, Any]] = []
    for _ in range(n):
        kind = str(
            rng.choice(
                [
                    "undo",
                    "redo",
                    *["add"] * 3,
                    "move",
                    "delete",
                    "accept",
                    "reject",
                    "region",
                    "delete_region",
                    "empty",
                ]
            )
        )
        y, x = (float(value) for value in rng.uniform((0, 0), (100, 120)).round(2))
        keys = [
            str(key)
            for key in rng.choice(
                [f"p{i}" for i in range(6)] + [f"s{i}" for i in range(6)], rng.integers(1, 4)
            )
        ]
        suggestions = [key for key in keys if key.startswith("s")]
        region = f"r{rng.integers(4)}"
        corners = rng.uniform((9, 19), (72, 92), (int(rng.integers(2, 6)), 2)).round(2).tolist()
        body = {
            "add": {"key": keys[0], "y": y, "x": x},
            "move": {"key": keys[0], "y": y, "x": x},
            "delete": {"keys": keys},
            "accept": {"picks": [{"key": key, "y": y, "x": x, "score": 0.5} for key in suggestions]},
            "reject": {"keys": keys if rng.random() < 0.2 else suggestions},
            "region": {
                "key": region,
                "kind": str(rng.choice(["ignore", "done", "other"], p=[0.45, 0.45, 0.1])),
                "polygon": corners,
            },
            "delete_region": {"keys": [region]},
            "empty": {"value": bool(rng.random() < 0.7)},
        }
        commands.append({"op": kind, **body.get(kind, {})})
    return commands


def _follow(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the server makes of each command."""
    document, extent, states = Document(), Extent(100, 120, (10, 20, 60, 70)), []
    for command in commands:
        taken = True
        try:
            if command["op"] in ("undo", "redo"):
                getattr(document, command["op"])()
            else:
                document.apply(command, extent)
        except ProjectError:
            taken = False
        states.append(
            {
                "taken": taken,
                "cursor": document.cursor,
                "nOps": document.n_ops,
                "particles": [[key, p.y, p.x, p.origin] for key, p in document.particles.items()],
                "regions": [
                    [key, r.kind, [list(at) for at in r.polygon]] for key, r in document.regions.items()
                ],
                "rejected": list(document.rejected),
                "empty": document.empty,
            }
        )
    return states


FOLLOW = """async ([runs, extent]) => {
  const { src } = document.querySelector("script[src]");
  const { Document, Impossible } = await import(new URL("document.js", src));
  return runs.map((commands) => {
    const document = new Document();
    return commands.map((command) => {
      let taken = true;
      try {
        if (command.op === "undo" || command.op === "redo") document[command.op]();
        else document.apply(command, extent);
      } catch (error) {
        if (!(error instanceof Impossible)) throw error;
        taken = false;
      }
      const { particles, regions, rejected, empty } = document.plain();
      return { taken, cursor: document.cursor, nOps: document.nOps,
        particles: particles.map((p) => [p.key, p.y, p.x, p.origin]),
        regions: regions.map((r) => [r.key, r.kind, r.polygon]), rejected, empty };
    });
  });
}"""


def test_page_and_server_make_the_same_of_operations(tmp_path: Path, person: Callable[..., Person]) -> None:
    with served(make_project(tmp_path / "p", 1)) as server:
        anna = person(server.link)
        runs = [_random_commands(np.random.default_rng(seed), 80) for seed in range(30)]
        expected = [_follow(commands) for commands in runs]
        taken = [state["taken"] for states in expected for state in states]
        assert 0.2 < np.mean(taken) < 0.9
        assert anna.page.evaluate(FOLLOW, [runs, EXTENT]) == expected
