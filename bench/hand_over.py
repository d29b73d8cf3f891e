"""What a change of the leader costs clients when it is planned, and when it is not.

    python -m bench.hand_over [--hand-overs 1000] [--outstanding 512] [--ends 10] [--restarts 1] [--json]

``twistd paxos`` nodes on this machine, at default settings. Three measurements:

* *Hand-overs under load.* One client has many increments under way all the time, and another has one node after the
  other lead. For each hand-over: the longest time without an answer, from the request until a moment after its answer.
* *Ends of a leader.* The leader is ended with SIGTERM and with SIGKILL in turn, while one increment after the other is
  under way. For each end: the longest time without an answer.
* *Rolling restarts.* Each of five nodes is stopped with SIGTERM and started again, one after the other, under load. It
  counts how often the leader changed, and for how long no increment was answered.

In the end, each increment was answered, and was applied once.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click
from twisted.internet.task import deferLater

from bench.machine import about
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.printing import table
from txpaxos.cli.running import CommandError, run
from txpaxos.cli.status import leader_of
from txpaxos.client import Client
from txpaxos.errors import NotHandedOver

NODES = ("a", "b", "c")
FIVE_NODES = ("a", "b", "c", "d", "e")
STEP_SECONDS_MAX = 30.0
WARM_UP_SECONDS = 1.0
AFTER_SECONDS = 0.05
"""How long a gap may begin after the answer to a hand-over and still count as its own."""
AFTER_END_SECONDS = 2.0
"""The same for the end of a leader."""
ERRORS_MAX = 3
"""How many errors of increments are quoted."""
LAG_SLOTS_MAX = 32
"""How far a node may be behind when the next one is ended. A node that is farther behind does not vote."""
PAUSE_SECONDS = 0.2
"""Between two hand-overs. By then the old leader has heard from the new one."""


class Load:
    """A client with a fixed number of increments under way, until it is stopped.

    :ivar client: the client, which has the keys of ``nodes``.
    :ivar answered: how many increments were answered.
    :ivar failed: how many failed.
    :ivar longest_gap_seconds: the longest time without an answer since :meth:`reset`.
    :ivar latencies_seconds: how long each increment took that was answered since :meth:`reset`.
    :ivar errors: what the first increments that failed failed with.
    """

    def __init__(self, reactor: Any, nodes: LocalCluster, outstanding: int) -> None:
        self.answered = self.failed = 0
        self.longest_gap_seconds = 0.0
        self.latencies_seconds: list[float] = []
        self.errors: list[str] = []
        self._reactor = reactor
        self.client = Client(reactor, nodes.cluster, keys=nodes.client_keys)
        self._answered_at: float = reactor.seconds()
        self._is_stopping = False
        self._under_way = 0
        for _ in range(outstanding):
            self._submit()

    def reset(self) -> None:
        """Measure anew."""
        self.longest_gap_seconds = 0.0
        self.latencies_seconds = []
        self._answered_at = self._reactor.seconds()

    async def stop(self) -> int:
        """Wait for the last answers. Returns the total that the nodes have counted."""
        self._is_stopping = True
        while self._under_way:
            await deferLater(self._reactor, 0.01)
        total: int = await self.client.submit(b"+0")
        self.client.close()
        return total

    def _submit(self) -> None:
        self._under_way += 1
        submitted_at = self._reactor.seconds()
        self.client.submit(b"+1").addCallbacks(self._done, self._lost, callbackArgs=(submitted_at,))

    def _done(self, _: Any, submitted_at: float) -> None:
        now = self._reactor.seconds()
        self.answered += 1
        self.latencies_seconds.append(now - submitted_at)
        self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._answered_at)
        self._answered_at = now
        self._next()

    def _lost(self, failure: Any) -> None:
        self.failed += 1
        if len(self.errors) < ERRORS_MAX:
            self.errors.append(failure.getErrorMessage())
        self._next()

    def _next(self) -> None:
        self._under_way -= 1
        if not self._is_stopping:
            self._submit()


async def finish(load: Load) -> None:
    """Check that each increment was answered, and was applied once.

    :raises CommandError: if not.
    """
    total = await load.stop()
    if load.failed or total != load.answered:
        raise CommandError(
            f"{load.failed} increments failed, {load.answered} were answered, and the total is {total}"
            f" {'; '.join(load.errors)}"
        )


@attrs.frozen
class HandOvers:
    """The hand-overs under load.

    :ivar usual_gaps_seconds: the longest time without an answer in a span of the same length without a hand-over.
    :ivar gaps_seconds: the longest time without an answer, for each hand-over.
    :ivar took_seconds: the time from the request to its answer, for each.
    :ivar refused: the reasons of those that were refused or failed.
    :ivar answered_per_second: the rate at which increments were answered meanwhile.
    """

    usual_gaps_seconds: list[float]
    gaps_seconds: list[float]
    took_seconds: list[float]
    refused: list[str]
    answered_per_second: float


async def hand_overs(reactor: Any, folder: Path, count: int, outstanding: int) -> HandOvers:
    """Have one node after the other lead, ``count`` times, with ``outstanding`` increments under way."""
    nodes = LocalCluster(reactor, "bench", NODES, folder)
    usual: list[float] = []
    gaps: list[float] = []
    took: list[float] = []
    refused: list[str] = []
    try:
        leader = await nodes.start_all(STEP_SECONDS_MAX)
        load = Load(reactor, nodes, outstanding)
        client = Client(reactor, nodes.cluster)
        await deferLater(reactor, WARM_UP_SECONDS)
        began, answered = reactor.seconds(), load.answered
        targets = itertools.cycle(NODES[(NODES.index(leader) + 1) :] + NODES[: (NODES.index(leader) + 1)])
        for target in itertools.islice(targets, count):
            load.reset()
            asked_at = reactor.seconds()
            try:
                await client.hand_over(target, STEP_SECONDS_MAX)
            except NotHandedOver as error:
                refused.append(str(error))
            took.append(reactor.seconds() - asked_at)
            await deferLater(reactor, AFTER_SECONDS)
            gaps.append(load.longest_gap_seconds)
            await deferLater(reactor, PAUSE_SECONDS)
            load.reset()
            await deferLater(reactor, took[-1] + AFTER_SECONDS)
            usual.append(load.longest_gap_seconds)
        rate = (load.answered - answered) / (reactor.seconds() - began)
        client.close()
        await finish(load)
    finally:
        await nodes.stop()
    return HandOvers(usual, gaps, took, refused, rate)


async def ends(reactor: Any, folder: Path, count: int) -> dict[str, list[float]]:
    """End the leader ``count`` times with each signal, in turn. The longest time without an answer, for each end."""
    nodes = LocalCluster(reactor, "bench", NODES, folder)
    gaps: dict[str, list[float]] = {"TERM": [], "KILL": []}
    try:
        leader = await nodes.start_all(STEP_SECONDS_MAX)
        load = Load(reactor, nodes, 1)
        for _, signal in itertools.product(range(count), gaps):
            await deferLater(reactor, WARM_UP_SECONDS)
            load.reset()
            process = nodes.processes.pop(leader)
            process.signal(signal)
            await deferLater(reactor, AFTER_END_SECONDS)
            gaps[signal].append(load.longest_gap_seconds)
            await process.wait()
            nodes.start(leader)
            statuses = await nodes.wait_until(are_nearly_level, f"{leader}'s return", STEP_SECONDS_MAX)
            leader = leader_of(nodes.cluster, statuses) or ""
        await finish(load)
    finally:
        await nodes.stop()
    return gaps


@attrs.frozen
class Restarts:
    """Rolling restarts.

    :ivar restarts: how many nodes were restarted.
    :ivar of_leaders: how many of them led.
    :ivar ballots: how many ballots were begun.
    :ivar longest_gap_seconds: the longest time without an answer.
    """

    restarts: int
    of_leaders: int
    ballots: int
    longest_gap_seconds: float


async def rolling_restarts(reactor: Any, folder: Path, rounds: int, outstanding: int) -> Restarts:
    """Restart each of five nodes, one after the other, ``rounds`` times."""
    nodes = LocalCluster(reactor, "bench", FIVE_NODES, folder)
    of_leaders = 0
    try:
        leader = await nodes.start_all(STEP_SECONDS_MAX)
        load = Load(reactor, nodes, outstanding)
        await deferLater(reactor, WARM_UP_SECONDS)
        load.reset()
        before = await ballot_round(nodes)
        for node in FIVE_NODES * rounds:
            of_leaders += node == leader
            await nodes.processes.pop(node).stop()
            nodes.start(node)
            statuses = await nodes.wait_until(are_nearly_level, f"{node}'s return", STEP_SECONDS_MAX)
            leader = leader_of(nodes.cluster, statuses) or ""
            await deferLater(reactor, WARM_UP_SECONDS)
        ballots = await ballot_round(nodes) - before
        gap = load.longest_gap_seconds
        await finish(load)
    finally:
        await nodes.stop()
    return Restarts(len(FIVE_NODES) * rounds, of_leaders, ballots, gap)


async def ballot_round(nodes: LocalCluster) -> int:
    """The round of the ballot that all nodes follow."""
    statuses = await nodes.wait_until(are_nearly_level, "one leader", STEP_SECONDS_MAX)
    ballot: str = next(status["ballot"] for status in statuses.values() if status is not None)
    return int(ballot.partition(".")[0])


def are_nearly_level(statuses: Any) -> bool:
    """Whether all nodes run, follow one leader, and have caught up: the load goes on, so they are never quite level."""
    ballots = {status and status["ballot"] for status in statuses.values()}
    leads = [status for status in statuses.values() if status and status["role"] == "leader"]
    voters = all(status and status["role"] in ("leader", "follower") for status in statuses.values())
    if len(ballots) != 1 or len(leads) != 1 or not voters:
        return False
    applied = [status["applied_through"] for status in statuses.values()]
    return bool(max(applied) - min(applied) <= LAG_SLOTS_MAX)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def as_text(measured: dict[str, Any]) -> str:
    """A line for each figure that matters."""
    rows: list[tuple[str, str]] = []
    handed: HandOvers | None = measured.get("hand_overs")
    if handed is not None:
        gaps = handed.gaps_seconds
        rows += [
            ("hand-overs under load", f"{len(gaps)}, {len(handed.refused)} of them not done"),
            ("increments answered per second", f"{handed.answered_per_second:.0f}"),
            ("a hand-over takes, median", _ms(statistics.median(handed.took_seconds))),
            ("longest gap without a hand-over, median", _ms(statistics.median(handed.usual_gaps_seconds))),
            ("longest gap without a hand-over, 99 %", _ms(percentile(handed.usual_gaps_seconds, 99))),
            ("longest gap, median", _ms(statistics.median(gaps))),
            ("longest gap, 99 %", _ms(percentile(gaps, 99))),
            ("longest gap, worst", _ms(max(gaps))),
        ]
    for signal, gaps in measured.get("ends", {}).items():
        rows.append((f"SIG{signal} of the leader, {len(gaps)} times: gap, median", _ms(statistics.median(gaps))))
        rows.append((f"SIG{signal} of the leader: gap, worst", _ms(max(gaps))))
    restarts: Restarts | None = measured.get("restarts")
    if restarts is not None:
        rows += [
            ("rolling restart: nodes restarted", f"{restarts.restarts}, {restarts.of_leaders} of them the leader"),
            ("rolling restart: ballots", str(restarts.ballots)),
            ("rolling restart: longest gap", _ms(restarts.longest_gap_seconds)),
        ]
    return table(("what", ""), rows)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--hand-overs", "count", type=click.IntRange(min=0), default=1000, show_default=True, help="How many.")
@click.option("--outstanding", type=click.IntRange(min=1), default=512, show_default=True, help="Under way at a time.")
@click.option("--ends", "ends_count", type=click.IntRange(min=0), default=10, show_default=True, help="Of each signal.")
@click.option("--restarts", "rounds", type=click.IntRange(min=0), default=1, show_default=True, help="Rounds of five.")
@click.option("--json", "wants_json", is_flag=True, help="Print JSON.")
def main(count: int, outstanding: int, ends_count: int, rounds: int, wants_json: bool) -> None:
    """Measure what planned and unplanned changes of the leader cost clients."""

    async def measure(reactor: Any, folder: Path) -> dict[str, Any]:
        measured: dict[str, Any] = {}
        for part in ("hand-overs", "ends", "restarts"):
            (folder / part).mkdir()
        if count:
            measured["hand_overs"] = await hand_overs(reactor, folder / "hand-overs", count, outstanding)
        if ends_count:
            measured["ends"] = await ends(reactor, folder / "ends", ends_count)
        if rounds:
            measured["restarts"] = await rolling_restarts(reactor, folder / "restarts", rounds, outstanding)
        return measured

    with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as name:
        measured = run(lambda reactor: measure(reactor, Path(name)))
    if wants_json:
        parts = {part: attrs.asdict(one) if attrs.has(type(one)) else one for part, one in measured.items()}
        click.echo(json.dumps({**parts, **about()}, indent=2))
    else:
        click.echo(as_text(measured))


if __name__ == "__main__":
    main()
