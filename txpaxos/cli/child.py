"""A command that runs beside ``txpaxos``, for as long as it may."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from txpaxos.cli.guard import Guard
from txpaxos.cli.running import CommandError
from txpaxos.clock import monotonic_clock


class Child:
    """A process with the standard streams of this one.

    It has a process group of its own, so that what it has started is ended with it. At a terminal it has not, since
    another group could not read from the terminal; then the process alone is ended. A guard ends it when this process
    is killed, or does not say in time that it may run on.

    :param arguments: the command and its arguments.
    :param environment: the variables that it gets besides those of this process.
    :param run_seconds: how long it may run, unless :meth:`let_run` is called.
    :raises CommandError: if it cannot be started.
    """

    def __init__(
        self, reactor: Any, arguments: Sequence[str], environment: Mapping[str, str], run_seconds: float
    ) -> None:
        self._reactor = reactor
        self._has_group = not _is_terminal(0)
        options: dict[str, Any] = {"process_group": 0} if self._has_group else {}
        self._guard = Guard(self._has_group)
        options["preexec_fn"] = self._guard.introduction(run_seconds)
        try:
            self._process = subprocess.Popen(arguments, env={**os.environ, **environment}, **options)
        except (OSError, ValueError) as error:
            self._guard.dismiss()
            reason = getattr(error, "strerror", None) or str(error)
            raise CommandError(f"{arguments[0]} cannot be run: {reason}") from None
        self._guard.started(self._process.pid)
        self._is_over = False
        self._waiting: list[Deferred[int]] = []
        deferToThreadPool(reactor, reactor.getThreadPool(), self._process.wait).addCallback(self._over)

    def let_run(self, seconds: float) -> None:
        """Let it run for at most ``seconds``, unless this is called again. The guard kills it then."""
        self._guard.let_run(seconds)

    def ended(self) -> Deferred[int]:
        """Fires with the exit status, as shells have it: 128 and the number of the signal after one.

        Cancelling it leaves the process alone.
        """
        ended: Deferred[int] = Deferred(self._waiting.remove)
        self._waiting.append(ended)
        if self._is_over:
            self._tell()
        return ended

    async def end(self, grace_seconds: float) -> int:
        """End it: ask it to, and after a while do not ask any more.

        :param grace_seconds: how long it may take to end by itself after ``SIGTERM``; then comes ``SIGKILL``.
        :returns: its exit status.
        """
        self._signal(signal.SIGTERM)
        kill = monotonic_clock(self._reactor).callLater(max(0.0, grace_seconds), self._signal, signal.SIGKILL)
        status = await self.ended()
        if kill.active():
            kill.cancel()
        return status

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._has_group:
                os.killpg(self._process.pid, number)
            elif not self._is_over:
                os.kill(self._process.pid, number)

    def _over(self, status: int) -> None:
        self._is_over = True
        if self._has_group:  # What it has started, and has left behind.
            self._signal(signal.SIGKILL)
        self._guard.dismiss()
        self._tell()

    def _tell(self) -> None:
        status = self._process.returncode
        while self._waiting:
            self._waiting.pop(0).callback(status if status >= 0 else 128 - status)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
