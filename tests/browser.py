"""A headless Chromium of the system's, and everything that a page says and asks for in it."""

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
INSTALL_S = 300


@cache
def chromium() -> str:
    """Its path; as root on Debian it is installed. Skips the test where there is none."""
    found = _found()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for words in (("update",), ("install", "-y", "--no-install-recommends", "chromium")):
            subprocess.run(
                ["apt-get", "-qq", *words],
                check=False,
                capture_output=True,
                timeout=INSTALL_S,
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            )
        found = _found()
    if found is None:
        pytest.skip("no Chromium is here: install it to test the report's page")
    return found


def _found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Tab:
    """A page, and what it did."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def tab(**options: Any) -> Generator[Tab]:
    """A page in a fresh profile; `options` are Playwright's of a browser context."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            opened = Tab(browser.new_context(**options).new_page())
            opened.page.on("console", lambda message: opened.console.append(message.text))
            opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
            opened.page.on("request", lambda request: opened.requests.append(request.url))
            yield opened
        finally:
            browser.close()
