"""What nodes say to each other.

One frozen class per message, with only the fields that message needs. Each docstring says who sends it, to whom, when,
and what must be on the sender's disk before it leaves. Who sent a message is not part of it: the envelope says so.

The first group is Paxos for one decree (Lamport, *Paxos Made Simple*, 2001, section 2.2). The second is the same two
phases for a log, where one phase 1 covers every slot (section 3 there).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import attrs
from attrs.validators import ge

NodeId: TypeAlias = str
Slot: TypeAlias = int


class Ballot(NamedTuple):
    """A proposal number. Totally ordered: by round, and within a round by node, so no two nodes ever share one."""

    round: int
    node: NodeId

    def __str__(self) -> str:
        return f"{self.round}.{self.node}" if self.round else "none"

    @classmethod
    def parse(cls, text: str) -> Ballot:
        """The ballot that is written as ``text``: ``3.a``.

        :raises ValueError: if none is."""
        number, dot, node = text.partition(".")
        if not (dot and node and number.isascii() and number.isdecimal() and 0 < len(number) < 20 and int(number)):
            raise ValueError(f"{ascii(text)[:60]} is no ballot: write its round, a dot and its node, as 3.a")
        return cls(int(number), node)


LOWEST = Ballot(0, "")
"""Below every ballot anyone can use. A value, never ``None``, so ballots always compare."""

NO_OP = b""
"""The value that a new leader proposes at a slot that no node of its quorum had voted at. Applications never see it."""


MEMBERS_BYTE = b"\x4d"
"""The first byte of a value that says who the members are. To the core every other value is opaque."""


class Proposal(NamedTuple):
    """A ballot and the value proposed in it. What an acceptor accepts."""

    ballot: Ballot
    value: bytes


class Vote(NamedTuple):
    """A proposal that an acceptor accepted at one slot of the log."""

    slot: Slot
    ballot: Ballot
    value: bytes


# ---------------------------------------------------------------- one decree


@attrs.frozen
class Prepare:
    """Phase 1a. A proposer to every acceptor. The round of ``ballot`` is on the proposer's disk first."""

    ballot: Ballot


@attrs.frozen
class Promise:
    """Phase 1b. An acceptor to the proposer of ``ballot``: I accept nothing below it from now on, and this
    (``accepted``) is the highest proposal I have accepted, if any. The promise is on disk first."""

    ballot: Ballot
    accepted: Proposal | None


@attrs.frozen
class Accept:
    """Phase 2a. A proposer to every acceptor, once a quorum has promised ``ballot``."""

    ballot: Ballot
    value: bytes


@attrs.frozen
class Accepted:
    """Phase 2b. An acceptor to every learner. The accepted proposal is on disk first."""

    ballot: Ballot
    value: bytes


@attrs.frozen
class Nack:
    """An acceptor to the sender of a Prepare, an Accept or a Heartbeat whose ``ballot`` is below what it ``promised``.

    The paper allows it as an optimisation (section 2.5): correctness does not need it, but without it a proposer would
    wait in vain. The promise is on disk first."""

    ballot: Ballot
    promised: Ballot


@attrs.frozen
class Decided:
    """A node that knows the chosen value, to one that still asks about it. What it knows is on disk first."""

    value: bytes


@attrs.frozen
class Heartbeat:
    """The leader to everyone: I am alive, and every slot up to ``chosen_through`` is chosen (0 where there is no log).

    Sent every ``heartbeat_seconds`` and at once when the last open slot has closed. ``sequence`` counts up, so that an
    answer can be matched with what it answers."""

    ballot: Ballot
    chosen_through: Slot = attrs.field(default=0, validator=ge(0))
    sequence: int = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class HeartbeatAck:
    """A follower to the leader: I follow ``ballot`` and have learned every slot up to ``chosen_through``.

    A leader that no longer hears a quorum steps down, so that it does not stand in the way of one who would. If
    ``leaving``, the follower is about to stop: no leader hands over to it."""

    ballot: Ballot
    chosen_through: Slot = attrs.field(default=0, validator=ge(0))
    sequence: int = attrs.field(default=0, validator=ge(0))
    leaving: bool = False


