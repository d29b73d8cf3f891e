"""``txpaxos top``: the cluster live, each second anew, on a terminal or as lines."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from txpaxos.cli.options import cluster_option, keys_option, node_option, timeout_option
from txpaxos.cli.printing import check_output, table
from txpaxos.cli.running import Seeds, run
from txpaxos.cli.status import Statuses, ask_members, chosen_through, leader_of, notes
from txpaxos.cluster import Cluster
from txpaxos.errors import PaxosError
from txpaxos.log_lines import printable

HEAD = ("node", "role", "ballot", "applied", "lag", "slots/s", "waiting", "heard", "disk", "snapshot", "transfer")

INTERVAL_SECONDS_MIN = 0.1
LINE_CHARACTERS_MAX = 1000

ENTER = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
"""Goes to the terminal's second screen, without a cursor. What was on the first one is there again at the end."""
LEAVE = "\x1b[?25h\x1b[?1049l"
HOME, END_OF_LINE, END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
KEYS_TO_END = b"qQ\x03\x04"
"""q, Ctrl-C and Ctrl-D."""


@click.command("top")
@node_option
@cluster_option
@keys_option
@timeout_option(1.0, "How long each node may take to answer; all are asked at once.")
@click.option(
    "--interval",
    "interval_seconds",
    metavar="SECONDS",
    type=click.FloatRange(INTERVAL_SECONDS_MIN, 3600),
    default=1.0,
    show_default=True,
    help="How often the nodes are asked.",
)
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after N times. [default: go on]")
@click.option("--json", "wants_json", is_flag=True, help="One line of JSON each time, also on a terminal.")
def command(
    cluster: Cluster | Seeds, timeout_seconds: float, interval_seconds: float, count: int | None, wants_json: bool
) -> None:
    """Show the cluster live, until q or Ctrl-C.

    \b
    slots/s   slots that the node has applied a second since the last time
    heard     of the leader: how many of its peers it hears; of another node:
              how long ago it heard the leader
    disk      ok, or how long a save has hung
    The other columns are those of `txpaxos status`, and so are the lines below.

    A node that does not answer is unreachable, and is asked again each time. Where standard output is no terminal, each
    time is printed below the last.
    """
    check_output()
    is_screen = sys.stdout.isatty() and not wants_json
    show = _show_json if wants_json else _show_screen if is_screen else _show_text
    watch = Watch(cluster, timeout_seconds, interval_seconds, count, show)
    with _screen() if is_screen else contextlib.nullcontext():
        run(watch.run)


@attrs.frozen
class Frame:
    """The cluster at one time.

    :ivar at: the time of day.
    :ivar voters: the voters among the members.
    :ivar slots_per_second: for each node, as far as two answers of it are known.
    :ivar error: why no node could be asked; empty if that went well.
    """

    at: datetime
    name: str
    voters: Cluster | None
    statuses: Statuses
    slots_per_second: Mapping[str, float] = attrs.field(factory=dict)
    error: str = ""

    @property
    def leader(self) -> str | None:
        """The leader that a quorum follows."""
        if self.voters is None:
            return None
        return leader_of(self.voters, {node: self.statuses.get(node) for node in self.voters.members})

    def problems(self) -> list[str]:
        """What is wrong, in words."""
        found = [self.error] if self.error else []
        if not self.error and self.leader is None:
            found.append("no leader with a quorum")
        silent = [node for node, status in self.statuses.items() if status is None]
        found += [f"{node} does not answer" for node in silent]
        return found + [printable(line, LINE_CHARACTERS_MAX) for line in notes(self.statuses, self.leader)]


def rates(before: Statuses, after: Statuses, seconds: float) -> dict[str, float]:
    """The slots that each node has applied a second. A node that was not known, or that has begun anew, has none."""
    found = {}
    for node, status in after.items():
        earlier = before.get(node)
        if status is None or earlier is None or seconds <= 0:
            continue
        if status.get("up_seconds", 0.0) >= earlier.get("up_seconds", 0.0):
            found[node] = max(0.0, (status["applied_through"] - earlier["applied_through"]) / seconds)
    return found


def heard(status: Mapping[str, Any]) -> str:
    """Of a leader, how many of its peers it hears; of another node, how long ago it heard the leader it follows."""
    known: Mapping[str, float | None] = status.get("heard") or {}
    if status["role"] == "leader":
        return f"{len(known) - len(status.get('unheard') or ())} of {len(known)}"
    seconds = known.get(str(status["ballot"]).partition(".")[2])
    return "-" if seconds is None else f"{seconds:.1f} s"


def as_lines(frame: Frame) -> list[str]:
    """What is shown of ``frame``."""
    answered = sum(status is not None for status in frame.statuses.values())
    leads = "no leader" if frame.leader is None else f"{frame.leader} leads"
    lines = [
        f"cluster {frame.name}: {leads}, {answered} of {len(frame.statuses)} nodes answer   {frame.at:%H:%M:%S} UTC",
        "",
    ]
    chosen = chosen_through(frame.statuses)
    rows: list[list[object]] = []
    for node, status in frame.statuses.items():
        if status is None:
            rows.append([node, "unreachable", *["-"] * (len(HEAD) - 2)])
            continue
        hangs, rate = status.get("disk_hangs_seconds"), frame.slots_per_second.get(node)
        applied = status["applied_through"]
        rows.append([
            *(node, status["role"], status["ballot"], applied, max(0, chosen - applied)),
            *("-" if rate is None else f"{rate:.0f}", status["waiting"], heard(status)),
            *("ok" if hangs is None else f"hangs {hangs:.0f} s", status["snapshot_slot"]),
            printable(status.get("transfer") or "-"),
        ])  # fmt: skip
    lines += table(HEAD, rows).splitlines() if rows else []
    problems = frame.problems()
    return [*lines, "", *problems] if problems else lines


