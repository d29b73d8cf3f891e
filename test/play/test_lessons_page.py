"""The page with the lessons is what the lessons and their runs say."""

from __future__ import annotations

import doctest
import os

import txpaxos.play.session
from test.play.lessons_page import PAGE, page, write


def test_the_page_is_what_the_lessons_say() -> None:
    if os.environ.get("TXPAXOS_REWRITE"):
        write()
    assert PAGE.read_text() == page(), "TXPAXOS_REWRITE=1 writes it anew; keep that only if you know why it changed"


def test_what_the_module_shows_is_so() -> None:
    result = doctest.testmod(txpaxos.play.session)
    assert (result.failed, result.attempted > 2) == (0, True)
