"""Any number of single decrees, each known by its subject, each decided once, without a leader.

Whoever is asked about a subject runs a ballot of its own: :class:`txpaxos.core.practical.Node` is all the Paxos there
is. Two nodes that ask at once may refuse each other; each then waits for a random time that grows, and tries higher
(*Paxos Made Simple*, section 2.4). Asking without a value reads: if a quorum has accepted nothing, nothing is decided,
and else what may have been chosen is brought to its end first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import attrs

from txpaxos.core import practical
from txpaxos.core.functional import Timing
from txpaxos.core.messages import AboutSubject, Accept, Nack, NodeId, OneDecreeMessage, Prepare, Promise
from txpaxos.core.ready import AskAnswered, Chosen, DecreeState, Ready, SubjectChosen, SubjectState, Work


@attrs.define
class _Subject:
    """One subject: its decree, who waits for the outcome, and when to try again."""

    decree: practical.Node
    questions: list[int] = attrs.field(factory=list)
    attempts: int = 0
    retry_at: float = 0.0


class Subjects:
    """All subjects of one node.

    :param node: this node's id.
    :param members: the ids of all nodes, this one included.
    :param rng: the only source of chance.
    :param saved: the last saved state of each subject.
    :param votes: whether this node is a voter. A newcomer is none yet: it learns what is decided, starts no ballot, and
        promises and accepts nothing. Questions wait until it is one.
    """

    def __init__(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        rng: Random,
        saved: Iterable[SubjectState] = (),
        timing: Timing | None = None,
        votes: bool = True,
    ) -> None:
        self.node = node
        self.members = tuple(members)
        self._votes = votes
        self._rng = rng
        self._timing = timing or Timing()
        self._subjects = {record.subject: _Subject(practical.Node(node, members, record.state)) for record in saved}
        # Those in work: only these have anything to do when time passes.
        self._asking: dict[str, _Subject] = {}

    def decided(self) -> tuple[SubjectChosen, ...]:
        """Every decision this node knows, for an application that starts anew."""
        return tuple(
            SubjectChosen(name, chosen)
            for name, subject in self._subjects.items()
            if (chosen := subject.decree.learner.chosen) is not None
        )

    def start_voting(self, now: float) -> Ready:
        """This node is a voter from now on. That is on its disk. What was asked meanwhile is begun."""
        self._votes = True
        work = Work()
        for subject, one in self._asking.items():
            self._start_ballot(work, subject, one, now)
        return self._ready(work)

    # from the application

    def ask(self, question: int, subject: str, value: bytes | None, now: float) -> Ready:
        """Have ``subject`` decided, on ``value`` if nobody was first; ``None`` only reads.

        :param question: comes back in the :class:`~txpaxos.core.ready.AskAnswered` that answers it.
        """
        work = Work()
        one = self._find(subject)
        chosen = one.decree.learner.chosen
        if chosen is not None:
            work.answers.append(AskAnswered(question, chosen))
            return self._ready(work)
        one.questions.append(question)
        if subject not in self._asking:
            self._asking[subject] = one
            one.attempts = 0
            one.decree.proposer.withdraw()  # Of whoever asked before, and waits no more.
            if self._votes:
                self._start_ballot(work, subject, one, now)
        if value is not None:
            self._merge(work, subject, one, one.decree.propose(value))
        return self._ready(work)

    def forget(self, question: int) -> None:
        """Nobody waits for this question any more. A ballot that serves no other one is left alone from here on."""
        for subject, one in list(self._asking.items()):
            if question in one.questions:
                one.questions.remove(question)
                if not one.questions:
                    del self._asking[subject]

    # from the timer

    def tick(self, now: float) -> Ready:
        """Try again where no answer came: the same messages, or after a refusal a higher ballot."""
        work = Work()
        for subject, one in self._asking.items() if self._votes else ():
            if now >= one.retry_at:
                one.attempts += 1
                if one.decree.proposer.refusals:
                    self._start_ballot(work, subject, one, now)
                else:
                    one.retry_at = now + self._timing.retry_after(one.attempts, self._rng)
                    self._merge(work, subject, one, one.decree.resend())
        return self._ready(work)

    # from the network

    def receive(self, sender: NodeId, about: AboutSubject, now: float) -> Ready:
        """Take one message about one subject."""
        work = Work()
        name, message = about.subject, about.message
        one = self._find(name)
        if not self._votes and isinstance(message, Prepare | Accept) and one.decree.learner.chosen is None:
            return self._ready(work)
        had_quorum = one.decree.proposer.has_quorum
        self._merge(work, name, one, one.decree.receive(sender, message))
        if name in self._asking:
            self._follow_up(work, name, one, message, had_quorum, now)
        return self._ready(work)

    def _follow_up(
        self, work: Work, name: str, one: _Subject, message: OneDecreeMessage, had_quorum: bool, now: float
    ) -> None:
        """What this message means for those who wait."""
        chosen = one.decree.learner.chosen
        if chosen is not None:
            self._answer(work, name, one, chosen)
        elif isinstance(message, Promise) and one.decree.proposer.has_quorum and not had_quorum:
            if one.decree.proposer.accept() is None:  # Only readers here, and a quorum has accepted nothing.
                self._answer(work, name, one, None)
        elif isinstance(message, Nack) and message.ballot == one.decree.proposer.ballot:
            # Refused: wait for a random time, from nearly none up, so that of two rivals one gets through.
            one.retry_at = now + self._rng.random() * self._timing.retry_after(one.attempts, self._rng)

    def _find(self, name: str) -> _Subject:
        one = self._subjects.get(name)
        if one is None:
            one = self._subjects[name] = _Subject(practical.Node(self.node, self.members))
        return one

    def _start_ballot(self, work: Work, name: str, one: _Subject, now: float) -> None:
        one.retry_at = now + self._timing.retry_after(one.attempts, self._rng)
        self._merge(work, name, one, one.decree.prepare())

    def _answer(self, work: Work, name: str, one: _Subject, value: bytes | None) -> None:
        work.answers.extend(AskAnswered(question, value) for question in one.questions)
        one.questions.clear()
        del self._asking[name]

    def _merge(self, work: Work, name: str, one: _Subject, ready: Ready) -> None:
        """Put a decree's Ready into ours, with the subject's name on it."""
        work.save.extend(SubjectState(name, state) for state in ready.save if isinstance(state, DecreeState))
        for envelope in ready.send:
            message = envelope.message
            assert isinstance(message, OneDecreeMessage), message
            work.tell(envelope.to, AboutSubject(name, message))
        work.chosen.extend(SubjectChosen(name, one.value) for one in ready.chosen if isinstance(one, Chosen))

    def _ready(self, work: Work) -> Ready:
        asking = self._asking.values() if self._votes else ()
        return work.ready(wake_at=min((one.retry_at for one in asking), default=None))
