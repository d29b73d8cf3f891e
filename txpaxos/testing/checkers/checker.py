"""The rules that must hold in every cluster at every moment, checked as events happen, from outside the code under
test.

A :class:`Checker` sees every save, every Ready that is performed, every value that is handed out, every call of the
application's ``apply`` and every answer to a client. An event that breaks a rule raises :class:`Violation` with the
rule's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from txpaxos.core.config import Limits
from txpaxos.core.messages import (
    LOWEST,
    MEMBERS_BYTE,
    NO_OP,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    Heartbeat,
    HeartbeatAck,
    Message,
    NodeId,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
    ReadIndexReply,
    ReadIndexRequest,
    Slot,
    TakeOver,
)
from txpaxos.core.ready import (
    ChangeCompleted,
    Checkpoint,
    Chosen,
    Configured,
    Envelope,
    LeadershipAcquired,
    LeadershipLost,
    Learned,
    LearnedThrough,
    PeerMet,
    Promised,
    Ready,
    Record,
    SubjectState,
    Voted,
    Voter,
)
from txpaxos.errors import CommandFailed
from txpaxos.node.registers import RegisterDecided
from txpaxos.node.sessions import SESSIONS_MAX, Failed, Outcome, Outcomes, value_of
from txpaxos.node.snapshots.taking import Policy
from txpaxos.testing.checkers.ballots import ObservedBallots
from txpaxos.testing.checkers.commands import ExpectedCommands
from txpaxos.testing.checkers.members import ObservedMembers
from txpaxos.testing.checkers.node import ObservedNode
from txpaxos.testing.checkers.reads import ObservedReads
from txpaxos.testing.checkers.registers import ObservedRegisters
from txpaxos.testing.checkers.snapshots import ObservedSnapshots
from txpaxos.testing.checkers.timers import ObservedTimers
from txpaxos.wire.commands import Run, decode_batch, is_for_registers
from txpaxos.wire.members import MembersEntry

SLOTS_WATCHED = 64
"""How far below the newest chosen slot votes and proposals are still remembered."""

FAIL_OVER_SECONDS_MAX = {
    "crash": 1.5,  # Its connections break.
    "pause": 2.5,
    "silence": 2.5,  # No power, or no cable: the leader is cut off from nodes and clients, and no connection breaks.
    "isolation": 2.5,  # Cut off from the other nodes alone: clients still reach the leader.
    "deafness": 3.0,  # Followers still hear the leader, so it leads until it notices the fault itself.
    "muteness": 3.0,
    "hung disk": 2.5,
}
"""The ways in which a leader may fail, and how long a command, read or question may then wait if nothing else is wrong.

Most wait for a fifth of that time. The limits leave time for a failed election, for drifting clocks, and for clients
whose timeouts have grown during earlier faults.
"""


VOTERS_ONLY = (
    PrepareLog,
    PromiseLog,
    AcceptSlot,
    AcceptedSlot,
    Heartbeat,
    HeartbeatAck,
    PreVote,
    PreVoteGranted,
    ReadIndexReply,
)


class Violation(AssertionError):
    """A rule was broken.

    :ivar rule: the rule's name.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


