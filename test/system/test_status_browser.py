"""The status page in a real browser: three real nodes, of which the leader is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from test.helpers.browser import chromium, page_at, violations, wait_until
from test.helpers.cli_nodes import Nodes, txpaxos
from test.helpers.fakes import free_ports

pytestmark = pytest.mark.timeout(240)

HEADLINE = "document.getElementById('headline').textContent"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def nodes(browser: Any, tmp_path: Path) -> Iterator[tuple[Nodes, dict[str, str]]]:
    """Three nodes that have a leader, and the addresses of their pages."""
    started = Nodes(tmp_path, "a", "b", "c")
    at = {name: f"127.0.0.1:{port}" for name, port in zip("abc", free_ports(3), strict=True)}
    try:
        for name, address in at.items():
            started.options = ("--status", address)
            started.start(name)
        started.wait_for_leader()
        yield started, {name: f"http://{address}/" for name, address in at.items()}
    finally:
        for name in list(started.processes):
            started.kill(name)


def leader_of(nodes: Nodes) -> str:
    return str(json.loads(txpaxos("status", "--json", folder=nodes.folder).stdout)["leader"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_through_the_loss_of_nodes(browser: Any, nodes: tuple[Nodes, dict[str, str]], scheme: str) -> None:
    cluster, addresses = nodes
    leader = leader_of(cluster)
    first, second = sorted(set("abc") - {leader})
    with page_at(
        browser, addresses[first], "#members td", color_scheme=scheme
    ) as page:  # It fails if the console has an error.
        wait_until(page, f"{HEADLINE}.includes('follows {leader}')")
        assert violations(page) == []
        paints = page.evaluate("performance.getEntriesByType('paint').map(one => one.startTime)")
        assert paints
        cluster.kill(leader)
        wait_until(page, f"/{first} leads|follows {second}/.test({HEADLINE})")
        wait_until(page, "document.getElementById('recent').textContent.includes('no more')")
        assert page.text_content("#link") == "live"
    led_by = leader_of(cluster)
    with page_at(browser, addresses[led_by], "#members td", color_scheme=scheme) as page:
        wait_until(page, f"{HEADLINE}.includes('No other voter may fail')")
        wait_until(page, f"document.getElementById('troubles').textContent.includes('does not hear {leader}')")
        wait_until(page, "document.querySelectorAll('#plots svg').length === 4")
        assert violations(page) == []
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "wide"
