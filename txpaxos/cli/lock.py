"""``txpaxos lock`` and ``txpaxos elect``: a command that runs on one machine at a time."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from txpaxos.cli.child import Child
from txpaxos.cli.guard import END_SECONDS
from txpaxos.cli.options import CommandWithJson, check_number, cluster_option, keys_option, node_option
from txpaxos.cli.printing import show, tell_aside
from txpaxos.cli.recipes import as_command_errors, ask, check_name, json_option
from txpaxos.cli.running import CommandError, EndedWith, Seeds, new_client, run
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Cluster

if TYPE_CHECKING:
    from txpaxos.client import Client
    from txpaxos.recipes import Contender, Election, Hold, Lock, Recipes, Session

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

TTL_SECONDS = 10.0
ANSWER_SECONDS = 5.0
"""How long a quorum may take to answer, besides the wait for the lock."""

MARGIN, GUARD_MARGIN = 0.05, 0.025
"""The parts of the time of the session that are left when a command that has not ended by itself is killed: by
``txpaxos``, and by the guard if ``txpaxos`` does not."""

LET_RUN_TIMES = 20
"""How often in the time of a session the guard is told how long the command may run."""

TOKEN = "TXPAXOS_FENCE_TOKEN"


def _check_command(ctx: click.Context, parameter: click.Parameter, arguments: tuple[str, ...]) -> tuple[str, ...]:
    if arguments and not arguments[0]:
        raise click.BadParameter("the name of the command is empty.")
    return arguments


def _check_seconds(ctx: click.Context, parameter: click.Parameter, seconds: float | None) -> float | None:
    return None if seconds is None else check_number(ctx, parameter, seconds)


def holding(what: str) -> Callable[[Decorated], Decorated]:
    """The options of both commands."""
    options = [
        cluster_option,
        keys_option,
        node_option,
        click.option(
            "--timeout",
            "timeout_seconds",
            metavar="SECONDS",
            type=click.FloatRange(min=0.0, min_open=True, max=86_400.0),
            callback=_check_seconds,
            help=f"How long to wait for {what}. [default: as long as it takes]",
        ),
        click.option(
            "--ttl",
            "ttl_seconds",
            metavar="SECONDS",
            type=click.FloatRange(min=1.0, max=86_400.0),
            default=TTL_SECONDS,
            show_default=True,
            callback=_check_seconds,
            help=f"How long {what} is kept without a word of this process.",
        ),
        json_option,
    ]

    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class _HoldingCommand(CommandWithJson):
    """A command that runs another one. What stands behind that one's name is for it, also without ``--`` before it, as
    with ``env`` and ``flock``. It gets standard output, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        with_value = {name for option in options if not (option.is_flag or option.count) for name in option.opts}
        return super().parse_args(ctx, _with_separator(args, with_value))

    def tell_error(self, ctx: click.Context, text: str) -> None:
        """Print the line: to standard error, if there is a COMMAND."""
        if ctx.params["arguments"]:
            tell_aside(json.dumps({"name": ctx.params["name"], "error": text}))
        else:
            super().tell_error(ctx, text)


def _with_separator(arguments: list[str], with_value: Container[str]) -> list[str]:
    """The arguments, with ``--`` before the second one that is no option: there COMMAND begins.

    :param with_value: the options that have a value.
    """
    names, is_value = 0, False
    for index, argument in enumerate(arguments):
        if is_value:
            is_value = False
        elif argument == "--":
            break
        elif argument.startswith("-") and len(argument) > 1:
            is_value = argument in with_value
        else:
            names += 1
            if names == 2:
                return [*arguments[:index], "--", *arguments[index:]]
    return arguments


