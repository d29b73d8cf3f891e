"""What systemd is told of a node: that it is ready, how it is, that it is alive, and that it stops.

The protocol is one datagram to a Unix socket, which systemd documents (``man 3 sd_notify``) and keeps stable, so that
programs need no library for it. Without the variable ``NOTIFY_SOCKET`` in the environment nothing of this is done.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txpaxos.clock import monotonic_clock
from txpaxos.errors import ConfigError
from txpaxos.node.node import Node

TICKS = 4
"""How often the watchdog is told in the time after which it would end the process. A disk may hang for a moment just
when one of them is due."""

RETRY_SECONDS = 1.0
"""The time until a datagram that could not be sent is sent again."""

MICROSECONDS = 1_000_000


class RunningNode(Protocol):
    """What has a node, and knows when it serves."""

    @property
    def node(self) -> Node:
        """The node."""

    def ready(self) -> Deferred[Any]:
        """Fires when the node knows a leader."""


class NotifySocket:
    """The socket at which a service manager listens.

    :param address: the path of the socket, or ``@`` and the name of one that is in no folder.
    :raises ConfigError: if that is neither.
    """

    def __init__(self, address: str) -> None:
        if address[:1] not in ("/", "@") or len(address) < 2:
            raise ConfigError(f"NOTIFY_SOCKET {address!a}: must be a path that begins with / or @")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, *lines: str) -> bool:
        """Send ``lines`` as one datagram. The reactor never waits for that.

        :returns: whether it was sent.
        """
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class ServiceManager:
    """Tells a service manager how a node is, from its start to its end.

    Each datagram says all that is so now, so that a lost one does no harm.

    :param reactor: the reactor of the node.
    :param notify_socket: where the service manager listens.
    :param watchdog_seconds: how long the service manager waits for a sign of life; ``None`` if it wants none.
    """

    log = Logger()

    def __init__(self, reactor: Any, notify_socket: NotifySocket, watchdog_seconds: float | None = None) -> None:
        self._clock = monotonic_clock(reactor)
        self._socket = notify_socket
        self._tick_seconds = None if watchdog_seconds is None else watchdog_seconds / TICKS
        self._running: RunningNode | None = None
        self._is_ready = False
        self._said = ""
        self._timer: IDelayedCall | None = None
        self._has_failed = False

    @classmethod
    def of(cls, reactor: Any, environment: Mapping[str, str]) -> ServiceManager | None:
        """The service manager that ``environment`` tells of; ``None`` if it tells of none.

        :raises ConfigError: one line, if what it tells cannot be.
        """
        address = environment.get("NOTIFY_SOCKET")
        return None if not address else cls(reactor, NotifySocket(address), watchdog_seconds_of(environment))

    def watch(self, running: RunningNode) -> None:
        """Tell of this node from now on."""
        self._running = running
        running.node.watch_leader(self._changed)
        running.ready().addCallbacks(self._serves, lambda _: None)
        self._changed()

    def stopping(self) -> None:
        """Say that the node stops. Nothing is said after that."""
        running, self._running = self._running, None
        if running is None:
            return
        self._cancel_timer()
        self._socket.send("STOPPING=1", f"STATUS=node {running.node.name} stops")
        self._socket.close()

    def _serves(self, _: object) -> None:
        self._is_ready = True
        self._changed()

    def _changed(self) -> None:
        """Say how the node is, if that has changed."""
        if self._running is not None and self._line(self._running.node) != self._said:
            self._cancel_timer()
            self._tick()

    def _tick(self) -> None:
        """Say how the node is, and that it is alive, unless its disk hangs."""
        self._timer = None
        if self._running is None:
            return
        node = self._running.node
        said = self._line(node)
        lines = [*(["READY=1"] if self._is_ready else []), f"STATUS={said}"]
        if self._tick_seconds is not None and not node.disk_hangs:
            lines.append("WATCHDOG=1")
        has_failed, self._has_failed = self._has_failed, not self._socket.send(*lines)
        self._said = "" if self._has_failed else said
        if self._has_failed and not has_failed:
            self.log.warn(
                "the service manager does not take what node {node} says; it is said again",
                node=node.name,
                event="service_manager_deaf",
            )
        delay = RETRY_SECONDS if self._has_failed else self._tick_seconds
        if delay is not None:
            self._timer = self._clock.callLater(delay, self._tick)

    def _line(self, node: Node) -> str:
        """How ``node`` is, in words. It is another line once the node serves."""
        if node.disk_hangs:
            how = "its disk hangs, so it neither leads nor votes"
        elif node.is_folder_lost:
            how = "it has lost its data folder: replace it"
        elif node.is_catching_up:
            how = "it fetches what the others have"
        elif node.leader is None:
            how = "no leader is known, so commands wait"
        else:
            how = "it leads" if node.leader == node.name else f"it follows {node.leader}"
        return f"node {node.name} {'serves' if self._is_ready else 'starts'}: {how}"

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def watchdog_seconds_of(environment: Mapping[str, str]) -> float | None:
    """How long the service manager waits for a sign of life of this very process; ``None`` if it wants none.

    :raises ConfigError: one line, if that is no time.
    """
    microseconds, process = environment.get("WATCHDOG_USEC"), environment.get("WATCHDOG_PID")
    if not microseconds or process not in (None, "", str(os.getpid())):
        return None
    with contextlib.suppress(ValueError):
        if (seconds := int(microseconds) / MICROSECONDS) > 0:
            return seconds
    raise ConfigError(f"WATCHDOG_USEC {microseconds!a}: must be a number of microseconds")
