"""Real nodes that have names, each process with an /etc/hosts of its own: a name that is not known, and one that moves.

As root, since only root may give a process another /etc/hosts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from test.helpers.cli_nodes import TXPAXOS
from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.cluster import Address, Cluster, Member

SECONDS = 60.0
OWN_HOSTS = 'mount --bind "$0" /etc/hosts; exec "$@"'


def can_have_own_hosts() -> bool:
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", OWN_HOSTS, "/dev/null", "true"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.skipif(not can_have_own_hosts(), reason="needs root, and mount namespaces"),
    pytest.mark.timeout(240),
]


class MovingNodes:
    """Nodes a, b and c, each at a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.hosts: dict[str, str] = {}
        members = {}
        for node, member in zip("abc", free_members(3), strict=True):
            name = f"n{node}.test"
            members[node] = Member(Address(name, member.address.port), Address(name, member.client.port))
        self.cluster = Cluster("town", members)
        (folder / "cluster.toml").write_text(self.cluster.dumps())

    def know(self, **hosts: str) -> None:
        """Set /etc/hosts of the processes that run, and of those that start from now on."""
        self.hosts.update(hosts)
        lines = ["127.0.0.1 localhost", *(f"{host} n{node}.test" for node, host in self.hosts.items())]
        (self.folder / "hosts").write_text("\n".join([*lines, ""]))  # In place, or no running process would see it.

    def with_hosts(self, *command: str, hosts: str = "hosts") -> list[str]:
        before = ["unshare", "-m", "--propagation", "private", "sh", "-c", OWN_HOSTS]
        return [*before, str(self.folder / hosts), *command]

    def start(self, node: str, hosts: str = "hosts") -> None:
        options = ["--cluster", "cluster.toml", "--node", node, "--data-dir", node]
        command = self.with_hosts(sys.executable, "-c", TWISTD, "-n", "--pidfile=", "paxos", *options, hosts=hosts)
        with (self.folder / f"{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def kill(self, node: str) -> None:
        process = self.processes.pop(node)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def run(self, *arguments: str, hosts: str = "hosts") -> subprocess.CompletedProcess[str]:
        command = self.with_hosts(*TXPAXOS, *arguments, hosts=hosts)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS)

    def logged(self, node: str) -> str:
        return (self.folder / f"{node}.log").read_text()

    def wait_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, {node: self.logged(node)[-2000:] for node in self.processes}
            threading.Event().wait(0.2)  # Until the log is written, which nothing else tells.

    def is_whole(self) -> bool:
        return self.run("status", hosts="hosts").stdout.count("follower") == 2


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[MovingNodes]:
    nodes = MovingNodes(tmp_path)
    yield nodes
    for node in list(nodes.processes):
        nodes.kill(node)


def test_a_name_that_is_not_known_stops_no_other_node(nodes: MovingNodes) -> None:
    nodes.know(a="127.0.0.11", b="127.0.0.12")
    nodes.start("a")
    nodes.start("b")
    assert nodes.run("submit", "--timeout", "30", "+1").stdout == "1\n"
    assert "node a cannot find the address of node c, and keeps trying" in nodes.logged("a")
    nodes.know(c="127.0.0.13")
    nodes.start("c")
    nodes.wait_until(nodes.is_whole)


def test_a_node_that_comes_back_at_another_address_is_found(nodes: MovingNodes) -> None:
    nodes.know(a="127.0.0.11", b="127.0.0.12", c="127.0.0.13")
    for node in "abc":
        nodes.start(node)
    nodes.wait_until(nodes.is_whole)
    assert nodes.run("submit", "--timeout", "30", "+1").stdout == "1\n"
    nodes.kill("c")
    nodes.know(c="127.0.0.99")
    nodes.start("c")
    nodes.wait_until(nodes.is_whole)
    moved = f"node c (nc.test) is at 127.0.0.99:{nodes.cluster.members['c'].address.port}"
    nodes.wait_until(lambda: moved in nodes.logged("a"))
    nodes.kill("b")
    assert nodes.run("submit", "--timeout", "30", "+1").stdout == "2\n"


def test_a_node_whose_name_lags_behind_is_found(nodes: MovingNodes) -> None:
    """The others never learn the new address from its name. It shows where it is."""
    nodes.know(a="127.0.0.11", b="127.0.0.12", c="127.0.0.13")
    for node in "abc":
        nodes.start(node)
    nodes.wait_until(nodes.is_whole)
    nodes.kill("c")
    (nodes.folder / "new").write_text((nodes.folder / "hosts").read_text().replace("127.0.0.13", "127.0.0.99"))
    nodes.start("c", "new")
    nodes.wait_until(lambda: nodes.run("status", hosts="new").stdout.count("follower") == 2)
    lagging = "though its name, nc.test, does not lead there from here yet"
    nodes.wait_until(lambda: lagging in nodes.logged("a") + nodes.logged("b"))