@click.command("lock", cls=_HoldingCommand, short_help="Run a command while a lock of the cluster is held.")
@click.argument("name", callback=check_name)
@click.argument("arguments", metavar="[--] COMMAND...", nargs=-1, required=True, callback=_check_command)
@holding("the lock")
def lock_command(name: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND while the lock NAME is held, on one machine at a time. Options stand before COMMAND: what stands
    behind it is its own.

    When the lock may be lost, COMMAND gets SIGTERM, and SIGKILL before another can have the lock. When txpaxos gets
    SIGTERM, COMMAND gets it, too. Its exit status is passed on. TXPAXOS_FENCE_TOKEN in its environment rises with every
    grant: what the command changes should refuse a lower one than the highest it has seen, since a machine that is
    stopped for a while kills nothing in time.

    A lock and an election of one name are the same to the cluster: they exclude each other.

    With --json, what becomes of the lock is told on standard error, a line of JSON each; errors, too.

    \b
    txpaxos lock nightly -- ./backup.sh

    Exits with 1 if the lock is not granted in time, or is lost.
    """
    raise SystemExit(_run_while_held(lambda session: session.lock(name), name, arguments, **options))


@click.command("elect", cls=_HoldingCommand, short_help="Run a command while this machine is elected.")
@click.argument("name", callback=check_name)
@click.argument("arguments", metavar="[[--] COMMAND...]", nargs=-1, callback=_check_command)
@click.option("--value", help="What others see of this machine if it is elected. [default: its name]")
@holding("the election")
def elect_command(name: str, arguments: tuple[str, ...], value: str | None, **options: Any) -> None:
    """Run COMMAND while this machine is elected in NAME; another takes over when it ends.

    As `txpaxos lock`, which says more. A lock of the same name excludes it. Without a COMMAND, print who is elected:
    what it says of itself. Exits with 1 if none is.

    \b
    txpaxos elect scheduler --value "$(hostname)" -- ./scheduler
    txpaxos elect scheduler
    """
    if arguments:
        own = socket.gethostname() if value is None else value
        raise SystemExit(_run_while_held(lambda session: session.election(name, own), name, arguments, **options))
    wants_json, seconds = options["wants_json"], options["timeout_seconds"] or ANSWER_SECONDS

    async def leader_of(recipes: Recipes) -> Contender | None:
        async with await recipes.session() as session:
            return await session.election(name).leader()

    leader = ask(options["cluster"], seconds, leader_of)
    if leader is None:
        raise CommandError(f"none is elected in {name}")
    show(leader.value, {"token": leader.token}, wants_json)


def _run_while_held(
    permit: Callable[[Session], Lock | Election],
    name: str,
    arguments: tuple[str, ...],
    cluster: Cluster | Seeds,
    timeout_seconds: float | None,
    ttl_seconds: float,
    wants_json: bool,
) -> int:
    """Run a command while a permit is held. Its exit status."""

    def tell(state: str, **known: Any) -> None:
        if wants_json:
            tell_aside(json.dumps({"name": name, "state": state, **known}))

    async def held(reactor: Any) -> int:
        client = new_client(reactor, cluster)
        deadline = _Deadline(reactor, timeout_seconds)
        try:
            with as_command_errors():
                session = await _opened(client, ttl_seconds, deadline)
                try:
                    hold = await _granted(permit(session), deadline)
                    tell("held", token=hold.token)
                    return await _supervise(reactor, session, hold, arguments, tell)
                finally:
                    await _close(reactor, session)
        finally:
            client.close()

    return run(held)


class _Deadline:
    """Until when the lock must be granted: the session is opened within the same time.

    :param seconds: from now; ``None`` for as long as it takes.
    """

    def __init__(self, reactor: Any, seconds: float | None) -> None:
        self.reactor = reactor
        self.seconds = seconds
        self.clock = monotonic_clock(reactor)
        self._begun_at = self.clock.seconds()

    @property
    def left_seconds(self) -> float | None:
        """How much of it is left: a moment at least."""
        return None if self.seconds is None else max(0.001, self._begun_at + self.seconds - self.clock.seconds())


async def _opened(client: Client, ttl_seconds: float, deadline: _Deadline) -> Session:
    """A session.

    :raises CommandError: if no quorum has answered in time.
    """
    from txpaxos.recipes import Recipes

    answer_seconds = max(ANSWER_SECONDS, deadline.seconds or 0.0)
    opened = Recipes(client, deadline.reactor, answer_seconds).session(ttl_seconds)
    if deadline.seconds is None:
        return await opened

    def timed_out(result: object, seconds: float) -> Session:
        raise CommandError(f"no quorum has answered within {seconds:g} s: {client.findings()}")

    return await opened.addTimeout(deadline.seconds, deadline.clock, timed_out)


async def _granted(permit: Lock | Election, deadline: _Deadline) -> Hold:
    """The hold.

    :raises CommandError: if it was not granted in time.
    """
    from txpaxos.recipes import WaitTimedOut

    try:
        return await permit.acquire(deadline.left_seconds)
    except WaitTimedOut:
        raise CommandError(f"the permit {permit.name} did not come within {deadline.seconds:g} s") from None


async def _supervise(
    reactor: Any, session: Session, hold: Hold, arguments: tuple[str, ...], tell: Callable[..., None]
) -> int:
    """Run the command to its end, or end it when the hold may be lost. Its exit status.

    :raises EndedWith: with that status, if this was cancelled.
    """

    def may_run_seconds() -> float:
        return session.lease_left_seconds - GUARD_MARGIN * session.ttl_seconds

    child = Child(reactor, arguments, {TOKEN: str(hold.token)}, may_run_seconds())
    let_run = LoopingCall(lambda: child.let_run(may_run_seconds()))
    let_run.clock = monotonic_clock(reactor)
    let_run.start(session.ttl_seconds / LET_RUN_TIMES, now=False)
    first: Deferred[int | None] = Deferred()

    def come(status: int | None) -> None:
        if not first.called:
            first.callback(status)

    stop_watching = session.watch(lambda state: come(None))
    child.ended().addCallback(come)
    if session.state != "held":
        come(None)
    try:
        status = await first
    except CancelledError:
        status = await child.end(min(END_SECONDS, _grace_seconds(session)))
        tell("released", status=status)
        raise EndedWith(status) from None
    finally:
        stop_watching()
        let_run.stop()
    if status is None:
        tell("lost", status=await child.end(_grace_seconds(session)))
        raise CommandError(f"{hold.name} was lost, and {arguments[0]} was ended: no quorum has confirmed it in time")
    tell("released", status=status)
    return status


def _grace_seconds(session: Session) -> float:
    """How long the command may run on before it is killed, so that it is over before the lease is."""
    return max(0.0, session.lease_left_seconds - MARGIN * session.ttl_seconds)


async def _close(reactor: Any, session: Session) -> None:
    """End the session, and with it the hold. If no quorum answers, it ends by itself."""
    from txpaxos.recipes.waiting import passed_over

    if session.is_over:
        return
    closed: Deferred[Any] = session.close()
    closed.addTimeout(ANSWER_SECONDS, monotonic_clock(reactor))
    await closed.addErrback(passed_over)
