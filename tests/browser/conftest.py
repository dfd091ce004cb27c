"""Chromium for the page's tests: the machine's own, driven by Playwright, never a download."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright

__all__ = ["chromium", "page"]


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for the session; each test opens its own context in it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("no Chromium on PATH: apt-get install chromium")
    async with async_playwright() as playwright:
        # A container runs tests as root and has a small /dev/shm; Chromium refuses the first and crashes on the second.
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A fresh page of desktop size whose script errors fail the test."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = await context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: failures.append(f"dialog: {dialog.message}"))
    page.set_default_timeout(15_000)
    try:
        yield page
        assert failures == []
    finally:
        await context.close()
