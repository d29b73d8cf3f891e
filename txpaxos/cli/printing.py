"""Prints results, and formats tables."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from txpaxos.cli.running import CommandError


def print_value(value: Any) -> None:
    """Print a result: text and bytes as they are, any other type as JSON.

    On a terminal, characters that are not printable are escaped: any client may have written the value, and a terminal
    obeys control characters.
    """
    check_output()
    data = _as_bytes(value)
    if sys.stdout.isatty():
        text = data.decode(errors="backslashreplace")
        click.echo("".join(one if one.isprintable() or one in "\t\n" else ascii(one)[1:-1] for one in text))
    else:
        click.echo(data)


def check_output() -> None:
    """Check that there is a standard output: what is printed to none is lost without a word.

    :raises CommandError: if the process was started without one.
    """
    if sys.stdout is None:
        raise CommandError("standard output is closed")


def tell_aside(line: str) -> None:
    """Write a line to standard error. It is left out if it cannot be written: what goes on does not depend on it."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # There is none, or it is no file.
        click.echo(line, err=True)
        return
    with contextlib.suppress(OSError):  # Unbuffered: Python would try again at the end, and end with 120.
        os.write(descriptor, f"{line}\n".encode())


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    try:
        return msgspec.json.encode(value)
    except TypeError:  # MessagePack has some values that JSON has not, such as keys that are lists.
        return repr(value).encode()


DIGITS = 16
"""How many digits of a serial and a fingerprint are shown."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as text. A column is as wide as its widest cell, with two spaces between columns; numbers are aligned to
    the right."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def align(cell: str, width: int, column: Iterable[str]) -> str:
        return cell.rjust(width) if all(one.isdecimal() or one == "-" for one in column) else cell.ljust(width)

    columns = [column[1:] for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(align, line, widths, columns)).rstrip() for line in lines)
