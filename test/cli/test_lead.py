"""``txpaxos lead`` with real nodes, and the end of a node that leads."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.helpers.cli_nodes import Nodes, running, txpaxos
from txpaxos.node.hand_over import ANSWER_SECONDS, HAND_OVER_SECONDS

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running(tmp_path_factory.mktemp("nodes"), "a", "b", "c") as nodes:
        yield nodes


def status(nodes: Nodes) -> dict[str, dict[str, str]]:
    """What each node says of itself."""
    told: dict[str, dict[str, str]] = json.loads(txpaxos("status", "--json", folder=nodes.folder).stdout)["nodes"]
    return told


def leader_of(nodes: Nodes) -> str:
    """The node that leads."""
    told = json.loads(txpaxos("status", "--json", folder=nodes.folder).stdout)
    leader: str = told["leader"]
    assert leader, told
    return leader


def test_a_node_leads_when_the_command_says_so(nodes: Nodes) -> None:
    for node in ("a", "b"):
        done = txpaxos("lead", node, folder=nodes.folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{node} leads\n".encode(), b"")
        assert leader_of(nodes) == node


def test_it_does_nothing_when_that_node_leads_already(nodes: Nodes) -> None:
    leader = leader_of(nodes)
    ballot = status(nodes)[leader]["ballot"]
    done = txpaxos("lead", leader, "--json", folder=nodes.folder)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"cluster": "test", "leader": leader, "error": None})
    assert status(nodes)[leader]["ballot"] == ballot


def test_a_refusal_is_one_line(nodes: Nodes) -> None:
    assert txpaxos("lead", "a", folder=nodes.folder).returncode == 0
    nodes.kill("c")
    time_out_at = time.monotonic() + 10.0
    while (done := txpaxos("lead", "c", folder=nodes.folder)).stdout and time.monotonic() < time_out_at:
        pass
    assert (done.returncode, done.stdout) == (1, b"")
    line = done.stderr.decode()
    assert line.startswith("txpaxos: the lead was not handed over to c: c ")
    assert line.count("\n") == 1
    done = txpaxos("lead", "c", "--json", folder=nodes.folder)
    told = json.loads(done.stdout)
    assert (done.returncode, told["leader"], done.stderr) == (1, None, b"")
    assert told["error"].startswith("c ")
    assert leader_of(nodes) == "a"
    nodes.start("c")
    nodes.wait_for_leader()


def test_a_node_that_is_none_is_refused(nodes: Nodes) -> None:
    done = txpaxos("lead", "x", folder=nodes.folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"txpaxos: the lead was not handed over to x: x is no node of this cluster\n"


def test_a_leader_that_is_told_to_stop_hands_over_first(nodes: Nodes) -> None:
    leader = leader_of(nodes)
    process = nodes.processes.pop(leader)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HAND_OVER_SECONDS + ANSWER_SECONDS + 20.0)
    assert process.returncode == -signal.SIGTERM, "twistd ends itself by the signal that it got"
    assert f"node {leader} has handed over the lead to" in (nodes.folder / f"{leader}.log").read_text()
    assert txpaxos("submit", "+1", folder=nodes.folder).returncode == 0
    nodes.start(leader)
    nodes.wait_for_leader()
    assert all("Traceback" not in log.read_text() for log in nodes.folder.glob("*.log"))


def test_all_that_are_told_at_once_end(nodes: Nodes) -> None:
    processes = list(nodes.processes.values())
    nodes.processes.clear()
    for process in processes:
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert [process.wait(20.0) for process in processes] == [-signal.SIGTERM] * 3
    assert time.monotonic() - began < 3.0
    for process in processes:
        process.communicate()
    assert all("Traceback" not in log.read_text() for log in nodes.folder.glob("*.log"))


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "a", "b", "c") as nodes:
        leader = leader_of(nodes)
        for node in nodes.cluster.members:
            if node != leader:
                nodes.processes[node].send_signal(signal.SIGSTOP)  # So that nothing can be handed over.
        process = nodes.processes.pop(leader)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20.0)
    log = (tmp_path / f"{leader}.log").read_text()
    assert "Traceback" not in log
