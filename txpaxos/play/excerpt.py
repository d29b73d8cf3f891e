"""A few lines of the shipped source, read when they are shown, so that no copy of them can grow old."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

LINES_MAX = 14
"""The most lines of an excerpt."""

ROOT = Path(__file__).resolve().parents[2]


@attrs.frozen
class Excerpt:
    """Some lines of one function.

    :ivar name: the function, by the name that it has in its module.
    :ivar file: its file, from the root of the source.
    :ivar lines: each line with its number in the file.
    """

    name: str
    file: str
    lines: tuple[tuple[int, str], ...]


def excerpt(function: Callable[..., Any], at: str = "") -> Excerpt:
    """The lines of ``function`` without its docstring.

    :param at: a part of the line to begin with, after the first one; unless it is given, with the code that follows
        the docstring.
    :raises ValueError: if no line of the function has that part.
    """
    source, first = inspect.getsourcelines(function)
    skipped = _docstring_lines(source)
    code = [(number, line.rstrip()) for number, line in enumerate(source, first) if number - first not in skipped]
    head = next(place for place, (_, line) in enumerate(code) if line.rstrip().endswith(":")) + 1
    if at:
        begin = next((place for place, (_, line) in enumerate(code) if at in line and place >= head), None)
        if begin is None:
            raise ValueError(f"{function.__qualname__} has no line with {at!r}")
    else:
        begin = head
    file = Path(inspect.getsourcefile(function) or "").resolve().relative_to(ROOT).as_posix()
    return Excerpt(function.__qualname__, file, tuple((code[:head] + code[begin:])[:LINES_MAX]))


def _docstring_lines(source: list[str]) -> range:
    """Where the docstring of a function is, counted from its first line."""
    (function,) = ast.parse(textwrap.dedent("".join(source))).body
    if not isinstance(function, ast.FunctionDef) or ast.get_docstring(function) is None:
        return range(0)
    docstring = function.body[0]
    return range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno)
