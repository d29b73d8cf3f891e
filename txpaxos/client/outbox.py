"""What a client has to send on its present connection, and when it does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from txpaxos.client.requests import CommandRequest, Request
from txpaxos.clock import MonotonicClock
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS

RUNS_MAX = 2
"""While so many runs are under way, commands wait until one of them is answered, or until they fill a run."""


class Outbox:
    """Requests on their way out.

    What is asked for within one turn of the reactor goes together. A run costs a node nearly the same whether it is
    short or long, so when answers take their time, what comes in the meantime is collected: the busier the nodes are,
    the longer the runs, and the cheaper each command (John Nagle, RFC 896, did so with segments of TCP).

    :param requests: by number, those without an answer. What is not in there any more is not sent.
    :param unanswered: the sequences of the commands among them.
    :param flush: called when there is something to :meth:`take`.
    """

    def __init__(
        self,
        clock: MonotonicClock,
        requests: Collection[int],
        unanswered: Collection[int],
        flush: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._requests = requests
        self._unanswered = unanswered
        self._flush = flush
        self._waiting: list[Request] = []
        self._commands = self._command_bytes = 0  # Of those that wait.
        # The last sequence of each run: when that is answered, so are those before it, as a rule.
        self._under_way: list[int] = []
        self._is_due = False

    def begin(self, requests: Iterable[Request]) -> None:
        """A connection stands: all of these are to be sent on it, again or not."""
        self.end()
        self._waiting = list(requests)  # With nothing under way nothing is held, so they need not be counted.

    def end(self) -> None:
        """It is gone, and with it what was under way."""
        self._is_due = False
        self._waiting, self._commands, self._command_bytes = [], 0, 0
        self._under_way = []

    def add(self, request: Request) -> None:
        """Send ``request``, too."""
        self._waiting.append(request)
        if isinstance(request, CommandRequest):
            self._commands += 1
            self._command_bytes += request.size_bytes
            if self._is_held():
                return
        self._schedule()

    def answered(self) -> None:
        """A command waits for its answer no longer."""
        if self._waiting and not self._is_held():
            self._schedule()

    def take(self) -> list[Request]:
        """What is to be sent now, in the order in which it was asked for."""
        self._is_due = False
        waiting = [request for request in self._waiting if request.number in self._requests]
        if self._is_held():
            self._waiting = [request for request in waiting if isinstance(request, CommandRequest)]
            return [request for request in waiting if not isinstance(request, CommandRequest)]
        self._waiting, self._commands, self._command_bytes = [], 0, 0
        return waiting

    def sent(self, run: list[CommandRequest]) -> None:
        """``run`` is under way."""
        self._under_way.append(run[-1].sequence)

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._clock.call_soon(self._flush_if_due)

    def _flush_if_due(self) -> None:
        if self._is_due:
            self._flush()

    def _is_held(self) -> bool:
        """Whether commands are to wait."""
        if len(self._under_way) < RUNS_MAX:
            return False
        self._under_way = [sequence for sequence in self._under_way if sequence in self._unanswered]
        fill_a_run = self._commands >= RUN_COMMANDS or self._command_bytes >= RUN_BYTES
        return len(self._under_way) >= RUNS_MAX and not fill_a_run
