"""``txpaxos map``: keys with values and versions, which survive a machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from txpaxos.cli.options import CommandWithJson, CommandWithJsonAndNumbers, read_bytes
from txpaxos.cli.printing import show
from txpaxos.cli.recipes import ANYTHING, addressing, ask, check_name, json_option, parsed
from txpaxos.cli.running import CommandError, Seeds
from txpaxos.cluster import Cluster
from txpaxos.errors import NoQuorum
from txpaxos.log_lines import printable

if TYPE_CHECKING:
    from txpaxos.recipes import Recipes

ANSWER = "How long a quorum may take to answer."
version_option = click.option(
    "--if-version",
    "expected_version",
    metavar="N",
    type=click.IntRange(min=0),
    help="Only if the entry has this version; 0: only if there is no entry.",
)


@click.group("map", short_help="Get, put and follow the values of a replicated map.")
def command() -> None:
    """Keys with values and versions, in a map of a cluster that runs `--app txpaxos.recipes:Coordinator`.

    A value is a text, or with --json whatever JSON has.

    \b
    txpaxos map put config limit 5 --json
    txpaxos map get config limit
    txpaxos map list config
    txpaxos map watch config
    """


@command.command("get", cls=CommandWithJson)
@click.argument("name", callback=check_name)
@click.argument("key", callback=check_name)
@addressing(5.0, ANSWER)
@json_option
def get(name: str, key: str, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Print the value of KEY in the map NAME. Exits with 1 if there is none."""
    entry = ask(cluster, timeout_seconds, lambda recipes: recipes.map(name, ANYTHING).get(key))
    if entry is None:
        raise CommandError(f"there is no {key} in the map {name}")
    show(entry.value, {"key": entry.key, "version": entry.version}, wants_json)


@command.command("put", cls=CommandWithJsonAndNumbers)
@click.argument("name", callback=check_name)
@click.argument("key", callback=check_name)
@click.argument("value", callback=read_bytes)
@version_option
@addressing(5.0, ANSWER)
@json_option
def put(
    name: str,
    key: str,
    value: bytes,
    expected_version: int | None,
    cluster: Cluster | Seeds,
    timeout_seconds: float,
    wants_json: bool,
) -> None:
    """Put VALUE under KEY in the map NAME, and print the version that it has now.

    A VALUE of `-` is read from standard input.
    """
    given = parsed(value, wants_json)
    version = ask(
        cluster, timeout_seconds, lambda recipes: recipes.map(name, ANYTHING).put(key, given, expected_version)
    )
    _show_version(version, wants_json)


@command.command("delete", cls=CommandWithJson)
@click.argument("name", callback=check_name)
@click.argument("key", callback=check_name)
@version_option
@addressing(5.0, ANSWER)
@json_option
def delete(
    name: str,
    key: str,
    expected_version: int | None,
    cluster: Cluster | Seeds,
    timeout_seconds: float,
    wants_json: bool,
) -> None:
    """Delete KEY in the map NAME, and print the version of this change. Exits with 1 if there is no such key."""
    version = ask(cluster, timeout_seconds, lambda recipes: recipes.map(name, ANYTHING).delete(key, expected_version))
    if not version:
        raise CommandError(f"there is no {key} in the map {name}")
    _show_version(version, wants_json)


@command.command("list", cls=CommandWithJson)
@click.argument("name", callback=check_name)
@click.argument("prefix", default="", callback=check_name)
@addressing(60.0, "How long it may take until all are there.")
@json_option
def list_entries(name: str, prefix: str, cluster: Cluster | Seeds, timeout_seconds: float, wants_json: bool) -> None:
    """Print the keys of the map NAME in order, one in a line; with --json the values, too.

    PREFIX is what the keys begin with.
    """

    async def listed(recipes: Recipes) -> None:
        async for entry in recipes.map(name, ANYTHING).entries(prefix):
            _show_key(entry.key, entry.value, {"version": entry.version}, wants_json)

    ask(cluster, timeout_seconds, listed)


@command.command("watch", cls=CommandWithJson)
@click.argument("name", callback=check_name)
@click.argument("prefix", default="", callback=check_name)
@click.option("--since", metavar="N", type=click.IntRange(min=0), default=0, help="Begin behind the change N.")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N changes.")
@addressing(3600.0, "How long to watch.")
@json_option
def watch(
    name: str,
    prefix: str,
    since: int,
    count: int | None,
    cluster: Cluster | Seeds,
    timeout_seconds: float,
    wants_json: bool,
) -> None:
    """Print each change of the map NAME as it comes, in order, none missed: first what is there, unless --since is
    given. PREFIX is what the keys begin with.

    Ends after --timeout, with 0, or with Ctrl-C.
    """

    shown = 0
    has_begun = False

    async def watched(recipes: Recipes) -> None:
        nonlocal shown, has_begun
        followed = recipes.map(name, ANYTHING)
        await followed.size()
        has_begun = True
        async for change in followed.changes(since, prefix):
            known = {"version": change.version, "since": change.since, "deleted": change.is_deleted}
            _show_key(change.key, change.value, known, wants_json)
            sys.stdout.flush()
            shown += 1
            if shown == count:
                return

    try:
        ask(cluster, timeout_seconds, watched)
    except NoQuorum:
        if not has_begun:
            raise


def _show_key(key: str, value: Any, known: dict[str, Any], wants_json: bool) -> None:
    if wants_json:
        show(value, {"key": key, **known}, wants_json)
    else:
        line = printable(key, len(key))  # One key is one line.
        show(f"{line} (deleted)" if known.get("deleted") else line, {}, False)


def _show_version(version: int, wants_json: bool) -> None:
    click.echo(f'{{"version": {version}}}' if wants_json else version)
