"""The report in a real browser, opened from disk with the network forbidden."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from components.common.home import Home
from pipeline import report
from tests.support.reported_home import HOSTILE, RUN, with_evaluation

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
START_TIMEOUT_S = 60
AXE = "axe-core@4.14.1"
WIDTHS = (1280, 390)
FAULT = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


class Browser:
    """A page of headless Chromium, driven by the DevTools protocol.

    Attributes:
        requests: addresses that the page has asked for, without data: URIs.
        faults: messages in the console.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.faults: list[Any] = []
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=START_TIMEOUT_S))
        if message.get("method") == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            self.requests += [] if url.startswith("data:") else [url]
        elif message.get("method") in FAULT:
            self.faults.append(message["params"])
        return message

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        while self._receive().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    home: Home = with_evaluation(tmp_path_factory.mktemp("report") / "home")
    return report.write(home, RUN).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    profile = tmp_path_factory.mktemp("profile")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with subprocess.Popen([program, *words, "about:blank"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(filter(None, (re.search(r"ws://\S+", line) for line in process.stderr)))[0]
            with connect(address, max_size=None) as whole:
                whole.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
                targets = json.loads(whole.recv(timeout=START_TIMEOUT_S))["result"]["targetInfos"]
            target = next(one["targetId"] for one in targets if one["type"] == "page")
            root = address.partition("/devtools/")[0]
            with connect(f"{root}/devtools/page/{target}", max_size=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_nothing_and_fits_the_screen(browser: Browser, page: str, width: int, scheme: str) -> None:
    browser.requests.clear()
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.call("Emulation.setEmulatedMedia", media="screen", features=[feature])
    browser.open(page)
    assert browser.requests == [page]
    assert browser.faults == []
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)"
    )
    assert HOSTILE in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.scripts.length") == 0


def test_a_cell_of_the_matrix_opens_its_images_by_mouse_and_keyboard(browser: Browser, page: str) -> None:
    shown = "[...document.querySelectorAll('.cell')].filter(cell => cell.offsetParent).map(cell => cell.id)"
    browser.open(page)
    assert browser.evaluate(shown) == []
    browser.evaluate("document.querySelector('.matrix td a').click()")
    (first,) = browser.evaluate(shown)
    assert browser.evaluate(f"document.querySelectorAll('#{first} img').length") > 0
    browser.evaluate("document.querySelectorAll('.matrix td a')[1].focus()")
    for kind in ("rawKeyDown", "char", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", text="\r", windowsVirtualKeyCode=13)
    (second,) = browser.evaluate(shown)
    assert second != first


def test_on_paper_everything_is_readable_and_dark_on_white(browser: Browser, page: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[feature])
    browser.open(page)
    assert browser.evaluate("[...document.querySelectorAll('.cell img')].every(image => image.checkVisibility())")
    assert browser.evaluate("[...document.querySelectorAll('details > *')].every(part => part.checkVisibility())")
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(28, 30, 33)"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which checks accessibility."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    packed = npm and subprocess.run([npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, timeout=120)
    if not packed or packed.returncode:
        pytest.skip(f"npm cannot fetch {AXE} here")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        script = package.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, page: str, axe: str, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.call("Emulation.setEmulatedMedia", media="screen", features=[feature])
    browser.open(page)
    browser.evaluate("document.querySelector('.matrix td a').click()")
    browser.evaluate(axe)
    result = json.loads(browser.evaluate("axe.run().then(found => JSON.stringify(found))"))
    assert len(result["passes"]) > 10
    assert [one for one in result["violations"] if one["impact"] in ("serious", "critical")] == []
