"""One node of the log, driven by hand."""

from __future__ import annotations

from typing import TypeVar, cast

import attrs

from txpaxos.core.messages import LOWEST, LogMessage, PrepareLog, PreVoteGranted, PromiseLog
from txpaxos.core.ready import Ready
from txpaxos.core.replica import Replica

Kind = TypeVar("Kind")


def sent(ready: Ready, kind: type[Kind]) -> list[Kind]:
    """The messages of one kind that ``ready`` sends."""
    return [envelope.message for envelope in ready.send if isinstance(envelope.message, kind)]


def settle(replica: Replica, ready: Ready, now: float) -> list[Ready]:
    """Deliver the messages of ``replica`` to itself until none is left.

    :returns: ``ready``, and the Readys after it.
    """
    readys = [ready]
    for one in readys:  # grows as it goes
        for envelope in one.send:
            if replica.node in envelope.to:
                answer = replica.receive(replica.node, cast(LogMessage, envelope.message), now)
                readys.append(answer)
    return readys


def campaign(replica: Replica, now: float) -> Ready:
    """Let the election timer of ``replica`` fire, and let all other members grant its pre-vote.

    :returns: the Ready with which it starts its ballot.
    """
    ready = replica.tick(max(now, replica.election.wake_at))
    for member in replica.membership.others:
        if sent(ready, PrepareLog):
            break
        ready = replica.receive(member, PreVoteGranted(replica.election.pre_vote_number), now)
    return ready


def elect(replica: Replica, now: float, *reports: PromiseLog) -> list[Ready]:
    """Make ``replica`` the leader: its campaign, its own promise, and the promises in ``reports``, whose ballots are
    filled in. The default is one promise without votes.

    :returns: the Readys from the quorum on.
    """
    settle(replica, campaign(replica, now), now)
    readys: list[Ready] = []
    for member, report in zip(replica.membership.others, reports or (PromiseLog(LOWEST, 1),), strict=False):
        promise = attrs.evolve(report, ballot=replica.election.own_ballot)
        readys += settle(replica, replica.receive(member, promise, now), now)
    assert replica.is_leader
    return readys
