"""What the torture compares: the apply logs of nodes, the log that they make, disks, and clients' histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
from twisted.internet.task import Clock

from test.helpers.fakes import Reactor, RecordingTransport, cluster_of, node_of, outcome_of
from test.torture.applied import AppliedLog, State
from test.torture.apply_log import (
    APPLY_LOG,
    NOTHING,
    Applied,
    AppliedSequence,
    Incarnation,
    KeyValue,
    StateDigest,
    apply_log_file,
    read_incarnations,
)
from test.torture.checker import FinalStates, ObservedRead, RunCheck, check_run, other_members
from test.torture.commands import (
    VALUE_BYTES,
    Input,
    command_of,
    draw_key,
    input_of,
    item_of,
    query_of,
    text_of,
    value_of,
)
from test.torture.disks import Disk, read_disk
from txpaxos.core.messages import LOWEST, Ballot
from txpaxos.core.ready import Learned, Promised
from txpaxos.node.sessions import Sessions, encode_result
from txpaxos.node.snapshots.taking import SLOT_BYTES, Policy
from txpaxos.storage.executor import execute_now
from txpaxos.storage.store import DiskStore
from txpaxos.testing.linearizability.history import HistoryRecorder
from txpaxos.wire import commands
from txpaxos.wire.members import MemberEntry, MembersEntry, encode_members

SESSION = bytes(8) + b"session!"
A, B = "short-0", "short-1"
TOLD: list[tuple[Input, Any]] = [
    (("put", A, "one"), 1),
    (("cas", A, "one", "two"), True),
    (("cas", B, "nothing", "three"), False),
    (("delete", A), True),
    (("put", B, "four"), 4),
]
"""What clients sent, one after the other, and what they were told."""

LOG = [Applied(slot, input, result) for slot, (input, result) in zip((1, 3, 3, 4, 6), TOLD, strict=True)]


# -------------------------------------------------------------------- commands


@pytest.mark.parametrize("input", [("put", A, "x"), ("delete", "long"), ("cas", "huge-1", None, "y"), TOLD[1][0]])
def test_commands_are_what_histories_say_of_them(input: Input) -> None:
    assert input_of(command_of(input)) == input


def test_values_are_filled_up_and_what_is_missing_is_seen() -> None:
    for key, size in VALUE_BYTES.items():
        value = value_of(key, "text")
        assert value is not None
        assert len(value) == max(size, len("text"))
        assert text_of(key, value) == "text"
    assert (value_of(A, None), text_of(A, None)) == (None, None)
    assert text_of("long", b"text".ljust(1_999, b".")) == "text in 1999 bytes"
    assert item_of(A, None) is None
    assert item_of(A, [b"text", 7]) == ("text", 7)


def test_every_key_comes_up() -> None:
    rng = Random(1)
    assert {draw_key(rng) for _ in range(2_000)} == set(VALUE_BYTES)


# ------------------------------------------------------------------ apply logs


class Node:
    """A node of its own cluster on a disk, one incarnation after the other, each with an apply log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.apply_logs = folder / "apply_logs"
        self.apply_logs.mkdir()
        self._folder = folder
        self._patch = monkeypatch
        self._incarnations = 0
        self.start()

    def start(self) -> None:
        self._incarnations += 1
        self._patch.setenv(APPLY_LOG, str(apply_log_file(self.apply_logs, "a", self._incarnations)))
        self._reactor = Reactor()
        store = DiskStore(self._folder / "a", "test", "a", execute=execute_now)
        policy = Policy(4 * SLOT_BYTES)
        self.node: Any = node_of(
            KeyValue(), self._reactor, "a", cluster_of("a"), store, rng=Random(1), snapshot_policy=policy
        )
        self.node.start(RecordingTransport())
        self._reactor.spend(1.0)  # A new folder founds its cluster first.

    def stop(self) -> None:
        self.node.stop()
        self._reactor.idle()

    def submit(self, input: Input) -> Any:
        outcome = outcome_of(self.node.submit(command_of(input)))
        self._reactor.idle()
        (answer,) = outcome
        return answer


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def state_of(entries: Iterable[Applied]) -> State:
    state = State()
    for entry in entries:
        state.perform(entry.input)
    return state


