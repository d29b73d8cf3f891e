"""A node leaves itself enough files, however many clients there are."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor as installed_reactor

import txpaxos.server.open_files
from test.helpers.cli_nodes import Nodes
from txpaxos.client import Client
from txpaxos.node.counts import Count
from txpaxos.node.peer_streams import UNAUTHENTICATED_STREAMS_MAX
from txpaxos.server.open_files import FILES_KEPT, connections_max, files_max

reactor: Any = installed_reactor
FEW = 256
SECONDS_MAX = 30.0


@pytest.mark.parametrize(("soft", "files"), [(256, 256), (resource.RLIM_INFINITY, 2**62)])
def test_what_the_system_allows(monkeypatch: pytest.MonkeyPatch, soft: int, files: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert files_max() == files
    assert 0 <= connections_max(2) < files - FILES_KEPT - UNAUTHENTICATED_STREAMS_MAX
    assert connections_max(2) > connections_max(4)


def test_where_open_files_cannot_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_folder(_: str) -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(txpaxos.server.open_files, "files_max", lambda: 1024)
    monkeypatch.setattr(os, "listdir", no_such_folder)
    assert connections_max(2) == 1024 - 32 - FILES_KEPT - UNAUTHENTICATED_STREAMS_MAX - 8
    monkeypatch.setattr(txpaxos.server.open_files, "files_max", lambda: 64)
    assert connections_max(2) == 0


def few_files(folder: Path, files: int) -> Nodes:
    """A node whose process may have few files open. The test's own has more than that open."""
    return Nodes(folder, "a", prefix=("sh", "-c", f'ulimit -Sn {files}; exec "$@"', "few-files"))


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_more_clients_than_files_stop_no_node(tmp_path: Path) -> None:
    """Segments of the journal and snapshots are opened while the table of clients is full; and others get in."""
    nodes = few_files(tmp_path, FEW)
    nodes.start("a")
    member = nodes.cluster.members["a"]
    client = Client(reactor, nodes.cluster)
    crowd: list[socket.socket] = []
    try:
        await client.submit(b"+0", SECONDS_MAX)
        client.close()
        crowd += [socket.create_connection((member.client.host, member.client.port)) for _ in range(FEW + 50)]
        client = Client(reactor, nodes.cluster)
        big = b"+1".rjust(2**20)
        for number in range(1, 41):  # More than a segment holds, and than is between two snapshots.
            assert await client.submit(big, SECONDS_MAX) == number
        status = await client.status(SECONDS_MAX)
        assert status["snapshot_slot"] > 0
        assert status["counters"][Count.TOO_MANY_CLIENTS.metric_name] > 50
        assert nodes.processes["a"].poll() is None
    finally:
        client.close()
        for one in crowd:
            one.close()
        nodes.kill("a")
    log = (tmp_path / "a.log").read_text()
    assert "takes at most" in log
    assert "this process may have 256 files open" in log
    assert "Traceback" not in log


@pytest.mark.timeout(60)
def test_too_few_files_for_any_client_is_one_line(tmp_path: Path) -> None:
    nodes = few_files(tmp_path, 64)
    nodes.start("a")
    process = nodes.processes.pop("a")
    assert process.wait(30) == 1
    process.communicate()
    (line,) = [line for line in (tmp_path / "a.log").read_text().splitlines() if "cannot start" in line]
    assert "may have 64 files open, which leaves none for clients" in line
