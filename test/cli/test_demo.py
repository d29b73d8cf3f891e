"""``txpaxos demo`` from outside: what it prints, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from test.helpers.cli_nodes import TXPAXOS
from txpaxos.cli.demo import INCREMENTS, NODES
from txpaxos.cli.demo_members import JOINING, REPLACING
from txpaxos.cluster import Address, Cluster
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import joined_folder

pytestmark = pytest.mark.timeout(120)

TOTAL = INCREMENTS * (INCREMENTS + 1) // 2
ELECTED = "They have elected"
KILL = "kill -9"
JOINED = f"{JOINING[0]} has caught up, and votes"


def start(folder: Path, *arguments: str, program: list[str] = TXPAXOS) -> subprocess.Popen[str]:
    """Start the demo; its temporary folder will be in ``folder``."""
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*program, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read its output up to a line with ``text``."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came: {seen}")


def call_nodes(folder: Path) -> list[socket.socket]:
    """A connection to every node of the demo whose temporary folder is in ``folder``, also those that have joined."""
    (file,) = folder.glob("*/cluster.toml")
    clients = [member.client for member in Cluster.load(file).members.values()]
    for node in (*JOINING, REPLACING):
        joined = joined_folder(Disk(), str(file.parent / node)) if (file.parent / node).exists() else None
        if joined is not None:
            clients.append(Address.parse(joined.members[node][1]))
    return [socket.create_connection((client.host, client.port), timeout=30) for client in clients]


def wait_for_close(call: socket.socket) -> None:
    """Wait until the node has closed the connection."""
    with call:
        try:
            while call.recv(4096):
                pass
        except ConnectionResetError:
            pass


def rows_after(output: str, table: int) -> list[list[str]]:
    """The rows of a table of totals, counted from 1."""
    return [line.split(None, 4) for line in output.split("total\n")[table].split("\n\n")[0].splitlines()]


@pytest.mark.parametrize("options", [(), ("--secure",)], ids=["plain", "secure"])
def test_demo(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = start(tmp_path, "demo", "--keep", *options)
    output, errors = done.communicate(timeout=110)
    assert (done.returncode, errors) == (0, ""), output
    assert "\x1b" not in output  # plain text where there is no terminal
    first, second = output.split("Now the members change.")
    check_death_of_the_leader(first)
    check_change_of_members(second)
    (kept,) = tmp_path.iterdir()
    also = ", and all keys" if options else ""
    assert output.endswith(f"\nKept in {kept}: cluster.toml, and each node's data and log{also}.\n")
    nodes = (*NODES, *JOINING, REPLACING)
    assert {"cluster.toml", *nodes, *(f"{node}.log" for node in nodes)} <= {file.name for file in kept.iterdir()}
    if options:
        check_keys(output, kept, nodes)
    for node in nodes[1:]:
        assert "Server Shut Down." in (kept / f"{node}.log").read_text()
    for node in NODES[1:]:
        assert f"node {node} was removed from the cluster at slot" in (kept / f"{node}.log").read_text()


def check_keys(output: str, folder: Path, nodes: tuple[str, ...]) -> None:
    """Check that those were kept out who have no keys, or no right, and that all nodes had keys."""
    assert "A client without keys writes, and is refused: each node wants to see a certificate." in output
    assert "The client reader has keys, and writes, and is refused: it only has the right to read." in output
    for node in nodes:
        log = (folder / f"{node}.log").read_text()
        assert f"the certificate of node {node} expires in" in log  # It is good for a day, so the node warns.
    private = [file for file in folder.rglob("*.key") if file.stat().st_mode & 0o077]
    assert private == []
    assert len([*folder.rglob("*.key")]) == len(nodes) + 2 + 2


def check_death_of_the_leader(output: str) -> None:
    """Check what the first act prints."""
    assert re.search(r"kill -9 \d+: the leader \w is dead, with \d+ increments acknowledged", output)
    assert re.search(r"\d\.\d\d s after the kill the next increment is acknowledged", output)
    rows = rows_after(output, 1)
    assert [row[0] for row in rows] == list(NODES)
    assert sorted(row[1] for row in rows) == ["follower", "follower", "leader"]
    assert len({row[2] for row in rows}) == 1
    assert [row[3] for row in rows] == [str(TOTAL)] * 3
    assert sum("killed and restarted" in line for line in output.splitlines()) == 1
    assert f"All three are equal: 1 + 2 + ... + {INCREMENTS} = {TOTAL}." in output


def check_change_of_members(output: str) -> None:
    """Check what the second act prints: other nodes than the first ones have the total of both acts."""
    dead, *removed = NODES
    steps = [
        *(rf"{node} has caught up, and votes: {count} members\." for count, node in enumerate(JOINING, 4)),
        rf"kill -9 \d+: {dead} is dead, and does not come back\.",
        rf"{REPLACING} votes, and {dead} is no member any more\.",
        *(rf"`txpaxos members remove {node}`: {node} is no member any more" for node in removed),
        r"\s(\d+) increments are acknowledged now\. The longest time without an answer was \d+\.\d\d s\.",
    ]
    found = re.search(".*".join(steps), output, re.DOTALL)
    assert found, output
    count = int(found[1])
    assert count > INCREMENTS
    rows, total = rows_after(output, 1), count * (count + 1) // 2
    assert [(row[0], row[3]) for row in rows] == [(node, str(total)) for node in (*JOINING, REPLACING)]
    assert sorted(row[1] for row in rows) == ["follower", "follower", "leader"]
    assert [row[4] for row in rows] == ["joined", "joined", f"joined, and replaced {dead}"]
    assert f"All three are equal: 1 + 2 + ... + {count} = {total}." in output
    assert f"None of {', '.join(NODES)} is left, and no client has noticed." in output


@pytest.mark.parametrize(("before", "line"), [(ELECTED, KILL), (JOINED, KILL)], ids=["first-act", "second-act"])
def test_interrupt_leaves_nothing(tmp_path: Path, before: str, line: str) -> None:
    demo = start(tmp_path, "demo")
    read_until(demo, before)
    calls = call_nodes(tmp_path)
    read_until(demo, line)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=30)
    assert (demo.returncode, errors) == (130, "txpaxos: interrupted\n")
    assert list(tmp_path.iterdir()) == []
    for call in calls:
        wait_for_close(call)


def test_nodes_stop_when_the_demo_is_killed(tmp_path: Path) -> None:
    demo = start(tmp_path, "demo")
    read_until(demo, ELECTED)
    calls = call_nodes(tmp_path)
    demo.kill()
    demo.communicate(timeout=30)
    for call in calls:
        wait_for_close(call)


def run_changed(folder: Path, change: str) -> tuple[int | None, str, str]:
    """Run the demo with something in it replaced first."""
    imports = "from txpaxos.cli import demo, demo_members, demo_scene, local_cluster, main"
    program = f"{imports}\n{change}\nmain(['demo'], prog_name='txpaxos')"
    demo = start(folder, program=[sys.executable, "-c", program])
    output, errors = demo.communicate(timeout=90)
    return demo.returncode, output, errors


def test_port_that_was_taken_meanwhile(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        change = (
            "import attrs\n"
            "find, calls = local_cluster.free_members, []\n"
            "def find_taken(count):\n"
            "    calls.append(count)\n"
            "    first, *others = find(count)\n"
            f"    taken = attrs.evolve(first.client, port={taken.getsockname()[1]})\n"
            "    return [attrs.evolve(first, client=taken) if len(calls) == 1 else first, *others]\n"
            "local_cluster.free_members = find_taken\n"
        )
        status, output, errors = run_changed(tmp_path, change)
    assert (status, errors) == (0, ""), output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("local_cluster.TWISTD = 'print(1 // 0)'", r"node \w ended by itself: ZeroDivisionError: .*"),
        ("demo.STEP_SECONDS_MAX = 0.0", "an election did not happen within 0 s"),
        ("demo.COUNT_SECONDS_MAX = 0.3", "only .* of 200 increments were acknowledged.*"),
        ("demo_scene.complaints = lambda *_: ['one', 'two']", "one; two"),
        ("demo_members.MEMBERS_SECONDS_MAX = 0.1", "the members were not changed within 0.1 s"),
    ],
    ids=["node-ends", "no-election", "too-slow", "complaints", "members-too-slow"],
)
def test_failure_is_one_line(tmp_path: Path, change: str, complaint: str) -> None:
    status, output, errors = run_changed(tmp_path, change)
    assert status == 1, output
    assert re.fullmatch(f"txpaxos: {complaint}\n", errors)
    assert ("All three are equal" in output) == ("members" in complaint)
    assert list(tmp_path.iterdir()) == []
