"""A real browser on a real service; without one these tests are skipped with the reason."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from live_service import LiveService

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (pip install 'simyard[test]')"
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _browser_path() -> str | None:
    named = os.environ.get("SIMYARD_TEST_BROWSER")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Visitor:
    """One tab, what went wrong in it, and where it asked for things."""

    def __init__(self, page: Any, service: LiveService) -> None:
        self.page = page
        self.service = service
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.addresses.append(request.url))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console {message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def code(self) -> str:
        return str(self.service.ask("POST", "/api/session/codes")["code"])

    def log_in(self) -> None:
        self.page.goto(f"{self.service.url}/#code={self.code()}")
        playwright_api.expect(self.page.locator("#link-state")).to_have_text("live")

    def go(self, where: str) -> None:
        """Change to another page of the dashboard as a link would."""
        self.page.evaluate("where => { location.hash = where }", where)

    def row(self, job_id: str) -> Any:
        return self.page.locator(f'.rows .row[data-id="{job_id}"]')


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = _browser_path()
    if path is None:
        pytest.skip(f"no browser found; install one of {', '.join(NAMES)}")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service for all tests of a module; each looks at its own jobs only."""
    service = LiveService(tmp_path_factory.mktemp("dashboard") / "home")
    try:
        service.start()
        yield service
    finally:
        service.end_everything()


@pytest.fixture
def own_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service that a test may stop and start: it comes back at the same address."""
    home = tmp_path_factory.mktemp("own") / "home"
    service = LiveService(home, flags=["--port", str(_free_port())])
    try:
        service.start()
        yield service
    finally:
        service.end_everything()


def _tab(browser: Any, service: LiveService) -> Iterator[Visitor]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.set_default_timeout(20_000)
    playwright_api.expect.set_options(timeout=20_000)
    visitor = Visitor(context.new_page(), service)
    yield visitor
    context.close()
    assert visitor.complaints == []


@pytest.fixture
def visitor(browser: Any, service: LiveService) -> Iterator[Visitor]:
    """A tab that is logged in; the test fails if anything in it complains."""
    for tab in _tab(browser, service):
        tab.log_in()
        yield tab


@pytest.fixture
def stranger(browser: Any, service: LiveService) -> Iterator[Visitor]:
    """A tab without a session."""
    yield from _tab(browser, service)


@pytest.fixture
def own_visitor(browser: Any, own_service: LiveService) -> Iterator[Visitor]:
    """A tab that is logged in to `own_service`."""
    for tab in _tab(browser, own_service):
        tab.log_in()
        yield tab
