"""Reads: queries that wait until their answer cannot be old.

A query waits for a read index (:mod:`txpaxos.core.read_index`), and then until this node has applied the log that far.
One question for a read index is out at a time, and stands for all queries that came before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.errors import Overloaded, PaxosError, QueryFailed
from txpaxos.log_lines import LineLimiter, described, for_log
from txpaxos.node.applier import Applier
from txpaxos.node.sessions import ERROR_CHARACTERS_MAX
from txpaxos.reading import Consistency, Reading

WAITING_MAX = 2**16
WAITING_BYTES_MAX = 2**27
"""How many queries may wait at one node, and how many bytes they may have."""


@attrs.define(eq=False)
class _Query:
    """A query that waits.

    :ivar hook: answers the query.
    :ivar asked: what the hook returned, as a Deferred; ``None`` before the hook was called.
    """

    query: bytes
    hook: Callable[[bytes], object]
    answer: Deferred[Reading]
    asked: Deferred[Any] | None = None


class Reads:
    """The queries that wait at one node.

    :param query: the application's hook.
    :param request_read_index: called to request a read index; returns the number of the request.
    """

    log = Logger()

    def __init__(
        self, applier: Applier, query: Callable[[bytes], object], request_read_index: Callable[[], int]
    ) -> None:
        self._applier = applier
        self._query = query
        self._request_read_index = request_read_index
        self._number: int | None = None
        self._started = False
        # The queries that wait for the request under way, those that came after it, and those whose read index is known
        # and that wait for the log to be applied so far.
        self._asked: dict[_Query, None] = {}
        self._next: dict[_Query, None] = {}
        self._pointed: list[tuple[int, dict[_Query, None]]] = []
        # The queries whose hook was called and has not answered yet.
        self._open: dict[_Query, None] = {}
        self._waiting_bytes = 0
        self._lines = LineLimiter()

    def __len__(self) -> int:
        return sum(len(queries) for queries in self._waiting())

    def read(self, query: bytes, consistency: Consistency) -> Deferred[Reading]:
        """Answer ``query``.

        :returns: fails with :class:`~txpaxos.errors.QueryFailed` or :class:`~txpaxos.errors.Overloaded`. A linearizable
            read waits as long as no quorum answers; cancel it to stop that.
        """
        if len(self) >= WAITING_MAX or self._waiting_bytes + len(query) > WAITING_BYTES_MAX:
            return fail(Overloaded(f"{len(self)} queries wait already; try again later"))
        one = _Query(query, self._query, Deferred(lambda _: self._forget(one)))
        self._waiting_bytes += len(query)
        if consistency == "local" and self._started:
            self._answer(one)
        elif consistency == "local":
            self._pointed.append((0, {one: None}))
        else:
            self._next[one] = None
            self._ask()
        return one.answer

    def wait(self) -> Deferred[Any]:
        """Fires when this node has applied all that was acknowledged before now: for an answer that is not of the
        application.

        :returns: fails with :class:`~txpaxos.errors.Overloaded`.
        """
        if len(self) >= WAITING_MAX:
            return fail(Overloaded(f"{len(self)} queries wait already; try again later"))
        return self.catch_up()

    def start(self) -> None:
        """The node has loaded its state: answer the queries that came before."""
        self._started = True
        self.applied()
        self._ask()

    def catch_up(self) -> Deferred[Reading]:
        """Fires when this node has applied all that was acknowledged before now. The application is not asked."""
        one = _Query(b"", lambda _: None, Deferred(lambda _: self._forget(one)))
        self._next[one] = None
        self._ask()
        return one.answer

    def read_from(self, number: int, slot: int) -> None:
        """Request ``number`` is answered: its queries may be answered once ``slot`` is applied."""
        assert number == self._number, (number, self._number)
        self._number = None
        queries, self._asked = self._asked, {}
        self._pointed.append((slot, queries))
        self._ask()
        self.applied()

    def applied(self) -> None:
        """More of the log may have been applied."""
        while self._started and self._pointed and self._pointed[0][0] <= self._applier.applied_through:
            queries = self._pointed[0][1]
            while queries:  # One by one: a caller that is told may cancel another query, or stop the node.
                one = next(iter(queries))
                del queries[one]
                self._answer(one)
            del self._pointed[0]

    def close(self, error: PaxosError) -> None:
        """The node stops: every query without an answer fails with ``error``."""
        for queries in self._waiting():
            while queries:  # One by one: a caller that is told may cancel another query.
                one, _ = queries.popitem()
                self._waiting_bytes -= len(one.query)
                self._cancel(one)
                one.answer.errback(error)

    def _waiting(self) -> list[dict[_Query, None]]:
        return [self._asked, self._next, *(queries for _, queries in self._pointed), self._open]

    def _ask(self) -> None:
        if self._started and self._number is None and self._next:
            self._asked, self._next = self._next, {}
            self._number = self._request_read_index()

    def _forget(self, one: _Query) -> None:
        """The caller of this query has cancelled."""
        for queries in self._waiting():
            queries.pop(one, None)
        self._waiting_bytes -= len(one.query)
        self._cancel(one)

    def _cancel(self, one: _Query) -> None:
        """Cancel the Deferred of a hook that has not answered yet. The application's canceller may raise; the query is
        given up all the same."""
        if one.asked is None:
            return
        try:
            one.asked.addErrback(lambda _: None).cancel()
        except KeyboardInterrupt:
            raise
        except BaseException:
            more = self._lines.admits("cancelled")
            if more is not None:
                self.log.failure(
                    "the Deferred of a query raised when it was cancelled{more}",
                    for_log(),
                    more=more,
                    event="query_cancel_raised",
                )

    def _answer(self, one: _Query) -> None:
        slot = self._applier.applied_through
        self._open[one] = None
        one.asked = maybeDeferred(one.hook, one.query)
        one.asked.addCallbacks(lambda result: Reading(result, slot), _failed).addBoth(self._answered, one)

    def _answered(self, result: Any, one: _Query) -> None:
        """The hook has answered: tell the caller, unless the query was cancelled meanwhile."""
        if one in self._open:
            del self._open[one]
            self._waiting_bytes -= len(one.query)
            one.answer.callback(result)


def _failed(failure: Failure) -> Any:
    """The error for the caller.

    An error of this package that the hook raises is about another node or cluster, which the hook has asked. Passed on
    as it is, the caller would take it for an error of this node.
    """
    error = failure.value
    assert error is not None
    if type(error) is QueryFailed:
        raise error
    raise QueryFailed(described(error)[:ERROR_CHARACTERS_MAX])
