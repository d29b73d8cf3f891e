"""The process that ``twistd paxos`` is: what its terminal is told when it cannot start, with which status it ends, and
what it does when it is hung up on.

A service says what is wrong by raising, and by a callback. All that is about the process stands here, so that a program
that has a node in it decides for itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, TextIO

from twisted.internet.error import ReactorNotRunning
from twisted.logger import FileLogObserver, Logger, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.logfile import BaseLogFile

from txpaxos.errors import PaxosError
from txpaxos.server.service import PaxosService

FAILED = 1
HUNG_UP = 129
"""The exit status of a process that ended since its terminal was closed, as shells have it."""


class CannotStart(PaxosError):
    """The node cannot start. The terminal has been told why."""


def is_daemon(options: Mapping[str, Any]) -> bool:
    """Whether twistd, with these options, leaves its terminal."""
    return "nodaemon" in options and not options["nodaemon"] and not options.get("debug")


class NodeProcess:
    """This process.

    :param options: those of twistd, or of whatever else runs plugins of twistd; ``None`` if nothing does.
    """

    log = Logger()

    def __init__(self, reactor: Any, options: Any) -> None:
        self._reactor = reactor
        self._exit_status: int | None = None
        options = options or {}
        self._is_daemon = is_daemon(options)
        self._logs_elsewhere = bool(self._is_daemon or options.get("logger") or options.get("syslog")) or (
            options.get("logfile") not in (None, "", "-")
        )
        self._has_terminal = not self._is_daemon and _has_terminal()
        self._terminal: TextIO | None = None
        if self._is_daemon:
            self._keep_terminal()
        atexit.register(self._leave)

    def _keep_terminal(self) -> None:
        """A daemon gives up its terminal before its node starts. twistd has a way to tell whoever started it that
        something went wrong, which is cut off after 100 bytes and says to look at the log. What is said here is whole,
        so of that report only the exit status is wanted."""
        with contextlib.suppress(OSError):
            self._terminal = os.fdopen(os.dup(2), "w")
            if sys.__stderr__ is not None:
                sys.__stderr__ = _WithoutReport(sys.__stderr__)  # type: ignore[misc, assignment]

    def started(self) -> None:
        """The node runs. Nobody waits at the terminal any more."""
        self._close_terminal()
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._on_hang_up)

    def cannot_start(self, line: str) -> CannotStart:
        """Tell the terminal and the log, and make what twistd shall be told."""
        if self._logs_elsewhere:
            self.log.critical("{line}", line=line)
        print(f"twistd paxos: {line}", file=self._terminal or sys.__stderr__ or sys.stderr, flush=True)
        self._close_terminal()
        sys.excepthook = _without_traceback(sys.excepthook)
        return CannotStart(line)

    def gave_up(self, failure: Failure) -> None:
        """The node can do no more: end, with a status that says so. Twisted would end with 0."""
        self._stop(FAILED)

    def stopped(self) -> None:
        """The node was stopped by its own program, which ends with it."""
        self._reactor.callLater(0, self._stop_reactor)

    def _close_terminal(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def _stop(self, exit_status: int) -> None:
        if self._exit_status is None:
            self._exit_status = exit_status
        self._reactor.callLater(0, self._stop_reactor)

    def _stop_reactor(self) -> None:
        with contextlib.suppress(ReactorNotRunning):
            self._reactor.stop()

    def _leave(self) -> None:
        """The last of all that is done at the end. It was registered before any application was loaded."""
        if self._exit_status is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(self._exit_status)

    # being hung up on

    def _on_hang_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._hang_up)

    def _hang_up(self) -> None:
        """SIGHUP: the terminal was closed, if there is one; else somebody has moved the log file, or expects that
        something is read anew."""
        if self._has_terminal:
            self.log.info("SIGHUP: the terminal was closed, so this node stops")
            self._stop(HUNG_UP)
            return
        files = [
            file for file in map(_file_of, list(getattr(globalLogPublisher, "_observers", ()))) if file is not None
        ]
        for file in files:
            file.reopen()
        done = "the log file was opened anew" if files else "there is no log file to open anew"
        self.log.info("SIGHUP: {done}; the cluster file is read at a start, and then only", done=done)


class NodeService(PaxosService):
    """A node that is the process it runs in."""

    process: NodeProcess

    def startService(self) -> None:
        """Start; what is in the way of that is told in one line.

        :raises CannotStart: to twistd, which removes its pidfile, and has the process that started it end with 1.
        """
        try:
            super().startService()
        except PaxosError as error:
            raise self.process.cannot_start(f"node {self.node_name} cannot start: {error}") from None
        except MemoryError:
            line = f"node {self.node_name} cannot start: there is not enough memory for what it has to load"
            raise self.process.cannot_start(line) from None
        self.process.started()


class _WithoutReport:
    """Standard error without twistd's report of a start that failed: it stands there already, in full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``, unless it is that report."""
        return len(text) if CannotStart.__name__ in text else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _without_traceback(hook: Any) -> Any:
    def excepthook(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, CannotStart):
            hook(kind, value, traceback)

    return excepthook


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal, as one that a service manager runs does not. To be asked before the
    terminal is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return any(_is_terminal(descriptor) for descriptor in range(3))
    return True


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _file_of(observer: object) -> BaseLogFile | None:
    """The file that a log observer writes to, if it is one that can be opened anew."""
    file = getattr(observer, "_outFile", None) if isinstance(observer, FileLogObserver) else None
    return file if isinstance(file, BaseLogFile) else None
