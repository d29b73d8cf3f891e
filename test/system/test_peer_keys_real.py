"""Real nodes with keys: strangers change nothing, and all keys are replaced under load without an error."""

from __future__ import annotations

import signal
import socket
from functools import partial
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from test.helpers.key_folders import write
from test.helpers.secured_nodes import SECONDS, reactor, secured, until
from test.helpers.wire_samples import PEER_SAMPLES
from txpaxos.keys.authority import Authority, pem_of
from txpaxos.wire.codec import Codec
from txpaxos.wire.frames import frame
from txpaxos.wire.peer_messages import FetchSnapshot, Hello

pytestmark = pytest.mark.timeout(180)

GAP_SECONDS_MAX = 1.0
"""More than a command takes on a busy machine, and less than a lost one would take. What is asked of a rotation, 100 ms
without an answer at most, needs a quiet machine: ``python -m bench.rotation`` measures it."""


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
