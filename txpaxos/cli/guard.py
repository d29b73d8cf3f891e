"""A process beside ``txpaxos lock`` that ends the command when ``txpaxos`` cannot: since it was killed, or is stopped.

This file is run as a program, too. It imports the standard library alone, so that it has started in a moment.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

END_SECONDS = 10.0
"""How long a command may take to end by itself when ``txpaxos`` is told to end, or has been killed."""

LOOK_SECONDS = 0.05
"""How often to look whether a command that was asked to end has ended."""

WAIT_SECONDS_MAX = 1.0
"""The longest wait at a time: the clock of a wait may stand still while the machine sleeps."""


class Guard:
    """The guard of one command, as its parent has it.

    :param has_group: whether the command is the leader of a process group, which is ended with it.

    The process of the guard has a session of its own, so that no signal from the terminal reaches it, and none of the
    streams of its parent, so that it keeps no pipe open.
    """

    def __init__(self, has_group: bool) -> None:
        self._kind = "group" if has_group else "process"
        self._target = ""
        self._writing = -1
        self._start()

    def _start(self) -> None:
        program = [sys.executable, "-I", "-S", __file__]
        reading, self._writing = os.pipe()
        try:
            null = subprocess.DEVNULL
            self._process = subprocess.Popen(program, stdin=reading, stdout=null, stderr=null, start_new_session=True)
        except BaseException:
            self._close()
            raise
        finally:
            os.close(reading)

    def introduction(self, seconds: float) -> Callable[[], None]:
        """What the command's process does before it becomes the command: it makes itself known to the guard, so that it
        is ended when its parent ends without :meth:`dismiss`, however soon that is.

        :param seconds: as for :meth:`let_run`.
        """
        writing, kind, until = self._writing, self._kind, _until(seconds)
        return lambda: _write(writing, f"{kind} {os.getpid()}\n{until}")

    def started(self, pid: int) -> None:
        """The command has started, and is known to the guard. One that replaces this guard is told of it."""
        self._target = f"{self._kind} {pid}\n"

    def let_run(self, seconds: float) -> None:
        """Let the command run for at most ``seconds``, unless this is called again.

        A guard that was killed is replaced. If there is none to be had now, this is tried again at the next call.
        """
        text = _until(seconds)
        if self._process.poll() is not None and self._target:
            self._close()
            with contextlib.suppress(OSError):  # Too many processes, or files.
                self._start()
            text = self._target + text
        self._tell(text)

    def dismiss(self) -> None:
        """End the guard. Nothing is done to the command."""
        self._target = ""
        self._tell("end\n")
        self._close()
        self._process.wait()

    def _close(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):  # The guard was killed.
            _write(self._writing, text)


def _until(seconds: float) -> str:
    """The line that lets the command run for so long."""
    return f"until {_now() + seconds}\n"


def _write(descriptor: int, text: str) -> None:
    """Write a few lines to a pipe, which takes them whole or not at all."""
    os.write(descriptor, text.encode())


def _now() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one. Processes share it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Orders:
    """What the parent has said.

    :ivar end_at: when the command must have ended.
    """

    def __init__(self) -> None:
        self.end_at = float("inf")
        self._target = 0
        self._rest = b""

    def follow(self, data: bytes) -> bool:
        """Take what was read. Whether there is more to do."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for what, *rest in (line.split() for line in lines):
            if what == b"end":
                return False
            if what == b"until":
                self.end_at = float(rest[0])
            else:
                self._target = int(rest[0]) * (-1 if what == b"group" else 1)
        return True

    def send(self, number: int) -> bool:
        """Send a signal to the command, or to its group. Whether it still runs."""
        try:
            if self._target:
                os.kill(self._target, number)
        except ProcessLookupError:
            return False
        return bool(self._target)


def main() -> None:
    """Follow what comes on the standard input, to its end."""
    orders = _Orders()
    while (left := orders.end_at - _now()) > 0:
        if not select.select([0], [], [], min(left, WAIT_SECONDS_MAX))[0]:
            continue
        data = os.read(0, 4096)
        if not data:
            _end(orders)
            return
        if not orders.follow(data):
            return
    orders.send(signal.SIGKILL)


def _end(orders: _Orders) -> None:
    """The parent has gone: ask the command to end, and kill it when it may not run any longer."""
    end_at = min(orders.end_at, _now() + END_SECONDS)
    runs = orders.send(signal.SIGTERM)
    while runs and _now() < end_at:
        time.sleep(LOOK_SECONDS)
        runs = orders.send(0)
    orders.send(signal.SIGKILL)


if __name__ == "__main__":
    main()