@attrs.frozen
class PreVote:
    """A pre-candidate to everyone else: would you promise me a ballot, if I started one?

    A pre-candidate is a follower that has lost its leader. It asks first, so that a node which cannot win, or need not,
    raises no ballot and disturbs no leader. A leader that some nodes refuse asks, too, before it raises its ballot.
    The answer is PreVoteGranted, or nothing."""

    sequence: int = attrs.field(validator=ge(0))


@attrs.frozen
class PreVoteGranted:
    """A node to the pre-candidate that asked with ``sequence``: I would. Either this node, too, has not heard from a
    leader for the shortest liveness window, or the pre-candidate is its leader. It promises nothing."""

    sequence: int = attrs.field(validator=ge(0))


OneDecreeMessage: TypeAlias = Prepare | Promise | Accept | Accepted | Nack | Decided

# ------------------------------------------------------------------- the log


@attrs.frozen
class PrepareLog:
    """Phase 1a for every slot from ``first_slot`` on. A candidate to everyone, itself included. Its ballot is on its
    disk first. A candidate asks from its own first unchosen slot."""

    ballot: Ballot
    first_slot: Slot = attrs.field(validator=ge(1))


@attrs.frozen
class PromiseLog:
    """Phase 1b. A node to the candidate: I accept nothing below ``ballot`` at any slot from now on. From ``first_slot``
    (the candidate's question) on, ``values`` are those I know to be chosen, one slot after the other, and ``votes`` all
    I have accepted above them. The promise is on disk first."""

    ballot: Ballot
    first_slot: Slot = attrs.field(validator=ge(1))
    values: tuple[bytes, ...] = ()
    votes: tuple[Vote, ...] = ()


@attrs.frozen
class AcceptSlot:
    """Phase 2a for one slot. The leader to everyone, itself included. Says on the way that every slot up to
    ``chosen_through`` is chosen."""

    ballot: Ballot
    slot: Slot = attrs.field(validator=ge(1))
    value: bytes = b""
    chosen_through: Slot = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class AcceptedSlot:
    """Phase 2b for one slot. A node to the leader of ``ballot`` (maybe itself). The vote is on disk first."""

    ballot: Ballot
    slot: Slot = attrs.field(validator=ge(1))


@attrs.frozen
class TakeOver:
    """The leader to the node that is to lead next: learn every slot up to ``chosen_through``, and campaign at once. I
    lead with ``ballot``, I propose nothing more, and no slot above ``chosen_through`` is open.

    Sent again with each heartbeat, until another node leads or the leader gives up. The receiver obeys only the leader
    that it follows."""

    ballot: Ballot
    chosen_through: Slot = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class Fetch:
    """A node that misses chosen values, to one that may have them: send me those from ``first_slot`` on."""

    first_slot: Slot = attrs.field(validator=ge(1))


@attrs.frozen
class ChosenValues:
    """The answer to Fetch, and to a candidate too far behind to lead: the chosen values of ``first_slot``,
    ``first_slot + 1``, ... (as many as fit one answer), and how far the sender's own knowledge goes."""

    first_slot: Slot = attrs.field(validator=ge(1))
    values: tuple[bytes, ...] = ()
    chosen_through: Slot = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class Truncated:
    """The answer to a Fetch, or to a candidate, that asks for what is no longer here: my log begins at ``first_slot``,
    and what came of the slots before is in a snapshot. It is on disk first."""

    first_slot: Slot = attrs.field(validator=ge(1))


@attrs.frozen
class ReadIndexRequest:
    """A node to the leader: up to which slot must I have applied the log, to see all that was acknowledged before now?
    ``number`` is never used again, also not after a restart."""

    number: int = attrs.field(validator=ge(0))


@attrs.frozen
class ReadIndexReply:
    """The leader to a node that asked with ``number``: up to ``slot``. After the request had come, a quorum said that
    it still follows this leader."""

    number: int = attrs.field(validator=ge(0))
    slot: Slot = attrs.field(default=0, validator=ge(0))


LeadershipMessage: TypeAlias = Heartbeat | HeartbeatAck | PreVote | PreVoteGranted
LogMessage: TypeAlias = (
    PrepareLog
    | PromiseLog
    | AcceptSlot
    | AcceptedSlot
    | Nack
    | LeadershipMessage
    | TakeOver
    | Fetch
    | ChosenValues
    | Truncated
    | ReadIndexRequest
    | ReadIndexReply
)
Message: TypeAlias = OneDecreeMessage | LogMessage
