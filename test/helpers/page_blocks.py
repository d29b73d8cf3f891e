"""The code blocks of the documentation's pages: each with its page, its line and its language."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]

PLAIN = "plain"
"""The language of a block that begins with ``::`` and says none."""

OPENING = re.compile(r"(?P<indent> *)(?:\.\. (?:code-block|code|sourcecode):: *(?P<language>\S*)|(?!\.\. ).*::|::)$")
OPTION = re.compile(r" *:[\w-]+:")


@attrs.frozen
class Block:
    """One block. Its ``line`` is that of the text which opens it, from 1. ``text`` has no indentation."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """All pages: those beside the README, and those of ``docs/``."""
    return sorted([*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst")])


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The blocks in the ``text`` of a page."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opened = number
        found = OPENING.match(lines[number])
        number += 1
        if found is None:
            continue
        deeper = re.compile(rf"{found['indent']} +\S|\s*$")
        while number < len(lines) and deeper.match(lines[number]):
            number += 1
        body = [line for line in lines[opened + 1 : number] if not OPTION.match(line)]
        block = textwrap.dedent("\n".join(body)).strip("\n") + "\n"
        yield Block(page, opened + 1, found["language"] or PLAIN, block)


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in pages() for block in blocks_of(page.name, page.read_text())]
