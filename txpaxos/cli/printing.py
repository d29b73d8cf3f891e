"""Prints results, and formats tables."""

from __future__ import annotations

import contextlib
import json
import math
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


def show(value: Any, known: dict[str, Any], wants_json: bool) -> None:
    """Print a value; with ``--json`` as one line of JSON, with what is known of it."""
    if not wants_json:
        print_value(value)
        return
    check_output()
    shown = {**known, "value": value}
    try:
        line = json.dumps(shown, allow_nan=False, default=_shown)
    except ValueError:
        line = json.dumps(_finite(shown), default=_shown)
    except TypeError:  # MessagePack has some values that JSON has not, such as keys that are lists.
        line = json.dumps({**known, "value": repr(value)})
    click.echo(line)


def _finite(value: Any) -> Any:
    """``value`` with nothing in place of each number that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def _shown(value: object) -> str:
    """What JSON has no form for: bytes, as text."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else repr(value)


class Told:
    """What a command has done: lines as it goes on, or JSON at its end.

    :param wants_json: whether it is JSON.
    """

    def __init__(self, wants_json: bool) -> None:
        self._wants_json = wants_json
        self._known: list[dict[str, Any]] = []

    def tell(self, line: str, known: dict[str, Any] | None = None) -> None:
        """Tell one thing that was done.

        :param known: the same for JSON; nothing if another line says it there.
        """
        if known is not None:
            self._known.append(known)
        if not self._wants_json:
            click.echo(line)

    def end(self, *lines: str) -> None:
        """End the command, with ``lines`` that say what comes next. JSON has none of these."""
        if self._wants_json:
            click.echo(json.dumps(self._known, indent=2))
        for line in lines if not self._wants_json else ():
            click.echo(line)


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
