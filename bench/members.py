"""What changes of the members cost clients, and what survives them.

    python -m bench.members [--parts changes,generations,join,restarts] [--outstanding 512] [--seconds 5]
                            [--megabytes 300] [--rate 6] [--restarts 100] [--json]

``twistd paxos`` nodes on this machine, at default settings. Four parts:

* *changes*: three nodes become five and then three again, the leader being the first that is removed; and a node is
  killed, and replaced. One client has many increments under way all the time. For each change: its p99 beside that of
  the seconds before it, and the longest time without any answer.
* *generations*: all members are replaced, one after the other, under the same load. A node that was replaced is killed,
  and its folder deleted, as soon as the change is complete. In the end the total, the last result of a session that
  began before, and all registers are what they were.
* *join*: a node joins with one address a cluster with a big state, which is written to all the time: how long it takes
  until the node votes, and how long the transfer of the state takes.
* *restarts*: a node that was removed is started again and again, in turn with the folder that knows of the removal, and
  with a copy that does not. The leader and its ballot stay what they are.

It ends with 1 and one line if a client sees an error, or if something is lost.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click
import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from bench.hand_over import Load, ballot_round, finish, percentile
from bench.machine import about
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.printing import table
from txpaxos.cli.running import CommandError, request, run
from txpaxos.cli.status import Statuses, ask_nodes, leader_of
from txpaxos.client import Client
from txpaxos.cluster import Address
from txpaxos.wire.client_messages import Answer, ClientCodec, Submit
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame

NODES = ("a", "b", "c")
APP = Path(__file__).parent.parent / "examples" / "kv.py"
PARTS = ("changes", "generations", "join", "restarts")
STEP_SECONDS_MAX = 120.0
TRANSFER_SECONDS_MAX = 900.0
WARM_UP_SECONDS = 2.0
AFTER_SECONDS = 0.5
"""How long after a change its figures are still taken."""
REGISTERS = 64
VALUE_BYTES = 500_000
WRITES_MAX = 64


@attrs.frozen
class Change:
    """One change of the members, or the death of one, under load.

    :ivar took_seconds: from the request, or the start of the process that joins, until it was done.
    :ivar p99_before_seconds: of the increments that were answered in the seconds before it.
    :ivar p99_seconds: of those that were answered meanwhile.
    :ivar gap_before_seconds: the longest time without an answer in the seconds before it.
    :ivar gap_seconds: the longest time without an answer meanwhile.
    """

    what: str
    took_seconds: float
    p99_before_seconds: float
    p99_seconds: float
    gap_before_seconds: float
    gap_seconds: float

    @property
    def ratio(self) -> float:
        """The p99 during the change, in p99s of before."""
        return self.p99_seconds / self.p99_before_seconds


async def remove(reactor: Any, nodes: LocalCluster, node: str) -> None:
    """Remove a member, and wait until the change is complete and its process has ended by itself."""
    await change(reactor, nodes, "remove", node)
    process = nodes.forget(node)
    if process is not None:
        await process.wait().addTimeout(STEP_SECONDS_MAX, reactor)


async def change(reactor: Any, nodes: LocalCluster, action: Any, node: str, other: str = "") -> None:
    """Have the members changed, and wait until the change is complete. One that is under way is waited for."""
    await request(
        reactor, nodes.cluster, STEP_SECONDS_MAX, lambda client: client.change_members(action, node, other=other)
    )


async def join(nodes: LocalCluster, node: str, replaces: str = "") -> None:
    """Have a node join, and wait until it votes."""
    nodes.join(node, replaces)
    await nodes.wait_until_voter(node, STEP_SECONDS_MAX)


# --------------------------------------------------------------------- changes


async def changes(reactor: Any, folder: Path, outstanding: int, seconds: float) -> list[Change]:
    """From three nodes to five and back, and a node that dies and is replaced."""
    nodes = LocalCluster(reactor, "bench", NODES, folder)
    found: list[Change] = []

    async def measure(what: str, work: Callable[[], Awaitable[Any]]) -> None:
        load.reset()
        await deferLater(reactor, seconds)
        before, gap_before = percentile(load.latencies_seconds, 99), load.longest_gap_seconds
        load.reset()
        began = reactor.seconds()
        await work()
        took = reactor.seconds() - began
        await deferLater(reactor, AFTER_SECONDS)
        p99, gap = percentile(load.latencies_seconds, 99), load.longest_gap_seconds
        found.append(Change(what, took, before, p99, gap_before, gap))
        click.echo(f"{what}: {took:.2f} s", err=True)

    try:
        leader = await nodes.start_all(STEP_SECONDS_MAX)
        load = Load(reactor, nodes, outstanding)
        await deferLater(reactor, WARM_UP_SECONDS)
        one, other = (node for node in NODES if node != leader)
        await measure("d joins: 3 to 4", lambda: join(nodes, "d"))
        await measure("e joins: 4 to 5", lambda: join(nodes, "e"))
        await measure("the leader is removed: 5 to 4", lambda: remove(reactor, nodes, leader))
        await measure(f"{one} is removed: 4 to 3", lambda: remove(reactor, nodes, one))
        leads = (await client_members(reactor, nodes))["leader"]
        dead = other if leads != other else "d"
        await measure(f"{dead} dies", lambda: nodes.kill(dead))
        await measure(f"f replaces {dead}", lambda: join(nodes, "f", dead))
        await change(reactor, nodes, "replace", dead, "f")
        nodes.forget(dead)
        await finish(load)
    finally:
        await nodes.stop()
    return found


async def client_members(reactor: Any, nodes: LocalCluster) -> dict[str, Any]:
    """Who the members are."""
    return await request(reactor, nodes.cluster, STEP_SECONDS_MAX, lambda client: client.members())


# ----------------------------------------------------------------- generations


@attrs.frozen
class Generations:
    """All members were replaced.

    :ivar took_seconds: each replacement, from the start of the new process until the old folder was deleted.
    :ivar increments: how many were answered, and are in the total of each node.
    :ivar registers: how many are what they were.
    :ivar longest_gap_seconds: the longest time without an answer.
    """

    took_seconds: list[float]
    increments: int
    registers: int
    longest_gap_seconds: float


async def generations(reactor: Any, folder: Path, outstanding: int) -> Generations:
    """Replace all members, one after the other, and delete the folder of each at once."""
    nodes = LocalCluster(reactor, "bench", NODES, folder)
    took: list[float] = []
    try:
        await nodes.start_all(STEP_SECONDS_MAX)
        registers = {f"register {number}": b"%d" % number for number in range(REGISTERS)}
        with closing(Client(reactor, nodes.cluster)) as client:
            for subject, value in registers.items():
                await client.ask(subject, value, STEP_SECONDS_MAX)
            total = await client.submit(b"+0", STEP_SECONDS_MAX)
            session, sequence = client.session, client.next_sequence - 1
        assert session is not None
        load = Load(reactor, nodes, outstanding)
        await deferLater(reactor, WARM_UP_SECONDS)
        load.reset()
        for old, new in zip(NODES, "def", strict=True):
            began = reactor.seconds()
            await join(nodes, new, old)
            await change(reactor, nodes, "replace", old, new)
            process = nodes.forget(old)
            assert process is not None
            process.signal("KILL")
            await process.wait()
            shutil.rmtree(nodes.folder / old)
            took.append(reactor.seconds() - began)
            click.echo(f"{new} replaces {old}: {took[-1]:.2f} s", err=True)
        gap = load.longest_gap_seconds
        await finish(load)
        again = Submit(1, session, sequence, sequence - 1, (b"+0",))
        for node, member in nodes.cluster.members.items():
            await check_node(reactor, nodes, node, load.answered, registers)
            answered = answer_of(member.client, nodes.cluster.name, again)
            if answered != total:
                raise CommandError(f"node {node} has forgotten a session: {answered} in place of {total}")
    finally:
        await nodes.stop()
    return Generations(took, load.answered, len(registers), gap)


async def check_node(reactor: Any, nodes: LocalCluster, node: str, total: int, registers: dict[str, bytes]) -> None:
    """Check what one node answers by itself.

    :raises CommandError: if it has another total, or other registers.
    """
    with closing(Client(reactor, nodes.cluster, [node])) as client:
        found = await client.submit(b"+0", STEP_SECONDS_MAX)
        if found != total:
            raise CommandError(f"node {node} has the total {found}, and {total} increments were answered")
        for subject, value in registers.items():
            decided = await client.ask(subject, b"another value", STEP_SECONDS_MAX)
            if decided != value:
                raise CommandError(f"node {node} has {decided!r} for {subject}, which was {value!r}")


def answer_of(address: Address, cluster: str, submit: Submit) -> Any:
    """Send a run of commands as it is, and wait for the answer. Blocks.

    :raises CommandError: if it is refused, or no answer comes.
    """
    codec, splitter = ClientCodec(cluster), FrameSplitter(FRAME_BYTES_MAX)
    with socket.create_connection((address.host, address.port), STEP_SECONDS_MAX) as connection:
        connection.sendall(frame(codec.encode(submit)))
        while data := connection.recv(2**16):
            for part in splitter.feed(data):
                message = codec.decode(part)
                if isinstance(message, Answer):
                    return msgspec.msgpack.decode(message.results[0])
    raise CommandError(f"the node at {address} did not answer")


# ------------------------------------------------------------------------ join


@attrs.frozen
class Join:
    """A node joined a cluster with a big state.

    :ivar voter_seconds: from the start of its process until it voted.
    :ivar member_seconds: from the start of its process until it was a member, and its process began to serve.
    :ivar transfer_seconds: from the start of the transfer of the state until its end; 0 if none was seen.
    :ivar level_seconds: from the end of the transfer until it voted.
    :ivar written_megabytes_per_second: what others wrote meanwhile.
    """

    voter_seconds: float
    member_seconds: float
    transfer_seconds: float
    level_seconds: float
    written_megabytes_per_second: float


class Writer:
    """Writes values at a rate, whatever becomes of earlier ones.

    :ivar failed: how many writes failed.
    """

    def __init__(self, reactor: Any, client: Client, keys: int, rate: float) -> None:
        self.failed = 0
        self._reactor = reactor
        self._client = client
        self._keys = keys
        self._rate = rate
        self._under_way: set[Deferred[Any]] = set()

    async def fill(self) -> None:
        """Write each key once."""
        for key in range(self._keys):
            await self._client.submit(put(key, os.urandom(VALUE_BYTES)))

    async def write(self, until: Deferred[Any]) -> float:
        """Write until then. Returns the megabytes a second that were written."""
        count, began = 0, self._reactor.seconds()
        while not until.called:
            if len(self._under_way) < WRITES_MAX:
                written = self._client.submit(put(count % self._keys, bytes([count % 256]) * VALUE_BYTES))
                self._under_way.add(written)
                written.addErrback(self._lost)
                written.addBoth(partial(self._done, written))
                count += 1
            due = began + count * VALUE_BYTES / self._rate / 1e6
            await deferLater(self._reactor, max(0.0, due - self._reactor.seconds()))
        await DeferredList(list(self._under_way))
        return float(count * VALUE_BYTES / 1e6 / (self._reactor.seconds() - began))

    def _done(self, written: Deferred[Any], _: object) -> None:
        self._under_way.discard(written)

    def _lost(self, _: object) -> None:
        self.failed += 1


def put(key: int, value: bytes) -> bytes:
    """A command of ``examples/kv.py``."""
    return msgspec.msgpack.encode(["put", f"key {key}", value])


async def join_with_state(reactor: Any, folder: Path, megabytes: int, rate: float) -> Join:
    """Have a node join a cluster with a state of ``megabytes``, beside ``rate`` MB/s of writes."""
    nodes = LocalCluster(reactor, "bench", NODES, folder, ["--app", f"{APP}:KeyValue"])
    serves: list[float] = []
    takes: list[float] = []

    async def watch_transfer() -> None:
        """Note when the new node is seen to serve, and to take the state, until it votes."""
        while not votes.called:
            status = (await ask_nodes(reactor, nodes.cluster, 0.5, ["d"]))["d"]
            if status is not None:
                serves.append(reactor.seconds())
            if status is not None and status["transfer"]:
                takes.append(reactor.seconds())
            await deferLater(reactor, 0.02)

    try:
        await nodes.start_all(STEP_SECONDS_MAX)
        with closing(Client(reactor, nodes.cluster)) as client:
            writer = Writer(reactor, client, max(1, megabytes * 10**6 // VALUE_BYTES), rate)
            await writer.fill()
            began = reactor.seconds()
            nodes.join("d")
            votes = Deferred.fromCoroutine(nodes.wait_until_voter("d", TRANSFER_SECONDS_MAX))
            writing = Deferred.fromCoroutine(writer.write(votes))
            watching = Deferred.fromCoroutine(watch_transfer())
            await votes
            voted_at = reactor.seconds()
            written = await writing
            await watching
        if writer.failed:
            raise CommandError(f"{writer.failed} writes failed")
    finally:
        await nodes.stop()
    first, last = (takes[0], takes[-1]) if takes else (voted_at, voted_at)
    return Join(voted_at - began, serves[0] - began if serves else 0.0, last - first, voted_at - last, written)


# -------------------------------------------------------------------- restarts


@attrs.frozen
class Restarts:
    """A removed node was started again and again.

    :ivar restarts: how often.
    :ivar of_untold: how often with a folder that did not know of the removal.
    :ivar leader_changes: how often another node led, or another ballot was begun.
    """

    restarts: int
    of_untold: int
    leader_changes: int


async def restarts(reactor: Any, folder: Path, count: int) -> Restarts:
    """Start a removed node ``count`` times."""
    nodes = LocalCluster(reactor, "bench", (*NODES, "d"), folder)
    changed = 0
    try:
        leader = await nodes.start_all(STEP_SECONDS_MAX)
        removed = next(node for node in "abcd" if node != leader)
        load = Load(reactor, nodes, 1)
        await nodes.kill(removed)
        await change(reactor, nodes, "remove", removed)
        nodes.forget(removed)
        shutil.copytree(folder / removed, folder / "untold")
        before = await ballot_round(nodes)
        for number in range(count):
            if number % 2 == 0:
                shutil.rmtree(folder / removed)
                shutil.copytree(folder / "untold", folder / removed)
            nodes.start(removed)
            process = nodes.processes.pop(removed)
            await process.wait().addTimeout(STEP_SECONDS_MAX, reactor)
            statuses = await nodes.wait_until(is_led(nodes), "a leader", STEP_SECONDS_MAX)
            rounds = {int(status["ballot"].partition(".")[0]) for status in statuses.values() if status is not None}
            if leader_of(nodes.cluster, statuses) != leader or max(rounds) != before:
                changed += 1
                leader, before = leader_of(nodes.cluster, statuses) or "", max(rounds)
        await finish(load)
    finally:
        await nodes.stop()
    return Restarts(count, (count + 1) // 2, changed)


def is_led(nodes: LocalCluster) -> Callable[[Statuses], bool]:
    """Whether a quorum follows a leader."""
    return lambda statuses: leader_of(nodes.cluster, statuses) is not None


# --------------------------------------------------------------------- figures


def as_text(measured: dict[str, Any]) -> str:
    """A table of the changes, and a line for each other figure."""
    parts = []
    found: Sequence[Change] = measured.get("changes", ())
    if found:
        rows = [
            (
                one.what,
                f"{one.took_seconds:.2f}",
                _ms(one.p99_before_seconds),
                _ms(one.p99_seconds),
                f"{one.ratio:.1f}",
                _ms(one.gap_before_seconds),
                _ms(one.gap_seconds),
            )
            for one in found
        ]
        head = ("change", "s", "p99 ms before", "meanwhile", "ratio", "gap ms before", "meanwhile")
        parts.append(table(head, rows))
    lines: list[tuple[str, str]] = []
    replaced: Generations | None = measured.get("generations")
    if replaced is not None:
        lines += [
            ("all members replaced, old folders deleted", f"{replaced.increments} increments, all counted once"),
            ("registers that are what they were", str(replaced.registers)),
            ("longest gap meanwhile", f"{_ms(replaced.longest_gap_seconds)} ms"),
        ]
    joined: Join | None = measured.get("join")
    if joined is not None:
        rest = joined.voter_seconds - joined.transfer_seconds
        lines += [
            ("from the start of a node that joins until it votes", f"{joined.voter_seconds:.1f} s"),
            ("the transfer of the state", f"{joined.transfer_seconds:.1f} s, and {rest:.1f} s besides:"),
            ("  until it is a member, and serves", f"{joined.member_seconds:.1f} s"),
            ("  after the transfer, until it votes", f"{joined.level_seconds:.1f} s"),
            ("written meanwhile", f"{joined.written_megabytes_per_second:.1f} MB/s"),
        ]
    started: Restarts | None = measured.get("restarts")
    if started is not None:
        what = f"restarts of a removed node, {started.of_untold} of them untold"
        lines.append((what, f"{started.restarts}; the leader or the ballot changed {started.leader_changes} times"))
    if lines:
        parts.append(table(("what", ""), lines))
    return "\n\n".join(parts)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--parts", default=",".join(PARTS), show_default=True, help="What is measured.")
@click.option("--outstanding", type=click.IntRange(min=1), default=512, show_default=True, help="Under way at a time.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=5.0, show_default=True, help="Before each change.")
@click.option("--megabytes", type=click.IntRange(min=1), default=300, show_default=True, help="Of the big state.")
@click.option("--rate", type=click.FloatRange(min=0.1), default=6.0, show_default=True, help="MB/s written beside it.")
@click.option("--restarts", "count", type=click.IntRange(min=1), default=100, show_default=True, help="How many.")
@click.option("--json", "wants_json", is_flag=True, help="Print JSON.")
def main(
    parts: str, outstanding: int, seconds: float, megabytes: int, rate: float, count: int, wants_json: bool
) -> None:
    """Measure what changes of the members cost clients, and check what survives them."""
    wanted = parts.split(",")
    if not set(wanted) <= set(PARTS):
        raise click.BadParameter(f"the parts are {', '.join(PARTS)}.", param_hint="--parts")
    works: dict[str, Callable[[Any, Path], Awaitable[Any]]] = {
        "changes": lambda reactor, folder: changes(reactor, folder, outstanding, seconds),
        "generations": lambda reactor, folder: generations(reactor, folder, outstanding),
        "join": lambda reactor, folder: join_with_state(reactor, folder, megabytes, rate),
        "restarts": lambda reactor, folder: restarts(reactor, folder, count),
    }

    async def measure(reactor: Any, folder: Path) -> dict[str, Any]:
        measured = {}
        for part in wanted:
            (folder / part).mkdir()
            measured[part] = await works[part](reactor, folder / part)
        return measured

    with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as name:
        measured = run(lambda reactor: measure(reactor, Path(name)))
    if wants_json:
        click.echo(msgspec.json.format(msgspec.json.encode({**measured, **about()}), indent=2).decode())
    else:
        click.echo(as_text(measured))


if __name__ == "__main__":
    main()
