"""Real nodes with keys: strangers change nothing, and all keys are replaced under load without an error."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from test.helpers.key_folders import KeyFolders, keys_for, write
from test.helpers.wire_samples import PEER_SAMPLES
from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.keys.authority import Authority, pem_of
from txpaxos.wire.codec import Codec
from txpaxos.wire.frames import frame
from txpaxos.wire.peer_messages import FetchSnapshot, Hello

pytestmark = pytest.mark.timeout(180)

reactor: Any = installed_reactor
SECONDS = 30.0
GAP_SECONDS_MAX = 2.0
"""Far more than a command takes on a busy machine, and less than any time limit that would hide a lost one."""


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


async def test_strangers_change_nothing_and_killed_nodes_come_back(tmp_path: Path) -> None:
    async with secured(tmp_path) as (nodes, client):
        total = 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setblocking(False)
            for node in "abc":
                sender = "b" if node == "a" else "a"
                address = nodes.cluster.members[node].address
                codec = Codec("secured", sender, 12345, "abc")
                for message in PEER_SAMPLES:
                    data = codec.encode(message)
                    if len(data) < 2**16 - 100:
                        stranger.sendto(data, (address.host, address.port))
                with socket.create_connection((address.host, address.port)) as stream:
                    stream.settimeout(5.0)
                    stream.sendall(frame(codec.encode(Hello())) + frame(codec.encode(FetchSnapshot(0, 0))))
                    heard = b""
                    try:
                        while piece := stream.recv(2**16):
                            heard += piece
                    except ConnectionError:
                        pass
                    assert len(heard) <= 7, "an alert of TLS and nothing else"
            total += 1
            assert await client.submit(b"+1", SECONDS) == total
            with pytest.raises(BlockingIOError):
                stranger.recv(2**16)
        for node in "abc":
            await until(partial(nodes.has_said, node, "it is not sealed: keys are on here", 1))
            assert nodes.log(node).count("it is not sealed") == 1
            assert nodes.log(node).count("does not speak TLS 1.3") == 1
        for node in "abc":
            nodes.kill(node)
            nodes.start(node)
            total += 1
            assert await client.submit(b"+1", SECONDS) == total
        for node in "abc":
            assert "Traceback" not in nodes.log(node)


async def test_all_keys_are_replaced_under_load(tmp_path: Path) -> None:
    async with secured(tmp_path) as (nodes, client):
        await until(lambda: any("leads with ballot" in nodes.log(node) for node in "abc"))
        old = nodes.keys.nodes_authority
        new = Authority.create("node", nodes.keys.now)
        stopped, gaps, total = [False], [], [1]

        async def load() -> None:
            while not stopped[0]:
                since = reactor.seconds()
                total[0] += 1
                assert await client.submit(b"+1", SECONDS) == total[0]
                gaps.append(reactor.seconds() - since)

        loading = Deferred.fromCoroutine(load())
        for step, authorities in enumerate([[old, new], [old, new], [new]]):
            for node in ("a", "b", "c"):
                folder = nodes.keys.folder(node)
                if step == 1:
                    nodes.keys.write(node, "node", new.issue(node, nodes.keys.now))
                write(folder / "nodes.pem", pem_of(one.certificate for one in authorities))
                nodes.processes[node].send_signal(signal.SIGHUP)
                await until(partial(nodes.has_said, node, f"node {node} uses its keys", step + 1))
                await until(partial(lambda least: len(gaps) > least, len(gaps) + 50))
            await deferLater(reactor, 1.5)  # Streams that were replaced are closed.
        stopped[0] = True
        await loading
        assert max(gaps) < GAP_SECONDS_MAX
        logs = [nodes.log(node) for node in "abc"]
        assert sum(log.count("leads with ballot") for log in logs) == 1
        assert not any("does not use the stream" in log or "Traceback" in log for log in logs)
