"""Why the core dropped a message: a table of all reasons, each with a name and a sentence for operators.

The core drops what is late, misdirected or cannot be true, and counts it. That is part of normal work: a message that
is dropped is either not needed any more, or is sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique
from typing import Protocol, TypeVar


class Named(Protocol):
    """What is counted under a name."""

    @property
    def metric_name(self) -> str:
        """The name that operators see."""


N = TypeVar("N", bound=Named)


class Reason(Enum):
    """A reason that is counted. The value is a sentence: what happened, and what the operator should do, if anything.

    Subclasses are the tables of reasons; this class has none itself.
    """

    __hash__ = object.__hash__  # Reasons are compared by identity. The hash of Enum would be computed in Python.

    @property
    def metric_name(self) -> str:
        """The name in the status of a node: lower case with underscores, as metrics are named."""
        return self.name.lower()


def by_name(counts: Mapping[N, int]) -> dict[str, int]:
    """The same ``counts``, by the names that operators see."""
    return {reason.metric_name: count for reason, count in counts.items()}


@unique
class Drop(Reason):
    """Why a message about the log was dropped."""

    # Late: nothing is to be done.
    PROMISE_OF_ANOTHER_BALLOT = "A promise came late: the election is over."
    VOTE_FOR_ANOTHER_BALLOT = "A vote came late: another node leads."
    ACKNOWLEDGEMENT_OF_ANOTHER_BALLOT = "An acknowledgement of a heartbeat came late: another node leads."
    ACCEPT_OF_A_DEPOSED_LEADER = (
        "A leader that has been replaced proposed a value. It was told what has been chosen since."
    )
    ACCEPT_OF_A_SLOT_IN_A_SNAPSHOT = (
        "A leader that has been replaced proposed a value for a slot that is in this node's snapshot. It needs one."
    )
    VALUES_KNOWN_OR_ABOVE_A_GAP = "Chosen values came that this node knew, or for slots beyond a gap: a second answer."
    SNAPSHOT_NOT_NEEDED = "This node was told late to fetch a snapshot: it knows those slots by now."
    READ_INDEX_REPLY_NOT_AWAITED = "An answer to a request for a read index came a second time."
    TAKE_OVER_TOO_LATE = (
        "A leader told this node to take over, but that hand-over had ended, or this node followed no leader or another"
        " one."
    )
    TAKE_OVER_WHILE_LEAVING = "A leader told this node to take over while it was about to stop. It told the leader so."

    # A node has to catch up, or asked the wrong node: it does so by itself.
    ACCEPT_TOO_FAR_AHEAD = "A value came for a slot far beyond what this node knows. The node catches up first."
    CANDIDATE_TOO_FAR_BEHIND = "A node wanted to lead that has to catch up first. It was sent what it misses."
    CANDIDATE_AT_LOST_SLOTS = (
        "A candidate asked for votes that this node lost with a snapshot. The node promises nothing there until it has"
        " the state from another node; a candidate that has the state asks for later slots, and is answered."
    )
    FETCH_OF_UNKNOWN_SLOTS = "A node asked for slots that this node does not have either."
    READ_INDEX_REQUEST_AT_A_FOLLOWER = "A read asked this node, which does not lead any more. It asks the next leader."
    READ_INDEX_REQUEST_TOO_EARLY = (
        "A read came before this new leader had an entry of its own chosen. It asks again a moment later."
    )

    # This node does not vote yet.
    PRE_VOTE_AT_A_NEWCOMER = (
        'A pre-vote was asked of this node, which does not vote yet. See "A new cluster, and an empty folder".'
    )
    PREPARE_AT_A_NEWCOMER = (
        'A candidate asked for a promise of this node, which does not vote yet. See "A new cluster, and an empty'
        ' folder".'
    )
    ACCEPT_AT_A_NEWCOMER = (
        'A leader asked for a vote of this node, which does not vote yet. See "A new cluster, and an empty folder".'
    )

    # No correct node says so: a bug in a node, or an attacker who forges messages.
    NOT_FROM_A_MEMBER = "The sender is no member that this node knows: one lags behind, or forged."
    NOT_ABOUT_THE_LOG = "The message is none that a replica of the log takes: a bug, or forged."
    REFUSAL_OF_NO_OWN_BALLOT = "A ballot was refused that is not this node's, or with no higher one: a bug, or forged."
    IMPLAUSIBLE_PROMISE = "A promise leaves out slots, or tells of votes that no node can have cast: a bug, or forged."
    ACKNOWLEDGEMENT_OF_AN_UNSENT_HEARTBEAT = "A heartbeat was acknowledged that was not sent: a bug, or forged."
    BALLOT_OF_ANOTHER_NODE = "A ballot is not that of the node that sent it: a bug, or forged."
    BALLOT_OF_NO_MEMBER = "A ballot is of a node that is no member here: one lags behind, or forged."
    BALLOT_BEYOND_REASON = (
        "The number of a ballot is far beyond all others: a bug, or forged to use up the numbers of ballots."
    )
    TWO_VALUES_IN_ONE_BALLOT = "Two different values were proposed for one slot in one ballot: a bug, or forged."
    VALUES_CONTRADICTING_CHOSEN_ONES = (
        'A chosen value differs from the one that this node knows: a bug, or forged. See "Diverged nodes".'
    )
    VALUE_THAT_CANNOT_BE_APPLIED = (
        "A value holds no commands that this node can apply: a bug, forged, or of another release. In the last case the"
        " log says so: run one release on all nodes."
    )
