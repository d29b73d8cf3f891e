"""Space-time diagrams as files: the options that name them, and the writing."""

from __future__ import annotations

from collections.abc import Callable
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
            Path(path).write_text(drawn(diagram), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror or error}") from None
