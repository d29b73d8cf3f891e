"""The process of ``twistd paxos``: what it prints when it cannot start, its exit status, and what it does on signals.

A service reports a fault by an exception or a callback. All that concerns the process is in this module, so that a
program with a node in it can decide for itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType, TracebackType
from typing import Any, TextIO

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import FileLogObserver, Logger, globalLogPublisher
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.logfile import BaseLogFile

from txpaxos.cluster import Cluster
from txpaxos.errors import ConfigError, PaxosError, RemovedFromCluster
from txpaxos.log_lines import printable
from txpaxos.server.joining import Wish, join_cluster
from txpaxos.server.membership import cluster_of
from txpaxos.server.service import PaxosService
from txpaxos.server.service_manager import ServiceManager

FAILED = 1
"""The exit status after the node could not run on."""
REMOVED = 6
"""The exit status after the node was removed from the cluster. A service manager need not start it again."""
HUNG_UP = 129
"""The exit status after the terminal was closed: 128 and the number of SIGHUP, as in shells."""


class CannotStart(PaxosError):
    """The node cannot start. The reason is printed already."""


class CannotStartRemoved(CannotStart):
    """The node cannot start, since it was removed from the cluster. The reason is printed already."""


def is_daemon(options: Mapping[str, Any]) -> bool:
    """Whether twistd, with these options, leaves its terminal."""
    return "nodaemon" in options and not options["nodaemon"] and not options.get("debug")


class NodeProcess:
    """This process.

    :param reactor: the reactor that it runs.
    :param options: the options of twistd, or of another program that runs twistd's plugins; ``None`` if there is none.
    :ivar reload_keys: loads the node's keys anew; ``None`` if it has none.
    """

    log = Logger()

    def __init__(self, reactor: Any, options: Any) -> None:
        self._reactor = reactor
        self._exit_status: int | None = None
        self.reload: Callable[[], object] | None = None
        self._told_to_stop = threading.Lock()
        """Held by the first that stops the reactor. To take it is one step, which no signal can interrupt."""
        self._stop_at_once: Callable[[], object] | None = None
        self._is_in_a_hurry = False
        self._options = options = options or {}
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
        """Keep a daemon's terminal open until its node has started, so that a failure can be printed there in full.

        twistd reports a failed start of a daemon, too. But that report is truncated after 100 bytes and refers to the
        log. So only its exit status is used, and its text is dropped."""
        with contextlib.suppress(OSError):
            self._terminal = os.fdopen(os.dup(2), "w")
            if sys.__stderr__ is not None:
                sys.__stderr__ = _WithoutReport(sys.__stderr__)  # type: ignore[misc, assignment]

    def started(self) -> None:
        """Note that the node runs: close the terminal that was kept for errors, and handle signals."""
        self._close_terminal()
        self._stop_at_once = None
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._on_sighup)
        self._reactor.callWhenRunning(self._handle_stop_signals)

    def cannot_start(self, line: str, *, was_removed: bool = False) -> CannotStart:
        """Print ``line``, and log it where the log goes elsewhere. Returns the error to raise to twistd.

        :param was_removed: whether the reason is that the node was removed from the cluster.
        """
        self._remove_pidfile()
        if self._logs_elsewhere:
            self.log.critical("{line}", line=line, event="cannot_start")
        print(f"twistd paxos: {line}", file=self._terminal or sys.__stderr__ or sys.stderr, flush=True)
        self._close_terminal()
        sys.excepthook = _without_traceback(sys.excepthook)
        if was_removed:
            self._exit_status = REMOVED
            return CannotStartRemoved(line)
        return CannotStart(line)

    def _remove_pidfile(self) -> None:
        """Remove the pidfile of a daemon that cannot start. twistd does that only after it has told the program that
        started the daemon, which would still find the file."""
        pidfile = self._options.get("pidfile")
        if self._is_daemon and pidfile:
            with contextlib.suppress(OSError):
                os.unlink(pidfile)
                self._options["pidfile"] = ""  # Otherwise twistd logs that the file is missing.

    def gave_up(self, failure: Failure) -> None:
        """End the process, since the node cannot run on: with status :data:`FAILED`, or :data:`REMOVED`. Twisted would
        end with 0."""
        self._stop(REMOVED if failure.check(RemovedFromCluster) else FAILED)

    def stopping(self, stop_at_once: Callable[[], object]) -> None:
        """Note that the node prepares to stop: a further Ctrl-C, or SIGTERM, ends that. Twisted would log an error."""
        self._stop_at_once = stop_at_once
        if self._is_in_a_hurry:
            self._reactor.callFromThread(stop_at_once)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, self._on_further_signal)

    def stopped(self) -> None:
        """End the process, since the application has stopped its node."""
        self._reactor.callLater(0, self.stop_reactor)

    def _close_terminal(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def _stop(self, exit_status: int) -> None:
        if self._exit_status is None:
            self._exit_status = exit_status
        self._reactor.callLater(0, self.stop_reactor)

    def stop_reactor(self) -> None:
        """Stop the reactor, unless it was told to stop before."""
        if self._told_to_stop.acquire(blocking=False):
            try:
                self._reactor.stop()
            except ReactorNotRunning:
                self._told_to_stop.release()

    def _leave(self) -> None:
        """Exit with the right status. This runs after all other exit handlers, since it was registered before any
        application was loaded."""
        if self._exit_status is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(self._exit_status)

    # Signals

    def _handle_stop_signals(self) -> None:
        """Take SIGINT and SIGTERM over from the reactor, which stops once for each of them. A second one may come
        before it has stopped for the first, and then it would log an error."""
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler) and getattr(handler, "__self__", None) is self._reactor:
                signal.signal(number, partial(self._on_stop_signal, handler))

    def _on_stop_signal(
        self, stop_reactor: Callable[[int, FrameType | None], object], number: int, frame: FrameType | None
    ) -> None:
        """Stop the reactor by its own handler, which notes by which signal the process is to end."""
        if self._stop_at_once is None and self._told_to_stop.acquire(blocking=False):
            stop_reactor(number, frame)
        else:
            self._on_further_signal(number, frame)

    def _on_further_signal(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._hurry)

    def _hurry(self) -> None:
        """Stop at once what prepares to stop, or will do so."""
        self._is_in_a_hurry = True
        if self._stop_at_once is not None:
            self._stop_at_once()

    def _on_sighup(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._handle_sighup)

    def _handle_sighup(self) -> None:
        """Handle SIGHUP. A process with a terminal ends, since the terminal was closed. For any other process the
        signal is a request to reopen the log file, which was moved, or to read its configuration again."""
        if self._has_terminal:
            self.log.info("SIGHUP: the terminal was closed, so this node stops", event="terminal_closed")
            self._stop(HUNG_UP)
            return
        files = [
            file for file in map(_file_of, list(getattr(globalLogPublisher, "_observers", ()))) if file is not None
        ]
        for file in files:
            file.reopen()
        done = "the log file was reopened" if files else "there is no log file to reopen"
        self.log.info("SIGHUP: {done}; members are not read again from the cluster file", done=done, event="hung_up")
        if self.reload is not None:
            try:
                self.reload()
            except PaxosError as error:
                line = "SIGHUP: keys and rights are used as they were: {reason}"
                self.log.error(line, reason=printable(str(error)), event="reload_failed")


class NodeService(PaxosService):
    """The service of a node in a process of its own."""

    process: NodeProcess
    wish: Wish | None = None
    """What the node wants when it joins a cluster; ``None`` if it is a member already."""
    manager: ServiceManager | None = None
    """systemd, if it has started this process and wants to be told how the node is."""
    prepare_log: Callable[[Componentized], object] | None = None
    """Tells twistd's application what is to be logged, and how."""

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Become part of twistd's application. It begins to log after that, and before it starts this service."""
        if self.prepare_log is not None and isinstance(parent, Componentized):
            self.prepare_log(parent)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start the node. If it cannot start, print one line that says why.

        :raises CannotStart: for twistd, which then removes its pidfile and ends the starting process with status 1; of
            a node that was removed, that status is :data:`REMOVED`.
        """
        try:
            self.manager = ServiceManager.of(self._reactor, os.environ)
            if self.wish is not None:
                self._join(self.wish)
            super().startService()
        except PaxosError as error:
            line, was_removed = f"node {self.node_name} cannot start: {error}", isinstance(error, RemovedFromCluster)
            raise self.process.cannot_start(line, was_removed=was_removed) from None
        except MemoryError:
            line = f"node {self.node_name} cannot start: there is not enough memory for what it has to load"
            raise self.process.cannot_start(line) from None
        if self._keys is not None:
            self.process.reload = self.reload
        self.process.started()
        if self.manager is not None and self._is_running:
            self.manager.watch(self)

    def _join(self, wish: Wish) -> None:
        """Join the cluster, unless the data folder says that this was done. What the node could not start with
        is refused before: the others would have a member that they never hear.

        :raises PaxosError: one line that says why it cannot be done."""
        if self._load_keys() is None and wish.keys:
            raise ConfigError("--join-keys are those of a client: give --keys, too, with the keys of the node")
        self._check_companions([wish.member.listens_at, wish.member.listens_for_clients_at])
        joined = join_cluster(wish, self._data_directory, self._disk)
        cluster = cluster_of(joined)
        members = {**cluster.members, joined.node: wish.member}
        self.node_name = joined.node
        self._cluster = Cluster(joined.cluster, members, rights=cluster.rights)

    def stop(self) -> Deferred[None]:
        """Hand over the lead, stop the node and close everything. A second signal skips what can be skipped."""
        if self._is_running:
            self.process.stopping(self.stop_at_once)
        if self.manager is not None:
            self.manager.stopping()
        return super().stop()


class _WithoutReport:
    """Standard error without twistd's report of a failed start, which was printed already, in full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``, unless it is that report. This process, which has started the daemon, ends after the report:
        with status 1 by twistd, and with :data:`REMOVED` here if the node was removed."""
        if CannotStartRemoved.__name__ in text:
            os._exit(REMOVED)
        return len(text) if CannotStart.__name__ in text else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _without_traceback(hook: Any) -> Any:
    def excepthook(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, CannotStart):
            hook(kind, value, traceback)

    return excepthook


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal. A process that a service manager runs does not. Call this before the
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
    """The file to which a log observer writes, ``None`` if that is no file that can be reopened."""
    file = getattr(observer, "_outFile", None) if isinstance(observer, FileLogObserver) else None
    return file if isinstance(file, BaseLogFile) else None
