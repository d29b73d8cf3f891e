"""Options and arguments that several commands have."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from txpaxos.cli.running import KEYS, CommandError, Seeds
from txpaxos.client.endpoints import parse_place
from txpaxos.cluster import ALONE, Cluster
from txpaxos.errors import PaxosError
from txpaxos.keys import load_keys
from txpaxos.wire.commands import COMMAND_BYTES_MAX

CLUSTER_FILE = "cluster.toml"
SECONDS_MAX = 3600.0
SEEDS = "txpaxos.cli.options.seeds"
"""The name under which click keeps the addresses of ``--node``."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class NamedPath(click.Path):
    """A path that is not empty. A variable that is not set leaves ``""``, which would be the folder of the shell."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        if not value:
            self.fail("it is empty: name a folder.", param, ctx)
        return super().convert(value, param, ctx)


class CommandWithNumbers(click.Command):
    """A command whose arguments may be negative numbers, as ``-5``, without ``--`` before them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        ctx.ignore_unknown_options = any(re.match(r"-\d", arg) for arg in args)
        return super().parse_args(ctx, args)


class CommandWithJson(click.Command):
    """A command whose errors are JSON, too, with ``--json``: a line ``{"error": ...}`` on standard output."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (CommandError, PaxosError) as error:
            if not ctx.params["wants_json"] or sys.stdout is None:
                raise
            self.tell_error(ctx, " ".join(str(error).split()))
            raise SystemExit(1) from None

    def tell_error(self, ctx: click.Context, text: str) -> None:
        """Print the line."""
        click.echo(json.dumps({"error": text}))


class CommandWithJsonAndNumbers(CommandWithJson, CommandWithNumbers):
    """A command that takes numbers below zero as values, and whose errors are JSON with ``--json``."""


def _load_cluster(ctx: click.Context, parameter: click.Parameter, path: str | None) -> Cluster | Seeds:
    if path == "":
        raise click.BadParameter("it is empty: name a cluster file, or leave the option out.")
    seeds: tuple[str, ...] = ctx.meta.get(SEEDS, ())
    if seeds:
        if path is not None:
            raise click.UsageError("--cluster and --node exclude each other: the cluster is that of the node.")
        return Seeds(seeds)
    above = None if ctx.parent is None else ctx.parent.params.get("cluster")
    if path is None and above is not None:  # The option was given before the subcommand.
        return above  # type: ignore[no-any-return]
    if path is None and not Path(CLUSTER_FILE).exists():
        return ALONE
    return Cluster.load(CLUSTER_FILE if path is None else path)


cluster_option = click.option(
    "--cluster",
    metavar="FILE",
    callback=_load_cluster,
    help=f"The cluster file (TOML). [default: ./{CLUSTER_FILE} if there is one, else a single node on this machine]",
)


def _note_seeds(ctx: click.Context, parameter: click.Parameter, seeds: tuple[str, ...]) -> None:
    for text in seeds:
        try:
            parse_place(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}.") from None
    if seeds:
        ctx.meta[SEEDS] = seeds


node_option = click.option(
    "--node",
    "seeds",
    metavar="HOST:PORT",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_note_seeds,
    help="The client port of a node, in place of a cluster file; the node tells the others. May be given more often."
    " Also a Twisted endpoint, as unix:PATH.",
)


def _load_keys(ctx: click.Context, parameter: click.Parameter, folder: str | None) -> None:
    if folder == "":
        raise click.BadParameter("it is empty: name a folder of keys, or leave the option out.")
    if folder is not None:
        ctx.meta[KEYS] = load_keys(folder, "client")


keys_option = click.option(
    "--keys",
    metavar="DIR",
    envvar="TXPAXOS_KEYS",
    expose_value=False,
    callback=_load_keys,
    help="The folder with your keys, if the nodes have keys. [default: what TXPAXOS_KEYS says]",
)


def json_option(text: str) -> Callable[[Decorated], Decorated]:
    """The option ``--json``, whose help is ``text``."""
    return click.option("--json", "wants_json", is_flag=True, help=text)


def check_number(ctx: click.Context, parameter: click.Parameter, number: float) -> float:
    """``number``, which no range of click's keeps from being ``nan``."""
    if math.isnan(number):
        raise click.BadParameter("nan is not a number.")
    return number


def _check_seconds(ctx: click.Context, parameter: click.Parameter, seconds: float) -> float:
    if not 0 < seconds <= SECONDS_MAX:
        raise click.BadParameter(f"{seconds:g} must be above 0, and at most {SECONDS_MAX:g} seconds.")
    return seconds


def timeout_option(default_seconds: float, text: str) -> Callable[[Decorated], Decorated]:
    """The option ``--timeout SECONDS``, with its default and its help ``text``."""
    return click.option(
        "--timeout",
        "timeout_seconds",
        metavar="SECONDS",
        type=float,
        default=default_seconds,
        show_default=True,
        callback=_check_seconds,
        help=text,
    )


def read_bytes(ctx: click.Context, parameter: click.Parameter, text: str | None) -> bytes | None:
    """The bytes of an argument, or those of standard input if the argument is ``-``.

    :raises CommandError: if standard input cannot be read."""
    if text == "-":
        if sys.stdin is None:
            raise CommandError("standard input is closed, and the argument - means to read it: give the bytes instead")
        try:  # One byte more than allowed is enough for the error that it is too much.
            return sys.stdin.buffer.read(COMMAND_BYTES_MAX + 1)
        except OSError as error:
            raise CommandError(f"standard input cannot be read: {error.strerror}") from None
    return None if text is None else os.fsencode(text)
