"""A real browser without a window, and a page in it that must not complain."""

from __future__ import annotations

import importlib.resources
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MILLISECONDS = 30_000


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. The test is skipped if there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_at(browser: Any, address: str, ready: str, **options: Any) -> Iterator[Any]:
    """A page at ``address``, which is there when the element ``ready`` is. At its end nothing may have been said in its
    console, and nothing asked for elsewhere."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(WAIT_MILLISECONDS)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith((address, "data:")) else said.append(one.url))
    try:
        page.goto(address)
        page.wait_for_selector(ready)
        yield page
        assert said == []
    finally:
        context.close()


def violations(page: Any) -> list[str]:
    """What axe finds wrong with the page as it is now: contrast, names, roles, order of headings and all else."""
    axe = importlib.resources.files("axe_core_python") / "axe.min.js"
    page.evaluate(axe.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


def wait_until(page: Any, condition: str) -> None:
    """Wait until a condition holds in the page, which is looked at with each frame."""
    came = page.evaluate(
        "() => new Promise((done) => {"
        f"  const end = performance.now() + {WAIT_MILLISECONDS};"
        f"  const look = () => ({condition}) ? done(true)"
        "    : performance.now() > end ? done(false) : requestAnimationFrame(look);"
        "  look(); })"
    )
    assert came, condition
