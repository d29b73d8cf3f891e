"""A cluster on this machine: each node is a ``twistd paxos`` process, on its own ports, with its data in one folder."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txpaxos.cli.running import CommandError, request, together
from txpaxos.cli.status import Statuses, ask_nodes, chosen_through, leader_of
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.errors import PaxosError
from txpaxos.keys import load_keys
from txpaxos.rights import DEFAULT_RIGHTS, Rights

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys

HOST = "127.0.0.1"
PORTS = range(10_000, 30_000)
"""The ports of nodes. They are below the ports that systems give to outgoing connections: one of those could be taken
while its node is down."""

TWISTD = "from twisted.scripts.twistd import run; run()"
PORT_TAKEN = "Couldn't listen on"
STARTS_MAX = 3
ANSWER_SECONDS = 0.5
POLL_SECONDS = 0.02
STOP_SECONDS = 3.0

T = TypeVar("T")


class ChildProcess(ProcessProtocol):
    """A child process. A ``twistd paxos`` ends by itself if this process does, since its standard input ends.

    :param command: the program and its arguments.
    :param log: the file to which its output is appended.
    :ivar ended: whether the process has ended.
    :ivar exit_status: its exit status; ``None`` while it runs, and if a signal ended it.
    """

    transport: Any  # Twisted's types know no process transport that has a pid.

    def __init__(self, reactor: Any, command: Sequence[str], log: Path) -> None:
        self.ended = False
        self.exit_status: int | None = None
        self._reactor = reactor
        self._waiting: list[Deferred[None]] = []
        with log.open("ab") as file:
            descriptors = {0: "w", 1: file.fileno(), 2: file.fileno()}
            reactor.spawnProcess(self, command[0], command, env=None, childFDs=descriptors)
        self.pid: int = self.transport.pid

    def processEnded(self, reason: Failure) -> None:
        """Note that the process ended."""
        self.ended = True
        self.exit_status = getattr(reason.value, "exitCode", None)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def signal(self, name: str) -> None:
        """Send ``SIG<name>`` to the process, if it still runs."""
        if not self.ended:
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess(getattr(signal, f"SIG{name}"))

    async def stop(self) -> None:
        """End the process: with SIGTERM, and after :data:`STOP_SECONDS` with SIGKILL."""
        self.signal("TERM")
        by_force = self._reactor.callLater(STOP_SECONDS, self.signal, "KILL")
        await self.wait()
        if by_force.active():
            by_force.cancel()

    def wait(self) -> Deferred[None]:
        """Fires when the process has ended."""
        if self.ended:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]


class LocalCluster:
    """The nodes of one cluster, which can be started and killed, and of which some may join and leave.

    :param name: the cluster's name.
    :param nodes: the ids of the nodes.
    :param folder: the folder for the cluster file, and for each node's data and log.
    :param options: more options for ``twistd paxos``.
    :param rights: what clients may do, if there are keys.
    :ivar node_keys: returns the folder of keys of a node; ``None`` if the nodes have none.
    :ivar client_keys: the folder of keys by which nodes that join are let in; ``None`` if the nodes have none.
    :ivar cluster: the cluster, with the nodes' addresses once they were started. It has the nodes that joined, and not
        those that left; the cluster file has those that founded it.
    :ivar processes: the process of each node that runs.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        nodes: Sequence[str],
        folder: Path,
        options: Sequence[str] = (),
        rights: Rights = DEFAULT_RIGHTS,
    ) -> None:
        self.folder = folder
        self.file = folder / "cluster.toml"
        self.cluster = Cluster(name, {}, rights=rights)
        self.node_keys: Callable[[str], Path] | None = None
        self.client_keys: Path | None = None
        self.processes: dict[str, ChildProcess] = {}
        self._reactor = reactor
        self._nodes = nodes
        self._options = options
        self._joined_with: dict[str, list[str]] = {}

    async def start_all(self, seconds: float) -> str:
        """Start all nodes on free ports, and wait until all follow one leader.

        :returns: the leader.
        :raises CommandError: if that takes longer than ``seconds``, or a node does not start.
        """
        for attempt in itertools.count(1):
            members = dict(zip(self._nodes, self.find_members(), strict=True))
            self.cluster = attrs.evolve(self.cluster, members=members)
            self.file.write_text(self.cluster.dumps())
            for node in self._nodes:
                self.start(node)
            try:
                statuses = await self.wait_until(self.is_level, "an election", seconds)
                break
            except CommandError:
                await self.stop()
                # Another process may have taken a port since it was found free.
                if attempt == STARTS_MAX or not any(PORT_TAKEN in self.last_line(node) for node in self._nodes):
                    raise
        leader = leader_of(self.cluster, statuses)
        assert leader is not None
        return leader

    def find_members(self) -> list[Member]:
        """Addresses that the nodes may use."""
        return free_members(len(self._nodes))

    def is_level(self, statuses: Statuses) -> bool:
        """Whether all nodes run, follow one leader, and have applied the same slots."""
        slots = {status and status["applied_through"] for status in statuses.values()}
        ballots = {status and status["ballot"] for status in statuses.values()}
        running = len(statuses) == len(self.cluster.members)
        return (
            running
            and slots == {chosen_through(statuses)}
            and len(ballots) == 1
            and leader_of(self.cluster, statuses) is not None
        )

    def start(self, node: str) -> None:
        """Start a node that does not run."""
        self.processes[node] = ChildProcess(self._reactor, self.command(node), self.log(node))

    def join(self, node: str, replaces: str = "") -> None:
        """Start a node that joins: it is told the address of one node that runs, and no cluster file.

        :param node: an id that no node had before.
        :param replaces: the member that leaves when the node votes; empty for none.
        """
        (member,) = free_members(1)
        at = next(one.client for other, one in self.cluster.members.items() if other in self.processes)
        self._joined_with[node] = ["--join", str(at), "--address", str(member.address), "--client", str(member.client)]
        if replaces:
            self._joined_with[node] += ["--replace", replaces]
        if self.client_keys is not None:
            self._joined_with[node] += ["--join-keys", str(self.client_keys)]
        self.cluster = attrs.evolve(self.cluster, members={**self.cluster.members, node: member})
        self.start(node)

    def forget(self, node: str) -> ChildProcess | None:
        """Take a node for one that has left.

        :returns: its process, if that runs."""
        members = {other: one for other, one in self.cluster.members.items() if other != node}
        self.cluster = attrs.evolve(self.cluster, members=members)
        return self.processes.pop(node, None)

    def command(self, node: str) -> list[str]:
        """The program that runs a node, and its arguments."""
        twistd = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "--logfile=-"]
        found = self._joined_with.get(node, ["--cluster", str(self.file)])
        paxos = ["paxos", "--stop-at-eof", *found, "--node", node]
        if self.node_keys is not None:
            paxos += ["--keys", str(self.node_keys(node))]
        return [*twistd, *paxos, "--data-dir", str(self.folder / node), *self._options]

    def log(self, node: str) -> Path:
        """The file with a node's output."""
        return self.folder / f"{node}.log"

    async def kill(self, node: str) -> None:
        """End a node with SIGKILL, and wait until its process is gone."""
        process = self.processes.pop(node)
        process.signal("KILL")
        await process.wait()

    async def stop(self) -> None:
        """End all nodes."""
        await together(*(process.stop() for process in self.processes.values()))

    async def wait_until(self, condition: Callable[[Statuses], bool], what: str, seconds: float) -> Statuses:
        """Ask the running nodes for their status until ``condition`` is true of it.

        :param what: what is waited for, for the error.
        :returns: the statuses.
        :raises CommandError: if that takes longer than ``seconds``, or a node ends.
        """
        return await self._poll(
            lambda: ask_nodes(self._reactor, self.cluster, ANSWER_SECONDS, list(self.processes), self._keys()),
            condition,
            what,
            seconds,
        )

    async def wait_until_voter(self, node: str, seconds: float) -> None:
        """Ask who the members are until ``node`` is a voter.

        :raises CommandError: if that takes longer than ``seconds``, or a node ends.
        """

        keys = self._keys()

        async def ask_role() -> str:
            running = [other for other in self.cluster.members if other in self.processes and other != node]
            try:
                report = await request(
                    self._reactor, self.cluster, ANSWER_SECONDS, lambda client: client.members(), running, keys
                )
            except PaxosError:
                return ""
            role: str = report["members"].get(node, {}).get("role", "")
            return role

        await self._poll(ask_role, lambda role: role == "voter", f"that {node} votes", seconds)

    async def _poll(
        self, ask: Callable[[], Awaitable[T]], condition: Callable[[T], bool], what: str, seconds: float
    ) -> T:
        give_up_at = self._reactor.seconds() + seconds
        while True:
            answer = await ask()
            for node, process in self.processes.items():
                if process.ended:
                    raise CommandError(f"node {node} ended by itself: {self.last_line(node)}")
            if condition(answer):
                return answer
            if self._reactor.seconds() > give_up_at:
                raise CommandError(f"{what} did not happen within {seconds:g} s")
            await deferLater(self._reactor, POLL_SECONDS)

    def _keys(self) -> Keys | None:
        return None if self.client_keys is None else load_keys(str(self.client_keys), "client")

    def last_line(self, node: str) -> str:
        """The last line of a node's output."""
        lines = self.log(node).read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def free_members(count: int) -> list[Member]:
    """Addresses for ``count`` nodes, on ports that are free."""
    ports = _free_ports()
    return [Member(Address(HOST, next(ports)), Address(HOST, next(ports))) for _ in range(count)]


def _free_ports() -> Iterator[int]:
    """Ports that are free for UDP and TCP, in random order, each once.

    :raises CommandError: (the iterator) if there are no more."""
    for port in random.sample(PORTS, len(PORTS)):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as one:
                    one.bind((HOST, port))
        except OSError:
            continue
        yield port
    raise CommandError(f"no port from {PORTS[0]} to {PORTS[-1]} is free")
