"""``txpaxos top``: what it makes of what the nodes say, with real nodes, and on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from test.helpers.cli_nodes import TXPAXOS, Nodes, running, txpaxos
from txpaxos.cli.top import ENTER, LEAVE, Frame, as_json, as_lines, as_screen, heard, rates
from txpaxos.cluster import Address, Cluster, Member

pytestmark = pytest.mark.timeout(180)

SECONDS = 60.0
TRIO = Cluster(
    "trio",
    {
        node: Member(Address("127.0.0.1", 4000 + number), Address("127.0.0.1", 5000 + number))
        for number, node in enumerate("abc", 1)
    },
)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def says(role: str, applied: int = 10, **more: Any) -> dict[str, Any]:
    slots = {"chosen_through": 10, "applied_through": applied, "snapshot_slot": 5}
    return {"role": role, "ballot": "2.b", "waiting": 0, **slots, "transfer": None, "up_seconds": 9.0, **more}


STATUSES = {
    "a": says("follower", 7, heard={"b": 0.04, "c": None}, disk_hangs_seconds=12.3),
    "b": says("leader", heard={"a": 0.0, "c": 4.0}, unheard=["c"]),
    "c": None,
}


def test_lines() -> None:
    assert as_lines(Frame(AT, "trio", TRIO, STATUSES, {"b": 3.6})) == [
        "cluster trio: b leads, 2 of 3 nodes answer   03:04:05 UTC",
        "",
        "node  role         ballot  applied  lag  slots/s  waiting  heard   disk        snapshot  transfer",
        "a     follower     2.b           7    3        -        0  0.0 s   hangs 12 s         5         -",
        "b     leader       2.b          10    0        4        0  1 of 2  ok                 5         -",
        "c     unreachable  -             -    -        -        -  -       -                  -         -",
        "",
        "c does not answer",
        "the disk of a hangs: a save has been under way for 12 s",
    ]


def test_problems_are_words() -> None:
    nothing = Frame(AT, "trio", None, dict.fromkeys("abc"), error="no node\nanswers")
    assert as_lines(nothing)[0] == "cluster trio: no leader, 0 of 3 nodes answer   03:04:05 UTC"
    assert as_lines(nothing)[-4:-2] == ["no node\nanswers", "a does not answer"]
    alone = {**STATUSES, "b": None}
    assert "no leader with a quorum" in Frame(AT, "trio", TRIO, alone).problems()
    refuses = {**STATUSES, "a": says("follower", refuses={"c": "it is\x1b[2J another"})}
    assert r"a does not hear c: it is\x1b[2J another" in Frame(AT, "trio", TRIO, refuses).problems()
    well = {"a": says("follower"), "b": says("leader"), "c": says("follower")}
    assert Frame(AT, "trio", TRIO, well).problems() == []


def test_json() -> None:
    told = json.loads(as_json(Frame(AT, "trio", TRIO, STATUSES, {"b": 3.6})))
    assert (told["time"], told["cluster"], told["leader"]) == ("2026-01-02T03:04:05.000Z", "trio", "b")
    assert told["nodes"]["c"] == {"reachable": False}
    assert (told["nodes"]["a"]["lag"], told["nodes"]["a"]["slots_per_second"]) == (3, None)
    assert (told["nodes"]["b"]["slots_per_second"], told["nodes"]["b"]["role"]) == (3.6, "leader")
    assert told["problems"] == ["c does not answer", "the disk of a hangs: a save has been under way for 12 s"]


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        (says("leader", 4), says("leader", 10), 3.0),
        (says("leader", 4), None, None),
        (None, says("leader", 4), None),
        (says("leader", 9), says("leader", 2, up_seconds=0.5), None),
        (says("leader", 9), says("leader", 9), 0.0),
    ],
    ids=["applies", "gone", "come", "begun-anew", "idle"],
)
def test_rates(before: Any, after: Any, rate: float | None) -> None:
    assert rates({"a": before}, {"a": after, "b": says("follower")}, 2.0).get("a") == rate
    assert rates({"a": before}, {"a": after}, 0.0) == {}


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (says("leader", heard={"a": 0.1, "c": 0.1}, unheard=[]), "2 of 2"),
        (says("leader"), "0 of 0"),
        (says("follower", heard={"b": 1.26}), "1.3 s"),
        (says("follower", heard={"b": None}), "-"),
        (says("candidate", ballot="none", heard={"b": 1.0}), "-"),
    ],
)
def test_heard(status: dict[str, Any], shown: str) -> None:
    assert heard(status) == shown


def test_a_screen_is_cut_to_its_size() -> None:
    drawn = as_screen(["x" * 100, "second", "third"], 10, 2)
    assert drawn == "\x1b[H" + "x" * 10 + "\x1b[K\r\nsecond\x1b[K\x1b[J"
    assert "q ends" in as_screen(["x"], 80, 24)


# Real nodes


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running(tmp_path_factory.mktemp("top"), "a", "b", "c") as nodes:
        yield nodes


def test_frames_without_a_terminal(nodes: Nodes) -> None:
    done = txpaxos("top", "--count", "2", "--interval", "0.1", folder=nodes.folder)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert text.count("3 of 3 nodes answer") == 2
    assert "\x1b" not in text


def test_json_goes_on_through_a_fail_over_and_nodes_that_do_not_answer(nodes: Nodes) -> None:
    arguments = ["top", "--json", "--interval", "0.1", "--timeout", "0.5"]
    place = str(nodes.cluster.members["a"].client)
    process = subprocess.Popen([*TXPAXOS, *arguments, "--node", place], cwd=nodes.folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        first = json.loads(process.stdout.readline())
        leader = first["leader"]
        nodes.kill(leader)
        for line in process.stdout:
            told = json.loads(line)
            if told["leader"] not in (None, leader) and not told["nodes"][leader]["reachable"]:
                break
        assert f"{leader} does not answer" in told["problems"]
        nodes.start(leader)
        txpaxos("submit", "+1", folder=nodes.folder)
        for line in process.stdout:
            told = json.loads(line)
            if told["nodes"][leader]["reachable"] and told["nodes"][leader].get("slots_per_second") is not None:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.communicate()


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    done = txpaxos("top", "--node", "127.0.0.1:1", "--timeout", "0.5", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert len(done.stderr.splitlines()) == 1


class Terminal:
    """``txpaxos top`` on a terminal of its own.

    :ivar drawn: what it has written there.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.own, self.other = pty.openpty()
        self.before = termios.tcgetattr(self.other)
        self.drawn = b""
        self.process = subprocess.Popen(
            [*TXPAXOS, "top", *arguments],
            cwd=folder,
            stdin=self.other,
            stdout=self.other,
            stderr=self.other,
            start_new_session=True,
        )

    def read_until(self, wanted: str) -> None:
        give_up_at = time.monotonic() + SECONDS
        while wanted.encode() not in self.drawn:
            assert time.monotonic() < give_up_at, self.drawn
            if select.select([self.own], [], [], 1.0)[0]:
                self.drawn += os.read(self.own, 65536)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for descriptor in (self.own, self.other):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_on_a_terminal_a_key_ends_it_and_all_is_restored(nodes: Nodes, key: bytes) -> None:
    terminal = Terminal(nodes.folder, "--interval", "0.2")
    termios.tcsetwinsize(terminal.own, (24, 100))
    try:
        terminal.read_until("nodes answer")
        os.write(terminal.own, b"x")
        terminal.drawn = b""
        terminal.read_until("q ends")
        os.write(terminal.own, key)
        terminal.read_until(LEAVE)
        assert terminal.process.wait(SECONDS) == 0
        assert termios.tcgetattr(terminal.other) == terminal.before
        assert b"Traceback" not in terminal.drawn
    finally:
        terminal.close()


def test_a_signal_restores_the_terminal_too(nodes: Nodes) -> None:
    terminal = Terminal(nodes.folder, "--interval", "0.2")
    try:
        terminal.read_until("nodes answer")
        assert terminal.drawn.startswith(ENTER.encode())
        assert b"follower" in terminal.drawn, "a terminal that does not know its size has one of 80 by 24"
        terminal.process.terminate()
        terminal.read_until(LEAVE)
        assert terminal.process.wait(SECONDS) == 143
        assert termios.tcgetattr(terminal.other) == terminal.before
    finally:
        terminal.close()