def test_apply_log_of_each_incarnation(node: Node) -> None:
    """A hundred changes, which makes two snapshots or more, a kill, and two more changes."""
    for number in range(1, 101):
        assert node.submit(("put", "huge-0", f"{number}")) == number
    node.stop()
    node.start()
    assert node.submit(("cas", "huge-0", "100", "101")) is True
    assert node.submit(("delete", A)) is False
    first, second = read_incarnations(node.apply_logs)
    assert (first.name, second.name) == ("a-1", "a-2")
    (sequence,) = first.sequences
    assert sequence.begin == NOTHING
    assert [(one.input, one.result) for one in sequence.applied] == [
        (("put", "huge-0", f"{n}"), n) for n in range(1, 101)
    ]
    assert all(mark == state_of(sequence.applied[: mark.revision]).mark() for mark in first.told)
    assert len(first.told) >= 2
    empty, rest = second.sequences
    assert empty == AppliedSequence(NOTHING)
    assert rest.begin == first.told[-1]
    assert [one.input for one in rest.applied[-2:]] == [("cas", "huge-0", "100", "101"), ("delete", A)]
    log = AppliedLog.of(read_incarnations(node.apply_logs))
    assert log.found == [difference for one in (first, second) for difference in log.differences(one)] == []
    assert log.end.items == {"huge-0": ("101", 101)}


def test_line_that_a_kill_cut_off_is_not_read(node: Node) -> None:
    node.submit(TOLD[0][0])
    whole = apply_log_file(node.apply_logs, "a", 1).read_bytes()
    for size in range(len(whole)):
        apply_log_file(node.apply_logs, "a", 1).write_bytes(whole[:size])
        (incarnation,) = read_incarnations(node.apply_logs)
        assert incarnation.sequences == [AppliedSequence(NOTHING)]


def test_what_is_on_a_disk(node: Node, tmp_path: Path) -> None:
    for number in range(1, 12):
        node.submit(("put", draw_key(Random(number)), f"{number}"))
    node.stop()
    disk = read_disk(tmp_path / "a", "test", "a")
    assert disk.snapshot_slot > 0
    (incarnation,) = read_incarnations(node.apply_logs)
    assert disk.state.mark() == state_of(incarnation.sequences[0].applied).mark()
    assert disk.state.revision == 11
    assert len(disk.sessions) == 1


# --------------------------------------------------------- what was applied


def incarnation(applied: list[Applied], begin: StateDigest = NOTHING, told: Iterable[StateDigest] = ()) -> Incarnation:
    sequences = [AppliedSequence(NOTHING)] if begin != NOTHING else []
    return Incarnation("a-1", [*sequences, AppliedSequence(begin, applied)], list(told))


def test_the_log_is_put_together_from_all_incarnations() -> None:
    """None of them has all of it, and one was killed between two commands of a slot."""
    incarnations = [
        incarnation(LOG[:2]),
        incarnation(LOG[1:4], state_of(LOG[:1]).mark()),
        incarnation(LOG[4:], state_of(LOG[:4]).mark()),
    ]
    log = AppliedLog.of(incarnations)
    assert log.entries == LOG
    assert log.revisions == [0, 1, 2, 2, 3, 4]
    assert log.end.items == {B: ("four", 4)}
    assert [difference for one in incarnations for difference in log.differences(one)] == []


@pytest.mark.parametrize(
    ("applied", "begin", "found"),
    [
        ([*LOG[:2], *LOG[3:]], 0, "where Applied(slot=3, input=('cas', 'short-1', 'nothing', 'three'), result=False) "),
        ([*LOG[:2], LOG[1]], 0, "where Applied(slot=3, input=('cas', 'short-1', 'nothing', 'three'), result=False) "),
        ([*LOG, LOG[4]], 0, "after the end"),
        ([LOG[0], LOG[3]], 0, "has its place"),
        (LOG[1:], 0, "applied slot 3 to a state of revision 0, and not 1"),
        (LOG[4:], 2, "applied slot 6 to a state of revision 2, and not 3"),
        ([LOG[0]._replace(result=2)], 0, "has its place"),
    ],
)
def test_an_incarnation_that_did_otherwise(applied: list[Applied], begin: int, found: str) -> None:
    log = AppliedLog(LOG)
    (difference,) = log.differences(incarnation(applied, log.marks[begin]))
    assert found in difference


def test_states_that_never_were() -> None:
    log = AppliedLog(LOG)
    other = state_of(LOG[1:]).mark()
    (begun,) = log.differences(incarnation([], other))
    assert begun == f"a-1 took on a state that never was, of revision {other.revision}"
    (told,) = log.differences(incarnation([], told=[log.marks[2], StateDigest(9, log.marks[2].digest)]))
    assert told == "a-1 told a snapshot of a state that never was, of revision 9"


