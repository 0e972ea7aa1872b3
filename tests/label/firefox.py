"""Debian's Firefox through Marionette, its remote protocol, as what a test knows of Playwright's pages."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FIREFOX = Path("/usr/bin/firefox-esr")
PORT_FILE = "MarionetteActivePort"
PREFERENCES = """\
user_pref("marionette.port", 0);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.startup.max_resumed_crashes", -1);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"""
KEYS = {
    "Control": "\ue009",
    "Shift": "\ue008",
    "Alt": "\ue00a",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Delete": "\ue017",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "Tab": "\ue004",
    " ": " ",
}
"""As WebDriver writes them; all others are themselves."""
BUTTONS = {"left": 0, "middle": 1, "right": 2}
SECONDS = 60.0


class FirefoxError(Exception):
    """What Firefox answers instead of a result."""


class Firefox:
    """A browser without a window, with a profile of its own."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        (folder / "user.js").write_text(PREFERENCES)
        size = ("--width", str(width), "--height", str(height))
        command = (str(FIREFOX), "--headless", "--marionette", "--no-remote", "--profile", str(folder), *size)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while not (folder / PORT_FILE).exists() or not (folder / PORT_FILE).read_text().strip():
            assert self.process.poll() is None, "Firefox ended"
            assert time.monotonic() < deadline, "Firefox does not listen"
            time.sleep(0.05)
        port = int((folder / PORT_FILE).read_text())
        self._socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self._stream = self._socket.makefile("rwb")
        self._receive()  # it introduces itself
        self._number = 0
        self.do("NewSession", strictFileInteractability=False)

    def do(self, command: str, **parameters: Any) -> Any:
        """The result of a command of WebDriver."""
        self._number += 1
        message = json.dumps([0, self._number, f"WebDriver:{command}", parameters]).encode()
        self._stream.write(str(len(message)).encode() + b":" + message)
        self._stream.flush()
        _, _, error, result = self._receive()
        if error:
            raise FirefoxError(error["message"])
        return result.get("value", result) if isinstance(result, dict) else result

    def _receive(self) -> Any:
        length = b""
        while (digit := self._stream.read(1)) != b":":
            assert digit, "Firefox is gone"
            length += digit
        return json.loads(self._stream.read(int(length)))

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


class Keyboard:
    """Keys by the names that Playwright has for them."""

    def __init__(self, firefox: Firefox) -> None:
        self._firefox = firefox

    def _act(self, *actions: tuple[str, str]) -> None:
        keys = [{"type": kind, "value": KEYS.get(key, key)} for kind, key in actions]
        self._firefox.do("PerformActions", actions=[{"type": "key", "id": "keys", "actions": keys}])

    def down(self, key: str) -> None:
        self._act(("keyDown", key))

    def up(self, key: str) -> None:
        self._act(("keyUp", key))

    def press(self, key: str) -> None:
        """A key, or several at once, such as ``Control+z``."""
        held = key.split("+") if len(key) > 1 else [key]
        self._act(*(("keyDown", one) for one in held), *(("keyUp", one) for one in reversed(held)))


class Mouse:
    """A mouse that stays where it was moved to; places in CSS px of the window."""

    def __init__(self, firefox: Firefox) -> None:
        self._firefox = firefox

    def _act(self, *actions: dict[str, Any]) -> None:
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        self._firefox.do("PerformActions", actions=[pointer | {"actions": list(actions)}])

    @staticmethod
    def _move(x: float, y: float) -> dict[str, Any]:
        return {"type": "pointerMove", "x": x, "y": y, "duration": 0, "origin": "viewport"}

    def move(self, x: float, y: float, steps: int = 1) -> None:
        self._act(*[self._move(x, y)] * steps)

    def down(self, button: str = "left") -> None:
        self._act({"type": "pointerDown", "button": BUTTONS[button]})

    def up(self, button: str = "left") -> None:
        self._act({"type": "pointerUp", "button": BUTTONS[button]})

    def click(self, x: float, y: float, button: str = "left", n: int = 1) -> None:
        press = [{"type": kind, "button": BUTTONS[button]} for kind in ("pointerDown", "pointerUp")]
        self._act(self._move(x, y), *press * n)

    def dblclick(self, x: float, y: float) -> None:
        self.click(x, y, n=2)


class Page:
    """The one page of a browser."""

    def __init__(self, firefox: Firefox) -> None:
        self._firefox = firefox
        self._scripts: list[str] = []
        self.keyboard, self.mouse = Keyboard(firefox), Mouse(firefox)

    def on(self, event: str, handler: Any) -> None:
        """Marionette tells of no mistakes of scripts."""

    def set_default_timeout(self, ms: float) -> None:
        """Every wait here has an end of its own."""

    def add_init_script(self, script: str) -> None:
        self._scripts.append(script)

    def goto(self, link: str) -> None:
        self._firefox.do("Navigate", url=link)
        self._loaded()

    def reload(self) -> None:
        self._firefox.do("Refresh")
        self._loaded()

    def _loaded(self) -> None:
        # These wait for the event that the page has been read, which has happened by now.
        for script in self._scripts:
            self._script(f"{script}; dispatchEvent(new Event('DOMContentLoaded'));")

    def _script(self, script: str, *arguments: Any) -> Any:
        return self._firefox.do("ExecuteScript", script=script, args=list(arguments), sandbox=None)

    def evaluate(self, function: str, argument: Any = None) -> Any:
        """What a function of the page's own world gives; a promise is waited for."""
        return self._script(f"return ({function})(arguments[0]);", argument)

    def inner_text(self, selector: str) -> str:
        return str(self._script("return document.querySelector(arguments[0]).innerText;", selector))

    def click(self, selector: str) -> None:
        self.wait_for_selector(selector)
        box = (
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.left + box.width / 2, box.top + box.height / 2];"
        )
        self.mouse.click(*self._script(box, selector))

    def fill(self, selector: str, text: str) -> None:
        self.click(selector)
        for letter in text:
            self.keyboard.press(letter)

    def is_visible(self, selector: str) -> bool:
        shown = "const one = document.querySelector(arguments[0]); return !!one && one.checkVisibility();"
        return bool(self._script(shown, selector))

    def wait_for_selector(self, selector: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.is_visible(selector):
            assert time.monotonic() < deadline, f"{selector} is not shown"
            time.sleep(0.05)

    def wait_for_timeout(self, ms: float) -> None:
        time.sleep(ms / 1000)


class Context:
    """What Playwright calls a browser's context: here the browser."""

    def __init__(self, firefox: Firefox) -> None:
        self._firefox = firefox

    def new_page(self) -> Page:
        return Page(self._firefox)


@contextlib.contextmanager
def firefox(width: int = 1280, height: int = 820) -> Iterator[Context]:
    """A browser for one person; a window of Firefox has some 85 px of its own above the page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Firefox(Path(folder), width, height)
        try:
            yield Context(browser)
        finally:
            browser.close()
