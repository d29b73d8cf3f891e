"""txpaxos as one of those that are compared: ``twistd paxos`` processes that run examples/kv.py."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.figures import Sample
from bench.load import Loaded
from bench.machine import Meter
from bench.system import ROOT, START_SECONDS_MAX, Load, output_of
from txpaxos.cli.local_cluster import LocalCluster

APP = ROOT / "examples" / "kv.py"


class Ours:
    """A cluster of ours.

    :param folder: of this cluster alone.
    :param node_count: how many nodes.
    :param options: more of ``twistd paxos``.
    """

    name = "txpaxos"

    def __init__(self, reactor: Any, folder: Path, node_count: int = 3, options: Sequence[str] = ()) -> None:
        folder.mkdir()
        self._reactor = reactor
        names = string.ascii_lowercase[:node_count]
        self.nodes = LocalCluster(reactor, "bench", names, folder, ["--app", f"{APP}:KeyValue", *options])
        self.leader = ""

    async def start(self) -> None:
        """See :meth:`bench.system.System.start`."""
        self.leader = await self.nodes.start_all(START_SECONDS_MAX)

    async def stop(self) -> None:
        """See :meth:`bench.system.System.stop`."""
        await self.nodes.stop()

    async def put(self, load: Load) -> Sample:
        """See :meth:`bench.system.System.put`."""
        meter = Meter(self.pids())
        options = {
            "cluster": self.nodes.file,
            "outstanding": load.outstanding,
            "connections": load.connections,
            "seconds": load.seconds,
            "warm-up-seconds": load.warm_up_seconds,
            "value-bytes": load.value_bytes,
        }
        if load.rate is not None:
            options["rate"] = load.rate
        arguments = [f"--{option}={value}" for option, value in options.items()]
        output = await output_of(self._reactor, sys.executable, ["-m", "bench.load", *arguments])
        loaded = msgspec.convert(json.loads(output), Loaded)
        total = loaded.operations_total
        cpu_seconds = {**meter.cpu_seconds(total), "client": loaded.cpu_seconds / total}
        return Sample(
            loaded.operations, loaded.seconds, loaded.latencies, cpu_seconds, datagrams=meter.datagrams(total)
        )

    def pids(self) -> dict[str, list[int]]:
        """The nodes, by what they are."""
        followers = [process.pid for node, process in self.nodes.processes.items() if node != self.leader]
        return {"leader": [self.nodes.processes[self.leader].pid], "followers": followers}
