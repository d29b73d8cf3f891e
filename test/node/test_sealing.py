"""How registers of an earlier release come into the log: what was decided stays decided, whatever happens meanwhile."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable
from random import Random
from typing import Any, cast

import attrs
import pytest
from twisted.internet.defer import Deferred, fail

from test.helpers.fakes import outcome_of
from txpaxos.core.config import Timing
from txpaxos.core.messages import Ballot, Proposal
from txpaxos.core.ready import DecreeState, SubjectState
from txpaxos.errors import NodeStopped, Overloaded
from txpaxos.node.counts import Count
from txpaxos.node.registers import Registers
from txpaxos.node.sealing import Sealing
from txpaxos.testing.older_registers import draw_registers
from txpaxos.wire.peer_messages import (
    REGISTER_VOTES_BYTES,
    REGISTER_VOTES_MAX,
    CollectRegisters,
    RegisterMessage,
    RegisterVote,
    RegisterVotes,
)
from txpaxos.wire.registers import IMPORT_BYTES, ImportRegisters, RegisterCommand, SealRegisters, decode_command

LOW, HIGH = Ballot(1, "a"), Ballot(2, "b")


def state(subject: str, ballot: Ballot | None = None, value: bytes = b"", chosen: bytes | None = None) -> SubjectState:
    accepted = None if ballot is None else Proposal(ballot, value)
    return SubjectState(subject, DecreeState(ballot or LOW, accepted, chosen))


@attrs.define
class _Applier:
    registers: Registers = attrs.field(factory=Registers)


class Log:
    """A log that all nodes of a :class:`Cluster` apply, when the test says so."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    @property
    def commands(self) -> list[RegisterCommand]:
        return [decode_command(payload) for payload in self.payloads]


class Member:
    """One node, as far as its sealing needs it."""

    def __init__(self, cluster: Cluster, name: str, states: Iterable[SubjectState], votes: bool = True) -> None:
        self.name = name
        self.applier = cast(Any, _Applier())
        self.applied = 0
        self.waiting: deque[tuple[int, Deferred[object]]] = deque()
        self.cluster = cluster
        self.woken: list[float] = []
        self.counters: Any = Counter()
        self.refusal: Exception | None = None
        self.sealing = Sealing(
            name,
            cluster.names,
            self.applier,
            lambda peer, message: cluster.sent.append((name, peer, message)),
            self.submit,
            lambda: cluster.now,
            self.woken.append,
            Timing(),
            Random(name),
            self.counters,
        )
        self.sealing.recover(states)
        self.sealing.is_voter = votes

    def submit(self, payload: bytes) -> Deferred[object]:
        if self.refusal is not None:
            return fail(self.refusal)
        answer: Deferred[object] = Deferred()
        self.waiting.append((len(self.cluster.log.payloads), answer))
        self.cluster.log.payloads.append(payload)
        return answer

    def apply(self, count: int = 10**6) -> None:
        """Apply the next commands of the log."""
        for _ in range(count):
            if self.applied == len(self.cluster.log.payloads):
                return
            payload = self.cluster.log.payloads[self.applied]
            self.applied += 1
            self.applier.registers.apply(self.applied, payload)
            while self.waiting and self.waiting[0][0] < self.applied:
                self.waiting.popleft()[1].callback(None)
            if self.sealing.is_needed:
                self.sealing.applied()

    def values(self) -> dict[str, bytes]:
        registers = self.applier.registers
        return dict(registers._values)


class Cluster:
    """Nodes, with a network whose messages the test delivers."""

    def __init__(self, states: dict[str, list[SubjectState]], newcomers: str = "") -> None:
        self.names = tuple(states)
        self.log = Log()
        self.sent: list[tuple[str, str, RegisterMessage]] = []
        self.now = 0.0
        self.members = {name: Member(self, name, states[name], name not in newcomers) for name in self.names}

    def deliver(self, names: str | None = None) -> None:
        """Deliver the messages between the nodes ``names``, and all that they cause. Others are lost."""
        while self.sent:
            sender, to, message = self.sent.pop(0)
            if names is None or (sender in names and to in names):
                self.members[to].sealing.receive(sender, message)

    def tick(self, name: str, seconds: float = 10.0) -> None:
        self.now += seconds
        self.members[name].sealing.tick(self.now)

    def seal(self, name: str, names: str | None = None) -> list[Any]:
        """Have a node seal, with the nodes ``names``. Returns the outcome, when all is applied that comes of it."""
        sealing = self.members[name].sealing
        was_needed = sealing.is_needed
        outcome = outcome_of(sealing.seal())
        if was_needed:
            self.tick(name)
        for _ in range(100):
            self.deliver(names)
            for member in self.members.values():
                member.apply()
        return outcome


