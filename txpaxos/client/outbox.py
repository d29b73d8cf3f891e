"""When a client sends its requests. The dispatcher puts requests in, and takes them out when the outbox says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from txpaxos.client.requests import CommandRequest, Request
from txpaxos.clock import MonotonicClock
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS

RUNS_MAX = 2
"""Runs that may be under way while commands wait. With that many, commands wait until a run is answered or full."""


class Outbox:
    """The requests that are to be sent on the current connection.

    What is asked for within one iteration of the reactor is sent together. A run of commands costs a node nearly the
    same whether it is short or long. So while answers take their time, the commands that come meanwhile are collected:
    the busier the nodes are, the longer the runs, and the cheaper each command. (RFC 896, by John Nagle, does so with
    segments of TCP.)

    :param clock: calls :meth:`take` 's caller back in the next iteration of the reactor.
    :param flush: called when there is something to :meth:`take`.
    """

    def __init__(self, clock: MonotonicClock, flush: Callable[[], None]) -> None:
        self._clock = clock
        self._flush = flush
        self._waiting: list[Request] = []
        self._commands = self._command_bytes = 0  # Of the requests that wait.
        # The last command of each run that was sent. When that is answered, so are usually those before it.
        self._under_way: list[CommandRequest] = []
        self._is_due = False

    def restart(self, requests: Iterable[Request]) -> None:
        """A connection is ready: all of ``requests`` are to be sent on it, whether they were sent before or not."""
        self.clear()
        self._waiting = list(requests)  # While no run is under way no command waits, so these need not be counted.

    def clear(self) -> None:
        """The connection is gone: nothing is to be sent, and no run is under way."""
        self._is_due = False
        self._waiting, self._commands, self._command_bytes = [], 0, 0
        self._under_way = []

    def add(self, request: Request) -> None:
        """Send ``request``, too."""
        self._waiting.append(request)
        if isinstance(request, CommandRequest):
            self._commands += 1
            self._command_bytes += request.size_bytes
            if self._must_wait():
                return
        self._schedule()

    def command_ended(self) -> None:
        """A command was answered or given up, so the next run may have to wait no longer."""
        if self._waiting and not self._must_wait():
            self._schedule()

    def take(self) -> list[Request]:
        """The requests that are to be sent now, in the order in which they were made."""
        self._is_due = False
        waiting = [request for request in self._waiting if request.is_pending]
        if self._must_wait():
            self._waiting = [request for request in waiting if isinstance(request, CommandRequest)]
            return [request for request in waiting if not isinstance(request, CommandRequest)]
        self._waiting, self._commands, self._command_bytes = [], 0, 0
        return waiting

    def run_sent(self, run: list[CommandRequest]) -> None:
        """``run`` was sent, and is under way until its last command ends."""
        self._under_way.append(run[-1])

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._clock.call_soon(self._flush_if_due)

    def _flush_if_due(self) -> None:
        if self._is_due:
            self._flush()

    def _must_wait(self) -> bool:
        """Whether commands have to wait."""
        if len(self._under_way) < RUNS_MAX:
            return False
        self._under_way = [command for command in self._under_way if command.is_pending]
        fill_a_run = self._commands >= RUN_COMMANDS or self._command_bytes >= RUN_BYTES
        return len(self._under_way) >= RUNS_MAX and not fill_a_run
