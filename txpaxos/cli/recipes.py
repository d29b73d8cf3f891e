"""What the commands on recipes share: a client with recipes, and values on the command line."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from twisted.internet.defer import Deferred

from txpaxos.cli.options import cluster_option, keys_option, node_option, timeout_option
from txpaxos.cli.printing import print_value
from txpaxos.cli.running import CommandError, Seeds, request, run
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.errors import CommandFailed, QueryFailed
from txpaxos.service.declaration import ServiceError

if TYPE_CHECKING:
    from txpaxos.recipes import Recipes

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
T = TypeVar("T")

ANYTHING: Any = Any
"""The type of values that may be anything."""

json_option = click.option("--json", "wants_json", is_flag=True, help="Values as JSON, and all that is known of them.")


def addressing(timeout_seconds: float, text: str) -> Callable[[Decorated], Decorated]:
    """The options that say which cluster is meant, and ``--timeout``, whose help is ``text``."""

    def decorate(function: Decorated) -> Decorated:
        for option in (timeout_option(timeout_seconds, text), node_option, keys_option, cluster_option):
            function = option(function)
        return function

    return decorate


def ask(cluster: Cluster | Seeds, seconds: float, call: Callable[[Recipes], Awaitable[T]]) -> T:
    """Run ``call`` to its end with the recipes of a cluster, and return its result.

    :param seconds: how long it may take.
    """
    return run(
        lambda reactor: request(
            reactor, cluster, seconds, lambda client: Deferred.fromCoroutine(_called(client, reactor, call))
        )
    )


async def _called(client: Client, reactor: Any, call: Callable[[Recipes], Awaitable[T]]) -> T:
    """Call with the recipes of a client.

    :raises CommandError: what the recipes refuse, in one line.
    """
    from txpaxos.recipes import Recipes  # Commands that need none start without them.

    with as_command_errors():
        return await call(Recipes(client, reactor))


@contextmanager
def as_command_errors() -> Iterator[None]:
    """Have what the recipes refuse end the command in one line.

    :raises CommandError: that line.
    """
    try:
        yield
    except (CommandFailed, QueryFailed) as error:
        hint = "does the cluster run the recipes (twistd paxos --app txpaxos.recipes:Coordinator)?"
        raise CommandError(f"{error}; {hint}") from None
    except (ServiceError, TypeError) as error:  # An argument that is no value of its parameter is a TypeError.
        raise CommandError(str(error)) from None


def parsed(value: bytes, wants_json: bool) -> Any:
    """A value of the command line: JSON if that is wanted, otherwise a text, or bytes that are none.

    :raises CommandError: if it is no JSON.
    """
    if wants_json:
        try:
            return json.loads(value)
        except ValueError as error:
            raise CommandError(f"the value is no JSON: {error}; leave out --json to have it taken as text") from None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def show(value: Any, known: dict[str, Any], wants_json: bool) -> None:
    """Print a value; with ``--json`` as one line of JSON, with what is known of it."""
    if not wants_json:
        print_value(value)
        return
    click.echo(json.dumps({**known, "value": value}, ensure_ascii=True, default=_shown))


def _shown(value: object) -> str:
    """What JSON has no form for: bytes, as text."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else repr(value)
