"""``python -m txpaxos.testing.model``: the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from txpaxos.drawing import as_svg
from txpaxos.testing.model.counterexample import format_counterexample, space_time
from txpaxos.testing.model.instances import INSTANCES
from txpaxos.testing.model.search import Found, StateSearch

COLUMNS = (("instance", 16), ("states", 9), ("transitions", 11), ("depth", 5), ("exhausted", 9), ("violations", 10))
NAMES = [instance.name for instance in INSTANCES]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[NAME]...")
@click.option("--states-max", default=500_000, show_default=True, help="Give up an instance after this many states.")
@click.option(
    "--svg", type=click.Path(file_okay=False), help="A folder for pictures of the traces: NAME.svg for each instance."
)
def main(names: Sequence[str], states_max: int, svg: str | None) -> None:
    """Run the shipped core through every state of small clusters: the named instances, or all.

    Exits with 0 if no rule is broken, whether or not all states were visited; with 1 and a shortest trace otherwise.
    """
    click.echo(row([*(name for name, _ in COLUMNS), "seconds"]))
    violated = []
    for instance in INSTANCES:
        if not names or instance.name in names:
            found: Found[Any] = StateSearch(instance.space(), states_max).run()
            click.echo(figures(instance.name, found))
            if found.violation:
                title = f"{instance.name} ({instance.what})"
                violated.append(f"{title}:\n{format_counterexample(found.trace, found.violation)}")
                if svg is not None:
                    draw(Path(svg), instance.name, title, found)
    for trace in violated:
        click.echo(f"\n{trace}")
    raise SystemExit(1 if violated else 0)


def draw(folder: Path, name: str, title: str, found: Found[Any]) -> None:
    """Draw a trace into ``folder``, which is made if it is absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.svg").write_text(as_svg(space_time(found.trace, found.violation, title)))
    except OSError as error:
        raise click.ClickException(f"the picture cannot be written: {error}") from None


def figures(name: str, found: Found[Any]) -> str:
    """One line of the table."""
    counts = [f"{count:,}" for count in (found.states, found.transitions, found.depth)]
    exhausted = "yes" if found.exhausted else "no"
    return row([name, *counts, exhausted, "1" if found.violation else "0", f"{found.seconds:.1f}"])


def row(cells: Sequence[str]) -> str:
    """A line with these cells: the first is left-aligned, the others are right-aligned."""
    widths = [*(width for _, width in COLUMNS), 7]
    padded = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *padded])


if __name__ == "__main__":
    main()