def test_what_some_voter_knows_to_be_chosen_counts_more_than_any_vote() -> None:
    cluster = Cluster({"a": [state("king", HIGH, b"Uther")], "b": [state("king", LOW, b"Arthur", b"Arthur")]})
    assert cluster.seal("a") == [None]
    assert cluster.members["a"].values() == {"king": b"Arthur"}


@pytest.mark.parametrize("turned", [False, True])
def test_else_the_vote_of_the_highest_ballot_counts(turned: bool) -> None:
    low, high = [state("king", LOW, b"Mordred")], [state("king", HIGH, b"Arthur")]
    cluster = Cluster({"a": high if turned else low, "b": low if turned else high, "c": []})
    cluster.seal("a", "ab")
    assert cluster.members["c"].values() == {"king": b"Arthur"}


def test_a_minority_is_not_enough() -> None:
    cluster = Cluster({name: [] for name in "abcde"})
    assert cluster.seal("a", "ab") == []
    assert cluster.log.payloads == []
    cluster.tick("a")
    cluster.deliver("ae")
    for member in cluster.members.values():
        member.apply()
    assert cluster.log.commands == [SealRegisters()]
    assert cluster.members["c"].applier.registers.sealed_at == 1


def test_a_newcomer_is_not_counted() -> None:
    """Neither by others, nor by itself."""
    cluster = Cluster({"a": [], "b": [], "c": []}, newcomers="bc")
    assert cluster.seal("a", "ab") == cluster.seal("b", "ab") == []
    assert cluster.members["b"].counters == {Count.REGISTERS_ASKED_OF_A_NEWCOMER: 1}
    cluster.members["c"].sealing.is_voter = True
    assert cluster.seal("b") == [None]


def test_a_register_that_was_only_promised_or_read_is_not_imported() -> None:
    cluster = Cluster({"a": [state("king")]})
    assert cluster.seal("a") == [None]
    assert cluster.log.commands == [SealRegisters()]


def test_a_table_that_is_sealed_is_not_sealed_again() -> None:
    cluster = Cluster({"a": []})
    cluster.seal("a")
    assert cluster.seal("a") == [None]
    assert len(cluster.log.payloads) == 1
    assert not cluster.members["a"].sealing.is_needed


def test_a_lost_question_is_asked_again_and_a_late_answer_is_counted() -> None:
    cluster = Cluster({"a": [], "b": [], "c": []})
    assert cluster.seal("a", "a") == []
    cluster.tick("a", 0.0)  # Not due yet.
    assert cluster.sent == []
    cluster.tick("a")
    assert [(to, type(message)) for _, to, message in cluster.sent] == [
        ("b", CollectRegisters),
        ("c", CollectRegisters),
    ]
    number = cluster.members["a"].sealing._number
    receive = cluster.members["a"].sealing.receive
    answer = RegisterVotes(number, "", (), is_last=True)
    receive("b", attrs.evolve(answer, number=number + 1))
    receive("b", attrs.evolve(answer, after="x"))
    receive("x", answer)
    assert cluster.log.payloads == []
    receive("b", answer)
    receive("b", answer)
    assert cluster.members["a"].counters == {Count.REGISTERS_NOT_AWAITED: 4}
    assert cluster.log.commands == [SealRegisters()]


