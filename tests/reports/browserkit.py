"""A headless Chromium for tests of pages: it opens them from the disk and keeps what went wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}


def chromium() -> str:
    """The browser's program; the test is skipped where there is none, or no playwright."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("LATENTCLI_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no Chromium: install one, or name it in LATENTCLI_CHROMIUM")
    return found


@contextmanager
def running_browser() -> Iterator[Any]:
    """A browser of its own profile, for all tests of a module."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, chromium_sandbox=False, args=list(FLAGS)
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """An open page, and everything that went wrong in it."""

    page: Any
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """Requests for anything but files."""
    missing: list[str] = field(default_factory=list)
    """Files that could not be loaded."""

    def listen(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("requestfailed", self._failed)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file://", "data:")):
            self.foreign.append(request.url)

    def _failed(self, request: Any) -> None:
        # Pictures that are no longer wanted are given up; that is no fault.
        if request.failure != "net::ERR_ABORTED":
            self.missing.append(request.url)

    def check(self) -> None:
        """Nothing went wrong so far."""
        assert not self.errors, self.errors
        assert not self.foreign, self.foreign
        assert not self.missing, self.missing


@contextmanager
def open_tab(browser: Any, url: str | None = None, **options: Any) -> Iterator[Tab]:
    """A page in a context of its own (no storage shared); `options` are those of new_context."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    try:
        page = context.new_page()
        page.set_default_timeout(15_000)
        tab = Tab(page)
        tab.listen()
        if url is not None:
            page.goto(url)
        yield tab
    finally:
        context.close()
