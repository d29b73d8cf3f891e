"""The status address of a node: what it shows, to whom, and what it bears."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, formatEvent

from test.client.test_client_keys import cluster_of, rights
from test.helpers.cli_nodes import Nodes, txpaxos
from test.helpers.fakes import free_ports, logged
from test.helpers.key_folders import keys_for
from test.helpers.play_site import PlaySite
from test.helpers.status_pages import SECONDS, free_address, get, reactor, talk
from txpaxos.cluster import Address, Cluster
from txpaxos.counter import Counter
from txpaxos.errors import ConfigError
from txpaxos.node.counts import Count
from txpaxos.server.served_node import ServedNode
from txpaxos.status_port import channel, live
from txpaxos.status_port.status_port import StatusPort


@asynccontextmanager
async def shown(
    path: Path, cluster: Cluster | None = None, pages: Any = None, **options: Any
) -> AsyncIterator[tuple[ServedNode, StatusPort]]:
    """A node that is a cluster by itself, with a status address."""
    status_port = StatusPort(free_address(), pages)
    cluster = cluster or cluster_of("a")
    node = ServedNode(Counter, "a", cluster, path / "data", companions=[status_port], **options)
    node.start()
    try:
        await node.ready()
        yield node, status_port
    finally:
        await node.stop()
        assert not status_port._ports


async def until(happened: Any) -> None:
    give_up_at = reactor.seconds() + SECONDS
    while not happened():
        assert reactor.seconds() < give_up_at
        await deferLater(reactor, 0.005)


async def test_what_it_shows(tmp_path: Path) -> None:
    async with shown(tmp_path) as (node, status_port):
        answer = await get(status_port, "/status.json")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert node._client_port is not None
        assert answer.json.keys() == node._client_port.status().keys()
        assert (answer.json["cluster"], answer.json["role"]) == ("own", "leader")
        for path in ("/healthz", "/readyz"):
            answer = await get(status_port, path)
            assert (answer.status, answer.text) == (200, "ok\n")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["connection"] == "close"
            head = await get(status_port, path, method="HEAD")
            assert (head.status, head.body) == (200, b"")
        assert node.node.counters == {}
    with closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", status_port.address.port))


async def test_a_node_that_does_not_serve_says_why(tmp_path: Path) -> None:
    status_port = StatusPort(free_address())
    node = ServedNode(Counter, "a", cluster_of("abc"), tmp_path / "data", companions=[status_port])
    node.start()
    answer = await get(status_port, "/readyz")
    assert (answer.status, answer.text) == (503, "this node knows no leader\n")
    assert (await get(status_port, "/healthz")).status == 200
    await node.stop()
    node.start()  # A node may be started again, and its companion, too.
    assert (await get(status_port, "/readyz")).status == 503
    await node.stop()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /none HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
        (b"GET /../status.json HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
        (b"POST /status.json HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        (b"DELETE /status.json HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        (b"GET /status.json HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello", 413),
        (b"GET /status.json HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", 413),
        (b"GET /status.json HTTP/1.1\r\nhost: evil.example.org\r\n\r\n", 400),
        (b"GET /status.json HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /status.json HTTP/1.1\r\n\r\n", 400),
        (b"GET /status.json HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, 400),
        (b"GET / HTTP/1.1\r\n" + b"a: %s\r\n" % (b"b" * 8000) * 3 + b"\r\n", 400),
    ],
)
async def test_a_hostile_request_changes_nothing_and_is_counted(tmp_path: Path, data: bytes, status: int) -> None:
    async with shown(tmp_path) as (node, status_port):
        await until(lambda: node.node.applied_through == 1)
        before = node.node.status()
        answer = await talk(status_port.address.port, data).closed.addTimeout(SECONDS, reactor)
        assert answer.status == status
        assert answer.text.count("\n") <= 1
        assert node.node.counters == {Count.BAD_STATUS_REQUEST: 1}
        assert node.node.status().replica == before.replica
        assert (await get(status_port, "/readyz")).status == 200


async def test_a_browser_led_here_by_another_site_gets_nothing(tmp_path: Path) -> None:
    async with shown(tmp_path) as (_, status_port):
        assert (await get(status_port, "/status.json", host="rebound.example.org")).status == 400
        for host in ("127.0.0.1", "[::1]", "localhost", "LOCALHOST"):
            assert (await get(status_port, "/status.json", host=host)).status == 200
        port = status_port.address.port
        for line, status in (
            (b"host: [::1]\r\n", 200),
            (b"", 200),  # As a check of HAProxy has it.
            (b"host: \r\n", 400),
            (b"host: localhost:rebound.example.org\r\n", 400),
            (b"host: localhost\r\nhost: rebound.example.org\r\n", 400),
        ):
            talking = talk(port, b"GET /healthz HTTP/1.0\r\n" + line + b"\r\n")
            assert (await talking.closed.addTimeout(SECONDS, reactor)).status == status


async def test_one_request_a_connection(tmp_path: Path) -> None:
    async with shown(tmp_path) as (_, status_port):
        request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
        talking = talk(status_port.address.port, request * 5)
        await talking.closed.addTimeout(SECONDS, reactor)
        assert talking.heard.count(b"HTTP/1.1 200 OK") == 1


async def test_clients_that_are_slow_to_ask_or_to_read_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(channel, "ANSWER_SECONDS", 0.1)
    pages = {b"/long": lambda at, request: b"x" * 2**25}
    async with shown(tmp_path, pages=pages) as (node, status_port):
        answer = await talk(status_port.address.port, b"GET /healthz HTT").closed.addTimeout(SECONDS, reactor)
        assert answer.status == 0
        assert node.node.counters == {Count.SLOW_STATUS_CLIENT: 1}
        slow = talk(status_port.address.port, b"GET /long HTTP/1.1\r\nhost: localhost\r\n\r\n", reads=False)
        await until(lambda: node.node.counters[Count.SLOW_STATUS_CLIENT] == 2)
        transport: Any = slow.transport
        transport.abortConnection()
        await slow.closed


async def test_too_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CONNECTIONS_MAX", 3)
    async with shown(tmp_path) as (node, status_port):
        site = status_port._site
        assert site is not None
        waiting = [talk(status_port.address.port, b"GET") for _ in range(3)]
        await until(lambda: len(site.connections) == 3)
        assert (await get(status_port, "/healthz")).status == 200
        assert node.node.counters == {Count.TOO_MANY_STATUS_CONNECTIONS: 1}
        for connection in site.connections:
            connection.has_asked = True
        waiting.append(talk(status_port.address.port, b"GET"))
        await until(lambda: len(site.connections) == 3)
        for connection in site.connections:
            connection.has_asked = True
        assert (await talk(status_port.address.port, b"GET").closed).status == 0
        assert node.node.counters == {Count.TOO_MANY_STATUS_CONNECTIONS: 2}
    for one in waiting:
        await one.closed.addTimeout(SECONDS, reactor)


async def test_clients_that_keep_their_answers_open_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CONNECTIONS_MAX", 3)
    async with shown(tmp_path, pages={b"/long": lambda at, request: b"x" * 2**25}) as (node, status_port):
        site = status_port._site
        assert site is not None
        request = b"GET /long HTTP/1.1\r\nhost: localhost\r\n\r\n"
        slow = [talk(status_port.address.port, request, reads=False) for _ in range(3)]
        await until(lambda: [one.has_asked for one in site.connections] == [True] * 3)
        assert (await get(status_port, "/healthz")).status == 200
        assert node.node.counters == {Count.TOO_MANY_STATUS_CONNECTIONS: 1}
        for one in slow:
            transport: Any = one.transport
            transport.abortConnection()
            await one.closed


async def test_what_is_on_its_way_to_a_reader_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has buffers, too. Until they are full, a reader is not seen not to read."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(live, "TELL_SECONDS", 0.0)
    sent: list[bytes] = []

    def event(view: object) -> bytes:
        sent.append(b"x" * 2**12)
        return sent[-1]

    monkeypatch.setattr(live, "_event", event)
    async with shown(tmp_path) as (_, status_port):
        request = b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n"
        slow = talk(status_port.address.port, request, reads=False)
        stream = status_port._live
        assert stream is not None
        await until(lambda: any(reader.paused_at is not None for reader in stream._readers))
        assert len(sent) < 100
        transport: Any = slow.transport
        transport.abortConnection()
        await slow.closed


async def test_the_head_of_the_stream_takes_no_place(tmp_path: Path) -> None:
    async with shown(tmp_path) as (_, status_port):
        answer = await get(status_port, "/events", method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"] == "text/event-stream"
        assert len(status_port._live or ()) == 0


async def test_a_page_that_fails_ends_nothing(tmp_path: Path, expected_errors: Any) -> None:
    async with shown(tmp_path, pages={b"/broken": lambda at, request: 1 / 0}) as (_, status_port):
        answer = await get(status_port, "/broken")
        assert (answer.status, answer.text) == (500, "this page failed; the log of the node says why\n")
        assert (await get(status_port, "/readyz")).status == 200


# ------------------------------------------------------------------ keys


async def test_with_keys_the_right_to_see_the_status_is_needed(tmp_path: Path) -> None:
    folders = keys_for(tmp_path / "keys", "a", ["watcher", "shop"])
    cluster = cluster_of("a", rights(watcher=["status"], shop=["read", "write"]))
    stranger = keys_for(tmp_path / "others", "a", ["watcher"]).client("watcher")
    async with shown(tmp_path, cluster, keys=folders.folder("a")) as (node, status_port):
        for path in ("/status.json", "/healthz", "/readyz"):
            assert (await get(status_port, path, folders.client("watcher"), host="a.example.org")).status == 200
        assert node.node.counters == {}
        answer = await get(status_port, "/status.json", folders.client("shop"))
        assert answer.status == 403
        assert answer.text.startswith("the client 'shop' does not have the right 'status': ")
        shows_nothing = attrs.evolve(folders.client("shop"), chain=())
        answer = await get(status_port, "/status.json", shows_nothing)
        assert (answer.status, node.node.counters) == (403, {Count.REQUEST_NOT_ALLOWED: 2})
        answer = await get(status_port, "/status.json", shows_nothing, more="authorization: Bearer guessed\r\n")
        assert (answer.status, node.node.counters[Count.CLIENT_NOT_AUTHENTICATED]) == (403, 1)
        answer = await get(status_port, "/status.json", shows_nothing, more="authorization: bearer guessed\r\n")
        assert (answer.status, node.node.counters[Count.CLIENT_NOT_AUTHENTICATED]) == (403, 2)
        answer = await get(status_port, "/status.json", stranger)
        assert answer.status == 0
        await until(lambda: node.node.counters[Count.CLIENT_NOT_AUTHENTICATED] == 3)
        answer = await get(status_port, "/status.json")  # Plain HTTP.
        assert answer.status == 0
        assert b"HTTP" not in answer.body


async def test_a_client_that_is_revoked_is_believed_no_more(tmp_path: Path) -> None:
    folders = keys_for(tmp_path / "keys", "a", ["watcher"])
    async with shown(tmp_path, keys=folders.folder("a")) as (node, status_port):
        watcher = folders.client("watcher")
        assert (await get(status_port, "/readyz", watcher)).status == 200
        open_one = talk(status_port.address.port, b"GET", watcher)
        site = status_port._site
        assert site is not None
        await until(lambda: len(site.connections) == 1)
        folders.revoke(watcher, folders=["a"])
        node.use_keys()
        assert (await open_one.closed.addTimeout(SECONDS, reactor)).status == 0
        assert (await get(status_port, "/readyz", watcher)).status == 0


async def test_a_right_that_is_withdrawn_ends_the_stream(tmp_path: Path) -> None:
    folders = keys_for(tmp_path / "keys", "a", ["watcher"])
    cluster = cluster_of("a", rights(watcher=["status"]))
    async with shown(tmp_path, cluster, keys=folders.folder("a")) as (node, status_port):
        request = b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n"
        stream = talk(status_port.address.port, request, folders.client("watcher"))
        await until(lambda: b"data: " in stream.heard)
        node.use_rights(cluster.rights)
        await until(lambda: stream.heard.count(b"data: ") == 2)  # Those that are as before end nothing.
        node.use_rights(rights(watcher=["read"]))
        await stream.closed.addTimeout(SECONDS, reactor)
        assert (await get(status_port, "/readyz", folders.client("watcher"))).status == 403


@pytest.mark.parametrize(
    ("host", "insecure", "warns"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)]
)
async def test_it_warns_if_others_may_reach_it(tmp_path: Path, host: str, insecure: bool, warns: bool) -> None:
    status_port = StatusPort(f"{host}:{free_ports(1)[0]}")
    node = ServedNode(Counter, "a", cluster_of("a"), tmp_path / "d", companions=[status_port], insecure=insecure)
    said = [formatEvent(event) for event in logged(node.start, LogLevel.warn)]
    assert [f"shows its status at {host}:" in line and "without keys" in line for line in said] == [True] * warns
    if warns:  # Then any name may lead to it.
        assert (await get(status_port, "/healthz", host="a.example.org")).status == 200
    await node.stop()


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("9100", "not host:port"),
        ("", "not host:port"),
        ("::1:9100", "an IPv6 address needs brackets"),
        ("127.0.0.1:0", "must be one of 1 to 65535"),
        ("127.0.0.1:70000", "must be one of 1 to 65535"),
        ("224.0.0.1:9100", "no address of a single machine"),
    ],
)
def test_an_address_that_is_none(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StatusPort(text)


@pytest.mark.parametrize(
    ("status", "other", "clashes"),
    [
        ("127.0.0.1:9", "127.0.0.1:9", True),
        ("127.0.0.1:9", "127.0.0.1:8", False),
        ("127.0.0.1:9", "127.0.0.2:9", False),
        ("127.0.0.1:9", "0.0.0.0:9", True),
        ("[::1]:9", "0.0.0.0:9", False),
        ("0.0.0.0:9", "127.0.0.1:9", True),
        ("[::]:9", "127.0.0.1:9", True),
        ("localhost:9", "localhost:9", True),
    ],
)
def test_an_address_of_the_node_itself(status: str, other: str, clashes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.status_port.status_port.check_free", lambda address, kind: None)
    status_port = StatusPort(status)
    if clashes:
        with pytest.raises(
            ConfigError, match="the node itself listens there: give the status address a port of its own"
        ):
            status_port.check([Address.parse(other)])
    else:
        status_port.check([Address.parse(other)])


async def test_a_port_in_use_keeps_the_node_from_starting(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        status_port = StatusPort(f"127.0.0.1:{other.getsockname()[1]}")
        node = ServedNode(Counter, "a", cluster_of("a"), tmp_path / "data", companions=[status_port])
        with pytest.raises(ConfigError, match=r"status address 127\.0\.0\.1:.* does this node run already"):
            node.start()
    assert not (tmp_path / "data").exists()
    node.start()
    await node.ready()
    assert (await get(status_port, "/readyz")).status == 200
    await node.stop()


async def test_nodes_without_a_quorum_are_not_ready_and_are_healthy(tmp_path: Path) -> None:
    cluster = cluster_of("abc")
    ports = {name: StatusPort(free_address()) for name in "abc"}
    nodes = {
        name: ServedNode(Counter, name, cluster, tmp_path / name, companions=[ports[name]]) for name in cluster.members
    }
    for node in nodes.values():
        node.start()
    for name, node in nodes.items():
        await node.ready()
        answer = await get(ports[name], "/readyz")
        assert (answer.status, answer.text) == (200, "ok\n")
    (leader,) = (name for name, node in nodes.items() if node.leads())
    await until(lambda: nodes[leader].node.status().failure_tolerance == 1)
    tolerated = {name: (await get(ports[name], "/status.json")).json["failure_tolerance"] for name in "abc"}
    assert tolerated == {name: 1 if name == leader else None for name in "abc"}
    one, other = (name for name in "abc" if name != leader)
    await nodes[one].stop_at_once()
    assert (await get(ports[leader], "/readyz")).status == 200
    await until(lambda: nodes[leader].node.status().failure_tolerance == 0)
    await nodes[other].stop_at_once()
    answer = await get(ports[leader], "/readyz")  # At once: the leader does not know yet.
    assert (answer.status, answer.text.count("\n")) == (503, 1)
    assert answer.text in ("no quorum has confirmed the leader within 0.5 s\n", "this node knows no leader\n")
    assert (await get(ports[leader], "/healthz")).status == 200
    talking = talk(ports[leader].address.port, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    site = ports[leader]._site
    assert site is not None
    await until(lambda: site.connections or talking.closed.called)
    await nodes[leader].stop_at_once()  # While it waits for a quorum, perhaps.
    await talking.closed.addTimeout(SECONDS, reactor)


async def test_who_hangs_up_while_a_quorum_is_asked_leaves_nothing_behind(tmp_path: Path) -> None:
    async with shown(tmp_path) as (node, status_port):
        cancelled: list[object] = []
        confirmed: Deferred[Any] = Deferred(cancelled.append)
        asked: list[object] = []

        def confirm() -> Deferred[Any]:
            asked.append(None)
            return confirmed

        node.node.confirm_quorum = confirm  # type: ignore[method-assign]
        talking = talk(status_port.address.port, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await until(lambda: asked)
        transport: Any = talking.transport
        transport.abortConnection()
        await until(lambda: cancelled)
        del node.node.confirm_quorum
        assert (await get(status_port, "/readyz")).status == 200


# ------------------------------------------------------------------ programs


def test_twistd(tmp_path: Path) -> None:
    """Its names are those of ``txpaxos status --json``."""
    address = free_address()
    nodes = Nodes(tmp_path, "a", options=("--status", address))
    try:
        nodes.start("a")
        nodes.wait_for_leader()
        site = PlaySite(f"http://{address}/", nodes.processes["a"])  # type: ignore[arg-type]
        shown = site.request("GET", "/status.json").json
        told = json.loads(txpaxos("status", "--json", folder=tmp_path).stdout)["nodes"]["a"]
        assert shown.keys() | {"address", "reachable"} == told.keys()
        assert shown["cluster"] == "test"
        assert site.request("GET", "/readyz").body == b"ok\n"
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


def test_nodes_killed_one_after_the_other(tmp_path: Path) -> None:
    """Each time the leader, and what is left of the cluster tells the truth."""
    nodes = Nodes(tmp_path, *"abcde")
    sites = {}
    try:
        for name in "abcde":
            address = free_address()
            nodes.options = ("--status", address)
            nodes.start(name)
            sites[name] = PlaySite(f"http://{address}/", nodes.processes[name])  # type: ignore[arg-type]
        for left in (2, 1, 0):
            nodes.wait_for_leader()
            told = told_within(nodes, left)
            assert told["failure_tolerance"] == left
            leader = told["leader"]
            assert told["nodes"][leader]["failure_tolerance"] == left
            said = {name: sites[name].request("GET", "/readyz") for name in nodes.processes}
            assert {name: answer.body for name, answer in said.items()} == dict.fromkeys(nodes.processes, b"ok\n")
            nodes.kill(leader)
        for name in nodes.processes:
            answer = sites[name].request("GET", "/readyz")
            assert (answer.status, answer.body.count(b"\n")) == (503, 1)
            assert sites[name].request("GET", "/healthz").status == 200
            assert sites[name].request("GET", "/status.json").json["failure_tolerance"] in (None, -1)
        assert json.loads(txpaxos("status", "--json", folder=tmp_path).stdout)["failure_tolerance"] == -1
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


def told_within(nodes: Nodes, tolerance: int) -> Any:
    """What ``txpaxos status --json`` says, once it tells of that tolerance."""
    give_up_at = time.monotonic() + SECONDS
    while True:
        told = json.loads(txpaxos("status", "--json", folder=nodes.folder).stdout)
        if told["failure_tolerance"] == tolerance or time.monotonic() > give_up_at:
            return told


@pytest.mark.parametrize("kind", ["bad", "taken", "own"])
def test_twistd_with_an_address_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        nodes = Nodes(tmp_path, "a")
        own, taken = str(nodes.cluster.members["a"].client), f"127.0.0.1:{other.getsockname()[1]}"
        address = {"bad": "nonsense", "taken": taken, "own": own}[kind]
        nodes.options = ("--status", address)
        nodes.start("a")
        process = nodes.processes["a"]
        process.communicate(timeout=60)
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert process.returncode == 1
    assert lines[-1].startswith("twistd paxos: ")
    assert f"status address {address!r}" in lines[-1] or f"status address {address}" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "a").exists()


def test_a_node_without_it_loads_no_site() -> None:
    program = (
        "import sys, txpaxos.tap, txpaxos.server.service;"
        "print([name for name in sys.modules if name.startswith('twisted.web')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
