"""What must hold in every cluster at every moment, checked as it happens, from outside the code under test.

A :class:`Checker` sees every save, every Ready that is performed, every value handed out, every call of the
application's ``apply`` and every answer to a client. What breaks a rule raises :class:`Violation` with the rule's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

import attrs
import msgspec

from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import (
    LOWEST,
    NO_OP,
    AboutSubject,
    Accept,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    Canvass,
    Decided,
    Message,
    NodeId,
    Prepare,
    PrepareLog,
    Promise,
    PromiseLog,
    Slot,
    Support,
)
from txpaxos.core.ready import (
    Chosen,
    DecreeState,
    LeadershipAcquired,
    Learned,
    Promised,
    Ready,
    Record,
    SubjectChosen,
    SubjectState,
    Voted,
)
from txpaxos.core.replica import Limits
from txpaxos.sessions import Outcome
from txpaxos.wire.commands import Command, decode_batch

_Voters: TypeAlias = dict[tuple[Ballot, bytes], set[NodeId]]

SLOTS_WATCHED = 64
"""How far below the newest chosen slot votes and proposals are still remembered."""


class Violation(AssertionError):
    """A rule was broken.

    :ivar rule: its name.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@attrs.define
class _Node:
    """What one node is known to have on disk, and what its present process has done."""

    log_records: list[Record] = attrs.field(factory=list)
    promised: Ballot = LOWEST
    votes: dict[Slot, tuple[Ballot, bytes]] = attrs.field(factory=dict)
    learned: dict[Slot, bytes] = attrs.field(factory=dict)
    subjects: dict[str, DecreeState] = attrs.field(factory=dict)
    boot: int = 0
    handed_out: Slot = 0
    chosen_through: Slot = 0
    applied_commands: int = 0


