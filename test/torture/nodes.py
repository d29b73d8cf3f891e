"""The nodes: ``twistd paxos`` processes, each in its own network namespace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs

from test.helpers.processes import has_caught_up, rest
from test.torture.apply_log import APPLY_LOG, apply_log_file
from test.torture.commands import VALUE_BYTES, Item, item_of, query_of
from test.torture.disks import Disk, read_disk
from test.torture.network_namespace import NetworkNamespaces
from test.torture.wall_clock import WallClock
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.running import CommandError, together
from txpaxos.cli.status import Statuses, ask_nodes, chosen_through, leader_of
from txpaxos.client import Client
from txpaxos.storage.journal import SEGMENT_BYTES

CLUSTER = "torture"
SMALL_DISK_BYTES = 3 * SEGMENT_BYTES
STATUS_SECONDS = 0.3
TELLING_SECONDS_MAX = 10.0
HEALTH_SECONDS_MAX = 60.0
FULL_SECONDS_MAX = 30.0
FULL = "No space left on device; free some space on that disk, then start the node again"
BAD_SIGNS = ("Traceback", "Unhandled", "gives up")
"""Words that no node may log, except about a full disk."""

TRANSFERRED = "continues from a snapshot at slot"
"""What a node logs when it has installed another node's snapshot."""

OPTIONS = ("--app", "test.torture.apply_log:KeyValue", "--snapshot-log-bytes", "16384")
"""Snapshots are frequent, so that a node that was down for a second needs another node's snapshot."""


class NamespacedCluster(LocalCluster):
    """The nodes of one run. The last node's disk is small.

    :ivar hash_seeds: every PYTHONHASHSEED that a node was started with.
    :ivar apply_logs: the folder with the apply log of every incarnation of a node.
    """

    def __init__(
        self, reactor: Any, namespaces: NetworkNamespaces, folder: Path, rng: Random, clock: WallClock
    ) -> None:
        super().__init__(reactor, CLUSTER, list(namespaces.members), folder, OPTIONS)
        self.cluster = attrs.evolve(self.cluster, members=namespaces.members)
        self.file.write_text(self.cluster.dumps())
        self.hash_seeds: set[int] = set()
        self.apply_logs = folder / "apply_logs"
        self.apply_logs.mkdir()
        self.small = list(namespaces.members)[-1]
        self._namespaces = namespaces
        self._rng = rng
        self._clock = clock
        self._incarnations: Counter[str] = Counter()
        namespaces.mount_small_disk(folder / self.small, SMALL_DISK_BYTES)

    def command(self, node: str) -> list[str]:
        """The program of this node, with its arguments."""
        seed = self._rng.randrange(2**32)
        self.hash_seeds.add(seed)
        self._incarnations[node] += 1
        apply_log = f"{APPLY_LOG}={apply_log_file(self.apply_logs, node, self._incarnations[node])}"
        environment = [f"PYTHONHASHSEED={seed}", apply_log, *self._clock.environment(node)]
        return [*self._namespaces.at(node), "env", *environment, *super().command(node)]

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
        chosen = chosen_through(await ask_nodes(self._reactor, self.cluster, STATUS_SECONDS))
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

    def read_disks(self) -> dict[str, Disk]:
        """The content of each node's disk. The nodes must be down."""
        return {node: read_disk(self.folder / node, self.cluster.name, node) for node in self._nodes}

    async def hit_full_disk(self) -> None:
        """Fill the small disk. Its node must end and say why, and must not start while the disk is full."""
        filler = self.folder / self.small / "filler"
        try:
            self._fill(filler)
            await self._ends_with_full_disk("with a full disk")
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
            for node in self._nodes
            for line in self.log(node).read_text(errors="replace").splitlines()
            if any(sign in line for sign in BAD_SIGNS) and FULL not in line
        ]

    def transfers(self) -> int:
        """How often a node has installed another node's snapshot."""
        return sum(self.log(node).read_text(errors="replace").count(TRANSFERRED) for node in self._nodes)

    def keep(self) -> None:
        """Copy the content of the small disk to a place that outlives this run."""
        folder = self.folder / self.small
        copy = folder.with_suffix(".copy")
        shutil.copytree(folder, copy)
        self._namespaces.demolish()
        folder.rmdir()
        copy.rename(folder)

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
