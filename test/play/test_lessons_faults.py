"""A lesson that warns of a fault shows it: with that fault in the algorithm, the lesson does not come out as told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from txpaxos.core.election import Election
from txpaxos.core.essential import Acceptor, Learner, Proposer
from txpaxos.core.leader import LeaderState
from txpaxos.core.log import Log
from txpaxos.core.messages import Accept, Accepted, Ballot, NodeId, Promise, PromiseLog, Proposal, Slot
from txpaxos.play.actions import NotPossible
from txpaxos.play.course import LESSONS
from txpaxos.play.lessons import complaints, lesson_named


def votes_counted_by_value(learner: Learner, sender: NodeId, accepted: Accepted) -> bytes | None:
    one_ballot = Ballot(1, accepted.value.decode())
    voters = learner.voters.setdefault(one_ballot, set())
    voters.add(sender)
    if len(voters) >= learner.quorum and learner.chosen is None:
        learner.chosen = accepted.value
    return learner.chosen


def reports_ignored(proposer: Proposer, sender: NodeId, promise: Promise) -> Accept | None:
    if promise.ballot != proposer.ballot or proposer.has_quorum:
        return None
    proposer.promises.add(sender)
    return proposer.accept()


def promise_forgotten(acceptor: Acceptor, accept: Accept) -> Accepted | None:
    acceptor.promised = accept.ballot
    acceptor.accepted = Proposal(accept.ballot, accept.value)
    return Accepted(accept.ballot, accept.value)


def any_vote_is_chosen(log: Log, ballot: Ballot, through: Slot) -> None:
    for slot in range(log.chosen_through + 1, through + 1):
        if (vote := log._votes.get(slot)) is not None:
            log._learned[slot] = vote.value


def nothing_taken_over(leader: LeaderState, node: NodeId, promise: PromiseLog) -> None:
    leader._promised_by.add(node)


def pre_vote_always_granted(election: Any, candidate: NodeId, now: float) -> bool:
    return True


@pytest.mark.parametrize(
    ("name", "owner", "method", "fault"),
    [
        ("stale-vote", Learner, "receive_accepted", votes_counted_by_value),
        ("stale-vote", Proposer, "receive_promise", reports_ignored),
        ("chosen-survives", Proposer, "receive_promise", reports_ignored),
        ("chosen-survives", Acceptor, "receive_accept", promise_forgotten),
        ("lost-leader", Proposer, "receive_promise", reports_ignored),
        ("duel", Acceptor, "receive_accept", promise_forgotten),
        ("gap", Log, "mark_chosen_by_ballot", any_vote_is_chosen),
        ("leader-crash", LeaderState, "_take_promise", nothing_taken_over),
        ("catching-up", Election, "grants_pre_vote", pre_vote_always_granted),
    ],
)
def test_a_fault_is_seen_in_its_lesson(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: type[Any], method: str, fault: Callable[..., Any]
) -> None:
    lesson = lesson_named(LESSONS, name)
    assert complaints(lesson) == []
    monkeypatch.setattr(owner, method, fault)
    try:
        found = complaints(lesson)
    except NotPossible:  # The run went another way: a message of the lesson is not under way in it.
        return
    assert found
