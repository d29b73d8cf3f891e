"""``txpaxos members``: who the members are, changes of them, and what a dry run says of these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from test.helpers.cli_nodes import running, txpaxos
from txpaxos.cli import main
from txpaxos.cli.members import as_json, as_text, foreseen, remaining
from txpaxos.errors import MembersRefused


def member(number: int, role: str = "voter", incarnation: str | None = None, priority: int = 1) -> dict[str, Any]:
    return {
        "address": f"127.0.0.1:{4000 + number}",
        "client": f"127.0.0.1:{5000 + number}",
        "role": role,
        "incarnation": incarnation,
        "priority": priority,
    }


def report(**members: dict[str, Any]) -> dict[str, Any]:
    return {"cluster": "trio", "slot": 42, "leader": "b", "members": members, "retired": ["c"]}


def status(applied: int, **heard: float | None) -> dict[str, Any]:
    return {"chosen_through": 50, "applied_through": applied, "heard": heard}


REPORT = report(a=member(1), b=member(2, priority=5), d=member(4, "learner", "00ab00cd00ef0011"))
STATUSES = {"a": status(48), "b": status(50, a=0.04, d=None), "d": None}


def test_table() -> None:
    assert as_text(REPORT, STATUSES) == (
        "node  role     address         client          incarnation  priority  leads  lag  heard\n"
        "a     voter    127.0.0.1:4001  127.0.0.1:5001  -                   1  no       2  0.0\n"
        "b     voter    127.0.0.1:4002  127.0.0.1:5002  -                   5  yes      0  -\n"
        "d     learner  127.0.0.1:4004  127.0.0.1:5004  00ab00cd            1  no       -  -\n"
        "\n"
        "cluster trio: 2 voters of 3 members, since slot 42; 0 of the voters may fail"
    )
    assert "the founders; 0 of the voters" in as_text({**REPORT, "slot": 0, "leader": None}, dict.fromkeys("abd"))


def test_json() -> None:
    shown = json.loads(as_json(REPORT, STATUSES))
    assert (shown["slot"], shown["leader"], shown["retired"]) == (42, "b", ["c"])
    assert shown["members"]["a"] == {**member(1), "reachable": True, "lag": 2, "heard_seconds": 0.04}
    assert shown["members"]["d"]["lag"] is None


UP = status(50)
FIVE = report(**{node: member(number) for number, node in enumerate("abcde", 1)}, f=member(6, "learner"))


@pytest.mark.parametrize(
    ("node", "other", "up", "lines", "can_be_made"),
    [
        ("a", "", "abcde", ["may fail  2 of 5 -> 1 of 4", "must be up  3 of b, c, d, e; up now: b, c, d, e"], True),
        ("a", "f", "bcf", ["may fail  2 of 5 -> 2 of 5", "must be up  3 of b, c, d, e, f; up now: b, c, f"], True),
        ("a", "f", "bcd", ["may fail  2 of 5 -> 2 of 5", "must be up  3 of b, c, d, e, f; up now: b, c, d"], False),
        ("a", "", "ab", ["may fail  2 of 5 -> 1 of 4", "must be up  3 of b, c, d, e; up now: b"], False),
        ("a", "", "a", ["may fail  2 of 5 -> 1 of 4", "must be up  3 of b, c, d, e; up now: none"], False),
    ],
)
def test_what_a_change_would_mean(node: str, other: str, up: str, lines: list[str], can_be_made: bool) -> None:
    shown, made = foreseen(FIVE, {one: UP if one in up else None for one in "abcdef"}, remaining(FIVE, node, other))
    assert shown[0].startswith("voters    a, b, c, d, e -> b, c, d, e")
    assert (shown[1:3], made) == (lines, can_be_made)
    assert (shown[3:] == []) == can_be_made


def test_a_leader_hands_over_first() -> None:
    shown, made = foreseen(FIVE, dict.fromkeys("abcdef", UP), remaining(FIVE, "b"))
    assert (shown[-1], made) == ("b leads, and hands over first", True)


@pytest.mark.parametrize(
    ("node", "other", "reason"),
    [
        ("x\x1b", "", "there is no member x\\x1b: there are a, b, c, d, e, f"),
        ("a", "x", "there is no member x"),
        ("f", "a", "f is no voter: remove it instead"),
        ("a", "b", "b is a voter already: remove a instead"),
    ],
)
def test_a_change_that_would_be_refused(node: str, other: str, reason: str) -> None:
    with pytest.raises(MembersRefused) as caught:
        remaining(FIVE, node, other)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("other", ["", "b"])
def test_a_change_that_was_made_already(other: str) -> None:
    assert remaining(REPORT, "c", other) == ["a", "b"]


def test_the_only_voter_stays() -> None:
    with pytest.raises(MembersRefused, match="a is the only voter: add another member first"):
        remaining(report(a=member(1), d=member(2, "learner")), "a")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["move", "a", "--address", "a", "--client", "b:1"], "--address: 'a': not host:port"),
        (["move", "a", "--address", "a:1"], "Missing option '--client'"),
        (["priority", "a", "1001"], "1001 is not in the range"),
        (["replace", "a"], "Missing option '--with'"),
        (["--node", "a"], "'a': not host:port"),
        (["remove", "a", "--node", "b:1", "--cluster", "x.toml"], "--cluster and --node exclude each other"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["members", *arguments])
    assert (result.exit_code, words in result.output) == (2, True), result.output


def test_a_node_is_not_added_from_elsewhere() -> None:
    result = CliRunner().invoke(main, ["members", "add", "d", "--address", "d:1", "--client", "d:2"])
    assert result.exit_code == 1
    assert "start d with an empty folder and `twistd paxos --join HOST:PORT`" in result.output


def test_all_nodes_that_were_given_are_gone(tmp_path: Path) -> None:
    done = txpaxos("members", "--node", "127.0.0.1:1", "--timeout", "0.5", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("txpaxos: no quorum of cluster at 127.0.0.1:1 answered within 0.5 s; nothing was changed:")
    assert line.endswith("start one of them, or start the client with the address of a node that runs")


@pytest.mark.timeout(180)
def test_members_are_changed(tmp_path: Path) -> None:
    """With real nodes: what was started as three goes on as two, and then a client with an old file finds them."""
    with running(tmp_path, "a", "b", "c") as nodes:

        def members(*arguments: str) -> tuple[int, str, str]:
            done = txpaxos("members", *arguments, folder=tmp_path)
            return done.returncode, done.stdout.decode(), done.stderr.decode()

        found = json.loads(members("--json")[1])
        assert (found["slot"], sorted(found["members"]), found["cluster"]) == (0, ["a", "b", "c"], "test")
        leader = found["leader"]
        a, b = (node for node in "abc" if node != leader)
        place = str(nodes.cluster.members[a].client)

        status, shown, _ = members("remove", b, "--dry-run", "--node", place)
        assert (status, shown.splitlines()[-1]) == (0, "nothing was changed")
        status, _, refused = members("remove", "x")
        assert (status, refused.splitlines()[-1]) == (1, "txpaxos: there is no member 'x': there are a, b, c")
        status, _, refused = members("promote", "x", "--node", place)
        assert (status, refused.count("Traceback")) == (1, 0)
        status, shown, _ = members("priority", a, "7")
        assert (status, shown.startswith(f"{a} has priority 7; the voters are a, b, c, since slot ")) == (0, True)
        status, shown, progress = members("remove", leader, "--node", place)
        assert status == 0, progress
        assert shown.startswith(f"{leader} is no member any more, and may be switched off; the voters are ")
        nodes.kill(leader)
        status, shown, _ = members("--node", place, "--json")
        assert (status, sorted(json.loads(shown)["members"])) == (0, sorted({a, b}))
        assert json.loads(shown)["retired"] == [leader]
        assert txpaxos("submit", "+1", folder=tmp_path).returncode == 0
        shown = txpaxos("status", folder=tmp_path).stdout.decode()
        assert "2 of 2 nodes answer" in shown
        assert txpaxos("submit", "+1", "--node", place, folder=tmp_path).returncode == 0