class Checker:
    """All rules over all nodes.

    :param members: the ids of all nodes.
    """

    def __init__(self, members: Sequence[NodeId]) -> None:
        self.quorum = quorum_size(len(members))
        self.nodes = {member: _Node() for member in members}
        self.chosen: dict[Slot, bytes] = {}
        self.outcomes: dict[tuple[bytes, int], Outcome] = {}
        self.submitted: dict[tuple[bytes, int], bytes] = {}
        self.subjects: dict[str, bytes] = {}
        self.subject_proposals: dict[str, set[bytes]] = {}
        # How many commands are to be applied through each slot: each once, and none its caller has given up.
        self._commands_through: dict[Slot, int] = {0: 0}
        self._applied: set[tuple[bytes, int]] = set()
        self._given_up: dict[bytes, int] = {}
        # For each slot, and each subject: who has a vote on disk for what, and what was proposed in which ballot.
        self._voters: dict[Slot, _Voters] = {}
        self._subject_voters: dict[str, _Voters] = {}
        self._proposed: dict[Slot, dict[Ballot, bytes]] = {}
        self._subject_proposed: dict[str, dict[Ballot, bytes]] = {}
        self._subject_boots: dict[tuple[str, Ballot], int] = {}
        self._ballot_boots: dict[Ballot, int] = {}
        # The canvass that each node began last, and who backed which.
        self._canvass: dict[NodeId, int] = {}
        self._supporters: dict[tuple[NodeId, int], set[NodeId]] = {}
        self._acquired: set[Ballot] = set()
        # The first. It stays here, whatever becomes of the exception on its way through the code under test.
        self.violation: Violation | None = None

    @property
    def ballots_won(self) -> int:
        """How many leaders there were."""
        return len(self._acquired)

    @property
    def ballots_used(self) -> int:
        """How many ballots candidates for the log began."""
        return len(self._ballot_boots)

    # from nodes

    def started(self, node: NodeId, loaded: Sequence[Record]) -> None:
        """A node starts from ``loaded``: all it was told to be saved must be there."""
        known = self.nodes[node]
        known.boot += 1
        known.handed_out = known.chosen_through = 0
        known.applied_commands = 0
        log = [record for record in loaded if not isinstance(record, SubjectState)]
        if log[: len(known.log_records)] != known.log_records:
            self._broken("what is saved is kept", f"{node} lost acknowledged records of its log")
        for record in log[len(known.log_records) :]:
            self._saved_log(node, record)  # On disk though nobody was told: as good as saved.
        subjects = {record.subject: record.state for record in loaded if isinstance(record, SubjectState)}
        for subject, state in known.subjects.items():
            kept = subjects.get(subject)
            if kept is None or kept.promised < state.promised or _ballot(kept) < _ballot(state):
                self._broken("what is saved is kept", f"{node} lost acknowledged state of subject {subject}")
        for subject, state in subjects.items():
            self._saved_subject(node, subject, state)

    def saved(self, node: NodeId, records: Sequence[Record]) -> None:
        """A save has finished."""
        for record in records:
            if isinstance(record, SubjectState):
                before = self.nodes[node].subjects.get(record.subject, DecreeState())
                if record.state.promised < before.promised or _ballot(record.state) < _ballot(before):
                    self._broken("promises never go back", f"{node}: {before} to {record.state}")
                self._saved_subject(node, record.subject, record.state)
            else:
                self._saved_log(node, record)

    def performed(self, node: NodeId, ready: Ready, limits: Limits) -> None:
        """A Ready is about to be released: all that its messages rest on must be on disk."""
        slots = [chosen.slot for chosen in ready.chosen if isinstance(chosen, Chosen)]
        self.nodes[node].chosen_through = max(self.nodes[node].chosen_through, *slots, 0)
        new_leader = any(isinstance(fact, LeadershipAcquired) for fact in ready.leadership)
        for envelope in ready.send:
            if isinstance(envelope.message, AcceptSlot) and not new_leader:
                self._proposing(node, envelope.message, limits)
            if isinstance(envelope.message, Support):
                for canvasser in envelope.to:
                    self._supporters.setdefault((canvasser, envelope.message.sequence), set()).add(node)
            self._sent(node, envelope.message)
        if new_leader and not any(isinstance(envelope.message, AcceptSlot) for envelope in ready.send):
            self._broken("a leader begins with an entry of its own", f"{node}: {ready}")
        for fact in ready.leadership:
            if isinstance(fact, LeadershipAcquired):
                if fact.ballot in self._acquired or fact.ballot.node != node:
                    self._broken("one leader a ballot", f"{node} acquired {fact.ballot}")
                if sum(one.promised >= fact.ballot for one in self.nodes.values()) < self.quorum:
                    self._broken("a leader has a quorum's promises", f"{node} acquired {fact.ballot}")
                self._acquired.add(fact.ballot)

    def handed_out(self, node: NodeId, chosen: Chosen | SubjectChosen) -> None:
        """A node has given a value to its application."""
        if isinstance(chosen, SubjectChosen):
            self._subject_chosen(node, chosen)
            return
        known = self.nodes[node]
        if chosen.slot != known.handed_out + 1:
            self._broken("applied in slot order", f"{node}: slot {chosen.slot} after {known.handed_out}")
        known.handed_out = chosen.slot
        known.chosen_through = max(known.chosen_through, chosen.slot)
        voted = known.votes.get(chosen.slot, (LOWEST, None))[1]
        if known.learned.get(chosen.slot, voted) != chosen.value:
            self._broken("what is handed out is on disk", f"{node}: {chosen}")
        value = self.chosen.get(chosen.slot)
        if value is None:
            self._newly_chosen(node, chosen)
        elif value != chosen.value:
            self._broken("one value a slot", f"{node}: slot {chosen.slot} is {chosen.value[:60]!r}, was {value[:60]!r}")
        if known.applied_commands != self._commands_through[chosen.slot]:
            self._broken(
                "exactly once",
                f"{node} applied {known.applied_commands} commands through slot {chosen.slot}, not"
                f" {self._commands_through[chosen.slot]}",
            )

    def applied(self, node: NodeId) -> None:
        """A node's application was called."""
        self.nodes[node].applied_commands += 1

    def finished(self, node: NodeId, command: Command, outcome: Outcome | None) -> None:
        """A node has the outcome of a command: the first time it was applied, or a repetition."""
        key = command.session, command.sequence
        if outcome is not None and self.outcomes.setdefault(key, outcome) != outcome:
            self._broken("equal replicas", f"{node}: {command} gave {outcome}, elsewhere {self.outcomes[key]}")

    # from clients

    def submitting(self, command: Command) -> None:
        """A client hands in a command."""
        self.submitted[command.session, command.sequence] = command.payload

    def acknowledged(self, session: bytes, sequence: int, result: Any) -> None:
        """A client has an answer: what ``apply`` returned, or the words of what it raised."""
        if (session, sequence) not in self._applied:
            self._broken("acknowledged is applied", f"command {sequence} of {session.hex()} is in no slot")
        outcome = self.outcomes[session, sequence]
        if outcome.error is None:
            expected = msgspec.msgpack.decode(msgspec.msgpack.encode(outcome.value))
        else:
            expected = outcome.error
        if result != expected:
            self._broken("answers are results", f"command {sequence} gave {outcome}, its client was told {result!r}")

    def asking(self, subject: str, value: bytes | None) -> bytes | None:
        """A client asks. Returns what is known to be decided: it must not be told less."""
        if value is not None:
            self.subject_proposals.setdefault(subject, set()).add(value)
        return self.subjects.get(subject)

    def asked(self, subject: str, value: bytes | None, known: bytes | None, answer: bytes | None) -> None:
        """A client that asked with ``value``, when ``known`` was decided, has its answer."""
        told_less = answer is None and (value is not None or known is not None)
        if told_less or (answer is not None and answer != self.subjects.get(subject)):
            self._broken(
                "one value a subject",
                f"a client that proposed {value!r} was told that {subject} is {answer!r}; decided is"
                f" {self.subjects.get(subject)!r}, and was {known!r} when it asked",
            )

    # inside

    def _broken(self, rule: str, detail: str) -> NoReturn:
        violation = Violation(rule, detail)
        self.violation = self.violation or violation
        raise violation

    def _saved_subject(self, node: NodeId, subject: str, state: DecreeState) -> None:
        self.nodes[node].subjects[subject] = state
        if state.accepted is not None:
            votes = self._subject_voters.setdefault(subject, {})
            votes.setdefault((state.accepted.ballot, state.accepted.value), set()).add(node)

    def _subject_chosen(self, node: NodeId, chosen: SubjectChosen) -> None:
        name, value = chosen.subject, chosen.value
        if self.subjects.setdefault(name, value) != value:
            self._broken("one value a subject", f"{node}: {name} is {value!r} now, was {self.subjects[name]!r}")
        if value not in self.subject_proposals.get(name, ()):
            self._broken("chosen values were proposed", f"{node}: {chosen}")
        if not self._is_chosen(self._subject_voters.get(name, {}), value):
            self._broken("chosen by a quorum", f"{node}: {name} has no quorum on disk for {value!r}")

    def _saved_log(self, node: NodeId, record: Record) -> None:
        known = self.nodes[node]
        known.log_records.append(record)
        match record:
            case Promised():
                if record.ballot < known.promised:
                    self._broken("promises never go back", f"{node}: {known.promised} to {record.ballot}")
                known.promised = record.ballot
            case Voted():
                if record.ballot < known.promised:
                    self._broken("accepted is never below promised", f"{node}: {record} below {known.promised}")
                known.promised = record.ballot
                known.votes[record.slot] = record.ballot, record.value
                voters = self._voters.setdefault(record.slot, {})
                voters.setdefault((record.ballot, record.value), set()).add(node)
            case Learned():
                known.learned.update(enumerate(record.values, record.first_slot))

    def _newly_chosen(self, node: NodeId, chosen: Chosen) -> None:
        """The first node learns a slot: a quorum's votes in one ballot must be on disk, for a value somebody wanted."""
        slot, value = chosen.slot, chosen.value
        if not self._is_chosen(self._voters.get(slot, {}), value):
            self._broken("chosen by a quorum", f"{node}: slot {slot} has no quorum on disk for {value[:60]!r}")
        self._voters.pop(slot - SLOTS_WATCHED, None)
        self._proposed.pop(slot - SLOTS_WATCHED, None)
        self.chosen[slot] = value
        count = self._commands_through[slot - 1]
        for command in decode_batch(value) if value != NO_OP else ():
            name = command.session, command.sequence
            if self.submitted.get(name) != command.payload:
                self._broken("chosen values were proposed", f"{node}: slot {slot} holds {command}")
            given_up = self._given_up.get(command.session, 0)
            if command.sequence > given_up and name not in self._applied:
                self._applied.add(name)
                self._given_up[command.session] = max(given_up, command.acknowledged)
                count += 1
        self._commands_through[slot] = count

    def _is_chosen(self, votes: _Voters, value: bytes) -> bool:
        """Whether a quorum has voted for ``value`` in one ballot."""
        return any(len(voters) >= self.quorum for (_, voted), voters in votes.items() if voted == value)

    def _proposed_in(
        self, ballot: Ballot, value: bytes, proposed: dict[Ballot, bytes], votes: _Voters, promised: Sequence[Ballot]
    ) -> str:
        """Note a proposal. Returns what is wrong with it: it may stand beside another one only if that cannot be chosen
        any more, now that a quorum has not voted for it and has promised not to."""
        if proposed.setdefault(ballot, value) != value:
            return "one proposal a ballot"
        for lower, other in proposed.items():
            if lower < ballot and other != value:
                voters = votes.get((lower, other), set())
                may_vote = sum(node in voters or word <= lower for node, word in zip(self.nodes, promised, strict=True))
                if may_vote >= self.quorum:
                    return "no proposal against what may be chosen"
        return ""

    def _proposing(self, node: NodeId, accept: AcceptSlot, limits: Limits) -> None:
        """A leader may open a slot, or send again what it proposed before."""
        known = accept.ballot in self._proposed.get(accept.slot, {})
        if not known and accept.slot <= accept.chosen_through:
            self._broken("no proposal where all is chosen", f"{node}: {accept}")
        if not known and accept.slot > accept.chosen_through + limits.window_slots:
            self._broken("the window is kept", f"{node}: {accept}, window {limits.window_slots}")

    def _sent(self, node: NodeId, message: Message) -> None:
        known = self.nodes[node]
        match message:
            case Canvass(sequence):
                self._canvass[node] = sequence
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
            case AboutSubject(subject, inner):
                state = known.subjects.get(subject, DecreeState())
                if isinstance(inner, Prepare):
                    boot = self.nodes[node].boot
                    if self._subject_boots.setdefault((subject, inner.ballot), boot) != boot:
                        self._broken("no ballot twice", f"{node} uses {inner.ballot} for {subject} in life {boot}")
                if isinstance(inner, Accept):
                    self._subject_proposing(node, subject, inner)
                if isinstance(inner, Promise | Prepare) and inner.ballot > state.promised:
                    self._broken("save before send", f"{node}: {message}, on disk: {state}")
                if isinstance(inner, Accepted) and inner.ballot > _ballot(state):
                    self._broken("save before send", f"{node}: {message}, on disk: {state}")
                if isinstance(inner, Decided) and inner.value != state.chosen:
                    self._broken("save before send", f"{node}: {message}, on disk: {state}")

    def _campaigning(self, node: NodeId, ballot: Ballot) -> None:
        """Who begins a ballot has been backed, so that nobody disturbs a leader whom a quorum hears."""
        backed = {node} | self._supporters.get((node, self._canvass.get(node, 0)), set())
        if ballot not in self._ballot_boots and len(backed) < self.quorum:
            self._broken("no ballot without support", f"{node} begins {ballot}, backed by {sorted(backed)}")

    def _slot_proposing(self, node: NodeId, accept: AcceptSlot) -> None:
        proposed, votes = self._proposed.setdefault(accept.slot, {}), self._voters.get(accept.slot, {})
        promised = [one.promised for one in self.nodes.values()]
        wrong = self._proposed_in(accept.ballot, accept.value, proposed, votes, promised)
        if wrong:
            self._broken(wrong, f"{node}: {accept}; {proposed}")

    def _subject_proposing(self, node: NodeId, subject: str, accept: Accept) -> None:
        states = [one.subjects.get(subject, DecreeState()) for one in self.nodes.values()]
        proposed, votes = self._subject_proposed.setdefault(subject, {}), self._subject_voters.get(subject, {})
        promised = [state.promised for state in states]
        wrong = self._proposed_in(accept.ballot, accept.value, proposed, votes, promised)
        if sum(word >= accept.ballot for word in promised) < self.quorum:
            wrong = "a proposal has a quorum's promises"
        if wrong:
            self._broken(wrong, f"{node}: {accept} for {subject}; {proposed}")

    def _used(self, node: NodeId, ballot: Ballot) -> None:
        """A ballot belongs to one node, and to one life of it."""
        boot = self.nodes[node].boot
        if ballot.node != node or self._ballot_boots.setdefault(ballot, boot) != boot:
            self._broken("no ballot twice", f"{node} uses {ballot} in its life number {boot}")


def _ballot(state: DecreeState) -> Ballot:
    return LOWEST if state.accepted is None else state.accepted.ballot
