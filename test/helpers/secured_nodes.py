"""Three ``twistd paxos --keys`` processes, and a client with keys."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.task import deferLater

from test.helpers.key_folders import KeyFolders, keys_for
from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.client import Client
from txpaxos.cluster import Cluster

reactor: Any = installed_reactor
SECONDS = 30.0


class SecuredCluster:
    """Three processes with keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: KeyFolders = keys_for(folder / "keys", clients=["someone"])
        self.cluster = Cluster("secured", dict(zip("abc", free_members(3), strict=True)))
        (folder / "cluster.toml").write_text(self.cluster.dumps())
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str) -> None:
        paxos = ["paxos", "--stop-at-eof", "--cluster", "cluster.toml", "--node", node, "--keys", f"keys/{node}"]
        with (self.folder / f"{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "--logfile=-", *paxos],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, node: str) -> None:
        process = self.processes.pop(node)
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def has_said(self, node: str, what: str, times: int) -> bool:
        return self.log(node).count(what) >= times

    def log(self, node: str) -> str:
        return (self.folder / f"{node}.log").read_text(errors="replace")


@asynccontextmanager
async def secured(folder: Path) -> AsyncIterator[tuple[SecuredCluster, Client]]:
    nodes = SecuredCluster(folder)
    client = Client(reactor, nodes.cluster, keys=nodes.keys.folder("someone"))
    try:
        for node in "abc":
            nodes.start(node)
        assert await client.submit(b"+1", SECONDS) == 1
        yield nodes, client
    finally:
        client.close()
        for node in list(nodes.processes):
            nodes.kill(node)


async def until(condition: Callable[[], object]) -> None:
    give_up_at = reactor.seconds() + SECONDS
    while not condition():
        assert reactor.seconds() < give_up_at
        await deferLater(reactor, 0.01)
