"""The page ``docs/lessons.rst``: all lessons as text, made from the course and its runs.

``TXPAXOS_REWRITE=1 python -m pytest test/play/test_lessons_page.py`` writes it anew.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from txpaxos.play.course import LESSONS
from txpaxos.play.excerpt import ROOT
from txpaxos.play.lessons import Lesson, Step, found
from txpaxos.play.session import Session

PAGE = ROOT / "docs/lessons.rst"
WIDTH = 120

HEAD = """\
The lessons, step by step
=========================

These are the lessons of ``txpaxos play``, with what their runs print. The page in the browser shows the same as a
picture, and lets you do something else. `paxos.rst <paxos.rst>`_ has the ideas in their order.

Each block can be typed at Python's prompt. ``txpaxos/play/commands.py`` lists the commands. The functions are those
that do what a step tells; each stands where it comes first.

.. This page is made from txpaxos/play/ by test/play/lessons_page.py. Do not change it by hand.
"""


def wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def printed(call: Callable[..., None], *arguments: str) -> str:
    """What a call prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        call(*arguments)
    return output.getvalue()


def page(lessons: Sequence[Lesson] = LESSONS) -> str:
    """The whole page."""
    shown: set[str] = set()
    return "\n".join([HEAD, *(part for lesson in lessons for part in lesson_parts(lesson, shown))])


def lesson_parts(lesson: Lesson, shown: set[str]) -> Iterator[str]:
    session = Session(lesson.kind, lesson.count)
    count = f", {lesson.count}" if lesson.count != 3 else ""
    yield f"\n{lesson.title}\n{'-' * len(lesson.title)}\n\n{wrapped(lesson.about)}\n"
    yield f'>>> from txpaxos.play.session import Session\n>>> paxos = Session("{lesson.kind}"{count})\n'
    for number, step in enumerate(lesson.steps, 1):
        yield from step_parts(session, number, step, shown)


def step_parts(session: Session, number: int, step: Step, shown: set[str]) -> Iterator[str]:
    since = len(session.stage.rows)
    yield f"{wrapped(f'**{number}.** {step.text}')}\n"
    for command in step.do:
        yield f'>>> paxos.do("{command}")\n{printed(session.do, command)}'.rstrip("\n")
    if step.do:
        yield ""
    so = (f"``{name}`` {found(session.stage, name, since) or 'nothing'}" for name in step.expects)
    yield wrapped(f"{step.look} Now: {'; '.join(so)}.") + "\n"
    for sentence in step.says:
        yield f"* {sentence}"
    if step.says:
        yield ""
    name, file = step.source.__qualname__, step.excerpt().file
    if (key := f"{file} {name}") not in shown:
        shown.add(key)
        yield f"In ``{file}``:\n\n.. literalinclude:: ../{file}\n   :pyobject: {name}\n"


def write(path: Path = PAGE) -> None:
    """Write the page anew."""
    path.write_text(page())
