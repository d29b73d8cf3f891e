"""txpaxos as one of those that are compared: real node processes that run examples/kv.py."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.asking import ask
from bench.figures import Sample
from bench.loop import Loaded
from bench.machine import Meter
from bench.syncs import counting
from bench.system import ROOT, START_SECONDS_MAX, Load, output_of
from txpaxos.cli.demo_keys import OWNER, DemoKeys
from txpaxos.cli.local_cluster import LocalCluster

APP = f"{ROOT / 'examples' / 'kv.py'}:KeyValue"
OWN_FLAG = "--stop-at-eof"
"""bench.node watches its standard input itself."""


class Nodes(LocalCluster):
    """Nodes as ``twistd paxos``, or as :mod:`bench.node`, which takes questions.

    :param asked: whether they are the latter.
    :param bench_options: more of ``bench.node``; ``{node}`` in them is the node's name.
    :param counts_syncs: whether ``strace`` is to count their syncs.
    :ivar names: the ids of the nodes.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        count: int = 3,
        options: Sequence[str] = (),
        *,
        asked: bool = False,
        bench_options: Sequence[str] = (),
        counts_syncs: bool = False,
    ) -> None:
        folder.mkdir()
        names = string.ascii_lowercase[:count]
        super().__init__(reactor, "bench", names, folder, ["--app", APP, *options])
        self.names = names
        self._asked = asked
        self._bench_options = bench_options
        self._counts_syncs = counts_syncs

    def command(self, node: str) -> list[str]:
        """See :meth:`LocalCluster.command`."""
        command = super().command(node)
        if self._asked:
            options = [one for one in command[command.index("paxos") + 1 :] if one != OWN_FLAG]
            own = [one.format(node=node) for one in self._bench_options]
            command = [sys.executable, "-m", "bench.node", *own, "--", *options]
        return counting(self.folder / f"{node}.syncs", command) if self._counts_syncs else command


class Ours:
    """A cluster of ours, under the load of a client process of its own.

    :param nodes: not started yet.
    """

    name = "txpaxos"

    def __init__(self, reactor: Any, nodes: Nodes) -> None:
        self.nodes = nodes
        self.leader = ""
        self._reactor = reactor

    @property
    def folder(self) -> Path:
        """See :attr:`bench.system.System.folder`."""
        return self.nodes.folder

    async def start(self) -> None:
        """See :meth:`bench.system.System.start`."""
        self.leader = await self.nodes.start_all(START_SECONDS_MAX)

    async def stop(self) -> None:
        """See :meth:`bench.system.System.stop`."""
        await self.nodes.stop()

    async def put(self, load: Load) -> Sample:
        """See :meth:`bench.system.System.put`."""
        meter = Meter(self.pids())
        loaded = await self.load(load)
        return sample_of(loaded, meter, {"client": loaded.cpu_seconds})

    async def load(self, load: Load, *options: str) -> Loaded:
        """Put it under a load: what the client saw.

        :param options: more of :mod:`bench.load`.
        """
        arguments = ["-m", "bench.load", f"--cluster={self.nodes.file}", f"--connections={load.connections}", *options]
        arguments += [f"--outstanding={load.outstanding}", f"--value-bytes={load.value_bytes}"]
        arguments += [f"--seconds={load.seconds}", f"--warm-up-seconds={load.warm_up_seconds}"]
        arguments += [] if load.rate is None else [f"--rate={load.rate}"]
        output = await output_of(self._reactor, sys.executable, arguments)
        return msgspec.convert(json.loads(output), Loaded)

    def pids(self) -> dict[str, list[int]]:
        """The nodes, by what they are."""
        followers = [process.pid for node, process in self.nodes.processes.items() if node != self.leader]
        return {"leader": [self.nodes.processes[self.leader].pid], "followers": followers}


class OursSecured(Ours):
    """The same with keys: made by ``txpaxos keys`` for this cluster."""

    name = "txpaxos with keys"

    def __init__(self, reactor: Any, nodes: Nodes) -> None:
        super().__init__(reactor, nodes)
        keys = DemoKeys.make(nodes.folder, nodes.names)
        nodes.node_keys, nodes.client_keys = keys.of, keys.of(OWNER)
        self._keys = keys.of(OWNER)

    async def load(self, load: Load, *options: str) -> Loaded:
        """See :meth:`Ours.load`."""
        return await super().load(load, f"--keys={self._keys}", *options)


class OursInProcess(Ours):
    """A cluster of ours whose leader's own process puts. Its nodes must be such as take questions."""

    name = "txpaxos"

    async def put(self, load: Load) -> Sample:
        """See :meth:`bench.system.System.put`."""
        meter = Meter(self.pids())
        said = await ask(self._reactor, self.nodes.processes[self.leader], self.folder, "put", load)
        return sample_of(msgspec.convert(said, Loaded), meter)


def sample_of(loaded: Loaded, meter: Meter, cpu_seconds: dict[str, float] | None = None) -> Sample:
    """What a client saw, and what its puts cost since the meter was made.

    :param cpu_seconds: of further processes, for all puts.
    """
    total = loaded.answered_total
    each = {role: seconds / total for role, seconds in (cpu_seconds or {}).items()}
    return Sample(
        sum(loaded.answered),
        loaded.seconds,
        loaded.latencies,
        {**meter.cpu_seconds(total), **each},
        meter.datagrams(total),
        total,
    )
