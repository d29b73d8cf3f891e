"""The nodes: ``twistd paxos`` processes, each in its own network namespace."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
from twisted.internet.task import deferLater

from test.helpers.processes import has_caught_up, rest
from test.torture.apply_log import APPLY_LOG, apply_log_file
from test.torture.commands import VALUE_BYTES, Item, item_of, query_of
from test.torture.disks import Disk, read_disk
from test.torture.network_namespace import NetworkNamespaces
from test.torture.roster import Newcomer
from test.torture.wall_clock import WallClock
from txpaxos.cli.local_cluster import ChildProcess, LocalCluster
from txpaxos.cli.running import CommandError, together
from txpaxos.cli.status import Statuses, ask_nodes, chosen_through, leader_of
from txpaxos.client import Client
from txpaxos.cluster import Member
from txpaxos.explaining.recollection import Recollection, recollection_of
from txpaxos.recording.writer import WRITE_SECONDS
from txpaxos.server.node_process import REMOVED
from txpaxos.storage.journal import SEGMENT_BYTES

CLUSTER = "torture"
SMALL_DISK_BYTES = 3 * SEGMENT_BYTES
STATUS_SECONDS = 0.3
TELLING_SECONDS_MAX = 10.0
HEALTH_SECONDS_MAX = 60.0
FULL_SECONDS_MAX = 30.0
NO_SPACE = "No space left on device"
FULL = f"{NO_SPACE}; free some space on that disk, then start the node again"
BAD_SIGNS = ("Traceback", "Unhandled", "gives up")
"""Words that no node may log, except about a full disk."""

TOLD = "was removed from the cluster at slot"
"""What a node says that was removed."""

LOGGED = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[")
"""The begin of a line of twistd's log. Whatever has another was printed for the operator."""

REFUSING_SECONDS_MAX = 30.0
MEMBERS = re.compile(r"the members are (.*), chosen at slot (\d+)$")
"""What a node logs when the members have changed, and when it starts again."""

TRANSFERRED = "continues from a snapshot at slot"
"""What a node logs when it has installed another node's snapshot."""

OPTIONS = ("--app", "test.torture.apply_log:KeyValue", "--snapshot-log-bytes", "16384")
"""Snapshots are frequent, so that a node that was down for a second needs another node's snapshot."""


