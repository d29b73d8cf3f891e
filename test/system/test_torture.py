"""The torture's plan, measures and words; and a short run of it where it can be had."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import attrs
import pytest
from click.testing import CliRunner
from twisted.internet.task import Clock

from test.torture import __main__ as command
from test.torture import network_namespace
from test.torture.plan import (
    ALONE,
    CHANGES,
    JOINS,
    LEAVES,
    SCENARIOS,
    WEIGHTS,
    Fault,
    Kind,
    Round,
    kinds_for,
    leaves_quorum,
    rounds,
)
from test.torture.report import STABLE_SECONDS_MAX, STALL_SECONDS, Report, Silence, Stability, stable_after
from test.torture.roster import VOTERS_MAX, VOTERS_MIN
from test.torture.run import PREFIX, work_folder
from test.torture.wall_clock import WallClock
from test.torture.workload import WEIGHTS as WEIGHTS_OF_USERS
from test.torture.workload import Decision, User
from txpaxos.testing.linearizability.check import check
from txpaxos.testing.linearizability.history import HistoryRecorder

ROOT = Path(__file__).parents[2]
TORTURE = [sys.executable, "-m", "test.torture"]
THREE, FIVE = "abc", "abcde"
RUN_SECONDS_MAX = 200


def first_rounds(seed: int, nodes: str, count: int = 500) -> list[Round]:
    return list(itertools.islice(rounds(Random(seed), nodes, kinds_for(len(nodes))), count))


def rounds_with_changes(seed: int, nodes: str, count: int = 1000) -> list[Round]:
    kinds = kinds_for(len(nodes), changes_members=True)
    return list(itertools.islice(rounds(Random(seed), nodes, kinds), count))


def fault(kind: Kind, nodes: str = THREE, seed: int = 1) -> Fault:
    """The first fault of that kind in a plan."""
    planned = itertools.chain.from_iterable(one.faults for one in rounds(Random(seed), nodes, [kind]))
    return next(planned)


# ------------------------------------------------------------------- the plan


@pytest.mark.parametrize("nodes", [THREE, FIVE])
def test_plan_replays_from_its_seed(nodes: str) -> None:
    assert first_rounds(7, nodes) == first_rounds(7, nodes)
    assert first_rounds(7, nodes) != first_rounds(8, nodes)


@pytest.mark.parametrize("nodes", [THREE, FIVE])
def test_plan_has_everything_by_its_weight(nodes: str) -> None:
    bag = sum(WEIGHTS[kind] for kind in kinds_for(len(nodes)))
    kinds = [one.kind for planned in first_rounds(1, nodes) for one in planned.faults]
    assert Counter(kinds[:bag]) == {kind: WEIGHTS[kind] for kind in kinds_for(len(nodes))}


def test_scenarios_come_where_they_make_sense() -> None:
    assert SCENARIOS.keys() & kinds_for(3) == {Kind.CHAINED}
    assert SCENARIOS.keys() & kinds_for(5) == {Kind.QUORUM_LOSS, Kind.CONSTRAINED_ELECTION}
    assert Kind.STEP_CLOCK not in kinds_for(3, {Kind.STEP_CLOCK})


@pytest.mark.parametrize("nodes", [THREE, FIVE])
def test_rounds_are_sound(nodes: str) -> None:
    for planned in first_rounds(3, nodes):
        kinds = [one.kind for one in planned.faults]
        assert len(kinds) == 1 or not ALONE.intersection(kinds)
        for leader in (None, *nodes):
            aimed = planned.aimed(leader)
            assert len({one.node for one in aimed.faults}) == len(kinds)  # No node is killed twice at once.
            assert all(sorted(one.order) == list(nodes) for one in aimed.faults)
            if leader is not None and planned.faults[0].aims_at_leader:
                assert aimed.faults[0].node == leader
        for one in planned.faults:
            assert all(sender != receiver for sender, receiver in one.links)
            assert one.kind is not Kind.FILL_DISK or one.node == nodes[-1]


@pytest.mark.parametrize(
    ("kind", "nodes", "kept"),
    [
        (Kind.KILL, THREE, True),
        (Kind.KILL_ALL, THREE, False),
        (Kind.OUTLAST, THREE, True),
        (Kind.STOP, FIVE, True),
        (Kind.CUT_ONE_WAY, THREE, True),
        (Kind.CUT_BOTH_WAYS, THREE, True),
        (Kind.DEAFEN, THREE, True),
        (Kind.MUTE, FIVE, True),
        (Kind.ISOLATE, THREE, True),
        (Kind.QUORUM_LOSS, FIVE, True),
        (Kind.CONSTRAINED_ELECTION, FIVE, True),
        (Kind.CHAINED, THREE, True),
        (Kind.LOSE_PACKETS, THREE, True),
    ],
)
def test_what_leaves_a_quorum(kind: Kind, nodes: str, kept: bool) -> None:
    assert leaves_quorum(nodes, [fault(kind, nodes)]) is kept


def test_two_faults_may_take_the_quorum_away() -> None:
    killed = Fault(Kind.KILL, ("a", "b", "c"), False, 1.0)
    also = Fault(Kind.STOP, ("b", "a", "c"), False, 1.0)
    assert leaves_quorum(THREE, [killed])
    assert not leaves_quorum(THREE, [killed, also])
    one_way = Fault(Kind.CUT_ONE_WAY, ("b", "c", "a"), False, 1.0, frozenset({(0, 1)}))
    assert one_way.links == {("b", "c")}
    assert not leaves_quorum(THREE, [killed, one_way])


@pytest.mark.parametrize(
    ("kind", "nodes", "linked"),
    [
        (Kind.QUORUM_LOSS, FIVE, {(1, 0), (1, 2), (1, 3), (1, 4)}),
        (Kind.CONSTRAINED_ELECTION, FIVE, {(1, 2), (1, 3), (1, 4)}),
        (Kind.CHAINED, THREE, {(0, 1), (1, 2)}),
    ],
)
def test_scenarios_keep_the_links_of_the_article(kind: Kind, nodes: str, linked: set[tuple[int, int]]) -> None:
    cut = fault(kind, nodes).cuts
    kept = {frozenset(pair) for pair in itertools.permutations(range(len(nodes)), 2) if pair not in cut}
    assert kept == {frozenset(pair) for pair in linked}


@pytest.mark.parametrize("nodes", [THREE, FIVE])
def test_members_come_and_go(nodes: str) -> None:
    """Each round is about the members of that moment. There are three to five, no two in one place, and no id comes
    twice."""
    members = {node: number for number, node in enumerate(nodes, 1)}
    ever, places = set(nodes), set()
    for planned in rounds_with_changes(5, nodes):
        changes = [one for one in planned.faults if one.kind in CHANGES]
        assert changes == list(planned.faults[: len(changes)])
        assert len(changes) <= 1
        newcomers = {one.newcomer.node for one in changes if one.newcomer is not None}
        for one in planned.faults:
            assert set(members) <= set(one.order) <= {*members, *newcomers}
        for change in changes:
            if change.kind in LEAVES or change.kind is Kind.REPLACE:
                del members[change.node]
            if change.kind is Kind.MOVE:
                members[change.node] = change.place
            if change.newcomer is not None:
                assert change.newcomer.node not in ever
                assert change.newcomer.node.partition("~")[0] == change.newcomer.name
                assert change.newcomer.name not in {node.partition("~")[0] for node in members}
                ever.add(change.newcomer.node)
                members[change.newcomer.node] = change.newcomer.place
        assert VOTERS_MIN <= len(members) <= VOTERS_MAX
        assert len(set(members.values())) == len(members)
        places |= set(members.values())
        kinds = {one.kind for one in planned.faults}
        assert len(kinds) == 1 or not ALONE & kinds
    assert not set(nodes) & set(members)  # In the end all founders are gone.
    assert any("~" in node for node in ever)
    assert len(places) > VOTERS_MAX


def test_every_change_is_in_the_plan_alone_and_with_other_faults() -> None:
    planned = rounds_with_changes(6, THREE)
    assert rounds_with_changes(6, THREE) == planned
    alone = {one.faults[0].kind for one in planned if len(one.faults) == 1}
    assert alone >= CHANGES
    together = {tuple(fault.kind for fault in one.faults) for one in planned if len(one.faults) == 2}
    assert {first for first, _ in together} >= CHANGES - {Kind.RETURN}
    assert {(kind, Kind.KILL) for kind in (Kind.JOIN, Kind.REMOVE, Kind.REPLACE, Kind.MOVE)} <= together
    assert not CHANGES & set(kinds_for(3))


def test_no_other_fault_hits_the_member_that_leaves() -> None:
    for planned in rounds_with_changes(7, FIVE):
        change = planned.faults[0]
        for leader in (None, *change.order):
            aimed = planned.aimed(leader)
            if change.kind in CHANGES - JOINS and len(aimed.faults) == 2:
                assert aimed.faults[0] == change
                assert aimed.faults[1].node != change.node


def test_a_link_of_a_node_that_joins_is_cut() -> None:
    cut = {
        change.newcomer.node in {node for link in other.links for node in link}
        for planned in rounds_with_changes(8, THREE)
        if len(planned.faults) == 2
        for change, other in [planned.faults]
        if change.newcomer is not None and other.kind is Kind.CUT_BOTH_WAYS
    }
    assert cut == {True, False}


def test_what_a_fault_is_about_is_in_its_name() -> None:
    planned = [one.faults[0] for one in rounds_with_changes(9, THREE)]
    named = {one.kind: str(one) for one in planned if not one.aims_at_leader}
    assert named[Kind.KILL] == "kill"
    assert named[Kind.JOIN].startswith("a node joins: ")
    assert named[Kind.JOIN].endswith(" comes")
    led = next(one for one in planned if one.kind is Kind.REMOVE and one.aims_at_leader)
    assert str(led) == f"a member is removed: {led.node} (as the leader)"


# --------------------------------------------------------------- the measures


def test_when_a_leader_has_come_to_stay() -> None:
    assert stable_after([(0.1, "a"), (0.2, None), (0.3, "b"), (0.4, "b")]) == 0.3
    assert stable_after([(0.1, "a"), (0.2, "a")]) == 0.1
    assert stable_after([(0.1, "a"), (0.2, None)]) is None


@pytest.mark.parametrize(
    ("leader", "silence", "lag", "in_time", "void"),
    [
        (0.5, 0.6, 0.0, True, False),
        (0.5, 0.6, 9.0, True, False),
        (STABLE_SECONDS_MAX + 0.1, 0.6, 0.0, False, False),
        (0.5, STABLE_SECONDS_MAX + 0.1, 0.0, False, False),
        (None, 0.6, 0.0, False, False),
        (None, 0.6, STALL_SECONDS, False, True),
    ],
)
def test_stability(leader: float | None, silence: float, lag: float, in_time: bool, void: bool) -> None:
    stability = Stability(Kind.CHAINED, leader, silence, lag)
    assert (stability.is_in_time, stability.is_void) == (in_time, void)


REPORT = Report(
    seed=1,
    nodes=3,
    seconds=10.0,
    operations=100,
    unknown=2,
    answers=Counter({"get": 40, "local": 9, "watch": 3, "put": 48}),
    asks=5,
    snapshots=20,
    transfers=4,
    faults=Counter(),
    silences=[],
    stabilities=[Stability(Kind.CHAINED, 0.5, 0.75, 0.0)],
    verdict="all there",
    linearizable=["fine", "fine"],
    violations=[],
    lag_seconds=0.01,
    hash_seeds=7,
)


def test_report() -> None:
    silences = [
        Silence((Kind.KILL,), True, 0.5),
        Silence((Kind.KILL,), True, 0.25),
        Silence((Kind.STOP,) * 2, False, 3),
    ]
    faults = Counter({Kind.KILL: 2, Kind.STOP: 2})
    report = attrs.evolve(REPORT, faults=faults, silences=silences)
    lines = report.as_text().splitlines()
    assert lines[0].startswith("3 nodes, seed 1: 10 s, 4 faults, 100 operations (10/s, 2 of unknown outcome)")
    assert [line.split() for line in lines if line.startswith("kill")] == [
        ["kill", "2", "2", "0.50", "0.38", "0", "-", "-"]
    ]
    assert lines[1] == "40 linearizable reads, 9 local reads, 3 watches, 20 snapshots, 4 transfers of a snapshot"
    assert lines[-1] == "nothing lost, nothing doubled, linearizable"
    data = json.loads(json.dumps(report.as_json()))
    assert data["faults"] == {"kill": 2, "stop and continue": 2}
    assert data["unavailability_seconds"]["two at once"]["after_no_quorum"]["longest"] == 3
    assert data["stabilities"][0]["in_time"] is True
    assert (data["snapshots"], data["transfers"], data["answers"]["get"]) == (20, 4, 40)


def test_report_tells_of_changes_of_members() -> None:
    report = attrs.evolve(REPORT, configurations=3, change_counts={"refused at first": 1, "joins begun again": 0})
    line = "the members changed 3 times (1 refused at first, 0 joins begun again)"
    assert line in report.as_text().splitlines()
    assert "the members changed" not in REPORT.as_text()
    assert report.as_json()["configurations"] == 3


def test_report_tells_what_never_happened() -> None:
    report = attrs.evolve(REPORT, answers=Counter({"get": 1, "local": 1}), transfers=0)
    lines = [line for line in report.as_text().splitlines() if "not tried" in line]
    assert lines == [
        "not tried, since there were none: watches",
        "not tried, since there were none: transfers of a snapshot",
    ]
    assert report.as_json()["untried"] == ["watches", "transfers of a snapshot"]
    assert REPORT.as_json()["untried"] == []


def test_subjects_have_one_answer() -> None:
    def judged(second: str) -> bool | None:
        recorder = HistoryRecorder(Clock())
        for client, answer in (("a", "red"), ("b", second)):
            number = recorder.invoke(client, ["ask", "colour", {"a": "red", "b": "blue"}[client]])
            recorder.ok(client, number, answer)
        return check(recorder.operations(), Decision()).linearizable

    assert judged("red") is True
    assert judged("blue") is False


def test_user_does_everything_and_puts_no_text_twice() -> None:
    user, inputs, kinds = User("user-0", Random(1)), [], Counter[str]()
    for _ in range(5000):
        kind, input = user.next()
        inputs.append(input)
        kinds[kind] += 1
    assert kinds.keys() == WEIGHTS_OF_USERS.keys()
    share = {kind: weight / sum(WEIGHTS_OF_USERS.values()) for kind, weight in WEIGHTS_OF_USERS.items()}
    assert all(0.5 < count / 5000 / share[kind] < 2 for kind, count in kinds.items())
    texts = [input[-1] for input in inputs if input[0] in ("put", "cas")]
    assert len(texts) == len(set(texts))


def test_user_compares_with_what_it_saw_last() -> None:
    def old(user: User, key: str) -> str | None:
        asked = (user.next()[1] for _ in itertools.count())
        return next((str(input[2]) if input[2] else None) for input in asked if input[:2] == ("cas", key))

    user = User("user-0", Random(1))
    assert old(user, "short-1") is None
    user.told(("put", "short-1", "one"), 7)
    assert old(user, "short-1") == "one"
    user.told(("cas", "short-1", "one", "two"), False)
    assert old(user, "short-1") == "one"
    user.told(("cas", "short-1", "one", "two"), True)
    assert old(user, "short-1") == "two"
    assert old(user, "short-2") is None
    user.told(("delete", "short-1"), True)
    assert old(user, "short-1") is None


# ------------------------------------------------------------------ the place


def test_share_of_each_cluster() -> None:
    one = command.options_for(3, 2, 1, minutes=10.0, faults_max=301, operations_max=200_000, keep=False)
    assert (one.seconds, one.faults_max, one.operations_max, one.changes_members) == (300.0, 150, 100_000, True)
    assert one.pause_seconds == pytest.approx(6 * 300 / 100_000)


def test_skips_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(command.main, [])
    assert done.exit_code == command.SKIPPED
    assert done.output == "torture: skipped: it needs root, for network namespaces\n"


def test_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "iptables-restore (package iptables)" in network_namespace.missing()


def test_folders_of_the_dead_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, kept = tmp_path / f"{PREFIX}{int(gone.stdout)}-x", tmp_path / f"{PREFIX}kept-{int(gone.stdout)}-x"
    alive = tmp_path / f"{PREFIX}{os.getpid()}-x"
    for folder in (dead, kept, alive):
        folder.mkdir()
    mine = work_folder()
    assert sorted(tmp_path.iterdir()) == sorted([kept, alive, mine])


def test_wall_clock_of_a_process_steps_under_its_feet(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    if clock.missing:
        pytest.skip(clock.missing)
    tell = "import time\nwhile input(): print(time.time(), time.monotonic(), flush=True)"
    with subprocess.Popen(
        ["env", *clock.environment("a"), sys.executable, "-c", tell],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def told() -> tuple[float, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("?\n")
            process.stdin.flush()
            wall, monotonic = map(float, process.stdout.readline().split())
            return wall - time.time(), monotonic - time.monotonic()

        for seconds in (0.0, 3600.0, -86_400.5, 0.0):
            clock.move("a", seconds)
            assert told() == pytest.approx((seconds, 0.0), abs=10)
        process.communicate("\n")


# ----------------------------------------------------------------- a short run


@pytest.mark.timeout(RUN_SECONDS_MAX)
def test_short_run(tmp_path: Path) -> None:
    """The plan of this seed begins with a node that is away for two snapshots, and a leader whose folder is lost."""
    reason = network_namespace.missing()
    if reason:
        pytest.skip(reason)
    options = ["--nodes", "3", "--minutes", "1", "--faults-max", "2", "--seed", "2859", "--json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*TORTURE, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS_MAX
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads(done.stdout)
    assert report["violations"] == []
    assert sum(report["faults"].values()) >= 2
    assert report["operations"] > 20
    assert report["configurations"] >= 2 or report["without"]
    assert report["untried"] == [] or report["without"]  # Without a compiler it is another plan.
    assert list(tmp_path.iterdir()) == []


def test_short_run_of_pauses() -> None:
    pauses = [sys.executable, "-m", "test.torture.pauses", "--pauses", "2"]
    done = subprocess.run(pauses, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 pauses of the leader, ")
    assert "linearizable: " in done.stdout


@pytest.mark.timeout(RUN_SECONDS_MAX)
def test_nodes_die_with_the_run(tmp_path: Path) -> None:
    reason = network_namespace.missing()
    if reason:
        pytest.skip(reason)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*TORTURE, "--nodes", "3"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "faults so far" in process.stderr.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        watched = []
        for child in children:
            with suppress(ProcessLookupError):  # Some are there for a moment only.
                watched.append(os.pidfd_open(int(child)))
        process.kill()
    assert len(watched) >= 3
    for one in watched:
        assert select.select([one], [], [], RUN_SECONDS_MAX / 2)[0]
        os.close(one)
