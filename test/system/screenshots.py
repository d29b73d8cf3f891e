"""The pictures of ``txpaxos play`` in the documentation.

.. code-block:: console

   $ python -m test.system.screenshots docs
"""

from __future__ import annotations

import sys
from pathlib import Path

from test.helpers.browser import chromium, page_at
from test.helpers.play_site import played
from test.helpers.small_png import shrunk

PICTURES = {"one-decree": 5, "chosen-survives": 5, "duel": 5, "gap": 4}
"""For each lesson whose picture is taken, the step that it shows."""

NEXT = "[data-key=lesson-next]"
VIEWPORT = {"width": 1160, "height": 760}


def take(folder: Path) -> None:
    """Take all pictures, and write each to ``play-LESSON.png``."""
    with chromium() as browser, played() as site:
        for lesson, number in PICTURES.items():
            with page_at(browser, site.address, "[data-key=go]", viewport=VIEWPORT, color_scheme="light") as page:
                page.select_option("#what", f"lesson {lesson}")
                page.click("[data-key=begin]")
                page.wait_for_selector("#lesson-title >> text=(1 of")
                while f"({number} of" not in page.inner_text("#lesson-title") or page.query_selector(".holds") is None:
                    if "Do it for me" in page.inner_text(NEXT) or page.query_selector(".holds") is not None:
                        page.evaluate("document.querySelector('[data-key=go]').dataset.old = 'old'")
                        page.click(NEXT)
                        page.wait_for_selector("[data-old]", state="detached")
                page.evaluate("document.activeElement.blur()")
                (folder / f"play-{lesson}.png").write_bytes(shrunk(page.screenshot(full_page=True)))


if __name__ == "__main__":
    take(Path(sys.argv[1]))
