"""How the registers of earlier releases come into the log: once in the life of a cluster.

Earlier releases decided each register by a ballot of its own. Every voter has, in its data folder, the value that it
voted for, and perhaps the value that is chosen. Before the log decides any register, those values must be in the table
(:mod:`~txpaxos.node.registers`). The node that first needs the table takes three steps:

1. It collects the votes of a majority of the voters.
2. For each register it takes the value that some voter knows to be chosen, or else the value of the highest ballot, and
   imports those registers with commands of the log. It waits until each command is applied.
3. It seals the table with one more command.

**Why no decision is lost.** The votes that a node tells are final. A node of this release never votes for a register.
Its data folder has a format version that no earlier release opens, which is on disk before the node sends anything. So
the node is sealed from its first start on, and stays so after a crash, with however short a log. Now let a value v be
chosen in ballot n: a majority has voted for v in n. By Paxos every vote in a ballot above n, then or later, is for v.
The majority that was collected has a voter in common with the majority of n. The highest ballot of that voter is n or
above. So the highest ballot that was collected is n or above, and its vote is for v.

A voter that was not asked, because it was away or lags behind, may hold an old vote that was not collected. If that
vote is part of a decision, a voter that was asked has the same vote, or one in a higher ballot for the same value. A
voter of the earlier release may even still run ballots. It needs a majority for that, and in every majority is a node
of this release that was collected, and votes no more.

**Why several nodes may do it at once.** Each takes all three steps by itself. An import decides no register that is
decided, and is ignored once the table is sealed. Where a value was chosen, all nodes import that value. Where none was,
the first import in the log decides. A node seals only after it has applied its own imports, so whatever node's seal
comes first in the log, a complete import is before it. A node that ends in the middle leaves imports that are true, and
the next node starts anew.

A node need not lead for any of this. Where nothing was ever decided, it costs one exchange of messages and one slot, at
the first call about a register.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from random import Random

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.core.config import Timing
from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import LOWEST, NodeId
from txpaxos.core.ready import SubjectState
from txpaxos.errors import PaxosError
from txpaxos.node.applier import Applier
from txpaxos.node.counts import Count, Counts
from txpaxos.wire.peer_messages import (
    REGISTER_VOTES_BYTES,
    REGISTER_VOTES_MAX,
    CollectRegisters,
    RegisterMessage,
    RegisterVote,
    RegisterVotes,
)
from txpaxos.wire.registers import SealRegisters, encode_command, import_commands


class Sealing:
    """Collects, imports and seals when this node needs the table, and tells other nodes what this node has voted for.

    :param members: the ids of the nodes that the cluster was founded with: no others have decided registers without
        the log.
    :param applier: has the table of the registers.
    :param send: called with a peer and the message to send to it.
    :param submit: has a command of the registers applied; fires when this node has applied it.
    :param now: the clock, in monotonic seconds.
    :param wake: called with the time, in monotonic seconds, at which :meth:`tick` is due.
    :ivar is_voter: whether this node votes. The owner sets it.
    :ivar is_needed: whether calls wait for the registers to be sealed.
    """

    log = Logger()

    def __init__(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        applier: Applier,
        send: Callable[[NodeId, RegisterMessage], None],
        submit: Callable[[bytes], Deferred[object]],
        now: Callable[[], float],
        wake: Callable[[float], None],
        timing: Timing,
        rng: Random,
        counters: Counts,
    ) -> None:
        self.is_voter = self.is_needed = False
        self._node = node
        self._members = frozenset(members)
        self._peers = tuple(member for member in members if member != node)
        self._quorum = quorum_size(len(members))
        self._applier = applier
        self._send = send
        self._submit = submit
        self._now = now
        self._wake = wake
        self._timing = timing
        self._rng = rng
        self._counters = counters
        # What this node has voted for, in the order of names. It never changes; it is forgotten once it is in the log.
        self._own: list[RegisterVote] = []
        self._waiting: dict[Deferred[None], None] = {}
        # Of the collection under way: its number, how far each peer has told its votes, and who has told them all.
        self._number = 0
        self._told_through: dict[NodeId, str] = {}
        self._complete: set[NodeId] = set()
        self._found: dict[str, RegisterVote] = {}
        self._is_importing = False
        self._attempts = 0
        self._retry_at = inf

    # from the owner

    def recover(self, states: Iterable[SubjectState]) -> None:
        """Note what this node has voted for, from the states on its disk."""
        votes = (_vote(state) for state in sorted(states, key=lambda state: state.subject))
        self._own = [vote for vote in votes if vote is not None]

    def forget(self) -> None:
        """Forget what this node has voted for: it is in the log, and off this node's disk."""
        self._own = []

    def seal(self) -> Deferred[None]:
        """Have the registers sealed. Fires when this node has applied that; waits while no quorum answers.

        A change of the members needs this first: the majorities of the new members need have no node in common with
        those that decided registers."""
        if self._applier.registers.sealed_at:
            return succeed(None)
        done: Deferred[None] = Deferred(lambda _: self._waiting.pop(done, None))
        self._waiting[done] = None
        if not self.is_needed:
            self.is_needed = True
            self._retry_at = -inf
            self.tick(self._now())
        return done

    def applied(self) -> None:
        """Something was applied while :attr:`is_needed`: if the registers are sealed now, tell those who wait."""
        if not self._applier.registers.sealed_at:
            return
        self._end()
        while self._waiting:  # One by one: a caller that is told may cancel another call.
            done = next(iter(self._waiting))
            del self._waiting[done]
            done.callback(None)

    def tick(self, now: float) -> None:
        """Ask those again that have not told everything, if that is due. Call it while :attr:`is_needed`."""
        if now < self._retry_at:
            self._wake(self._retry_at)
            return
        if not self._waiting:  # All have cancelled.
            self._end()
            return
        if not self._number:
            self._begin()
        if not self._is_importing:
            for peer in self._peers:
                if peer not in self._complete:
                    self._collect(peer)
        self._retry_later(now)
        self._import_if_complete()

    def receive(self, sender: NodeId, message: RegisterMessage) -> None:
        """Handle a message of a member."""
        if isinstance(message, CollectRegisters):
            if self.is_voter:
                self._send(sender, self._page(message))
            else:
                self._counters[Count.REGISTERS_ASKED_OF_A_NEWCOMER] += 1
            return
        told_through = self._told_through.get(sender, "")
        is_awaited = self._number > 0 and (message.number, message.after) == (self._number, told_through)
        if not is_awaited or sender in self._complete or sender not in self._peers:
            self._counters[Count.REGISTERS_NOT_AWAITED] += 1
            return
        for vote in message.votes:
            self._note(vote)
        if message.is_last:
            self._complete.add(sender)
            self._import_if_complete()
        elif message.votes:
            self._told_through[sender] = max(told_through, message.votes[-1].subject)
            self._collect(sender)

    def close(self, error: PaxosError) -> None:
        """The node stops: every call that waits fails with ``error``."""
        self._end()
        while self._waiting:  # One by one: a caller that is told may cancel another call.
            done = next(iter(self._waiting))
            del self._waiting[done]
            done.errback(error)

    # collecting

    def _begin(self) -> None:
        """Begin to collect, from this node itself if it votes."""
        self._number = self._rng.getrandbits(62) + 1
        self._told_through, self._complete, self._found = {}, set(), {}
        if self.is_voter and self._node in self._members:
            self._complete.add(self._node)
            for vote in self._own:
                self._note(vote)

    def _end(self) -> None:
        """Nothing is to be collected any more, and nothing imported."""
        self.is_needed = False
        self._number = self._attempts = 0
        self._retry_at = inf
        self._told_through, self._complete, self._found = {}, set(), {}

    def _retry_later(self, now: float) -> None:
        self._retry_at = now + self._timing.retry_after(self._attempts, self._rng)
        self._attempts += 1
        self._wake(self._retry_at)

    def _collect(self, peer: NodeId) -> None:
        self._send(peer, CollectRegisters(self._number, self._told_through.get(peer, "")))

    def _page(self, asked: CollectRegisters) -> RegisterVotes:
        """The answer to ``asked``: as many votes as one message should hold."""
        votes: list[RegisterVote] = []
        size = 0
        for vote in self._own:
            if vote.subject <= asked.after:
                continue
            size += len(vote.subject) + len(vote.value)
            if votes and (size > REGISTER_VOTES_BYTES or len(votes) == REGISTER_VOTES_MAX):
                return RegisterVotes(asked.number, asked.after, tuple(votes), is_last=False)
            votes.append(vote)
        return RegisterVotes(asked.number, asked.after, tuple(votes), is_last=True)

    def _note(self, vote: RegisterVote) -> None:
        """Keep the vote that counts: one for a value that is known to be chosen, or that of the highest ballot."""
        known = self._found.get(vote.subject)
        if known is None or (vote.is_chosen, vote.ballot) > (known.is_chosen, known.ballot):
            self._found[vote.subject] = vote

    # importing

    def _import_if_complete(self) -> None:
        """Import what was found, once a majority has told everything."""
        if self._is_importing or len(self._complete) < self._quorum:
            return
        self._is_importing = True
        imports = import_commands({subject: vote.value for subject, vote in self._found.items()})
        payloads = [encode_command(command) for command in imports]
        self._import(iter([*payloads, encode_command(SealRegisters())]))

    def _import(self, payloads: Iterator[bytes]) -> None:
        """Have the commands applied, each after the one before it."""
        payload = None if self._applier.registers.sealed_at else next(payloads, None)
        if payload is None:
            self._is_importing = False
            return
        self._submit(payload).addCallbacks(lambda _: self._import(payloads), self._import_failed)

    def _import_failed(self, failure: Failure) -> None:
        """Too much waits already, or this node stops. If it does not stop, the next tick tries again."""
        self._is_importing = False


def _vote(state: SubjectState) -> RegisterVote | None:
    """What a node has voted for, or knows to be chosen, from the state on its disk; ``None`` if nothing."""
    decree = state.state
    ballot, value = (LOWEST, None) if decree.accepted is None else decree.accepted
    is_chosen = decree.chosen is not None
    value = decree.chosen if is_chosen else value
    return None if value is None else RegisterVote(state.subject, ballot, value, is_chosen)
