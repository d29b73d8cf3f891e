"""``txpaxos submit``, ``ask`` and ``status`` with real nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.helpers.cli_nodes import Nodes, running, txpaxos
from txpaxos.cli.ask import UNDECIDED

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running(tmp_path_factory.mktemp("nodes"), "a", "b", "c") as nodes:
        yield nodes


def test_submit_prints_the_result(nodes: Nodes) -> None:
    before = int(txpaxos("submit", "+0", folder=nodes.folder).stdout)
    assert txpaxos("submit", "+7", folder=nodes.folder).stdout == b"%d\n" % (before + 7)
    assert txpaxos("submit", "-5", folder=nodes.folder).stdout == b"%d\n" % (before + 2)
    assert txpaxos("submit", "--cluster", "cluster.toml", "--", "-3", folder=nodes.folder).stdout == b"%d\n" % (
        before - 1
    )
    assert txpaxos("submit", "-", folder=nodes.folder, stdin=b"+1").stdout == b"%d\n" % before


def test_an_unknown_name_does_not_keep_the_other_nodes_out(nodes: Nodes) -> None:
    file = nodes.folder / "names.toml"
    file.write_text(nodes.cluster.dumps().replace(str(nodes.cluster.members["c"].client), "no-such-host.invalid:1004"))
    for _ in range(3):
        done = txpaxos("submit", "--cluster", "names.toml", "+0", folder=nodes.folder)
        assert (done.returncode, done.stderr) == (0, b"")
    shown = txpaxos("status", "--cluster", "names.toml", folder=nodes.folder).stdout.decode()
    assert "3 of 3 nodes answer" in shown, "the nodes say where c is"


def test_the_address_of_one_node_is_enough(nodes: Nodes, tmp_path: Path) -> None:
    place = str(nodes.cluster.members["b"].client)
    shown = txpaxos("status", "--node", place, folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"3 of 3 nodes answer" in shown.stdout
    for leader in ("a", "c"):
        assert txpaxos("lead", leader, "--node", place, folder=tmp_path).stdout == b"%s leads\n" % leader.encode()
    for command in (["status"], ["lead", "a"]):
        done = txpaxos(*command, "--node", "127.0.0.1:1", "--timeout", "0.5", folder=tmp_path)
        assert (done.returncode, done.stdout) == (1, b"")
        (line,) = done.stderr.decode().splitlines()
        assert "127.0.0.1:1 refuses connections" in line


def test_command_that_fails_is_one_line(nodes: Nodes) -> None:
    done = txpaxos("submit", "five", folder=nodes.folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == (
        b"txpaxos: ValueError: invalid literal for int() with base 10: b'five'; the command is in the log and counts as"
        b" applied, so sending it again submits another command\n"
    )


def test_the_longest_command_and_value(nodes: Nodes) -> None:
    """Over the streams between the nodes, and onto every disk."""
    before = int(txpaxos("submit", "+0", folder=nodes.folder).stdout)
    command = b"+1".rjust(16 * 2**20)
    done = txpaxos("submit", "-", "--timeout", "50", folder=nodes.folder, stdin=command)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"%d\n" % (before + 1), b"")
    value = bytes(16 * 2**20)
    done = txpaxos("ask", "largest", "-", "--timeout", "50", folder=nodes.folder, stdin=value)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == value + b"\n"


def test_command_that_is_too_long_is_one_line(nodes: Nodes) -> None:
    done = txpaxos("submit", "-", folder=nodes.folder, stdin=bytes(16 * 2**20 + 1))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"txpaxos: the command has 16777217 bytes and may have 16777216\n"


def test_read_prints_the_answer(nodes: Nodes) -> None:
    total = txpaxos("submit", "+3", folder=nodes.folder).stdout
    read = txpaxos("read", "total", folder=nodes.folder)
    assert (read.returncode, read.stdout, read.stderr) == (0, total, b"")
    local = txpaxos("read", "--local", "-", folder=nodes.folder, stdin=b"total")
    assert local.returncode == 0
    int(local.stdout)
    assert local.stderr.startswith(b"as of slot ")


def test_ask(nodes: Nodes) -> None:
    undecided = txpaxos("ask", "owner", folder=nodes.folder)
    assert (undecided.returncode, undecided.stdout, undecided.stderr) == (UNDECIDED, b"undecided\n", b"")
    first = txpaxos("ask", "owner", "-1", folder=nodes.folder)
    assert (first.returncode, first.stdout) == (0, b"-1\n")
    second = txpaxos("ask", "owner", "-", folder=nodes.folder, stdin=b"second")
    assert (second.returncode, second.stdout) == (0, b"-1\n")
    read = txpaxos("ask", "owner", folder=nodes.folder)
    assert (read.returncode, read.stdout) == (0, b"-1\n")


def test_ask_about_nothing_is_one_line(nodes: Nodes) -> None:
    done = txpaxos("ask", "", folder=nodes.folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"txpaxos: a subject has 1 to 512 bytes\n"


def test_status(nodes: Nodes) -> None:
    done = txpaxos("status", folder=nodes.folder)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    head = ["node", "address", "role", "ballot", "chosen", "applied", "lag", "waiting", "snapshot", "application"]
    assert lines[0].split() == head
    rows = [line.split() for line in lines[1:4]]
    assert [row[:2] for row in rows] == [[node, str(nodes.cluster.members[node].client)] for node in "abc"]
    assert sorted(row[2] for row in rows) == ["follower", "follower", "leader"]
    assert {row[-1] for row in rows} == {"txpaxos.counter:Counter"}
    assert lines[5].endswith("leads, 3 of 3 nodes answer")


def test_status_as_json(nodes: Nodes) -> None:
    done = txpaxos("status", "--json", folder=nodes.folder)
    assert done.returncode == 0
    data = json.loads(done.stdout)
    leader = data["nodes"][data["leader"]]
    assert leader["role"] == "leader"
    assert all(node["reachable"] and node["ballot"] == leader["ballot"] for node in data["nodes"].values())


def test_nodes_of_another_cluster_do_not_answer(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(nodes.cluster.dumps().replace('"test"', '"other"'))
    done = txpaxos("status", "--timeout", "0.3", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count(b"unreachable") == 3


def test_nodes_die(tmp_path: Path) -> None:
    with running(tmp_path, "a", "b", "c") as nodes:
        leader = json.loads(txpaxos("status", "--json", folder=tmp_path).stdout)["leader"]
        assert txpaxos("submit", "+5", folder=tmp_path).stdout == b"5\n"
        nodes.kill(leader)
        # The others elect a new one meanwhile.
        assert txpaxos("submit", "+5", "--timeout", "30", folder=tmp_path).stdout == b"10\n"
        assert txpaxos("ask", "subject", "value", "--timeout", "30", folder=tmp_path).stdout == b"value\n"
        nodes.wait_for_leader()
        two = txpaxos("status", folder=tmp_path)
        assert [line.split()[0] for line in two.stdout.decode().splitlines() if "unreachable" in line] == [leader]
        assert b"2 of 3 nodes answer" in two.stdout

        last = next(iter(nodes.processes))
        nodes.kill(last)
        one = txpaxos("status", folder=tmp_path)
        assert one.returncode == 1
        assert one.stdout.count(b"unreachable") == 2
        for command in (["submit", "+1"], ["read", "total"], ["ask", "another"]):
            done = txpaxos(*command, "--timeout", "0.5", folder=tmp_path)
            assert (done.returncode, done.stdout) == (1, b"")
            assert done.stderr.startswith(b"txpaxos: no quorum of cluster test answered within 0.5 s; ")
            assert b": a at 127.0.0.1:" in done.stderr
            assert b" refuses connections" in done.stderr
            assert done.stderr.count(b"\n") == 1
