"""A node that is no voter yet: it learns, and nothing it says counts toward a quorum."""

from __future__ import annotations

from random import Random

import pytest

from txpaxos.core.config import Timing
from txpaxos.core.messages import (
    AcceptSlot,
    Ballot,
    ChosenValues,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    LogMessage,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
    ReadIndexReply,
    ReadIndexRequest,
)
from txpaxos.core.ready import (
    Chosen,
    Envelope,
    Learned,
    Promised,
    ReadIndexConfirmed,
    Ready,
)
from txpaxos.core.replica import Replica

LEADS = Ballot(4, "a")
HIGHER = Ballot(5, "b")


def newcomer(members: str = "abc") -> Replica:
    return Replica("c", tuple(members), Random(1), 0.0, timing=Timing(commit_notification_seconds=0.0), votes=False)


def messages(ready: Ready) -> list[object]:
    return [envelope.message for envelope in ready.send]


@pytest.mark.parametrize(
    "message",
    [
        PrepareLog(LEADS, 1),
        PreVote(1),
        PreVoteGranted(0),
        PreVoteGranted(1),
        Heartbeat(LEADS, 0, 1),
        AcceptSlot(LEADS, 1, b"value", 0),
        PromiseLog(Ballot(1, "c"), 1),
        ReadIndexRequest(1),
    ],
)
def test_nothing_it_says_counts_toward_a_quorum(message: LogMessage) -> None:
    replica = newcomer()
    ready = replica.receive("a", message, 1.0)
    assert (ready.save, ready.send) == ((), ())


def test_it_starts_nothing_however_long_it_is_alone() -> None:
    replica = newcomer()
    for _ in range(100):
        ready = replica.tick(replica.election.wake_at)
        assert (ready.save, ready.send) == ((), ())
    assert (replica.status().role, replica.status().leader) == ("newcomer", None)


def test_it_follows_a_leader_until_that_is_silent() -> None:
    replica = newcomer()
    replica.receive("a", Heartbeat(LEADS, 0, 1), 1.0)
    assert replica.status().leader == "a"
    replica.tick(1.2)
    assert replica.status().leader == "a"
    replica.tick(1.6)
    assert replica.status().leader is None


def test_it_learns_what_is_chosen_by_asking_for_it() -> None:
    replica = newcomer()
    replica.receive("a", AcceptSlot(LEADS, 1, b"value", 0), 1.0)
    assert replica.receive("a", Heartbeat(LEADS, 1, 1), 1.0).chosen == ()  # It has not voted, so it cannot know.
    ready = replica.tick(1.1)
    assert ready.send == (Envelope(("a",), Fetch(1)),)
    ready = replica.receive("a", ChosenValues(1, (b"value",), 1), 1.1)
    assert (ready.save, ready.chosen) == ((Learned(1, (b"value",)),), (Chosen(1, b"value"),))
    assert messages(replica.receive("b", Fetch(1), 1.1)) == [ChosenValues(1, (b"value",), 1)]


def test_its_questions_for_a_read_point_are_answered() -> None:
    replica = newcomer()
    replica.receive("a", Heartbeat(LEADS, 0, 1), 1.0)
    number, ready = replica.request_read_index(1.0)
    assert ready.send == (Envelope(("a",), ReadIndexRequest(number)),)
    assert replica.receive("a", ReadIndexReply(number, 7), 1.1).answers == (ReadIndexConfirmed(number, 7),)


def test_it_votes_once_it_is_told_to() -> None:
    replica = newcomer()
    replica.receive("a", Heartbeat(LEADS, 0, 1), 1.0)
    replica.start_voting(1.0)
    assert replica.status().role == "follower"
    assert messages(replica.receive("a", Heartbeat(LEADS, 0, 2), 1.0)) == [HeartbeatAck(LEADS, 0, 2)]
    assert replica.receive("b", PrepareLog(HIGHER, 1), 1.0).save == (Promised(HIGHER),)
    assert messages(replica.tick(9.0)) == [PreVote(1)]


def test_alone_it_leads_as_soon_as_it_may() -> None:
    replica = newcomer("c")
    assert replica.tick(5.0).save == ()
    replica.start_voting(5.0)
    assert replica.tick(5.0).save == (Promised(Ballot(1, "c")),)