@pytest.mark.parametrize(
    ("number", "result"),
    [(0, 2), (0, True), (1, False), (2, True), (3, False)],
    ids=["put", "type", "cas", "no", "del"],
)
def test_results_that_cannot_be(number: int, result: Any) -> None:
    entries = [*LOG]
    entries[number] = entries[number]._replace(result=result)
    (found,) = AppliedLog(entries).found
    assert found.startswith(f"{LOG[number].input} at slot {LOG[number].slot} came to {result} instead of ")


# ------------------------------------------------------------------ judgement


@attrs.define
class Run:
    """A run with nothing wrong, to be spoiled."""

    folder: Path
    told: list[tuple[Input, Any]] = attrs.field(factory=lambda: list(TOLD))
    unknown: list[Input] = attrs.field(factory=list)
    failed: list[Input] = attrs.field(factory=list)
    applied: list[Applied] = attrs.field(factory=lambda: list(LOG))
    observed_reads: list[ObservedRead] = attrs.field(factory=list)
    ends: dict[str, Mapping[str, Any]] = attrs.field(factory=lambda: {"a": {A: None, B: ("four", 4)}})
    disks: dict[str, Disk] = attrs.field(factory=dict)

    def check_run(self) -> RunCheck:
        recorder = HistoryRecorder(Clock())
        for input, output in self.told:
            recorder.ok("client", recorder.invoke("client", list(input)), output)
        for input in self.unknown:
            recorder.unknown("client", recorder.invoke("client", list(input)))
        for input in self.failed:
            recorder.fail("client", recorder.invoke("client", list(input)))
        lines = [msgspec.json.encode(("applied", *entry)) + b"\n" for entry in self.applied]
        apply_log_file(self.folder, "a", 1).write_bytes(b"".join(lines))
        acknowledged = [(SESSION, number) for number in range(1, len(self.told) + 1)]
        return check_run(
            self.folder, recorder.operations(), self.observed_reads, acknowledged, FinalStates(self.ends, self.disks)
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The run, with what all of it comes to on the disk of node "a"."""
    sessions = Sessions()
    for number, (_, result) in enumerate(TOLD, 1):
        sessions.apply_once(
            number, commands.Run(SESSION, number, 0, (b"",)), lambda *_, result=result: encode_result(result)
        )
    return Run(tmp_path, disks={"a": Disk(state_of(LOG), sessions, 0)})


def test_nothing_wrong(run: Run) -> None:
    run.unknown = [("put", A, "never came"), ("delete", B)]
    run.applied.append(Applied(7, ("delete", B), True))
    run.ends = {"a": {A: None, B: None}}
    run.disks["a"] = attrs.evolve(run.disks["a"], state=state_of(run.applied))
    outcome = run.check_run()
    assert outcome.found == []
    assert str(outcome) == (
        "5 commands acknowledged, none lost, none doubled; of 2 never answered 1 were applied and 1 were not;"
        " 1 incarnations of nodes applied the same log, and all nodes end at revision 5"
    )


def test_lost(run: Run) -> None:
    run.told.append((("put", A, "lost"), 5))
    assert (
        "('put', 'short-0', 'lost') was answered with 5 1 times, and that came of it 0 times" in run.check_run().found
    )
    assert str(run.check_run()).endswith("mistakes in what was applied")


def test_answered_with_something_else(run: Run) -> None:
    run.told[1] = run.told[1][0], False
    (found,) = run.check_run().found
    assert found.endswith("was answered with False 1 times, and that came of it 0 times")


@pytest.mark.parametrize("number", range(len(LOG)))
def test_doubled(run: Run, number: int) -> None:
    """Every node did it, so they all agree; and the results are what they must be."""
    state = state_of(LOG)
    again = LOG[number]._replace(slot=7)
    run.applied.append(again._replace(result=state.perform(again.input)))
    run.ends, run.disks = {}, {}
    assert run.check_run().found == [f"{again.input} was applied 2 times, and sent 1 times"]


def test_a_delete_of_two_clients_counts_twice(run: Run) -> None:
    run.told.append((("delete", A), False))
    run.applied.append(Applied(7, ("delete", A), False))
    run.disks = {}
    assert run.check_run().found == []


def test_applied_although_it_failed_or_was_never_sent(run: Run) -> None:
    run.failed = [("put", A, "refused")]
    run.applied += [Applied(7, ("put", A, "refused"), 5), Applied(8, ("put", A, "made up"), 6)]
    run.ends, run.disks = {}, {}
    assert run.check_run().found == [
        "('put', 'short-0', 'refused') was applied 1 times, and sent 0 times",
        "('put', 'short-0', 'made up') was applied 1 times, and sent 0 times",
    ]


@pytest.mark.parametrize(
    ("key", "item", "slot", "line"),
    [(A, None, 0, 0), (A, ("one", 1), 2, 1), (A, ("two", 2), 3, 5), (A, None, 5, 7), (B, ("four", 4), 99, 9)],
)
def test_sightings_of_what_was(run: Run, key: str, item: Any, slot: int, line: int) -> None:
    run.observed_reads = [ObservedRead(key, item, slot, line)]
    assert run.check_run().found == []


@pytest.mark.parametrize(("item", "slot"), [(("two", 2), 1), (("one", 2), 1), (None, 3), (("two", 2), 4)])
def test_sightings_of_what_never_was(run: Run, item: Any, slot: int) -> None:
    run.observed_reads = [ObservedRead(A, item, slot, 99)]
    (found,) = run.check_run().found
    assert found.startswith(f"{A} at slot {slot} was told as {item} and was ")


def test_sightings_from_the_future(run: Run) -> None:
    """Each command has two lines, so the last one of slot 3 was sent in the fifth."""
    run.observed_reads = [ObservedRead(A, ("two", 2), 3, 5), ObservedRead(A, ("two", 2), 3, 4)]
    (found,) = run.check_run().found
    assert found == f"{A} at slot 3 was told before line 5, in which some of that was sent"


def test_nodes_that_end_otherwise(run: Run) -> None:
    run.ends["b"] = {A: None, B: ("three", 3)}
    run.disks["c"] = attrs.evolve(run.disks["a"], state=state_of(LOG[:4]))
    assert run.check_run().found == [
        "node b ends with short-1 as ('three', 3), and the log with ('four', 4)",
        "on the disk of node c is the state of revision 3, not of 4",
    ]


def test_a_node_that_would_apply_it_again(run: Run) -> None:
    run.disks["b"] = attrs.evolve(run.disks["a"], sessions=Sessions())
    (found,) = run.check_run().found
    assert found == f"node b does not know that 5 commands were applied, among them 1 of session {SESSION.hex()}"


def test_queries() -> None:
    assert msgspec.msgpack.decode(query_of("watch", A, 7)) == ["watch", A, 7]


# --------------------------------------------------------------------- members


def disk_of(*voters: str, slot: int = 40, promised: Ballot = LOWEST) -> Disk:
    return Disk(state_of(LOG), Sessions(), 0, slot, voters, promised)


@pytest.mark.parametrize(
    ("b", "found"),
    [
        (disk_of("a", "b"), []),
        (disk_of("a", "b", promised=Ballot(3, "b")), []),
        (disk_of("a", "b", promised=Ballot(3, "c")), ["node b has promised ballot 3.c of a node that is no member"]),
        (disk_of("a", "b", slot=50), ["the disks do not have the same members (a: slot 40; b: slot 50)"]),
        (
            disk_of("a", "b", "c"),
            [
                "on the disk of node b the voters are a, b, c, not a, b",
                "the disks do not have the same members (a: slot 40; b: slot 40)",
            ],
        ),
    ],
)
def test_all_disks_have_the_same_members(b: Disk, found: list[str]) -> None:
    assert list(other_members(FinalStates({}, {"a": disk_of("a", "b"), "b": b}, "ab"))) == found


def test_the_members_of_a_disk_are_those_of_the_entries_that_count(tmp_path: Path) -> None:
    def entry(base: int, *voters: str) -> bytes:
        return encode_members(MembersEntry(base, {node: MemberEntry("h:1", "h:2") for node in voters}))

    values = [b"", entry(0, "a", "b"), entry(2, "a"), *[b""] * 6, entry(0, "c"), entry(2, "b", "c"), b""]
    store = DiskStore(tmp_path, "test", "a", execute=execute_now)
    store.load()
    store.save([Promised(Ballot(1, "b")), Learned(1, tuple(values))])
    store.close()
    disk = read_disk(tmp_path, "test", "a")
    assert (disk.members_slot, disk.voters, disk.promised) == (11, ("b", "c"), Ballot(1, "b"))
