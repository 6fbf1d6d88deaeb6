"""A real Chromium for the tests of the viewer, headless and without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """Its path, or a skip with the reason; where CI requires it, a failure."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found:
        return found
    if os.environ.get("CI") and os.environ.get("REPO_AGENT_REQUIRE_BROWSER") == "1":
        pytest.fail("Chromium is required here")
    pytest.skip("no Chromium")


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """A browser of its own: Playwright gives each a new profile."""
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=[*FLAGS, *flags])
        try:
            yield made
        finally:
            made.close()


def ready(page: Page, address: str) -> None:
    """Go there, and wait until the viewer shows something."""
    page.goto(address)
    page.wait_for_selector("html[data-ready=yes]")