@pytest.mark.parametrize(
    ("count", "size"), [(3, REGISTER_VOTES_BYTES), (10, REGISTER_VOTES_BYTES // 4), (2 * REGISTER_VOTES_MAX + 1, 1)]
)
def test_many_or_big_registers_go_in_several_messages_and_commands(count: int, size: int) -> None:
    states = [state(f"{number:06d}", LOW, bytes(size)) for number in range(count)]
    cluster = Cluster({"a": [], "b": states})
    outcome = outcome_of(cluster.members["a"].sealing.seal())
    heard = []
    while cluster.sent:
        heard += [message for _, to, message in cluster.sent if to == "a" and isinstance(message, RegisterVotes)]
        _deliver_next(cluster)
    for _ in range(50):
        cluster.members["a"].apply()
    assert outcome == [None]
    assert len({vote.subject for message in heard for vote in message.votes}) == count
    assert all(len(message.votes) == 1 or _bytes(message.votes) <= REGISTER_VOTES_BYTES for message in heard)
    imports = [command for command in cluster.log.commands if isinstance(command, ImportRegisters)]
    assert len(imports) > 1
    assert all(len(one.registers) == 1 or sum(len(v) for _, v in one.registers) <= IMPORT_BYTES for one in imports)
    assert cluster.log.commands[-1] == SealRegisters()
    assert len(cluster.members["a"].values()) == count


def _deliver_next(cluster: Cluster) -> None:
    sender, to, message = cluster.sent.pop(0)
    cluster.members[to].sealing.receive(sender, message)


def _bytes(votes: Iterable[RegisterVote]) -> int:
    return sum(len(vote.value) for vote in votes)


def test_each_command_is_applied_before_the_next_is_submitted() -> None:
    """Else a new leader might keep the seal and lose an import before it."""
    states = [state(f"{number}", LOW, bytes(IMPORT_BYTES)) for number in range(3)]
    cluster = Cluster({"a": states})
    cluster.members["a"].sealing.seal()
    for submitted in range(1, 5):
        assert len(cluster.log.payloads) == submitted
        cluster.tick("a")
        cluster.members["a"].apply(1)
    assert cluster.log.commands[-1] == SealRegisters()


def test_a_command_that_is_refused_is_tried_again() -> None:
    cluster = Cluster({"a": [state("king", LOW, b"Arthur")]})
    member = cluster.members["a"]
    member.refusal = Overloaded("too much waits")
    assert cluster.seal("a") == []
    member.refusal = None
    cluster.tick("a")
    member.apply()
    member.apply()
    assert member.values() == {"king": b"Arthur"}
    assert member.applier.registers.sealed_at == 2


def test_another_node_seals_first() -> None:
    cluster = Cluster({"a": [state("king", LOW, b"Arthur")], "b": [], "c": []})
    waits = outcome_of(cluster.members["c"].sealing.seal())
    cluster.sent.clear()
    cluster.seal("b", "ab")
    assert waits == [None]
    cluster.tick("c")
    assert cluster.sent == []


def test_no_caller_waits_any_more() -> None:
    cluster = Cluster({"a": [], "b": []})
    waits = cluster.members["a"].sealing.seal()
    waits.addErrback(lambda _: None)
    cluster.sent.clear()
    waits.cancel()
    cluster.tick("a")
    assert cluster.sent == []
    assert not cluster.members["a"].sealing.is_needed


def test_the_node_stops() -> None:
    cluster = Cluster({"a": [], "b": []})
    sealing = cluster.members["a"].sealing
    other: Deferred[None] = Deferred()
    first = sealing.seal().addErrback(lambda _: other.cancel())
    other = sealing.seal().addErrback(lambda _: None)
    sealing.close(NodeStopped("node a stops"))
    assert first.called
    assert other.called


# -------------------------------------------------------------- whatever happens


@pytest.mark.parametrize("seed", range(40))
def test_what_was_decided_stays_decided(seed: int) -> None:
    """Nodes seal at once and one after the other, from whatever majorities; messages are lost, and nodes end in the
    middle. In the end all nodes have the same table, with every value that was chosen."""
    rng = Random(seed)
    names = "abcde"[: rng.choice((1, 2, 3, 3, 4, 5))]
    drawn = draw_registers(rng, names, [f"register {number}" for number in range(12)], rng.choice((0, 200_000)))
    cluster = Cluster(drawn.states)
    for _ in range(rng.choice((0, 30, 100))):
        _happen(rng, cluster)
    for name in names:
        assert cluster.seal(name) == [None], cluster.log.commands
    tables = [member.values() for member in cluster.members.values()]
    assert all(table == tables[0] for table in tables)
    assert {name: tables[0].get(name) for name in drawn.chosen} == drawn.chosen
    assert all(value in drawn.proposed[name] for name, value in tables[0].items())
    imports = [
        one for command in cluster.log.commands if isinstance(command, ImportRegisters) for one in command.registers
    ]
    assert all(drawn.chosen.get(name, value) == value for name, value in imports)


def _happen(rng: Random, cluster: Cluster) -> None:
    """One thing happens."""
    name = rng.choice(cluster.names)
    member = cluster.members[name]
    match rng.randrange(6):
        case 0:
            member.sealing.seal().addErrback(lambda _: None)
        case 1:
            if member.sealing.is_needed:
                cluster.tick(name, rng.choice((0.0, 0.05, 1.0)))
        case 2 if cluster.sent:
            sender, to, message = cluster.sent.pop(rng.randrange(len(cluster.sent)))
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                cluster.members[to].sealing.receive(sender, message)
        case 3:  # It ends, and starts again with what it has applied, and less of the log.
            own = [SubjectState(vote.subject, _as_saved(vote)) for vote in member.sealing._own]
            again = cluster.members[name] = Member(cluster, name, own)
            again.apply(rng.randint(0, member.applied))
        case _:
            member.apply(rng.choice((1, 2, 9)))


def _as_saved(vote: RegisterVote) -> DecreeState:
    accepted = Proposal(vote.ballot, vote.value) if vote.ballot.round else None
    return DecreeState(vote.ballot, accepted, vote.value if vote.is_chosen else None)


def test_all_majorities_give_what_was_chosen() -> None:
    for seed in range(60):
        drawn = draw_registers(Random(seed), "abcde", ["king", "queen", "knight"])
        for majority in itertools.combinations("abcde", 3):
            cluster = Cluster(drawn.states)
            cluster.seal(majority[0], "".join(majority))
            values = cluster.members["a"].values()
            assert {name: values.get(name) for name in drawn.chosen} == drawn.chosen, (seed, majority)
