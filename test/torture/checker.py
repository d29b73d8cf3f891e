"""Compares what the clients were told, what the nodes applied, and what the nodes hold at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from test.torture.applied import AppliedLog, State
from test.torture.apply_log import read_incarnations
from test.torture.commands import Input, Item
from test.torture.disks import Disk
from txpaxos.testing.linearizability.history import Operation
from txpaxos.wire.commands import Run


@attrs.frozen
class ObservedRead:
    """The answer to a read of a key.

    :ivar slot: the slot whose state it is, according to the answer.
    :ivar line: how many lines the history had when the answer came.
    """

    key: str
    item: Item
    slot: int
    line: int


@attrs.frozen
class FinalStates:
    """The states of the nodes at the end.

    :ivar told: for each node and key, the node's own answer.
    :ivar disks: for each node, the content of its disk.
    :ivar members: who the members are.
    """

    told: Mapping[str, Mapping[str, Item]]
    disks: Mapping[str, Disk]
    members: Sequence[str] = ()


@attrs.define
class RunCheck:
    """What became of the commands.

    :ivar acknowledged: how many were answered.
    :ivar unanswered_in: how many were never answered and were applied.
    :ivar unanswered_out: how many were never answered and were not applied.
    :ivar revision: how many changes there were.
    :ivar incarnations: how many incarnations the nodes had.
    :ivar snapshots: how many snapshots they produced to the end.
    :ivar found: what is wrong; empty if nothing is.
    """

    acknowledged: int = 0
    unanswered_in: int = 0
    unanswered_out: int = 0
    revision: int = 0
    incarnations: int = 0
    snapshots: int = 0
    found: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        if self.found:
            return f"{len(self.found)} mistakes in what was applied"
        return (
            f"{self.acknowledged} commands acknowledged, none lost, none doubled; of"
            f" {self.unanswered_in + self.unanswered_out} never answered {self.unanswered_in} were applied and"
            f" {self.unanswered_out} were not; {self.incarnations} incarnations of nodes applied the same log, and all"
            f" nodes end at revision {self.revision}"
        )


def check_run(
    apply_logs: Path,
    operations: Sequence[Operation],
    observed_reads: Iterable[ObservedRead],
    acknowledged: Iterable[tuple[bytes, int]],
    ends: FinalStates,
) -> RunCheck:
    """Check one run.

    :param operations: the clients' whole history.
    :param observed_reads: all reads whose answer is the state at a slot.
    :param acknowledged: session and sequence of every command that was answered.
    """
    log = AppliedLog.of(read_incarnations(apply_logs))
    outcome = RunCheck(revision=log.end.revision, found=log.found)
    for incarnation in read_incarnations(apply_logs):
        outcome.incarnations += 1
        outcome.snapshots += len(incarnation.told)
        outcome.found += log.differences(incarnation)
    changes = [one for one in operations if one.input[0] != "get"]
    _check_commands(log, changes, outcome)
    outcome.found += _misled(log, changes, observed_reads)
    outcome.found += _unequal(log.end, ends)
    outcome.found += other_members(ends)
    outcome.found += _forgotten(ends.disks, list(acknowledged))
    return outcome


def _check_commands(log: AppliedLog, changes: Iterable[Operation], outcome: RunCheck) -> None:
    """Every answered command was applied as often as it was sent. A put or compare-and-set is sent once; two clients
    may delete the same key. No other command was applied more often than it was sent."""
    answered = Counter((one.input, one.output) for one in changes if one.outcome == "ok")
    unknown = Counter(one.input for one in changes if one.outcome == "unknown")
    applied = Counter((entry.input, entry.result) for entry in log.entries)
    for (input, output), times in answered.items():
        if applied[input, output] < times:
            outcome.found.append(
                f"{input} was answered with {output} {times} times, and that came of it {applied[input, output]} times"
            )
    allowed = Counter(unknown)
    for (input, _), times in answered.items():
        allowed[input] += times
    for input, times in Counter(entry.input for entry in log.entries).items():
        if times > allowed[input]:
            outcome.found.append(f"{input} was applied {times} times, and sent {allowed[input]} times")
    outcome.acknowledged = answered.total()
    outcome.unanswered_in = len(log.entries) - answered.total()
    outcome.unanswered_out = unknown.total() - outcome.unanswered_in


def _misled(log: AppliedLog, changes: Iterable[Operation], observed_reads: Iterable[ObservedRead]) -> Iterator[str]:
    """Every read returned the state at its slot, and nothing that was sent after it."""
    sent: dict[Input, int] = {}
    for one in changes:
        if one.input[0] != "delete":  # Several deletes of a key cannot be told apart.
            sent[one.input] = one.invoked
    state = State()
    last_sent = 0
    entries = iter(log.entries)
    entry = next(entries, None)
    for seen in sorted(observed_reads, key=lambda one: one.slot):
        while entry is not None and entry.slot <= seen.slot:
            state.perform(entry.input)
            last_sent = max(last_sent, sent.get(entry.input, 0))
            entry = next(entries, None)
        if state.items.get(seen.key) != seen.item:
            yield f"{seen.key} at slot {seen.slot} was told as {seen.item} and was {state.items.get(seen.key)}"
        if last_sent > seen.line:
            yield f"{seen.key} at slot {seen.slot} was told before line {last_sent}, in which some of that was sent"


def _unequal(end: State, ends: FinalStates) -> Iterator[str]:
    """All nodes end with the state of the log, by their own answers and on their disks."""
    for node, told in ends.told.items():
        for key, item in told.items():
            if item != end.items.get(key):
                yield f"node {node} ends with {key} as {item}, and the log with {end.items.get(key)}"
    for node, disk in ends.disks.items():
        if disk.state.mark() != end.mark():
            yield f"on the disk of node {node} is the state of revision {disk.state.revision}, not of {end.revision}"


def other_members(ends: FinalStates) -> Iterator[str]:
    """Every disk says who the members are, and no node has promised anything to a node that is none."""
    for node, disk in ends.disks.items():
        if disk.voters and set(disk.voters) != set(ends.members):
            yield f"on the disk of node {node} the voters are {', '.join(disk.voters)}, not {', '.join(ends.members)}"
        if ends.members and disk.promised.node and disk.promised.node not in ends.members:
            yield f"node {node} has promised ballot {disk.promised} of a node that is no member"
    if len({(disk.members_slot, disk.voters) for disk in ends.disks.values()}) > 1:
        known = "; ".join(f"{node}: slot {disk.members_slot}" for node, disk in ends.disks.items())
        yield f"the disks do not have the same members ({known})"


def _forgotten(disks: Mapping[str, Disk], acknowledged: Sequence[tuple[bytes, int]]) -> Iterator[str]:
    """Every node knows that each answered command was applied, so it will not apply it again."""
    for node, disk in disks.items():
        known = [None not in disk.sessions.outcomes(Run(*one, 0, (b"",))) for one in acknowledged]
        if not all(known):
            session, sequence = acknowledged[known.index(False)]
            yield (
                f"node {node} does not know that {known.count(False)} commands were applied, among them {sequence} of"
                f" session {session.hex()}"
            )
