"""The unit that ``txpaxos init`` writes, under a real systemd: it starts, watches, restarts and stops nodes."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.helpers.systemd_machine import Machine, booted, missing, visible
from test.system.test_readme import ROOT, blocks, section

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
    pytest.mark.skipif(
        "TXPAXOS_SYSTEMD" not in os.environ, reason="it boots a systemd of its own: set TXPAXOS_SYSTEMD=1 to have that"
    ),
]

QUICK = "[Service]\nWatchdogSec=2\nRestartSec=200ms\n"
"""So that the test need not wait for a minute."""

OURS = f"export PYTHONPATH={ROOT} PATH={Path(sys.executable).parent}:$PATH; cd /tmp/counter"
ASK = f"{OURS}; txpaxos"
BY_ADMIN = "--cluster cluster.toml --keys keys/admin.keys"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    place = tmp_path_factory.mktemp("systemd") / "place"
    place.mkdir()
    with booted(place, *visible()) as made:
        if made is None:
            pytest.skip(f"systemd does not boot here: {(place.parent / 'systemd.log').read_text()[-500:]}")
        yield made


@pytest.fixture(scope="module")
def nodes(machine: Machine) -> Machine:
    """Three nodes that were installed and started as the README says that is written, one after the other. They run as
    root, since not every other user may read the folder that this Python is in."""
    machine.sh(f"mkdir /tmp/counter; {ASK} init . --keys --user root --name counter")
    page = machine.sh("cat /tmp/counter/README.rst")
    lines = [line for block in blocks(section(page, "With systemd"), "console") for line in block.splitlines()]
    commands = [line.removeprefix("$ sudo ") for line in lines if "useradd" not in line]
    assert len(commands) == 6
    machine.sh(
        f"mkdir -p /etc/systemd/system/txpaxos@.service.d; echo {shlex.quote(QUICK)} > "
        "/etc/systemd/system/txpaxos@.service.d/quick.conf"
    )
    for node in "abc":
        own = [one.replace("a.keys", f"{node}.keys").replace("@a", f"@{node}") for one in commands]
        machine.sh(
            "; ".join(["set -e", OURS, *own[:-1], f"echo PYTHONPATH={ROOT} >> /etc/txpaxos/environment", own[-1]])
        )
    for node in "abc":
        wait_until_it_serves(machine, node)
    return machine


def wait_until_it_serves(machine: Machine, node: str) -> None:
    unit = f"txpaxos@{node}"

    def serves() -> bool:
        state, said = machine.shows(unit, "ActiveState", "StatusText")
        return state == "active" and said.startswith(f"node {node} serves: it ")

    machine.wait_until(serves, unit)


def ends_with(machine: Machine, node: str, *wanted: str) -> None:
    unit = f"txpaxos@{node}"
    machine.wait_until(lambda: machine.shows(unit, "ActiveState", "Result", "ExecMainStatus") == wanted, unit)


def restarts(machine: Machine, node: str) -> int:
    return int(machine.shows(f"txpaxos@{node}", "NRestarts")[0])


def leader(machine: Machine) -> str:
    return str(json.loads(machine.sh(f"{ASK} status --json {BY_ADMIN}"))["leader"])


def test_three_nodes_serve(nodes: Machine) -> None:
    assert nodes.sh(f"{ASK} submit +5 {BY_ADMIN}") == "5\n"
    assert "3 of 3 nodes answer" in nodes.sh(f"{ASK} status {BY_ADMIN}")


@pytest.mark.parametrize("number", ["STOP", "KILL"])
def test_a_node_that_is_stuck_or_dead_is_started_again(nodes: Machine, number: str) -> None:
    """Of one that was stuck, the log says where."""
    before = restarts(nodes, "b")
    nodes.sh(f"kill -{number} $(systemctl show txpaxos@b -p MainPID --value)")
    nodes.wait_until(lambda: restarts(nodes, "b") == before + 1, "txpaxos@b")
    wait_until_it_serves(nodes, "b")
    if number == "STOP":
        assert "Fatal Python error: Aborted" in nodes.sh("journalctl -u txpaxos@b --no-pager")


def test_a_leader_is_stopped_and_read_again(nodes: Machine) -> None:
    first = leader(nodes)
    nodes.sh(f"systemctl stop txpaxos@{first}")
    assert nodes.shows(f"txpaxos@{first}", "ActiveState", "Result") == ("inactive", "success")
    assert nodes.sh(f"{ASK} submit +5 {BY_ADMIN}") == "10\n"
    nodes.sh(f"systemctl start txpaxos@{first}; systemctl reload txpaxos@{first}")
    used = f"node {first} uses its keys of /etc/txpaxos/{first}.keys as they are now"
    nodes.wait_until(lambda: used in nodes.sh(f"journalctl -u txpaxos@{first} --no-pager"), f"txpaxos@{first}")


def test_a_wrong_cluster_file_is_given_up(nodes: Machine) -> None:
    nodes.sh("cp /etc/txpaxos/cluster.toml /tmp/good.toml; echo nonsense >> /etc/txpaxos/cluster.toml")
    nodes.sh("systemctl reset-failed txpaxos@b; systemctl restart --no-block txpaxos@b")
    nodes.wait_until(lambda: nodes.shows("txpaxos@b", "ActiveState") == ("failed",), "txpaxos@b")
    assert restarts(nodes, "b") <= 5
    nodes.sh("cp /tmp/good.toml /etc/txpaxos/cluster.toml; systemctl reset-failed txpaxos@b; systemctl start txpaxos@b")
    wait_until_it_serves(nodes, "b")


def test_a_node_that_was_removed_is_not_started_again(nodes: Machine) -> None:
    before = restarts(nodes, "c")
    nodes.sh(f"{ASK} members remove c {BY_ADMIN}")
    ends_with(nodes, "c", "failed", "exit-code", "6")
    nodes.sh("systemctl start txpaxos@c", check=False)
    ends_with(nodes, "c", "failed", "exit-code", "6")
    assert restarts(nodes, "c") in (0, before)
