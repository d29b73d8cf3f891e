"""Any number of single decrees without a leader: each has a name, its subject, and is decided once.

A node that asks with a value runs a ballot of its own: :class:`txpaxos.core.practical.Node` is all the Paxos there is.
Two nodes that ask at once may refuse each other; each then waits for a random time that grows, and tries higher (*Paxos
Made Simple*, section 2.4).

A node that asks without a value reads. It inquires what a quorum has accepted, which leaves nothing behind on any disk:
if that is nothing, nothing was decided before it asked, since any two quorums share a node. Else what may have been
chosen is brought to its end first, by a ballot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import cast

import attrs

from txpaxos.core import practical
from txpaxos.core.config import Timing
from txpaxos.core.drops import Drop
from txpaxos.core.guards import is_within_reason
from txpaxos.core.messages import (
    LOWEST,
    AboutSubject,
    Accept,
    Accepted,
    Decided,
    Finding,
    Inquiry,
    Nack,
    NodeId,
    OneDecreeMessage,
    Prepare,
    Promise,
    SubjectMessage,
)
from txpaxos.core.ready import AskAnswered, Chosen, DecreeState, Ready, SubjectChosen, SubjectState, Work


@attrs.define
class _Subject:
    """One subject: its decree, the questions that wait for the outcome, and when to try again.

    :ivar questions: the questions that the inquiry or ballot under way will answer.
    :ivar attempts: how often it was tried again.
    :ivar retry_at: when it is tried again.
    :ivar inquiry: the number of the inquiry under way; 0 if a ballot is under way.
    :ivar found_nothing: the nodes that have answered the inquiry, and have accepted nothing.
    :ivar late: the reads that came after the inquiry, or the ballot, had begun. Its answers may be older than they.
    """

    decree: practical.Node
    questions: list[int] = attrs.field(factory=list)
    attempts: int = 0
    retry_at: float = 0.0
    inquiry: int = 0
    found_nothing: set[NodeId] = attrs.field(factory=set)
    late: list[int] = attrs.field(factory=list)


class Subjects:
    """All subjects of one node.

    :param node: this node's id.
    :param members: the ids of all nodes, this one included.
    :param rng: the only source of chance.
    :param saved: the last saved state of each subject.
    :param votes: whether this node is a voter. A newcomer is none yet: it learns what is decided, starts no ballot, and
        promises and accepts nothing. Questions wait until it is one.
    :param dropped: counts the messages that are dropped, by the reason.
    """

    def __init__(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        rng: Random,
        saved: Iterable[SubjectState] = (),
        timing: Timing | None = None,
        votes: bool = True,
        dropped: Counter[Drop] | None = None,
    ) -> None:
        self.node = node
        self.members = tuple(members)
        self.dropped: Counter[Drop] = Counter() if dropped is None else dropped
        self._votes = votes
        self._rng = rng
        self._timing = timing or Timing()
        self._subjects = {record.subject: _Subject(practical.Node(node, members, record.state)) for record in saved}
        # Those in work: only these have anything to do when time passes.
        self._asking: dict[str, _Subject] = {}
        self._last_inquiry = 0

    def decided(self) -> tuple[SubjectChosen, ...]:
        """Every decision that this node knows, for an application that starts anew."""
        return tuple(
            SubjectChosen(name, chosen)
            for name, subject in self._subjects.items()
            if (chosen := subject.decree.learner.chosen) is not None
        )

    def start_voting(self, now: float) -> Ready:
        """This node is a voter from now on. That is on its disk. The questions that came before are begun now."""
        self._votes = True
        work = Work()
        for subject, one in self._asking.items():
            if one.decree.proposer.value is None:
                self._inquire(work, subject, one, now)
            else:
                self._start_ballot(work, subject, one, now)
        return self._ready(work)

    # from the application

    def ask(self, question: int, subject: str, value: bytes | None, now: float) -> Ready:
        """Have ``subject`` decided, on ``value`` unless another value was first; ``None`` only reads.

        :param question: comes back in the :class:`~txpaxos.core.ready.AskAnswered` that answers it.
        """
        work = Work()
        one = self._find(subject)
        chosen = one.decree.learner.chosen
        if chosen is not None:
            work.answers.append(AskAnswered(question, chosen))
            return self._ready(work)
        is_first = subject not in self._asking
        if is_first:
            self._asking[subject] = one
            one.attempts = 0
            one.decree.proposer.withdraw()  # It is of an earlier question, which waits no more.
        if value is not None:
            one.questions.append(question)
            if self._votes and (is_first or one.inquiry):
                self._start_ballot(work, subject, one, now)
            self._merge(work, subject, one, one.decree.propose(value))
        elif not self._votes:
            one.questions.append(question)
        elif is_first:
            one.questions.append(question)
            self._inquire(work, subject, one, now)
        else:
            one.late.append(question)
        return self._ready(work)

    def forget(self, question: int) -> None:
        """The caller waits for ``question`` no more. A ballot that serves no other question is not tried again.

        This is bookkeeping, so it returns no Ready: nothing is to be saved or sent, and a tick at the old ``wake_at``
        does no harm."""
        for subject, one in list(self._asking.items()):
            for waiting in (one.questions, one.late):
                if question in waiting:
                    waiting.remove(question)
            if not one.questions and not one.late:
                self._leave(subject, one)

    # from the timer

    @property
    def in_work(self) -> bool:
        """Whether some question waits for its answer. If none does, :meth:`tick` has nothing to do."""
        return bool(self._asking)

    def tick(self, now: float) -> Ready:
        """Try again where no answer came: the same messages, or after a refusal a higher ballot."""
        work = Work()
        for subject, one in self._asking.items() if self._votes else ():
            if now >= one.retry_at:
                one.attempts += 1
                if one.decree.proposer.refusals and not one.inquiry:
                    self._start_ballot(work, subject, one, now)
                    continue
                one.retry_at = now + self._timing.retry_after(one.attempts, self._rng)
                if one.inquiry:
                    silent = [member for member in self.members if member not in one.found_nothing]
                    work.send_to(silent, AboutSubject(subject, Inquiry(one.inquiry)))
                else:
                    self._merge(work, subject, one, one.decree.resend())
        return self._ready(work)

    # from the network

    def receive(self, sender: NodeId, about: AboutSubject, now: float) -> Ready:
        """Take one message about one subject."""
        work = Work()
        name, message = about.subject, about.message
        if sender not in self.members:
            self.dropped[Drop.NOT_FROM_A_MEMBER] += 1
        elif not self._votes and isinstance(message, Prepare | Accept | Inquiry) and not self._is_decided(name):
            self.dropped[Drop.ASK_AT_A_NEWCOMER] += 1
        elif isinstance(message, Inquiry):
            self._receive_inquiry(work, sender, name, message)
        elif isinstance(message, Finding):
            self._receive_finding(work, sender, name, message, now)
        elif isinstance(message, Promise | Nack) and name not in self._subjects:
            self.dropped[Drop.ANSWER_ABOUT_AN_UNKNOWN_SUBJECT] += 1
        elif self._is_believed(sender, name, message):
            one = self._find(name)
            had_quorum = one.decree.proposer.has_quorum
            self._merge(work, name, one, one.decree.receive(sender, message))
            if name in self._asking:
                self._follow_up(work, name, one, message, had_quorum, now)
        return self._ready(work)

    def _is_decided(self, name: str) -> bool:
        one = self._subjects.get(name)
        return one is not None and one.decree.learner.chosen is not None

    def _receive_inquiry(self, work: Work, sender: NodeId, name: str, message: Inquiry) -> None:
        one = self._subjects.get(name)
        answer: SubjectMessage
        if one is None:
            answer = Finding(message.number)
        elif one.decree.learner.chosen is not None:
            answer = Decided(one.decree.learner.chosen)
        else:
            answer = Finding(message.number, one.decree.acceptor.accepted)
        work.send_to(sender, AboutSubject(name, answer))

    def _receive_finding(self, work: Work, sender: NodeId, name: str, message: Finding, now: float) -> None:
        one = self._asking.get(name)
        if one is None or not one.inquiry or message.number != one.inquiry:
            self.dropped[Drop.FINDING_NOT_AWAITED] += 1
        elif message.accepted is not None:
            self._start_ballot(work, name, one, now)
        else:
            one.found_nothing.add(sender)
            if len(one.found_nothing) >= one.decree.proposer.quorum:
                self._answer_undecided(work, name, one, now)

    def _is_believed(self, sender: NodeId, name: str, message: OneDecreeMessage) -> bool:
        """Whether a message is one that ``sender`` may send, and does not contradict what is decided."""
        one = self._subjects.get(name)
        highest = LOWEST if one is None else one.decree.proposer.highest_seen
        match message:
            case Decided():
                return self._is_decision_believed(name, message.value)
            case Prepare() | Accept():
                is_own, ballot = message.ballot.node == sender, message.ballot
            case Promise():
                is_own, ballot = message.ballot.node == self.node, message.ballot
                if message.accepted is not None:
                    is_own &= message.accepted.ballot <= ballot  # Of a node, perhaps, that was replaced since.
            case Nack():
                is_own, ballot = message.ballot.node == self.node, message.promised
                is_own &= ballot > message.ballot and ballot.node in self.members
            case Accepted():  # pragma: no branch
                is_own, ballot = message.ballot.node in self.members, message.ballot
        if not is_own:
            self.dropped[Drop.BALLOT_OF_ANOTHER_NODE] += 1
        elif not is_within_reason(ballot, highest):
            self.dropped[Drop.BALLOT_BEYOND_REASON] += 1
        else:
            return True
        return False

    def _is_decision_believed(self, name: str, value: bytes) -> bool:
        """Whether to believe a peer that says ``value`` is decided: if it answers this node's own question, or names
        the value that this node has voted for. Anything else changes nothing: this node asks when it needs to know."""
        one = self._subjects.get(name)
        chosen = None if one is None else one.decree.learner.chosen
        if chosen is not None:
            if chosen != value:
                self.dropped[Drop.CONTRADICTING_DECISION] += 1
            return chosen == value
        if one is not None:
            accepted = one.decree.acceptor.accepted
            if name in self._asking or one.decree.proposer.ballot > LOWEST:
                return True
            if accepted is not None and accepted.value == value:
                return True
        self.dropped[Drop.DECISION_NOT_AWAITED] += 1
        return False

    def _follow_up(
        self, work: Work, name: str, one: _Subject, message: OneDecreeMessage, had_quorum: bool, now: float
    ) -> None:
        """What this message means for the questions that wait."""
        chosen = one.decree.learner.chosen
        if chosen is not None:
            self._answer(work, name, one, chosen)
        elif one.inquiry:
            return
        elif isinstance(message, Promise) and one.decree.proposer.has_quorum and not had_quorum:
            if one.decree.proposer.accept() is None:  # Only readers here, and a quorum has accepted nothing.
                self._answer_undecided(work, name, one, now)
        elif isinstance(message, Nack) and message.ballot == one.decree.proposer.ballot:
            # Refused: wait for a random time, from nearly none up, so that of two rivals one gets through.
            one.retry_at = now + self._rng.random() * self._timing.retry_after(one.attempts, self._rng)

    def _find(self, name: str) -> _Subject:
        one = self._subjects.get(name)
        if one is None:
            one = self._subjects[name] = _Subject(practical.Node(self.node, self.members))
        return one

    def _inquire(self, work: Work, name: str, one: _Subject, now: float) -> None:
        """Ask what is accepted. No earlier inquiry had the same number, nor any before a restart of this node."""
        self._last_inquiry = (self._last_inquiry or self._rng.getrandbits(62)) + 1
        one.inquiry, one.found_nothing = self._last_inquiry, set()
        one.retry_at = now + self._timing.retry_after(one.attempts, self._rng)
        work.send_to(self.members, AboutSubject(name, Inquiry(one.inquiry)))

    def _start_ballot(self, work: Work, name: str, one: _Subject, now: float) -> None:
        """Have chosen what may be accepted. That answers late questions, too: the promises come after them."""
        one.questions += one.late
        one.inquiry, one.late = 0, []
        one.retry_at = now + self._timing.retry_after(one.attempts, self._rng)
        self._merge(work, name, one, one.decree.prepare())

    def _answer_undecided(self, work: Work, name: str, one: _Subject, now: float) -> None:
        """Nothing was decided when the waiting questions came. For the late ones, look again."""
        work.answers.extend(AskAnswered(question, None) for question in one.questions)
        one.questions, one.late = one.late, []
        if one.questions:
            self._inquire(work, name, one, now)
        else:
            self._leave(name, one)

    def _answer(self, work: Work, name: str, one: _Subject, value: bytes) -> None:
        work.answers.extend(AskAnswered(question, value) for question in (*one.questions, *one.late))
        self._leave(name, one)

    def _leave(self, name: str, one: _Subject) -> None:
        """No question waits any more. A subject of which nothing is to be remembered is forgotten."""
        one.questions, one.late, one.inquiry = [], [], 0
        del self._asking[name]
        if one.decree.is_blank:
            del self._subjects[name]

    def _merge(self, work: Work, name: str, one: _Subject, ready: Ready) -> None:
        """Put the Ready of a decree into ``work``, with the subject's name on its records and messages."""
        work.save.extend(SubjectState(name, state) for state in ready.save if isinstance(state, DecreeState))
        for envelope in ready.send:
            message = cast(OneDecreeMessage, envelope.message)  # It says nothing else.
            work.send_to(envelope.to, AboutSubject(name, message))
        work.chosen.extend(SubjectChosen(name, one.value) for one in ready.chosen if isinstance(one, Chosen))

    def _ready(self, work: Work) -> Ready:
        asking = self._asking.values() if self._votes else ()
        return work.ready(wake_at=min((one.retry_at for one in asking), default=None))
