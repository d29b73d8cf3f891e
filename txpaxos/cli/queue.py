"""``txpaxos queue``: put items into a queue, and take them out of it, each of them once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from txpaxos.cli.options import CommandWithJson, CommandWithJsonAndNumbers, read_bytes
from txpaxos.cli.printing import show
from txpaxos.cli.recipes import ANYTHING, addressing, ask, check_name, json_option, parsed
from txpaxos.cli.running import Seeds
from txpaxos.cluster import Cluster

if TYPE_CHECKING:
    from txpaxos.recipes import Recipes

TTL_SECONDS = 10.0
ANSWER_SECONDS = 5.0
"""How long a quorum may take to answer, besides the wait for an item."""

PRIORITY_DEFAULT = 100
PRIORITY_MAX = 999


@click.group("queue", short_help="Put items into a replicated queue, and take them, each once.")
def command() -> None:
    """A queue of a cluster that runs `--app txpaxos.recipes:Coordinator`.

    An item is a text, or with --json whatever JSON has.

    \b
    txpaxos queue put jobs 'resize 5.png'
    txpaxos queue take jobs --timeout 60
    """


@command.command("put", cls=CommandWithJsonAndNumbers)
@click.argument("name", callback=check_name)
@click.argument("value", callback=read_bytes)
@click.option(
    "--priority",
    metavar="N",
    type=click.IntRange(0, PRIORITY_MAX),
    default=PRIORITY_DEFAULT,
    show_default=True,
    help="What is lower is taken first.",
)
@addressing(5.0, "How long a quorum may take to answer.")
@json_option
def put(
    name: str, value: bytes, priority: int, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool
) -> None:
    """Put VALUE into the queue NAME, and print its number.

    A VALUE of `-` is read from standard input.
    """
    given = parsed(value, wants_json)
    number = ask(cluster, timeout_seconds, lambda recipes: recipes.queue(name, ANYTHING).put(given, priority))
    click.echo(f'{{"number": {number}}}' if wants_json else number)


@command.command("take", cls=CommandWithJson)
@click.argument("name", callback=check_name)
@addressing(5.0, "How long to wait for an item.")
@json_option
def take(name: str, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Take the first item of the queue NAME, or wait for one, and print it.

    The item is acknowledged when it is printed: if it cannot be printed it is in the queue again. Exits with 1 if no
    item comes in time.
    """

    async def taken(recipes: Recipes) -> None:
        async with (
            await recipes.session(TTL_SECONDS) as session,
            recipes.queue(name, ANYTHING).take(session, timeout_seconds=timeout_seconds) as item,
        ):
            known = {"token": item.token, "priority": item.priority, "deliveries": item.deliveries}
            show(item.value, known, wants_json)
            sys.stdout.flush()

    ask(cluster, timeout_seconds + ANSWER_SECONDS, taken)
