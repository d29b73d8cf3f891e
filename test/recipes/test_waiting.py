"""A wait ends with its grant, its time, its cancellation or an error; and if it has no grant, it is withdrawn."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txpaxos.errors import NotChosen, OutcomeUnknown, Overloaded
from txpaxos.recipes.waiting import INSIST_AGAIN_SECONDS, Waits, WaitTimedOut, wait_for


class Granter:
    """What is waited for, in the hands of the test."""

    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.begun: Deferred[str | None] = Deferred()
        self.resting: Deferred[str] = Deferred()
        self.withdrawn: list[Any] = []
        self.refusals: list[Exception] = []
        self.ended: list[Any] = []
        self.is_closed = False
        self.waits = Waits(self.clock, lambda: self.is_closed)

    def wait(self, timeout_seconds: float | None = None) -> Deferred[str]:
        waiting = wait_for(
            self.waits, lambda: self.begun, lambda: self.resting, self.withdraw, timeout_seconds, "the grant"
        )
        waiting.addBoth(self.ended.append)
        return waiting

    def withdraw(self) -> Deferred[None]:
        self.withdrawn.append(self.begun.called)
        return fail(self.refusals.pop()) if self.refusals else succeed(None)

    @property
    def error(self) -> BaseException:
        (failure,) = self.ended
        assert isinstance(failure, Failure)
        assert failure.value is not None
        return failure.value


@pytest.fixture
def granter() -> Granter:
    return Granter()


def test_what_is_granted_at_once_is_the_result(granter: Granter) -> None:
    granter.wait(5.0)
    granter.begun.callback("granted")
    granter.clock.advance(10)
    assert (granter.ended, granter.withdrawn) == (["granted"], [])
    assert granter.clock.getDelayedCalls() == []


def test_what_is_granted_later_is_the_result(granter: Granter) -> None:
    granter.wait()
    granter.begun.callback(None)
    assert granter.ended == []
    granter.resting.callback("granted")
    assert (granter.ended, granter.withdrawn) == (["granted"], [])


def test_a_wait_that_times_out_is_withdrawn(granter: Granter) -> None:
    granter.wait(5.0)
    granter.begun.callback(None)
    granter.clock.advance(4.9)
    assert granter.ended == []
    granter.clock.advance(0.1)
    assert isinstance(granter.error, WaitTimedOut | TimeoutError)
    assert str(granter.error) == "the grant did not come within 5 s"
    assert granter.withdrawn == [True]


def test_a_wait_that_is_cancelled_is_withdrawn(granter: Granter) -> None:
    waiting = granter.wait(5.0)
    granter.begun.callback(None)
    waiting.cancel()
    assert isinstance(granter.error, CancelledError)
    assert granter.withdrawn == [True]
    assert granter.clock.getDelayedCalls() == []


@pytest.mark.parametrize("answer", [None, "granted", NotChosen("it was not")])
def test_a_request_that_is_under_way_is_withdrawn_behind_it(granter: Granter, answer: Any) -> None:
    """A withdrawal that is applied before the request would leave the request there for ever."""
    waiting = granter.wait()
    waiting.cancel()
    assert isinstance(granter.error, CancelledError)
    assert granter.withdrawn == []
    if isinstance(answer, Exception):
        granter.begun.errback(answer)
        assert granter.withdrawn == []
    else:
        granter.begun.callback(answer)
        assert granter.withdrawn == [True]


def test_a_request_of_which_nothing_is_known_is_withdrawn(granter: Granter) -> None:
    granter.wait()
    granter.begun.errback(OutcomeUnknown("it may be"))
    assert isinstance(granter.error, OutcomeUnknown)
    assert granter.withdrawn == [True]


def test_a_wait_that_fails_is_withdrawn(granter: Granter) -> None:
    granter.wait(5.0)
    granter.begun.callback(None)
    granter.resting.errback(ValueError("broken"))
    assert isinstance(granter.error, ValueError)
    assert granter.withdrawn == [True]
    assert granter.clock.getDelayedCalls() == []


@pytest.mark.parametrize("error", [Overloaded("busy"), NotChosen("no node took it"), OutcomeUnknown("no answer came")])
def test_a_withdrawal_that_is_refused_or_lost_is_made_again(granter: Granter, error: Exception) -> None:
    """Otherwise the request would be granted some day to one who does not wait for it any more."""
    waiting = granter.wait()
    granter.begun.callback(None)
    granter.refusals = [error, error]
    waiting.cancel()
    granter.clock.advance(INSIST_AGAIN_SECONDS)
    granter.clock.advance(INSIST_AGAIN_SECONDS)
    assert len(granter.withdrawn) == 3
    assert granter.clock.getDelayedCalls() == []


def test_a_closed_client_withdraws_nothing(granter: Granter) -> None:
    waiting = granter.wait()
    granter.begun.callback(None)
    granter.refusals, granter.is_closed = [NotChosen("the client is closed")], True
    waiting.cancel()
    assert (len(granter.withdrawn), granter.clock.getDelayedCalls()) == (1, [])
