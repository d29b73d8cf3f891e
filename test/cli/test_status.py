"""``txpaxos status``: what it makes of what the nodes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import txpaxos.cli.status
from txpaxos.cli import main
from txpaxos.cli.status import as_json, as_text, command, counts, leader_of, unheard
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.election import Role

TRIO = Cluster(
    "trio",
    {
        node: Member(Address("127.0.0.1", 4000 + number), Address("127.0.0.1", 5000 + number))
        for number, node in enumerate("abc", 1)
    },
)


def says(role: str, ballot: str = "2.b", chosen: int = 10, applied: int = 10) -> dict[str, Any]:
    slots = {"chosen_through": chosen, "applied_through": applied, "snapshot_slot": 5}
    return {"role": role, "ballot": ballot, "waiting": 0, **slots, "transfer": None, "application": "counter:Counter"}


LEADER, FOLLOWER = says("leader"), says("follower")


@pytest.mark.parametrize(
    ("statuses", "leader"),
    [
        ({"a": FOLLOWER, "b": LEADER, "c": FOLLOWER}, "b"),
        ({"a": FOLLOWER, "b": LEADER, "c": None}, "b"),
        ({"a": None, "b": LEADER, "c": None}, None),
        ({"a": FOLLOWER, "b": None, "c": FOLLOWER}, None),
        ({"a": None, "b": None, "c": None}, None),
        ({"a": says("candidate", "none"), "b": LEADER, "c": says("follower", "1.a")}, None),
        ({"a": says("leader", "1.a"), "b": LEADER, "c": FOLLOWER}, "b"),
        ({"a": says("leader", "1.a"), "b": LEADER, "c": says("follower", "1.a")}, "a"),
    ],
    ids=["all", "quorum", "alone", "leader-silent", "no-answer", "no-followers", "one-deposed", "one-not-yet-followed"],
)
def test_leader_is_one_that_a_quorum_follows(statuses: dict[str, Any], leader: str | None) -> None:
    assert leader_of(TRIO, statuses) == leader


def test_table() -> None:
    statuses = {"a": says("follower", chosen=9, applied=7), "b": LEADER, "c": None}
    assert as_text(TRIO, statuses, "b") == (
        "node  address         role         ballot  chosen  applied  lag  waiting  snapshot  application\n"
        "a     127.0.0.1:5001  follower     2.b          9        7    3        0         5  counter:Counter\n"
        "b     127.0.0.1:5002  leader       2.b         10       10    0        0         5  counter:Counter\n"
        "c     127.0.0.1:5003  unreachable  -            -        -    -        -         -  -\n"
        "\n"
        "cluster trio: b leads, 2 of 3 nodes answer"
    )


@pytest.mark.parametrize(
    ("days", "line"), [(29.0, "expires in 29 days"), (-1.0, "has expired"), (31.0, None), (None, None)]
)
def test_a_certificate_that_expires_soon(days: float | None, line: str | None) -> None:
    seconds = None if days is None else days * 86_400
    text = as_text(TRIO, {"a": LEADER | {"keys_expire_in_seconds": seconds}, "b": FOLLOWER, "c": FOLLOWER}, "a")
    assert ("the certificate of a" in text) == (line is not None)
    assert line is None or f"the certificate of a {line}: issue a new one, and load it" in text


@pytest.mark.parametrize(
    ("tolerance", "words"),
    [
        (0, "no voter may fail: the next one that does stops the cluster"),
        (1, "1 more voter may fail"),
        (2, "2 more voters may fail"),
        (-1, "there is no quorum"),
    ],
)
def test_how_many_more_may_fail(tolerance: int, words: str) -> None:
    statuses = {"a": FOLLOWER, "b": {**LEADER, "failure_tolerance": tolerance}, "c": FOLLOWER}
    assert as_text(TRIO, statuses, "b").endswith(f"b leads, 3 of 3 nodes answer\n{words}")
    assert json.loads(as_json(TRIO, statuses, "b"))["failure_tolerance"] == tolerance
    assert json.loads(as_json(TRIO, statuses, None))["failure_tolerance"] == -1


def test_clocks_that_differ_and_clocks_that_have_jumped() -> None:
    led = LEADER | {"clock_offsets_seconds": {"b": 0.9, "c": -7.25}, "clock_jump_refused_seconds": 9000.0}
    assert as_text(TRIO, {"a": led, "b": FOLLOWER, "c": FOLLOWER}, "a").splitlines()[-2:] == [
        "the clock of c is 7.2 s behind that of a: set them",
        "the clocks say it is 2.5 hours later than it should be: if they are right, run txpaxos clock accept",
    ]


def test_a_node_that_the_leader_does_not_hear() -> None:
    """It may look well to itself: it follows."""
    led = {
        **LEADER,
        "unheard": ["a", "c"],
        "refuses": {"a": "it came back with another data folder"},
        "up_seconds": 9.0,
    }
    runs = {**FOLLOWER, "up_seconds": 9.0}
    statuses: dict[str, Any] = {"a": runs, "b": led, "c": runs}
    assert unheard(statuses, "b") == ["a", "c"]
    assert as_text(TRIO, statuses, "b").splitlines()[-3:] == [
        "cluster trio: b leads, 3 of 3 nodes answer",
        "b does not hear a: it came back with another data folder",
        "b does not hear c, which runs: check that UDP passes between the two, and read their logs",
    ]
    hung = {**statuses, "c": {**runs, "disk_hangs_seconds": 7.2}}
    assert as_text(TRIO, hung, "b").splitlines()[-2:] == [
        "b does not hear a: it came back with another data folder",
        "the disk of c hangs: a save has been under way for 7 s",
    ]
    assert unheard(statuses, None) == []
    assert unheard({**statuses, "c": None}, "b") == ["a"]  # It does not run; that is seen as it is.
    assert unheard({**statuses, "a": None}, "b") == ["a", "c"]  # It is refused, so it runs, of another cluster perhaps.
    assert unheard({**statuses, "c": {**FOLLOWER, "up_seconds": 0.5}}, "b") == ["a"]
    assert unheard({"a": FOLLOWER, "b": LEADER, "c": FOLLOWER}, "b") == []  # Nodes of an older release.


OTHER = {**FOLLOWER, "application": "other\x1b:Other"}
OF_BEFORE = {name: value for name, value in FOLLOWER.items() if name != "application"}


@pytest.mark.parametrize(
    ("statuses", "line"),
    [
        ({"a": FOLLOWER, "b": LEADER, "c": FOLLOWER}, ""),
        ({"a": FOLLOWER, "b": LEADER, "c": None}, ""),
        ({"a": FOLLOWER, "b": LEADER, "c": OF_BEFORE}, ""),
        ({"a": FOLLOWER, "b": LEADER, "c": OTHER}, "(a, b: counter:Counter; c: other\\x1b:Other)"),
        ({"a": OTHER, "b": LEADER, "c": OTHER}, "(a, c: other\\x1b:Other; b: counter:Counter)"),
        ({"a": OTHER, "b": None, "c": FOLLOWER}, "(a: other\\x1b:Other; c: counter:Counter)"),
    ],
)
def test_nodes_that_run_different_applications(
    statuses: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leader = leader_of(TRIO, statuses)
    last = as_text(TRIO, statuses, leader).splitlines()[-1]
    words = f"the nodes run different applications, so their states become different {line}"
    assert last == words if line else last.startswith("cluster trio: b leads")
    monkeypatch.setattr(txpaxos.cli.status, "run", lambda work: (TRIO, TRIO, statuses))
    (tmp_path / "trio.toml").write_text(TRIO.dumps())
    result = CliRunner().invoke(main, ["status", "--cluster", str(tmp_path / "trio.toml")])
    assert result.exit_code == (1 if leader is None else 4 if line else 0)


def test_every_role_is_named() -> None:
    operations = (Path(__file__).parents[2] / "docs" / "operations.rst").read_text()
    for role in (*(role.value for role in Role), "newcomer", "learner", "unreachable"):
        assert role in (command.help or ""), role
        assert f"``{role}``" in operations, role


def test_table_while_a_snapshot_is_on_its_way() -> None:
    statuses = {"a": {**FOLLOWER, "transfer": "slot 900 from b: 12 of 100 MiB"}, "b": LEADER, "c": None}
    lines = as_text(TRIO, statuses, "b").splitlines()
    assert lines[0].split()[-1] == "transfer"
    assert lines[1].endswith("5  counter:Counter  slot 900 from b: 12 of 100 MiB")
    assert [line.split()[-1] for line in lines[2:4]] == ["-", "-"]


def test_counts_are_shown_with_what_they_mean() -> None:
    dropped, counters = {"vote_for_another_ballot": 3}, {"possibly_forged:StateDigest": 20, "of_a_later_release": 1}
    statuses = {"a": {**FOLLOWER, "dropped": dropped, "counters": counters}, "b": LEADER, "c": None}
    most, some, one = counts(statuses)
    assert most.startswith("a  20  possibly_forged:StateDigest: A message that decides much came by a way")
    assert some == "a  3  vote_for_another_ballot: A vote came late: another node leads."
    assert one == "a  1  of_a_later_release: This release of txpaxos does not know what that is."
    assert counts({"b": LEADER, "c": None}) == ["nothing was counted"]


def test_table_when_no_node_answers() -> None:
    text = as_text(TRIO, dict.fromkeys("abc"), None)
    assert text.count("unreachable") == 3
    assert text.endswith("cluster trio: no leader with a quorum, 0 of 3 nodes answer")


def test_json() -> None:
    data = json.loads(as_json(TRIO, {"a": FOLLOWER, "b": LEADER, "c": None}, "b"))
    assert (data["cluster"], data["leader"]) == ("trio", "b")
    assert data["nodes"]["c"] == {"address": "127.0.0.1:5003", "reachable": False}
    assert data["nodes"]["a"] == {"address": "127.0.0.1:5001", "reachable": True, **FOLLOWER}
