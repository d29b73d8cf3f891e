"""Space-time diagrams as files: the options that name them, and the writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from txpaxos.cli.running import CommandError
from txpaxos.drawing import SpaceTime, as_shiviz, as_svg

Command = TypeVar("Command", bound=Callable[..., Any])


def drawing_options(of: str) -> Callable[[Command], Command]:
    """The options ``--svg`` and ``--shiviz`` of a command.

    :param of: what is drawn, for the help.
    """

    def decorate(command: Command) -> Command:
        command = click.option("--shiviz", type=click.Path(dir_okay=False), help=f"Write {of} here, for ShiViz.")(
            command
        )
        return click.option("--svg", type=click.Path(dir_okay=False), help=f"Draw {of} here, as a picture.")(command)

    return decorate


def write_drawings(diagram: SpaceTime | None, svg: str | None, shiviz: str | None) -> None:
    """Write ``diagram``, if there is one, to the files that are named.

    :raises CommandError: one line, if a file cannot be written.
    """
    for path, drawn in ((svg, as_svg), (shiviz, as_shiviz)):
        if path is None or diagram is None:
            continue
        try:
            _write(Path(os.path.realpath(path)), drawn(diagram))
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror or error}") from None


def _write(path: Path, text: str) -> None:
    """Write a file whose earlier contents are lost only when the new ones are there: the disk may be full."""
    if not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
        path.write_text(text, encoding="utf-8")  # Nothing can be put in its place.
        return
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