class Checker:
    """All rules over all nodes.

    :param members: the ids of the nodes that found the cluster. What is chosen in the log may change the members.
    :param policy: when nodes take snapshots.
    :param sessions_max: how many sessions a node keeps.
    :param alpha: how many slots after its own a configuration begins to govern: the window of open slots.
    :ivar members: the configurations of the cluster, as the log has them.
    :ivar timers: the replicated time, and the timers that clients keep alive.
    """

    def __init__(
        self,
        members: Sequence[NodeId],
        policy: Policy | None = None,
        sessions_max: int = SESSIONS_MAX,
        alpha: int = Limits().window_slots,
    ) -> None:
        self.members = ObservedMembers(members, alpha)
        self.nodes = {member: ObservedNode() for member in members}
        self.chosen: dict[Slot, bytes] = {}
        self.outcomes: dict[tuple[bytes, int], Outcome] = {}
        self.submitted: dict[tuple[bytes, int], bytes] = {}
        self.registers = ObservedRegisters()
        self.timers = ObservedTimers()
        self._expected = ExpectedCommands(sessions_max)
        self._snapshots = ObservedSnapshots(policy or Policy())
        self._reads = ObservedReads(self.members)
        self._slot_ballots: dict[Slot, ObservedBallots] = {}
        self._ballot_starts: dict[Ballot, int] = {}
        # The number of each node's last pre-vote, and the nodes that granted each pre-vote.
        self._pre_vote: dict[NodeId, int] = {}
        self._granted_by: dict[tuple[NodeId, int], set[NodeId]] = {}
        # The ballot in which each node was last told to take over, and the highest that it has followed.
        self._told_to_take_over: dict[NodeId, Ballot] = {}
        self._followed: dict[NodeId, Ballot] = {}
        self._acquired: set[Ballot] = set()
        # The first violation. It is kept here, since the code under test may catch the exception.
        self.violation: Violation | None = None

    @property
    def ballots_won(self) -> int:
        """How many leaders there have been."""
        return len(self._acquired)

    @property
    def ballots_used(self) -> int:
        """How many ballots candidates of the log have begun."""
        return len(self._ballot_starts)

    # from nodes

    def started(self, node: NodeId, loaded: Sequence[Record], base: Slot) -> None:
        """A node starts from ``loaded`` and a snapshot at slot ``base`` (0: none). Every record whose save was
        acknowledged must be there."""
        known = self.nodes[node]
        known.start_number += 1
        known.chosen_through = 0
        known.is_leader = False
        self._starts_at(node, base)
        log = [record for record in loaded if not isinstance(record, SubjectState | Voter)]
        voter = next((record for record in loaded if isinstance(record, Voter)), None)
        if voter is None and known.voter is not None:
            self._broken("what is saved is kept", f"{node} forgot that it is a voter")
        if voter is not None:
            self._saved_voter(node, voter)
        begins = log[0] if base and log and isinstance(log[0], Checkpoint) else None
        if begins is None:
            expected: Sequence[Record] = _kept(known.log_records, log) if known.discarded else known.log_records
        elif begins in known.log_records:
            expected = known.log_records[len(known.log_records) - 1 - known.log_records[::-1].index(begins) :]
        else:  # The checkpoint was being saved when the node died.
            expected = ()
        if begins is not None:
            self._check_checkpoint(node, log, base)
        if log[: len(expected)] != list(expected):
            self._broken("what is saved is kept", f"{node} lost acknowledged records of its log")
        # Records that are on disk without an acknowledged save count as saved from now on.
        self._saved_logs(node, log[len(expected) :], in_checkpoint=begins is not None and not expected)

    def discarded(self, node: NodeId) -> None:
        """An operator has moved the node's snapshots away. Records before the beginning of its journal may be gone."""
        self.nodes[node].discarded = True

    def saved(self, node: NodeId, records: Sequence[Record]) -> None:
        """A save has finished."""
        self._saved_logs(node, [record for record in records if not isinstance(record, Voter)])
        for record in records:
            if isinstance(record, Voter):
                self._saved_voter(node, record)

    def performed(self, node: NodeId, ready: Ready) -> None:
        """A Ready is about to be released: everything that its messages depend on must be on disk."""
        self._learning(node, ready)
        new_leader = any(isinstance(fact, LeadershipAcquired) for fact in ready.leadership)
        for envelope in ready.send:
            if isinstance(envelope.message, AcceptSlot):
                self._proposing(node, envelope.message)
            self._sent_to(node, envelope)
            self._check_voter(node, envelope.message)
            self._sent(node, envelope.message)
        if new_leader and not any(isinstance(envelope.message, AcceptSlot) for envelope in ready.send):
            self._broken("a leader begins with an entry of its own", f"{node}: {ready}")
        for fact in ready.leadership:
            if isinstance(fact, LeadershipAcquired | LeadershipLost):
                self.nodes[node].is_leader = isinstance(fact, LeadershipAcquired)
            if isinstance(fact, LeadershipAcquired):
                if fact.ballot in self._acquired or fact.ballot.node != node:
                    self._broken("one leader a ballot", f"{node} acquired {fact.ballot}")
                promised = [name for name, one in self.nodes.items() if one.effective_promise >= fact.ballot]
                if not self.members.is_quorum(promised, self.nodes[node].chosen_through):
                    self._broken("a leader has a quorum's promises", f"{node} acquired {fact.ballot}")
                self._acquired.add(fact.ballot)
        for answer in ready.answers:
            if isinstance(answer, ChangeCompleted):
                self._completed(node, answer.slot)

    def decided(self, node: NodeId, slot: Slot, decided: RegisterDecided) -> None:
        """A node tells its application that a register is decided at ``slot``."""
        if not self.registers.is_decided(slot, decided.subject, decided.value):
            self._broken("equal replicas", f"{node}: {decided} at slot {slot}, which does not follow from the log")

    def handing_out(self, node: NodeId, chosen: Chosen) -> None:
        """A node hands a value to its application."""
        known = self.nodes[node]
        if chosen.slot != known.handed_out + 1:
            self._broken("applied in slot order", f"{node}: slot {chosen.slot} after {known.handed_out}")
        known.handed_out = chosen.slot
        known.chosen_through = max(known.chosen_through, chosen.slot)
        voted = known.votes.get(chosen.slot, (LOWEST, None))[1]
        # A leader has counted a quorum of votes, and its own vote may still wait for its disk.
        if known.learned.get(chosen.slot, voted) != chosen.value and not known.is_leader:
            self._broken("what is handed out is on disk", f"{node}: {chosen}")
        value = self.chosen.get(chosen.slot)
        if value is None:
            self._first_chosen(node, chosen)
        elif value != chosen.value:
            self._broken("one value a slot", f"{node}: slot {chosen.slot} is {chosen.value[:60]!r}, was {value[:60]!r}")

    def handed_out(self, node: NodeId, slot: Slot) -> None:
        """A node's application has applied the value of ``slot``."""
        count, expected = self.nodes[node].applied_commands, self._expected.applied_through(slot)
        if count != expected:
            self._broken("exactly once", f"{node} applied {count} commands through slot {slot}, not {expected}")

    def installed(self, node: NodeId, slot: Slot) -> None:
        """A node continues from an installed snapshot."""
        if slot not in self.chosen or slot <= self.nodes[node].handed_out:
            self._broken("a snapshot is of what is chosen", f"{node} installs {slot}, {len(self.chosen)} are chosen")
        records = reversed(self.nodes[node].log_records)
        if not any(isinstance(record, Checkpoint) and record.slot == slot for record in records):
            self._broken("what is handed out is on disk", f"{node} installs {slot}, of which there is no checkpoint")
        self._starts_at(node, slot)

    def configured(self, node: NodeId, slot: Slot, chosen: Sequence[tuple[Slot, MembersEntry]]) -> None:
        """A node that has applied the log up to ``slot`` goes by these members, or has them in its snapshot of that
        slot.

        :param chosen: the entries that govern later slots, oldest first, each with its own slot. None stands for the
            founders.
        """
        newest, *before = reversed(self.members.in_force(slot))
        known = [at for at, _ in chosen] or [0]
        if known[-1] != newest.slot or not {one.slot for one in before} <= set(known):
            self._broken("one history of members", f"{node} at slot {slot} goes by {known}, and not by {newest}")
        if newest.slot and chosen[-1][1] != self.members.entries[newest.slot]:
            self._broken("one history of members", f"{node} at slot {slot} goes by {chosen[-1]}")

    def removed(self, node: NodeId) -> None:
        """A node stops because it was removed."""
        if not self.members.may_go(node, self._reached, self.nodes):
            self._broken("only former members go", f"{node}, while the members are {self.members.newest}")

    def keeping(self, node: NodeId, first_slot: Slot, snapshot: Slot) -> None:
        """A node keeps the values from ``first_slot`` on, and its newest complete snapshot is at ``snapshot``."""
        if first_slot > snapshot + 1:
            self._broken("values are kept until a snapshot stands", f"{node}: from {first_slot}, {snapshot} stands")

    def taken(self, node: NodeId, slot: Slot) -> None:
        """A node has taken a snapshot."""
        wrong = self._snapshots.take(slot)
        if wrong:
            self._broken("snapshots at the same slots", f"{node} takes one at {slot}: {wrong}")

    def state(self, node: NodeId, slot: Slot, state_hash: bytes) -> None:
        """A node has this state at a slot, because it takes a snapshot there or has restored one."""
        if self._snapshots.is_another_state(slot, state_hash):
            self._broken("equal states", f"{node} has another state at slot {slot} than a node before it")

    def applied(self, node: NodeId) -> None:
        """A node's application was called."""
        self.nodes[node].applied_commands += 1

    def finished(self, node: NodeId, run: Run, outcomes: Outcomes) -> None:
        """A node has the outcomes of commands, from their first application or from a repetition."""
        for sequence, outcome in zip(run.sequences, outcomes, strict=True):
            if isinstance(outcome, Failed) and outcome.error is not CommandFailed:
                continue
            if is_for_registers(run.session):
                self._finished_about_register(node, run, sequence, outcome)
            first = self.outcomes.setdefault((run.session, sequence), outcome)
            if first != outcome:
                self._broken(
                    "equal replicas",
                    f"{node}: command {sequence} of {run.session.hex()} gave {outcome!r}, elsewhere {first!r}",
                )

    def _finished_about_register(self, node: NodeId, run: Run, sequence: int, outcome: Outcome) -> None:
        result = outcome if isinstance(outcome, Failed) else value_of(outcome)
        if self.registers.is_another_result(run.session, sequence, result):
            self._broken("equal replicas", f"{node}: command {sequence} of {run} gave {result!r}, not as in the log")

    # from clients

    def submitting(self, run: Run) -> None:
        """A client submits commands."""
        self.submitted.update(zip(((run.session, one) for one in run.sequences), run.payloads, strict=True))

    def acknowledged(self, session: bytes, sequence: int, result: Any) -> None:
        """A client has an answer: the result of ``apply``, or the text of the exception that ``apply`` raised."""
        slot = self._expected.applied_at(session, sequence)
        if slot is None:
            self._broken("acknowledged is applied", f"command {sequence} of {session.hex()} is in no slot")
        self._reads.report(slot)
        outcome = self.outcomes[session, sequence]
        if isinstance(outcome, Failed):  # The text after the reason may differ from node to node.
            honest = isinstance(result, str) and (result == outcome.reason or result.startswith(f"{outcome.reason}: "))
        else:
            honest = result == value_of(outcome)
        if not honest:
            self._broken("answers are results", f"command {sequence} gave {outcome!r}, its client was told {result!r}")

    def expired(self, session: bytes) -> None:
        """A client was told that its session is forgotten."""
        if not self._expected.is_forgotten(session):
            self._broken("answers are results", f"a client was told that session {session.hex()} is forgotten")

    def failed_over(self, kind: str, seconds: float) -> None:
        """The leader has failed, and every client, reader and asker was answered within ``seconds``."""
        if seconds > FAIL_OVER_SECONDS_MAX[kind]:
            self._broken("a failing leader is replaced soon", f"after {kind} a client waited for {seconds:.2f} s")

    def reading(self) -> Slot:
        """A client begins to read. Returns the newest slot that was reported to any client: the read must not report an
        older one."""
        return self._reads.reported_through

    def read(self, query: bytes, result: Any, slot: Slot, known_through: Slot | None) -> None:
        """A client has the answer to a read: the result of its query in the state at ``slot``.

        :param known_through: what :meth:`reading` returned; ``None`` for a local read, which may be stale.
        """
        if known_through is not None:
            if slot < known_through:
                self._broken("no stale read", f"a client was told of slot {slot} when {known_through} was known")
            self._reads.report(slot)
        if self._reads.is_another_result(slot, query, result):
            self._broken("equal states", f"{query!r} at slot {slot} reads {result!r}, and something else elsewhere")

    def asking(self, subject: str, value: bytes | None) -> Slot:
        """A client begins to ask. Returns the newest slot whose registers were shown to any client: the answer must not
        be older."""
        if value is not None:
            self.registers.propose(subject, value)
        return self.registers.reported_through

    def asked(self, subject: str, value: bytes | None, known_through: Slot, answer: bytes | None) -> None:
        """A client that proposed ``value``, when :meth:`asking` returned ``known_through``, has its answer."""
        if (answer is None and value is not None) or not self.registers.answer(subject, answer, known_through):
            self._broken(
                "one value a register",
                f"a client that proposed {value!r}, when slot {known_through} was known, was told that {subject} is"
                f" {answer!r}",
            )

    def forgot(self, subject: str, known_through: Slot, answer: bytes | None) -> None:
        """A client that had a register forgotten has its answer."""
        if not self.registers.forgot(subject, answer, known_through):
            self._broken("forgotten once", f"a client was told that {answer!r} was forgotten of {subject}")

    # from the machines

    def folder_lost(self, node: NodeId) -> None:
        """A node's data folder is gone, and with it every promise and vote in it."""
        known = self.nodes[node]
        self.nodes[node] = ObservedNode(
            start_number=known.start_number,
            lost_vote=known.lost_vote or known.voter is not None,
            lost_promise=known.effective_promise,
            lost_reached=self._reached(node),
        )

    def joining(self, node: NodeId) -> None:
        """A node with an empty folder is there. It may become a member."""
        self.nodes[node] = ObservedNode()

    def destroyed(self, node: NodeId) -> None:
        """A node is gone for ever, with its disk."""
        self.nodes[node].destroyed = True

    # inside

    def _learning(self, node: NodeId, ready: Ready) -> None:
        """A node learns what is chosen, and by that who the members are."""
        known = self.nodes[node]
        told = {one.configuration.slot: one.configuration for one in ready.chosen if isinstance(one, Configured)}
        for one in ready.chosen:
            if isinstance(one, Chosen):
                known.chosen_through = max(known.chosen_through, one.slot)
                self.members.choose(one.slot, one.value)
                if self.members.chosen_at(one.slot) != told.pop(one.slot, None):
                    self._broken("one history of members", f"{node} is wrong about the members chosen at {one.slot}")
        if told:
            self._broken("one history of members", f"{node} has {told}, and no such value")

    def _completed(self, node: NodeId, slot: Slot) -> None:
        """A leader says that a change is complete. So a majority of the new voters must have, on disk, all that was
        chosen before they govern."""
        if not self.members.complete(slot, self._reached, self.nodes):
            reached = {name: self._reached(name) for name in self.nodes}
            self._broken("complete is on the disks of a majority", f"{node}: slot {slot}, on disk: {reached}")

    def _reached(self, node: NodeId) -> Slot:
        """The slot through which a node has all that is chosen on its disk, whatever becomes of the other nodes.

        A disk that is lost counts with what was on it: the node may just have said so, and no other node can know of
        the loss. It is one of the losses that a majority survives.
        """
        known = self.nodes[node]
        marks = (one.slot for one in known.log_records if isinstance(one, LearnedThrough | Checkpoint))
        through = max(marks, default=0)
        while through + 1 in known.learned:
            through += 1
        return max(through, known.lost_reached)

    def _saved_voter(self, node: NodeId, voter: Voter) -> None:
        if self.nodes[node].lost_vote:
            self._broken("a lost folder never votes again", f"{node}: {voter}")
        self.nodes[node].voter = voter

    def _broken(self, rule: str, detail: str) -> NoReturn:
        violation = Violation(rule, detail)
        self.violation = self.violation or violation
        raise violation

    def _check_voter(self, node: NodeId, message: Message) -> None:
        """Only voters may send messages that count toward a quorum or ask for votes."""
        if not isinstance(message, VOTERS_ONLY):
            return
        known = self.nodes[node]
        configurations = self.members.in_force(known.chosen_through)
        is_voter = any(node in one.voter_set for one in configurations)
        if isinstance(message, HeartbeatAck) and not is_voter:
            return  # A learner, or a node that does not know yet that it is one: no leader counts it.
        if known.voter is None or not (is_voter or known.is_leader):
            self._broken("only voters vote", f"{node}: {message}, while the members are {configurations}")

    def _saved_logs(self, node: NodeId, records: Sequence[Record], in_checkpoint: bool = False) -> None:
        """Records of the log are on disk. After a Checkpoint, old votes are written again beside a newer promise."""
        for record in records:
            in_checkpoint |= isinstance(record, Checkpoint)
            self._saved_log(node, record, in_checkpoint)

    def _saved_log(self, node: NodeId, record: Record, in_checkpoint: bool) -> None:
        known = self.nodes[node]
        known.log_records.append(record)
        match record:
            case Promised():
                if record.ballot < known.promised:
                    self._broken("promises never go back", f"{node}: {known.promised} to {record.ballot}")
                if record.ballot > known.promised:
                    self._check_supported(node, record.ballot)
                known.promised = record.ballot
            case Voted():
                if record.ballot < known.promised and not in_checkpoint:
                    self._broken("accepted is never below promised", f"{node}: {record} below {known.promised}")
                known.promised = max(known.promised, record.ballot)
                known.votes[record.slot] = record.ballot, record.value
                self._ballots(record.slot).vote(node, record.ballot, record.value)
            case Learned():
                known.learned.update(enumerate(record.values, record.first_slot))
            case PeerMet():
                known.met[record.peer] = record.incarnation

    def _check_supported(self, node: NodeId, ballot: Ballot) -> None:
        """A node has promised ``ballot``. Only a voter is given a promise: no node that was removed, or was replaced
        after it had lost its folder, as far as the giver knows. The giver may not know yet that it is a voter."""
        configurations = self.members.in_force_from(self.nodes[node].chosen_through)
        if not any(ballot.node in one.voter_set for one in configurations):
            self._broken("only voters are promised", f"{node} promises {ballot}, the members are {configurations}")

    def _starts_at(self, node: NodeId, slot: Slot) -> None:
        """A node's application is in the state at ``slot``, without having applied the slots before."""
        known = self.nodes[node]
        known.handed_out = slot
        known.chosen_through = max(known.chosen_through, slot)
        known.applied_commands = self._expected.applied_through(slot)

    def _check_checkpoint(self, node: NodeId, log: Sequence[Record], base: Slot) -> None:
        """Check that a log which begins with a checkpoint holds the node's promise, its votes, and the peers that it
        has met."""
        known = self.nodes[node]
        promises = [record.ballot for record in log if isinstance(record, Promised | Voted)]
        votes = {record.slot: record.ballot for record in log if isinstance(record, Voted)}
        learned = {slot for one in log if isinstance(one, Learned) for slot, _ in enumerate(one.values, one.first_slot)}
        forgotten = [
            slot
            for slot, (ballot, _) in known.votes.items()
            if slot > base and slot not in learned and votes.get(slot, LOWEST) < ballot
        ]
        if forgotten or max(promises, default=LOWEST) < known.promised:
            self._broken("what is saved is kept", f"{node} forgot its promise, or its votes at {forgotten}")
        entry = self.members.entries.get(self.members.newest_at(known.chosen_through).slot)
        met = set(known.met.items())
        if entry is not None:  # It says whom the others have met; a founder's incarnation is in no entry.
            founders = [peer for peer, one in entry.members.items() if not one.incarnation]
            met = {(peer, incarnation) for peer, incarnation in met if peer in founders}
        if met - {(record.peer, record.incarnation) for record in log if isinstance(record, PeerMet)}:
            self._broken("what is saved is kept", f"{node} forgot peers that it has met")

    def _first_chosen(self, node: NodeId, chosen: Chosen) -> None:
        """The first node learns the value of a slot. A quorum's votes in one ballot must be on disk, for a submitted
        value."""
        slot, value = chosen.slot, chosen.value
        self.members.choose(slot, value)
        if not self._ballots(slot).is_chosen(value):
            self._broken("chosen by a quorum", f"{node}: slot {slot} has no quorum on disk for {value[:60]!r}")
        self._slot_ballots.pop(slot - SLOTS_WATCHED, None)
        self.chosen[slot] = value
        runs = () if value == NO_OP or value[:1] == MEMBERS_BYTE else decode_batch(value)
        for run in runs:
            for sequence, payload in zip(run.sequences, run.payloads, strict=True):
                if self.submitted.get((run.session, sequence)) != payload:
                    self._broken("chosen values were proposed", f"{node}: slot {slot} holds {payload!r} of {run}")
        for run, sequences in self._expected.choose(runs):
            if is_for_registers(run.session) and (wrong := self.registers.choose(slot, run, sequences)):
                self._broken(wrong, f"slot {slot}: {run}")
        self._snapshots.choose(value)

    def _ballots(self, slot: Slot) -> ObservedBallots:
        if slot not in self._slot_ballots:
            self._slot_ballots[slot] = ObservedBallots(lambda: self.members.governing(slot))
        return self._slot_ballots[slot]

    def _proposing(self, node: NodeId, accept: AcceptSlot) -> None:
        """Check that a leader may propose at a slot: it knows what is chosen up to alpha slots below, and so which
        configuration governs the slot."""
        if accept.slot <= accept.chosen_through:
            self._broken("no proposal where all is chosen", f"{node}: {accept}")
        if accept.slot > accept.chosen_through + self.members.alpha:
            self._broken("the window is kept", f"{node}: {accept}, window {self.members.alpha}")

    def _sent_to(self, node: NodeId, envelope: Envelope) -> None:
        """Check the messages whose meaning depends on their receiver."""
        match envelope.message:
            case PreVoteGranted(sequence):
                for candidate in envelope.to:
                    self._granted_by.setdefault((candidate, sequence), set()).add(node)
            case Heartbeat(ballot, _, sequence) if sequence:
                self._reads.note_heartbeat(ballot, sequence)
            case HeartbeatAck(ballot, _, sequence):
                self._followed[node] = max(ballot, self._followed.get(node, LOWEST))
                if sequence:  # Else it answers no heartbeat, and only says that the node is about to stop.
                    self._reads.note_heartbeat_answer(node, ballot, sequence)
            case TakeOver(ballot):
                for target in envelope.to:
                    self._told_to_take_over[target] = ballot
            case ReadIndexRequest(number):
                self._require(
                    self._reads.ask(node, self.nodes[node].start_number, number, len(self.chosen)), node, envelope
                )
            case ReadIndexReply(number, slot):
                for asker in envelope.to:
                    self._require(self._reads.answer(node, asker, number, slot), node, envelope)

    def _require(self, wrong: str, node: NodeId, what: object) -> None:
        if wrong:
            self._broken(wrong, f"{node}: {what}")

    def _sent(self, node: NodeId, message: Message) -> None:
        known = self.nodes[node]
        match message:
            case PreVote(sequence):
                self._pre_vote[node] = sequence
            case AcceptedSlot(ballot, slot):
                vote = known.votes.get(slot)
                if ballot > known.promised or ((vote is None or vote[0] < ballot) and slot > known.chosen_through):
                    self._broken("save before send", f"{node}: {message}, on disk: {vote}, promised {known.promised}")
            case PromiseLog() | PrepareLog():
                if message.ballot > known.promised:
                    self._broken("save before send", f"{node}: {message.ballot} above {known.promised} on disk")
                if isinstance(message, PrepareLog):
                    self._campaigning(node, message.ballot)
                    self._used(node, message.ballot)
                else:
                    told = {(vote.slot, vote.ballot) for vote in message.votes}
                    unknown_from = message.first_slot + len(message.values)
                    for slot, (ballot, _) in known.votes.items():
                        if slot >= unknown_from and ballot < message.ballot and (slot, ballot) not in told:
                            self._broken("a promise tells every vote", f"{node}: {message} without {ballot} at {slot}")
            case AcceptSlot(ballot, slot):
                if ballot > known.promised:
                    self._broken("save before send", f"{node}: {ballot} above {known.promised} on disk")
                self._used(node, ballot)
                if slot > len(self.chosen) - SLOTS_WATCHED:
                    self._slot_proposing(node, message)

    def _campaigning(self, node: NodeId, ballot: Ballot) -> None:
        """A node may begin a ballot only if a quorum has granted its pre-vote, or its leader has told it to take over.
        So no node disturbs a leader that a quorum hears. A leader's call is good for one ballot."""
        granted = {node} | self._granted_by.get((node, self._pre_vote.get(node, 0)), set())
        if ballot in self._ballot_starts or self.members.is_quorum(granted, self.nodes[node].chosen_through):
            return
        told = self._told_to_take_over.pop(node, None)
        if told is None or told < self._followed.get(node, LOWEST):
            self._broken("no ballot without a pre-vote", f"{node} begins {ballot}, granted by {sorted(granted)}")

    def _slot_proposing(self, node: NodeId, accept: AcceptSlot) -> None:
        ballots = self._ballots(accept.slot)
        promised = {name: one.effective_promise for name, one in self.nodes.items()}
        wrong = ballots.propose(accept.ballot, accept.value, promised)
        if not wrong and not ballots.has_promises(accept.ballot, promised):
            wrong = "a proposal has a quorum's promises"
        if wrong:
            self._broken(wrong, f"{node}: {accept}; {ballots}")

    def _used(self, node: NodeId, ballot: Ballot) -> None:
        """A ballot belongs to one node, and to one start of that node."""
        start_number = self.nodes[node].start_number
        if ballot.node != node or self._ballot_starts.setdefault(ballot, start_number) != start_number:
            self._broken("no ballot twice", f"{node} uses {ballot} in its life number {start_number}")


def _kept(saved: Sequence[Record], loaded: Sequence[Record]) -> Sequence[Record]:
    """The longest end of ``saved`` that ``loaded`` begins with."""
    starts = (start for start in range(len(saved)) if list(saved[start:]) == list(loaded[: len(saved) - start]))
    return saved[next(starts, len(saved)) :]