class NamespacedCluster(LocalCluster):
    """The nodes of one run. The last founder's disk is small. Members come, go and move.

    :ivar cluster: the members as they are now. The cluster file has the founders, at the addresses that they had.
    :ivar hash_seeds: every PYTHONHASHSEED that a node was started with.
    :ivar apply_logs: the folder with the apply log of every incarnation of a node.
    :ivar recordings: the folder with what entered the core of each node; ``None`` if nothing is recorded.
    """

    def __init__(
        self,
        reactor: Any,
        namespaces: NetworkNamespaces,
        nodes: Sequence[str],
        folder: Path,
        rng: Random,
        clock: WallClock,
        records: bool,
    ) -> None:
        self.recordings = folder / "recordings" if records else None
        options = (*OPTIONS, "--record", str(self.recordings)) if records else OPTIONS
        super().__init__(reactor, CLUSTER, list(nodes), folder, options)
        self.cluster = attrs.evolve(self.cluster, members={node: namespaces.member(node) for node in nodes})
        self.founding = self.cluster
        self.file.write_text(self.cluster.dumps())
        self.hash_seeds: set[int] = set()
        self.apply_logs = folder / "apply_logs"
        self.apply_logs.mkdir()
        self.small = nodes[-1]
        self._namespaces = namespaces
        self._rng = rng
        self._clock = clock
        self._incarnations: Counter[str] = Counter()
        self._ever = list(nodes)
        self._members = list(nodes)
        self._nodes = self._members
        self._joins: dict[str, list[str]] = {}  # The options with which each node has joined, but its addresses.
        self._former: dict[str, ChildProcess] = {}
        self._left: list[str] = []  # Those that were removed, and whose folders are kept.
        namespaces.mount_small_disk(folder / self.small, SMALL_DISK_BYTES)

    def command(self, node: str) -> list[str]:
        """The program of this node, with its arguments."""
        seed = self._rng.randrange(2**32)
        self.hash_seeds.add(seed)
        self._incarnations[node] += 1
        apply_log = f"{APPLY_LOG}={apply_log_file(self.apply_logs, node, self._incarnations[node])}"
        environment = [f"PYTHONHASHSEED={seed}", apply_log, *self._clock.environment(node)]
        command = super().command(node)
        member = self._namespaces.member(node)
        if self.founding.members.get(node, member) != member:
            command[command.index("--cluster") + 1] = str(self._edited_file(node, member))
        if node in self._joins:
            paxos = command.index("paxos")
            addresses = ["--address", member.address.written, "--client", member.client.written]
            data = ["--data-dir", str(self.folder / node)]
            command[paxos:] = ["paxos", "--stop-at-eof", *self._joins[node], *addresses, *data, *self._options]
        return [*self._namespaces.at(node), "env", *environment, *command]

    def _edited_file(self, node: str, member: Member) -> Path:
        """The cluster file of a founder that has moved, as its owner edits it: with its own address as it is now, and
        without a founder that had this address and has left."""
        others = {other: one for other, one in self.founding.members.items() if one != member}
        file = self.folder / f"cluster-{node}.toml"
        file.write_text(attrs.evolve(self.founding, members={**others, node: member}).dumps())
        return file

    # members that come and go

    def expect(self, newcomer: Newcomer, replaces: str) -> None:
        """A node is about to join, in place of ``replaces`` if that is not empty."""
        self._namespaces.settle(newcomer.node, newcomer.place)
        self._ever.append(newcomer.node)
        self._joins[newcomer.node] = ["--node", newcomer.name, "--cluster-name", CLUSTER]
        if replaces:
            self._joins[newcomer.node] += ["--replace", replaces]

    def begin_join(self, newcomer: Newcomer, asks: str) -> None:
        """Start a node with an empty folder, which knows nothing but the address of the member ``asks``."""
        self._joins[newcomer.node] += ["--join", self.cluster.members[asks].client.written]
        self.start(newcomer.node)

    def add(self, node: str) -> None:
        """A node has joined."""
        self._members.append(node)
        self.move(node)

    def settle(self, node: str, place: int) -> Member:
        """A member is to live in another place. Returns its addresses there."""
        self._namespaces.settle(node, place)
        return self._namespaces.member(node)

    def move(self, node: str) -> None:
        """A member has other addresses now."""
        member = self._namespaces.member(node)
        self.cluster = attrs.evolve(self.cluster, members={**self.cluster.members, node: member})

    def forget(self, node: str) -> None:
        """A node is a member no more. Whatever is left of it is no part of the cluster."""
        self._members.remove(node)
        members = {other: member for other, member in self.cluster.members.items() if other != node}
        self.cluster = attrs.evolve(self.cluster, members=members)
        if node in self.processes:
            self._former[node] = self.processes.pop(node)

    def retire(self, node: str) -> None:
        """A node is a member no more, and its folder is kept."""
        self.forget(node)
        self._left.append(node)

    def destroy(self, node: str) -> None:
        """Delete the data folder of a node that is down."""
        for path in (self.folder / node).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if node != self.small or node in self._joins:
            (self.folder / node).rmdir()

    def start(self, node: str) -> None:
        """Start a node that does not run."""
        super().start(node)
        if node in self._left:
            self._former[node] = self.processes.pop(node)

    def former(self, node: str) -> ChildProcess:
        """The process of a node that was removed."""
        return self._former[node]

    def check_told(self, node: str) -> None:
        """Check that a node that was removed and has ended knows why.

        :raises CommandError: if not.
        """
        if self._former[node].exit_status != REMOVED or not any(TOLD in line for line in self._logged(node)):
            status = self._former[node].exit_status
            raise CommandError(f"node {node} was removed, ended with {status}, and said: {self.last_line(node)}")

    async def check_refused(self, node: str) -> None:
        """Check that the folder of a node that was removed does not start, for a reason of one line.

        :raises CommandError: if it does not refuse.
        """
        before = self.log(node).stat().st_size
        self.start(node)
        process = self._former[node]
        await process.wait().addTimeout(REFUSING_SECONDS_MAX, self._reactor)
        lines = self.log(node).read_bytes()[before:].decode(errors="replace").splitlines()
        said = [line for line in lines if not LOGGED.match(line)]
        if process.exit_status != REMOVED or len(said) != 1 or TOLD not in said[0]:
            raise CommandError(f"node {node} was removed, and started again with {process.exit_status}: {said[-3:]}")

    async def check_left(self) -> list[str]:
        """Start every node again that was removed and has its folder. Returns what is wrong with it."""
        found = []
        for node in self._left:
            try:
                await self.check_refused(node)
            except CommandError as error:
                found.append(error.message)
        return found

    def histories(self) -> dict[int, set[str]]:
        """Who the members were by each slot that changed them, as each node has logged it."""
        known: dict[int, set[str]] = {}
        for node in self._ever:
            for line in self._logged(node):
                if (found := MEMBERS.search(line)) is not None:
                    known.setdefault(int(found[2]), set()).add(found[1])
        return known

    # all nodes

    async def start_all(self, seconds: float) -> str:
        """Start all nodes, and wait for a leader that all follow."""
        for node in self._nodes:
            self.start(node)
        return await self.health(seconds)

    async def health(self, seconds: float = HEALTH_SECONDS_MAX) -> str:
        """Wait until all nodes run, follow one leader, and lack nothing. Returns the leader.

        :raises CommandError: if that takes longer than ``seconds``, or a node ended.
        """
        statuses = await self.wait_until(self._are_healthy, "health", seconds)
        return leader_of(self.cluster, statuses) or ""

    async def leader(self) -> str | None:
        """The node that leads now, with a quorum that follows it."""
        return leader_of(self.cluster, await ask_nodes(self._reactor, self.cluster, STATUS_SECONDS))

    async def outlast(self, snapshots: int, seconds: float) -> None:
        """Wait until each running node has this many new snapshots, all of which hold what is chosen now.

        It waits no longer than ``seconds``, in case the clients change too little for that.
        """
        chosen = await self.chosen_through()
        taken: dict[str, set[int]] = {node: set() for node in self.processes}
        give_up_at = self._reactor.seconds() + seconds

        def is_enough(statuses: Statuses) -> bool:
            for node, status in statuses.items():
                if status is not None and status["snapshot_slot"] > chosen:
                    taken[node].add(status["snapshot_slot"])
            return min(map(len, taken.values())) >= snapshots or self._reactor.seconds() > give_up_at

        await self.wait_until(is_enough, "snapshots", HEALTH_SECONDS_MAX)

    async def tell_all(self) -> dict[str, dict[str, Item]]:
        """The items of each node, by node and key, once no command is under way. Each node answers for itself."""
        await rest(self)
        return dict(zip(self._nodes, await together(*map(self._tell, self._nodes)), strict=True))

    async def chosen_through(self) -> int:
        """The last slot up to which some node knows all slots to be chosen."""
        return chosen_through(await ask_nodes(self._reactor, self.cluster, STATUS_SECONDS))

    async def recall(self, node: str, slots: Sequence[int]) -> list[Recollection]:
        """What a running node remembers of each of ``slots``."""
        client = Client(self._reactor, self.cluster, [node])
        try:
            told = [await client.recall(slot, deadline_seconds=TELLING_SECONDS_MAX) for slot in slots]
            return list(map(recollection_of, told))
        finally:
            client.close()

    async def recorded(self) -> None:
        """Wait until what the nodes have done is in their recordings, so that a kill does not lose it."""
        await deferLater(self._reactor, 2 * WRITE_SECONDS)

    def read_disks(self) -> dict[str, Disk]:
        """The content of each node's disk. The nodes must be down."""
        return {node: read_disk(self.folder / node, self.cluster.name, node) for node in self._nodes}

    async def hit_full_disk(self) -> None:
        """Fill the small disk. Its node must say so, whether it runs on without snapshots or ends, and must not start
        while the disk is full."""
        filler = self.folder / self.small / "filler"
        try:
            self._fill(filler)
            await self._says_that_the_disk_is_full()
            if self.processes[self.small].ended:
                await self._ends_with_full_disk("with a full disk")
            else:
                await self.kill(self.small)
            self.start(self.small)
            await self._ends_with_full_disk("started on a full disk")
        finally:
            filler.unlink()

    def resume(self, node: str) -> None:
        """Continue a stopped node, if it still runs."""
        process = self.processes.get(node)
        if process is not None and not process.ended:
            os.kill(process.pid, signal.SIGCONT)  # Twisted has no name for this signal.

    def complaints(self) -> list[str]:
        """Lines in the nodes' logs that must not be there."""
        return [
            f"node {node} said: {line}"
            for node in self._ever
            for line in self._logged(node)
            if any(sign in line for sign in BAD_SIGNS)
            and FULL not in line
            and not (TOLD in line and node not in self._members)
        ]

    def transfers(self) -> int:
        """How often a node has installed another node's snapshot."""
        return sum(TRANSFERRED in line for node in self._ever for line in self._logged(node))

    def keep(self) -> None:
        """Copy the content of the small disk to a place that outlives this run."""
        folder = self.folder / self.small
        copy = folder.with_suffix(".copy")
        shutil.copytree(folder, copy)
        self._namespaces.demolish()
        folder.rmdir()
        copy.rename(folder)

    async def stop(self) -> None:
        """End all nodes, and those that were removed."""
        await together(*(process.stop() for process in self._former.values()))
        await super().stop()

    def _logged(self, node: str) -> list[str]:
        """The lines of a node's log."""
        log = self.log(node)
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    async def _tell(self, node: str) -> dict[str, Item]:
        client = Client(self._reactor, self.cluster, [node])
        try:
            readings = [await client.read(query_of("get", key), "local", TELLING_SECONDS_MAX) for key in VALUE_BYTES]
            return {key: item_of(key, one.result) for key, one in zip(VALUE_BYTES, readings, strict=True)}
        finally:
            client.close()

    def _are_healthy(self, statuses: Statuses) -> bool:
        ballots = {status and status["ballot"] for status in statuses.values()}
        return (
            len(statuses) == len(self._nodes)
            and len(ballots) == 1
            and leader_of(self.cluster, statuses) is not None
            and all(has_caught_up(statuses, node) for node in statuses)
        )

    def _fill(self, filler: Path) -> None:
        file = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            space = os.fstatvfs(file)
            size = space.f_bavail * space.f_frsize
            while size:
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file, os.fstat(file).st_size, size)
                    continue
                size //= 2
        finally:
            os.close(file)

    async def _says_that_the_disk_is_full(self) -> None:
        before = len(self._logged(self.small))
        give_up_at = self._reactor.seconds() + FULL_SECONDS_MAX
        while not any(NO_SPACE in line for line in self._logged(self.small)[before:]):
            if self._reactor.seconds() > give_up_at:
                raise CommandError(f"node {self.small} did not say that its disk is full: {self.last_line(self.small)}")
            await deferLater(self._reactor, STATUS_SECONDS)

    async def _ends_with_full_disk(self, when: str) -> None:
        process = self.processes[self.small]
        await process.wait().addTimeout(FULL_SECONDS_MAX, self._reactor)
        del self.processes[self.small]
        if process.exit_status != 1 or FULL not in self.log(self.small).read_text(errors="replace")[-2000:]:
            said = self.last_line(self.small)
            raise CommandError(f"node {self.small}, {when}, ended with {process.exit_status} and said: {said}")


def node_names(count: int) -> Sequence[str]:
    """a, b, c, ..."""
    return [chr(ord("a") + number) for number in range(count)]
