"""Runs commands: a reactor inside click, requests with a deadline, and errors as one line."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import attrs
import click
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from txpaxos.client import Client
from txpaxos.clock import MonotonicReactor, monotonic_clock
from txpaxos.cluster import Cluster
from txpaxos.errors import NoQuorum, NotChosen, OutcomeUnknown

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys

T = TypeVar("T")
Work: TypeAlias = Coroutine[Deferred[Any], Any, T]

KEYS = "txpaxos.cli.running.keys"
"""The name under which click keeps the keys of ``--keys``."""

INTERRUPTED = 130
"""The exit status that shells use for Ctrl-C. After SIGTERM it is 143, as they have that."""


@attrs.frozen
class Seeds:
    """A cluster of which only the addresses of some client ports are known.

    :ivar addresses: ``host:port`` of each.
    """

    addresses: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the cluster is called in a line for the user."""
        return f"at {', '.join(self.addresses)}"


class CommandError(click.ClickException):
    """An error that ends the command with one line on standard error and exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"txpaxos: {' '.join(self.message.split())}", file=file, err=True)


class EndedWith(Exception):
    """Raised by work that a signal has cancelled, to have the process end with ``status`` and without a word."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run(work: Callable[[Any], Work[T]]) -> T:
    """Run ``work(reactor)`` to its end. A process can do this once, since Twisted's reactor cannot be started twice.

    :returns: the result of ``work``. An exception of ``work`` is raised.
    :raises SystemExit: if a signal came first. ``work`` was cancelled then, and has finished its clean-up, which no
        second signal disturbs. It may say the status by :class:`EndedWith`.
    """
    from twisted.internet import reactor as installed

    reactor: Any = MonotonicReactor(installed)
    results: list[T | Failure] = []
    done: Deferred[None] = Deferred()
    signals: list[int] = []

    def begin() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # Twisted's own would log an error at a second one.
            signal.signal(number, caught)
        working = Deferred.fromCoroutine(work(reactor))
        reactor.addSystemEventTrigger("before", "shutdown", cancel, working)
        working.addBoth(end)

    def caught(number: int, frame: object) -> None:
        if not results:
            signals.append(number)
        reactor.callFromThread(stop)

    def cancel(working: Deferred[T]) -> Deferred[None]:
        working.cancel()
        return done

    def end(result: T | Failure) -> None:
        results.append(result)
        done.callback(None)
        stop()

    def stop() -> None:
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run()
    if signals or not results:
        _end_interrupted(128 + signals[0] if signals else INTERRUPTED, results)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _end_interrupted(status: int, results: Sequence[object]) -> NoReturn:
    """End this process after a signal: with ``status``, unless the work has another one.

    :raises SystemExit: with it.
    """
    for result in results:
        if isinstance(result, Failure) and isinstance(result.value, EndedWith):
            raise SystemExit(result.value.status)
    click.echo("txpaxos: interrupted", err=True)
    raise SystemExit(status)


async def together(*work: Work[T]) -> list[T]:
    """Run several pieces of work at once, and return their results in order. The first failure cancels the others, and
    is raised."""
    running = [Deferred.fromCoroutine(one) for one in work]
    try:
        return await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
        raise AssertionError("not reached") from None
    finally:
        for one in running:
            one.cancel()


def new_client(
    reactor: Any, cluster: Cluster | Seeds, nodes: list[str] | None = None, keys: Keys | None = None
) -> Client:
    """A client with ``keys``; unless they are given, with those of the command that runs, if it was given any."""
    context = click.get_current_context(silent=True)
    keys = keys or (None if context is None else context.meta.get(KEYS))
    return Client(reactor, cluster.addresses if isinstance(cluster, Seeds) else cluster, nodes, keys=keys)


async def request(
    reactor: Any,
    cluster: Cluster | Seeds,
    seconds: float,
    ask: Callable[[Client], Deferred[T]],
    nodes: list[str] | None = None,
    keys: Keys | None = None,
) -> T:
    """Send one request with a client of its own.

    :param seconds: how long the answer may take.
    :param ask: sends the request with the client.
    :param nodes: the nodes to ask, as for :class:`~txpaxos.client.Client`.
    :param keys: see :func:`new_client`.
    :raises NoQuorum: if no answer came, and the request changed nothing.
    :raises NotChosen: if no answer came, and the command was never sent.
    :raises OutcomeUnknown: if no answer came, and the request may have had its effect or not.
    """
    client = new_client(reactor, cluster, nodes, keys)
    deadline = monotonic_clock(reactor).callLater(seconds, client.close)
    try:
        return await ask(client)
    except (NoQuorum, NotChosen, OutcomeUnknown) as error:
        if deadline.active():
            raise
        unknown = isinstance(error, OutcomeUnknown)
        outcome = "it may still take effect, or not" if unknown else "nothing was changed"
        line = f"no quorum of cluster {cluster.name} answered within {seconds:g} s; {outcome}: {client.findings()}"
        raise type(error)(line) from None
    finally:
        if deadline.active():
            deadline.cancel()
            client.close()
