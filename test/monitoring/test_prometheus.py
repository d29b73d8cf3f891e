"""A real Prometheus watches three real nodes: the alerts fire when nodes are killed, and no other does."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from test.client.test_client_keys import cluster_of, rights
from test.helpers.cli_nodes import Nodes, txpaxos
from test.helpers.key_folders import keys_for
from test.helpers.prometheus import PROMETHEUS, watching
from test.helpers.status_pages import free_address, reactor
from test.monitoring.test_files import ALERTS, expressions
from txpaxos.counter import Counter
from txpaxos.server.served_node import ServedNode
from txpaxos.status_port.status_port import StatusPort

pytestmark = [
    pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus"),
    pytest.mark.timeout(240),
]


async def test_alerts_fire_when_nodes_are_killed(tmp_path: Path) -> None:
    nodes, addresses = Nodes(tmp_path, *"abc"), {}
    try:
        for name in "abc":
            addresses[name] = free_address()
            nodes.options = ("--status", addresses[name])
            nodes.start(name)
        nodes.wait_for_leader()
        async with watching(tmp_path / "prometheus", ALERTS, addresses) as prometheus:
            assert txpaxos("submit", "+1", folder=tmp_path).stdout == b"1\n"
            leading = await prometheus.until(
                lambda: prometheus.value("txpaxos_failure_tolerance"), lambda told: set(told.values()) == {1.0}
            )
            commands = 'sum(txpaxos_requests_total{kind="command", outcome="ok"})'
            await prometheus.until(lambda: prometheus.value(commands), lambda told: told == {"": 1.0})
            for expression in expressions().values():  # Prometheus takes each that the dashboard asks.
                asked = expression.replace('"$job"', '"txpaxos-test"').replace("$__rate_interval", "1m")
                assert await prometheus.ask(f"query?query={quoted(asked)}") is not None, asked
            assert await prometheus.firing() == set()

            (leader,) = leading
            nodes.kill(leader)
            await prometheus.until(
                prometheus.firing, lambda fire: fire == {f"TxpaxosMemberDown {leader}", "TxpaxosQuorumAtRisk"}
            )
            told = await prometheus.value("txpaxos_failure_tolerance")
            assert (set(told.values()), leader in told) == ({0.0}, False)

            last = next(iter(nodes.processes))
            nodes.kill(last)
            down = {f"TxpaxosMemberDown {node}" for node in (leader, last)}
            await prometheus.until(prometheus.firing, lambda fire: fire == down | {"TxpaxosNoLeader"})

            for name in (leader, last):
                nodes.options = ("--status", addresses[name])
                nodes.start(name)
            await prometheus.until(prometheus.firing, lambda fire: not fire)
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


def quoted(expression: str) -> str:
    return quote(" ".join(expression.split()))


async def test_it_is_let_in_with_keys_and_knows_the_node(tmp_path: Path) -> None:
    folders = keys_for(tmp_path / "keys", "a", ["prometheus", "shop"])
    cluster = cluster_of("a", rights(prometheus=["status"], shop=["read", "write"]))
    status_port = StatusPort(free_address())
    node = ServedNode(
        Counter, "a", cluster, tmp_path / "a", companions=[status_port], keys=folders.folder("a"), reactor=reactor
    )
    node.start()
    try:
        await node.ready()
        told = {}
        for client, name in (("prometheus", "a"), ("shop", "a"), ("prometheus", "b")):
            keys = folders.folder(client)
            scrape = (
                "    scheme: https\n    tls_config:\n"
                f"      ca_file: {keys}/nodes.pem\n      cert_file: {keys}/client.pem\n"
                f"      key_file: {keys}/client.key\n      server_name: {name}\n"
            )
            async with watching(tmp_path / f"{client}-{name}", ALERTS, {"a": str(status_port.address)}, scrape) as one:
                (target,) = (await one.ask("targets"))["activeTargets"]
                told[client, name] = target["health"], target["lastError"]
        assert told["prometheus", "a"] == ("up", "")
        assert told["shop", "a"] == ("down", "server returned HTTP status 403 Forbidden")
        assert told["prometheus", "b"][0] == "down"
        assert "certificate is valid for a, not b" in told["prometheus", "b"][1]
    finally:
        await node.stop()
