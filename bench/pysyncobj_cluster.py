"""PySyncObj as one of those that are compared: three processes with a journal each; the leader's puts to itself.

PySyncObj writes its journal to a memory map and does not sync it: its answers are in no disk's keeping.
"""

from __future__ import annotations

import importlib
import json
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.task import deferLater

from bench.asking import ask
from bench.figures import Sample
from bench.loop import Loaded
from bench.machine import Meter
from bench.ours import sample_of
from bench.system import START_SECONDS_MAX, Load
from txpaxos.cli.local_cluster import ChildProcess, free_members
from txpaxos.cli.running import CommandError, together

POLL_SECONDS = 0.05

NEVER_COMPACTS = {"logCompactionMinEntries": 10**8, "logCompactionMinTime": 10**6}
"""As shipped, it writes its state and its journal anew after every 5,000 entries, and stands still meanwhile."""

PERIOD = {"appendEntriesPeriod": 0.005, **NEVER_COMPACTS}
BIG_BATCHES = {"appendEntriesBatchSizeBytes": 2**20, "sendBufferSize": 2**20, "recvBufferSize": 2**20}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "no batches": {"appendEntriesUseBatch": False, **NEVER_COMPACTS},
    "period 5 ms": PERIOD,
    "period and tick 5 ms": {"autoTickPeriod": 0.005, **PERIOD},
    "period and tick 5 ms, big batches": {"autoTickPeriod": 0.005, **PERIOD, **BIG_BATCHES},
    "period and tick 1 ms": {**PERIOD, "appendEntriesPeriod": 0.001, "autoTickPeriod": 0.001},
}
"""What is tried; the best for each load is taken."""


def absent() -> str | None:
    """Why it cannot be run here, or ``None``."""
    try:
        importlib.import_module("pysyncobj")
    except ModuleNotFoundError as error:
        if error.name == "pysyncobj":
            return "no PySyncObj here: python -m pip install 'pysyncobj>=0.3.17'"
        return f"PySyncObj cannot be imported by this Python: {error}"
    except Exception as error:  # Whatever a Python that it does not know makes of it.
        return f"PySyncObj cannot be imported by this Python: {error}"
    return None


class PySyncObj:
    """A cluster of PySyncObj.

    :param folder: of this cluster alone.
    :param settings: a name of :data:`SETTINGS`.
    """

    name = "PySyncObj"

    def __init__(self, reactor: Any, folder: Path, settings: str) -> None:
        folder.mkdir()
        self.settings = settings
        self._reactor = reactor
        self.folder = folder
        self._processes: dict[str, ChildProcess] = {}
        self._leader = ""

    async def start(self) -> None:
        """See :meth:`bench.system.System.start`."""
        addresses = {name: str(one.address) for name, one in zip(string.ascii_lowercase, free_members(3), strict=False)}
        for node, address in addresses.items():
            partners = ",".join(other for other in addresses.values() if other != address)
            options = [f"--address={address}", f"--partners={partners}", f"--journal={self.folder / node}"]
            options += [f"--settings={json.dumps(SETTINGS[self.settings])}"]
            command = [sys.executable, "-m", "bench.pysyncobj_node", *options]
            self._processes[node] = ChildProcess(self._reactor, command, self.folder / f"{node}.log")
        await self._find_leader()

    async def _find_leader(self) -> None:
        give_up_at = self._reactor.seconds() + START_SECONDS_MAX
        while True:
            statuses = await together(*(self._ask(node, "status") for node in self._processes))
            leaders = [node for node, status in zip(self._processes, statuses, strict=True) if status["leads"]]
            if len(leaders) == 1 and all(status["ready"] for status in statuses):
                self._leader = leaders[0]
                return
            if self._reactor.seconds() > give_up_at:
                raise CommandError(f"PySyncObj has no leader after {START_SECONDS_MAX:g} s")
            await deferLater(self._reactor, POLL_SECONDS)

    async def _ask(self, node: str, about: str, load: Load | None = None) -> Any:
        return await ask(self._reactor, self._processes[node], self.folder, about, load)

    async def stop(self) -> None:
        """See :meth:`bench.system.System.stop`."""
        await together(*(process.stop() for process in self._processes.values()))

    async def put(self, load: Load) -> Sample:
        """See :meth:`bench.system.System.put`."""
        await self._find_leader()
        followers = [process.pid for node, process in self._processes.items() if node != self._leader]
        meter = Meter({"leader": [self._processes[self._leader].pid], "followers": followers})
        return sample_of(msgspec.convert(await self._ask(self._leader, "put", load), Loaded), meter)
