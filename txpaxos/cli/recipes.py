"""What the commands on recipes share: a client with recipes, and values on the command line."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from twisted.internet.defer import Deferred

from txpaxos.cli import options
from txpaxos.cli.options import cluster_option, keys_option, node_option, timeout_option
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

NESTED = "the value is nested too deep"

json_option = options.json_option("Values as JSON, and all that is known of them.")


def addressing(timeout_seconds: float, text: str) -> Callable[[Decorated], Decorated]:
    """The options that say which cluster is meant, and ``--timeout``, whose help is ``text``."""

    def decorate(function: Decorated) -> Decorated:
        for option in (timeout_option(timeout_seconds, text), node_option, keys_option, cluster_option):
            function = option(function)
        return function

    return decorate


def check_name(ctx: click.Context, parameter: click.Parameter, name: str) -> str:
    """``name``, if recipes take it as one."""
    from txpaxos.recipes.replicated.bounds import NAME_CHARACTERS_MAX

    if not name and parameter.default != "":
        raise click.BadParameter("it is empty.")
    if len(name) > NAME_CHARACTERS_MAX:
        raise click.BadParameter(f"it has {len(name)} characters: at most {NAME_CHARACTERS_MAX} are allowed.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8.") from None
    return name


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
    except RecursionError:
        raise CommandError(NESTED) from None


def parsed(value: bytes, wants_json: bool) -> Any:
    """A value of the command line: JSON if that is wanted, otherwise a text, or bytes that are none.

    :raises CommandError: if it is no JSON.
    """
    if wants_json:
        try:
            given = json.loads(value)
            json.dumps(given, allow_nan=False)  # Python takes NaN and Infinity for JSON.
            return given
        except RecursionError:
            raise CommandError(NESTED) from None
        except ValueError as error:
            raise CommandError(f"the value is no JSON: {error}; leave out --json to have it taken as text") from None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