def as_json(frame: Frame) -> str:
    """The frame as an object in one line."""
    chosen = chosen_through(frame.statuses)
    nodes = {
        node: {"reachable": False}
        if status is None
        else {
            "reachable": True,
            "lag": max(0, chosen - status["applied_through"]),
            "slots_per_second": frame.slots_per_second.get(node),
            **status,
        }
        for node, status in frame.statuses.items()
    }
    at = frame.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {"time": at, "cluster": frame.name, "leader": frame.leader, "nodes": nodes, "problems": frame.problems()}
    return json.dumps(told)


def as_screen(lines: list[str], columns: int, rows: int) -> str:
    """``lines`` as they are drawn over what is on the screen, cut to its size."""
    shown = [line[:columns] for line in [*lines, "", "q ends"][:rows]]
    return HOME + "\r\n".join(line + END_OF_LINE for line in shown) + END_OF_SCREEN


def _show_text(frame: Frame) -> None:
    click.echo("\n".join([*as_lines(frame), ""]))


def _show_json(frame: Frame) -> None:
    click.echo(as_json(frame))


def _show_screen(frame: Frame) -> None:
    size = shutil.get_terminal_size()  # Some terminals, as that of a container, do not know their size.
    click.echo(as_screen(as_lines(frame), size.columns, size.lines), nl=False)


class Watch:
    """Asks the nodes again and again, and shows what they say.

    :param count: how often; ``None`` for no end.
    :param show: shows a frame.
    """

    def __init__(
        self,
        cluster: Cluster | Seeds,
        timeout_seconds: float,
        interval_seconds: float,
        count: int | None,
        show: Callable[[Frame], None],
    ) -> None:
        self._cluster = cluster
        self._timeout_seconds = timeout_seconds
        self._interval_seconds = interval_seconds
        self._left = count
        self._show = show
        self._before: Statuses = {}
        self._before_at = 0.0
        self._has_ended = False
        self._waits_for: Deferred[None] | None = None
        self._has_answer = False

    async def run(self, reactor: Any) -> None:
        """Go on until the end.

        :raises PaxosError: if the first question cannot be asked at all. Later ones are asked again.
        """
        keys = _Keys(self.end) if self._show is _show_screen and sys.stdin is not None and sys.stdin.isatty() else None
        if keys is not None:
            reactor.addReader(keys)
        try:
            while not self._has_ended:
                begun_at = reactor.seconds()
                await self._or_end(Deferred.fromCoroutine(self._once(reactor)))
                if self._left == 0 or self._has_ended:
                    break
                pause: Deferred[None] = Deferred()
                seconds = max(0.0, begun_at + self._interval_seconds - reactor.seconds())
                timer = reactor.callLater(seconds, pause.callback, None)
                try:
                    await self._or_end(pause)
                finally:
                    if timer.active():
                        timer.cancel()
        finally:
            if keys is not None:
                reactor.removeReader(keys)

    def end(self) -> None:
        """End, since the user wishes so."""
        self._has_ended = True
        if self._waits_for is not None:
            self._waits_for.cancel()

    async def _or_end(self, work: Deferred[None]) -> None:
        """Wait for ``work``, or for the end, which cancels it."""
        self._waits_for = work
        try:
            await work
        except CancelledError:
            if not self._has_ended:
                raise
        finally:
            self._waits_for = None

    async def _once(self, reactor: Any) -> None:
        at = datetime.now(UTC)
        try:
            members, voters, statuses = await ask_members(reactor, self._cluster, self._timeout_seconds)
        except PaxosError as error:
            if not self._has_answer:
                raise
            silent: Statuses = dict.fromkeys(self._before)
            frame = Frame(at, self._cluster.name, None, silent, error=printable(str(error), LINE_CHARACTERS_MAX))
        else:
            now = reactor.seconds()
            told = rates(self._before, statuses, now - self._before_at)
            frame = Frame(at, members.name, voters, statuses, told)
            self._before, self._before_at, self._has_answer = statuses, now, True
            self._cluster = members  # Any of them says next time who the members are then.
        if self._left is not None:
            self._left -= 1
        self._show(frame)


@implementer(IReadDescriptor)
class _Keys:
    """Reads the keys that are pressed."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def fileno(self) -> int:
        """The terminal."""
        return sys.stdin.fileno()

    def doRead(self) -> None:
        """Read what was pressed. A terminal that is gone ends the command, too."""
        try:
            pressed = os.read(self.fileno(), 1024)
        except OSError:
            pressed = b""
        if not pressed or any(key in KEYS_TO_END for key in pressed):
            self._end()

    def connectionLost(self, reason: object) -> None:
        """End, since the terminal is gone."""
        self._end()

    def logPrefix(self) -> str:
        """What Twisted calls this in its log."""
        return "keys"


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """The terminal's second screen, and keys that come one by one. All is restored at the end, however that comes."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    before = None if descriptor is None else termios.tcgetattr(descriptor)
    try:
        if descriptor is not None:
            tty.setcbreak(descriptor)
            mode = termios.tcgetattr(descriptor)
            mode[3] &= ~termios.ISIG  # Ctrl-C is a key like q, and is no error.
            termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
        click.echo(ENTER, nl=False)
        yield
    finally:
        click.echo(LEAVE, nl=False)
        if descriptor is not None and before is not None:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
