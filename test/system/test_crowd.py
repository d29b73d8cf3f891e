"""A crowd of strangers at both ports of a real node with keys: it goes on to serve those who have keys.

``TXPAXOS_CROWD`` says how many there are at each port. Each one is counted. The figures are printed (``pytest -s``),
the changes of the leader among them: a machine that is busy with the crowd may keep a leader silent for too long.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.crowd import crowd_max
from test.helpers.secured_nodes import SECONDS, SecuredCluster, reactor, secured, until
from txpaxos.cli.status import ask_nodes
from txpaxos.client import Client
from txpaxos.cluster import Member
from txpaxos.keys import load_keys
from txpaxos.node.counts import Count

CROWD = min(int(os.environ.get("TXPAXOS_CROWD", 300)), crowd_max())
pytestmark = pytest.mark.timeout(180 if CROWD <= 1000 else 900)

GROWTH_KILOBYTES_MAX = 128 * 1024
"""How much a node may grow: up to 320 strangers are there at a time, and TLS takes some 200 kB for each. A node that
kept all of a big crowd would be far beyond that."""

AT_CLIENT_PORT = (Count.CLIENT_NOT_AUTHENTICATED, Count.TOO_MANY_STRANGERS)
AT_PEER_PORT = (Count.PEER_NOT_BELIEVED, Count.TOO_MANY_UNAUTHENTICATED_STREAMS)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Processes that are started may open as many files as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_kilobytes(pid: int, what: str) -> int:
    """The memory of a process: ``VmRSS`` for now, ``VmHWM`` for the most that it has had."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


class Legitimate:
    """Those who have keys, while the crowd is there: a client that stays, and others that come and go.

    :ivar answered: how many increments were answered.
    :ivar came: how many clients have connected, written and left.
    :ivar longest_seconds: the longest time that an increment took.
    """

    def __init__(self, nodes: SecuredCluster, client: Client, to: str) -> None:
        self.answered = self.came = 0
        self.longest_seconds = 0.0
        self._nodes, self._client, self._to = nodes, client, to
        self._is_stopping = False
        self._running = [Deferred.fromCoroutine(one) for one in (self._stay(), self._come_and_go())]

    async def stop(self) -> None:
        """Wait for the last answers."""
        self._is_stopping = True
        for one in self._running:
            await one

    async def _stay(self) -> None:
        while not self._is_stopping:
            await self._increment(self._client)

    async def _come_and_go(self) -> None:
        keys = load_keys(str(self._nodes.keys.folder("someone")), "client")
        while not self._is_stopping:
            client = Client(reactor, self._nodes.cluster, [self._to], keys=keys)
            await self._increment(client)
            client.close()
            self.came += 1

    async def _increment(self, client: Client) -> None:
        since = reactor.seconds()
        await client.submit(b"+1", SECONDS)
        self.longest_seconds = max(self.longest_seconds, reactor.seconds() - since)
        self.answered += 1


@asynccontextmanager
async def crowds(member: Member) -> AsyncIterator[Deferred[Any]]:
    """A crowd at each port, for the duration of the block. Fires when all are connected."""
    running = []
    for at in (member.client, member.address):
        command = [sys.executable, "-m", "test.helpers.crowd", at.host, str(at.port), str(CROWD)]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    try:
        yield gatherResults([deferToThread(has_come, one) for one in running])
    finally:
        for one in running:
            one.kill()
            one.communicate()


def has_come(crowd: subprocess.Popen[bytes]) -> None:
    """Wait until all of a crowd are connected."""
    assert crowd.stdout is not None
    assert crowd.stdout.readline() == f"{CROWD} are connected\n".encode()


async def test_a_crowd_keeps_no_one_out(tmp_path: Path, many_files: None) -> None:
    async with secured(tmp_path) as (nodes, client):
        await until(lambda: any("leads with ballot" in nodes.log(node) for node in "abc"))
        (leader,) = (node for node in "abc" if "leads with ballot" in nodes.log(node))
        member, pid = nodes.cluster.members[leader], nodes.processes[leader].pid
        keys = load_keys(str(nodes.keys.folder("someone")), "client")

        async def status() -> dict[str, Any]:
            found = (await ask_nodes(reactor, nodes.cluster, SECONDS, [leader], keys))[leader]
            assert found is not None
            return found

        async def counted(*which: Count) -> int:
            counters = (await status())["counters"]
            return sum(counters.get(one.name.lower(), 0) for one in which)

        clients, peers = await counted(*AT_CLIENT_PORT), await counted(*AT_PEER_PORT)
        before = memory_kilobytes(pid, "VmRSS")
        legitimate = Legitimate(nodes, client, leader)
        since = reactor.seconds()
        async with crowds(member) as connected:
            await connected
            came_in_seconds = reactor.seconds() - since
            while await counted(*AT_CLIENT_PORT) < clients + CROWD or await counted(*AT_PEER_PORT) < peers + CROWD:
                assert reactor.seconds() < since + came_in_seconds + SECONDS, str((await status())["counters"])
        await legitimate.stop()
        logs = [nodes.log(node) for node in "abc"]
        most, after = memory_kilobytes(pid, "VmHWM"), memory_kilobytes(pid, "VmRSS")
        print(
            f"{CROWD} strangers at each port in {came_in_seconds:.1f} s; {legitimate.answered} increments, the longest"
            f" {1000 * legitimate.longest_seconds:.0f} ms; {legitimate.came} clients came and went;"
            f" {before} kB before, {most} kB at the most, {after} kB after;"
            f" {sum(log.count('leads with ballot') for log in logs) - 1} leader changes;"
            f" {(await status())['counters']}"
        )
        assert most - before < GROWTH_KILOBYTES_MAX
        assert legitimate.came >= 2
        assert legitimate.answered >= 10
        assert not any("Traceback" in log for log in logs)
        assert len(logs["abc".index(leader)].splitlines()) < 300
