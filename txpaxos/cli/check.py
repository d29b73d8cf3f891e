"""``txpaxos check``: whether a history of clients' operations is linearizable."""

from __future__ import annotations

import json

import click

from txpaxos.cli.drawings import drawing_options, write_drawings
from txpaxos.cli.options import CommandWithJson, json_option
from txpaxos.testing.linearizability.check import check_file
from txpaxos.testing.linearizability.models import MODELS


@click.command("check", cls=CommandWithJson)
@click.argument("history", type=click.Path())
@click.option("--model", default="key-value", show_default=True, help=f"{', '.join(MODELS)}, or a class's dotted name.")
@drawing_options("what cannot be explained")
@json_option("The outcome as JSON; the report is in it, as text.")
def command(history: str, model: str, svg: str | None, shiviz: str | None, wants_json: bool) -> None:
    """Check that a history is linearizable.

    HISTORY is a file of JSON lines, as txpaxos.testing.linearizability.history writes them: the requests of each client
    and their results, in the order of time. If no order of the operations explains all results, prints the smallest
    part that cannot be explained, with a diagram.

    Exits with 0 if the history is linearizable, with 1 if it is not, with 2 if it is empty, with 3 if the search was
    given up.
    """
    result = check_file(history, model)
    if not result.operations:
        raise click.UsageError(f"{history} holds no operation, so there is nothing to judge: is it the right file?")
    shown = {"linearizable": result.linearizable, "operations": result.operations, "report": result.report()}
    click.echo(json.dumps(shown) if wants_json else shown["report"])
    write_drawings(result.picture(), svg, shiviz)
    raise SystemExit({True: 0, False: 1, None: 3}[result.linearizable])
