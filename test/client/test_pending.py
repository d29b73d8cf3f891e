"""The requests of a client without an answer: which of them there are, and how many there may be."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

import txpaxos.client.pending
from txpaxos.client.pending import PendingRequests
from txpaxos.client.requests import CommandRequest, Request
from txpaxos.wire.client_messages import StatusRequest


@pytest.fixture
def pending() -> PendingRequests:
    return PendingRequests()


def command(number: int, sequence: int, payload: bytes = b"x") -> CommandRequest:
    answer: Deferred[Any] = Deferred()
    return CommandRequest(number, None, answer, len(payload), sequence=sequence, payload=payload)


def question(number: int) -> Request:
    return Request(number, StatusRequest(number), Deferred(), 0)


def test_a_request_is_pending_until_it_is_taken(pending: PendingRequests) -> None:
    requests = [command(1, 1), question(2), command(3, 2)]
    for request in requests:
        pending.add(request)
    assert list(pending) == requests
    assert (len(pending), pending.size_bytes) == (3, 2)
    assert pending.take(1) is requests[0]
    assert [request.is_pending for request in requests] == [False, True, True]
    assert pending.take(1) is None
    assert (pending.get(1), pending.get(2)) == (None, requests[1])
    assert (len(pending), pending.size_bytes) == (2, 1)


def test_the_first_sequence_is_that_of_the_oldest_command_without_an_answer(pending: PendingRequests) -> None:
    assert pending.first_sequence(1) == 1
    for number in (1, 2, 3):
        pending.add(command(number, number))
    assert pending.first_sequence(3) == 1
    pending.take(1)
    assert pending.first_sequence(3) == 2
    assert pending.first_sequence(1) == 1, "sent again: what comes before it has an answer"


def test_requests_are_limited(pending: PendingRequests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.client.pending, "REQUESTS_MAX", 2)
    pending.add(question(1))
    assert pending.refusal(0) is None
    pending.add(question(2))
    assert "2 requests of 0 bytes wait" in str(pending.refusal(0))
    assert "2 requests of 0 bytes wait" in str(pending.refusal_of_command(1, 0))


def test_waits_leave_room_for_what_they_wait_for(pending: PendingRequests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.client.pending, "WAITS_MAX", 1)
    waiting = question(1)
    waiting.waits = True
    pending.add(waiting)
    assert "1 waits of this client are under way" in str(pending.refusal(0, waits=True))
    assert pending.refusal(0) is None
    assert pending.refusal_of_command(1, 0) is None
    pending.take(1)
    assert pending.refusal(0, waits=True) is None


def test_bytes_are_limited(pending: PendingRequests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.client.pending, "PENDING_BYTES_MAX", 10)
    pending.add(command(1, 1, bytes(9)))
    assert pending.refusal(1) is None
    assert pending.refusal_of_command(2, 1) is None
    assert "1 requests of 9 bytes wait" in str(pending.refusal(2))
    assert "1 requests of 9 bytes wait" in str(pending.refusal_of_command(2, 2))


def test_a_command_is_not_far_ahead_of_one_without_an_answer(
    pending: PendingRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txpaxos.client.pending, "REQUESTS_MAX", 3)
    pending.add(command(1, 1))
    assert pending.refusal_of_command(3, 0) is None
    assert "submitted 3 commands ago" in str(pending.refusal_of_command(4, 0))
    pending.take(1)
    assert pending.refusal_of_command(4, 0) is None
