"""What a labeler's hands meet, in a real browser: mouse, brush, keys, gallery, heat map, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_project import make_project, served, truth_yx, write_step
from PIL import Image
from test_page import (
    SHAPE,
    TOLERANCE_PX,
    Person,
    chromium,  # noqa: F401
    events,
    exported,
    labeled_project,
    person,  # noqa: F401
    pytestmark,  # noqa: F401
    wait_until,
)

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"


def _counts(anna: Person) -> list[int]:
    """Particles, undecided suggestions, rejected ones."""
    return list(
        anna.ask("[c.labeling.particles, c.labeling.undecided, c.labeling.rejected].map((l) => l.length)")
    )


def _spread_two_fingers(anna: Person, near: int, far: int) -> None:
    """On a touch screen, from ``near`` to ``far`` px left and right of the middle."""
    screen = anna.context.new_cdp_session(anna.page)
    screen.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    for kind, apart in (("touchStart", near), ("touchMove", far), ("touchEnd", None)):
        fingers = [] if apart is None else [{"x": 600 + s * apart, "y": 350, "id": s + 1} for s in (-1, 1)]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    screen.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
    screen.detach()


def test_mouse_brush_and_regions(tmp_path: Path, person: Callable[..., Person]) -> None:  # noqa: F811
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        suggested = truth_yx(0)
        anna.press("[", "a")
        before, view = anna.particles(), anna.ask("[c.stage.view.left, c.stage.view.top, c.stage.view.scale]")
        start = anna.screen(*suggested[0])
        anna.drag([tuple(suggested[0]), tuple(suggested[0] + (40, 60))])
        np.testing.assert_array_equal(anna.particles(), before)  # a drag pans
        assert anna.ask("[c.stage.view.left, c.stage.view.top, c.stage.view.scale]") != view
        anna.page.mouse.move(500, 300)
        anna.page.mouse.wheel(15, 8)  # and so do two fingers, also up and down
        anna.page.mouse.wheel(0, 8)
        anna.press("0")
        assert anna.screen(*suggested[0]) == start
        _spread_two_fingers(anna, 50, 100)
        assert anna.ask("c.stage.view.scale") > 1.5 * view[2]
        anna.press("0")
        assert len(anna.particles()) == 6
        anna.click(*suggested[0])
        anna.drag([tuple(suggested[0]), tuple(suggested[0] + (8, 6))])  # what was clicked before is moved
        assert "Moved a particle by 10 px" in anna.page.inner_text("#toasts")
        np.testing.assert_allclose(
            np.sort(anna.particles()[:, 0]), np.sort(np.r_[suggested[0, 0] + 8, suggested[1:, 0]]), atol=0.5
        )
        anna.press("Escape", "Control+z")
        np.testing.assert_array_equal(anna.particles(), before)

        anna.press("e")
        left, right = suggested[1] - (0, 40), suggested[1] + (0, 40)
        anna.drag([tuple(left), tuple(right)])
        n, undecided, rejected = _counts(anna)
        assert (n, undecided, rejected) == (5, 0, 1)  # it does not come back as a suggestion
        anna.press("Control+z", "Control+z", "Control+z")  # also the accepting of all
        assert _counts(anna) == [0, 6, 0]
        anna.drag([tuple(left), tuple(right)], key="Shift")
        assert _counts(anna) == [1, 5, 0]
        anna.press("p", "a", "i")
        y, x = suggested[2]
        anna.drag([(y - 20, x - 20), (y - 20, x + 20), (y + 20, x + 20), (y + 20, x - 20), (y - 19, x - 20)])
        anna.press("Control+Enter")
        summary = anna.page.inner_text("#summary")
        assert "5 particles" in summary
        assert "1 particle lies in ignored regions and will be left out" in summary
        anna.press("Enter")
        anna.wait_for_task(but="0")
        anna.wait_until_saved()
        assert len(exported(anna, tmp_path / "labels.star")["m0000"]) == 5


def test_keys_walk_and_nothing_is_chosen_beforehand(
    tmp_path: Path,
    person: Callable[..., Person],  # noqa: F811
) -> None:
    with labeled_project(tmp_path) as server:
        anna = person(server.link)
        anna.press("j", "r", "Enter", "r")
        assert _counts(anna) == [1, 3, 2]
        anna.press("[", "[")
        threshold = anna.ask("c.labeling.threshold")
        anna.page.reload()
        anna.wait_for_task()
        assert anna.ask("c.labeling.threshold") == threshold
        anna.press("x", "Enter")
        assert anna.page.locator("#skip-error").is_visible()
        assert anna.page.locator("#skip-dialog").is_visible()
        anna.press("Escape")

        other = anna.context.new_page()  # a second tab of the same person
        other.goto(server.url)
        wait_until(other, "c?.labeling.task && c.stage.picture.ready")
        anna.page.bring_to_front()
        anna.click(600, 600)
        anna.wait_until_saved()
        other.bring_to_front()
        other.evaluate("window.dispatchEvent(new Event('focus'))")
        wait_until(other, "c.labeling.particles.length === 2")
        other.close()
        short = anna.page.evaluate(
            "(names) => import(new URL('names.js', document.querySelector('script[src]').src))"
            ".then((m) => [...m.shortNames(names).values()])",
            ["Falcon_2012_06_12-14_33_35_0", "Falcon_2012_06_12-15_07_41_0", "Falcon_2012_06_12-15_14_01_0"],
        )
        assert short == ["Fal…14_33_35_0", "Fal…15_07_41_0", "Fal…15_14_01_0"]


GOES_ON = """async () => {
  const { Ahead } = await import(new URL('ahead.js', document.querySelector('script[src]').src));
  const wait = () => new Promise((resolve) => setTimeout(resolve, 50));
  const waiting = ["a", "b", "c", "d"];
  const ask = async (besides) => ({ task: waiting.find((task) => !besides.includes(task)) ?? null });
  const ahead = new Ahead(ask, wait);
  const filled = ahead.fill("a"); // finds b, and prepares it
  await Promise.resolve().then(() => {}).then(() => {});
  waiting.shift(); // a is submitted
  const { task } = ahead.take();
  ahead.drop((other) => other !== task);
  ahead.fill(task);
  await filled;
  return [task, ahead.kept.map((one) => one.task)];
}"""


def test_what_is_open_never_comes_next(tmp_path: Path, person: Callable[..., Person]) -> None:  # noqa: F811
    """Also where the person goes on while what comes next is still being read."""
    with served(make_project(tmp_path / "p", 2)) as server:
        assert person(server.link).page.evaluate(GOES_ON) == ["b", ["c", "d"]]


def test_pictures_come_ahead_and_in_tiles(tmp_path: Path, person: Callable[..., Person]) -> None:  # noqa: F811
    project = make_project(tmp_path / "p", 2, shape=(1200, 2300), repeat_share=0.0)
    with served(project) as server:
        anna = person(server.link)
        anna.wait_until("c.flow.ahead.kept.length === 1 && !c.stage.picture.pending")
        held: list[Any] = []
        anna.page.route("**/picture?*", lambda route: held.append(route))
        anna.ask("(c.stage.close(), c.stage.open())")
        anna.page.wait_for_selector("#loading:not([hidden])")
        anna.page.mouse.click(600, 400)
        anna.press("Enter")
        assert len(anna.particles()) == 0
        for route in held:
            route.continue_()
        anna.page.unroute("**/picture?*")
        anna.wait_for_task()
        anna.press("1")
        anna.wait_until("c.stage.picture.kept.size > 0 && !c.stage.picture.pending")
        anna.press("0")
        anna.click(600, 600)
        anna.wait_until_saved()

        anna.context.set_offline(True)
        anna.press("Control+Enter")
        anna.ask("(window.begun = performance.now(), 0)")
        anna.press("Enter")
        anna.wait_for_task(but="0")
        took = anna.ask("performance.now() - window.begun")
        print(f"submit to next picture, offline: {took:.0f} ms")
        anna.click(300, 300)
        anna.press("Control+Enter", "Enter")
        anna.wait_until("c.labeling.task === null")
        anna.context.set_offline(False)
        anna.wait_until_saved()
        assert [event.task for event in events(server) if event.kind == "submitted"] == ["0", "1"]


@pytest.fixture
def with_map(tmp_path: Path) -> Path:
    project = make_project(tmp_path / "p", 2, shape=SHAPE, suggestion_share=1.0, repeat_share=0.0)
    step = write_step(project, 1, [0, 1])
    (step / "maps").mkdir()
    for item in (0, 1):
        Image.fromarray(np.full((96, 128), 255, np.uint8)).save(step / "maps" / f"{item}.png")
    return project


def test_a_second_look(with_map: Path, person: Callable[..., Person]) -> None:  # noqa: F811
    with served(with_map) as server:
        anna = person(server.link)
        assert anna.page.inner_text("#n-everywhere") == ", 12 in all 2"
        anna.page.wait_for_timeout(50)
        anna.press("o")
        anna.wait_until("c.stage.heat.canvas !== null")
        anna.press("a")
        anna.click(700, 900)  # far from all that the model sees
        anna.wait_until("document.getElementById('doubts').textContent === '1 mark that the model doubts'")
        anna.press("u")
        assert "The model sees nothing here" in anna.page.inner_text("#toasts")
        anna.press("Delete")
        assert _counts(anna) == [6, 0, 0]

        anna.press("g")
        cells = anna.page.locator(".cell")
        assert cells.count() == 6
        scores = [float(text) for text in cells.locator("b").all_inner_texts()]
        assert sorted(scores) == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
        lowest = anna.page.locator(".cell", has_text="0.40")
        lowest.click()
        anna.page.locator(".cell", has_text="0.60").click(modifiers=["Shift"])
        anna.press("r")
        assert _counts(anna)[::2] == [3, 3]
        with anna.page.expect_response("**/cutouts*") as answered:
            anna.page.select_option("#gallery-what", "rejected")
            anna.press("Escape")
            anna.press("f", "g")  # another low-pass, other pictures
        assert answered.value.ok
        anna.press("Escape")
        np.testing.assert_allclose(anna.particles()[0], min(truth_yx(0)[:3].tolist()), atol=TOLERANCE_PX)


@pytest.mark.skipif(not AXE.exists(), reason="there is no axe-core: run npm ci")
def test_nothing_serious_stands_in_the_way(with_map: Path, person: Callable[..., Person]) -> None:  # noqa: F811
    """WCAG 2.2 AA as far as axe-core sees it, in both themes and in all dialogs."""
    with served(with_map) as server:
        anna = person(server.link)
        anna.page.evaluate(AXE.read_text())
        for keys in ([], ["t"], ["g"], ["x"], ["?"]):
            anna.press(*keys)
            time.sleep(0.1)
            found = anna.page.evaluate(
                "() => axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']}).then("
                "(r) => r.violations.filter((v) => ['serious', 'critical'].includes(v.impact))"
                ".map((v) => [v.id, v.nodes[0].html]))"
            )
            assert found == [], keys
            if keys and keys[0] in "gx?":
                anna.press("Escape")
