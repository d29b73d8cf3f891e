"""What you subclass: the hooks of your service, and what it may ask of the node that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol

from txpaxos.application import Application
from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import NodeStopped
from txpaxos.node.node import Node
from txpaxos.node.status import NodeStatus
from txpaxos.reading import Consistency, Reading

T = TypeVar("T")


class replaceable_property(Generic[T]):
    """A property that an application may have an attribute in the place of, without harm to the node."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    @overload
    def __get__(self, service: None, kind: type) -> replaceable_property[T]: ...

    @overload
    def __get__(self, service: object, kind: type) -> T: ...

    def __get__(self, service: object | None, kind: type) -> replaceable_property[T] | T:
        return self if service is None else self._read(service)


class PaxosProtocol(Application, DatagramProtocol):
    """A replicated service. Subclass it, and write the hooks (:class:`~txpaxos.application.Application`).

    .. code-block:: python

        class Counter(PaxosProtocol):
            total = 0

            def apply(self, slot, command):
                self.total += int(command)
                return self.total

    A subclass is a class like any other: it is made without a node, its ``__init__`` needs no ``super``, and
    ``Counter().apply(1, b"+5")`` is a unit test. :class:`~txpaxos.server.service.PaxosService` runs it on a node. Every
    name that is not documented here is yours, but for one: ``_node``.
    """

    _node: Node | None = None

    def submit(self, command: bytes, deadline_seconds: float | None = None) -> Deferred[Any]:
        """Have ``command`` applied, on any node.

        :param deadline_seconds: how long that may take, counted from the call; without end unless given.
        :returns: fires with what ``apply`` returned on this node; fails with :class:`~txpaxos.errors.CommandFailed`,
            :class:`~txpaxos.errors.ValueTooLarge`, :class:`~txpaxos.errors.Overloaded`, or, when this node stops
            first or there is none, :class:`~txpaxos.errors.NodeStopped`; when the deadline is over, with
            :class:`~txpaxos.errors.OutcomeUnknown`.
        :raises TypeError: if ``command`` is no bytes.
        """
        return fail(_no_node(self)) if self._node is None else self._node.submit(command, deadline_seconds)

    def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> Deferred[bytes | None]:
        """Have ``subject`` decided, once and for ever, on ``value`` unless another value was first; ``None`` only
        reads.

        :param deadline_seconds: how long that may take, counted from the call; without end unless given.
        :returns: fires with the decided value, or with ``None`` if nothing was proposed yet; waits as long as no
            quorum answers (cancel it to stop asking). Fails with :class:`~txpaxos.errors.ValueTooLarge` or
            :class:`~txpaxos.errors.NodeStopped`; when the deadline is over, with
            :class:`~txpaxos.errors.OutcomeUnknown` if there was a value to propose, else with
            :class:`~txpaxos.errors.NoQuorum`.
        :raises TypeError: if ``subject`` is no str, or ``value`` neither bytes nor ``None``.
        """
        return fail(_no_node(self)) if self._node is None else self._node.ask(subject, value, deadline_seconds)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Deferred[Reading]:
        """Have ``query`` answered by this node's application, through its ``query`` hook.

        :param consistency: see :data:`~txpaxos.reading.Consistency`.
        :param deadline_seconds: how long that may take, counted from the call; without end unless given.
        :returns: fails with :class:`~txpaxos.errors.QueryFailed`, :class:`~txpaxos.errors.ValueTooLarge`,
            :class:`~txpaxos.errors.Overloaded` or :class:`~txpaxos.errors.NodeStopped`; when the deadline is over,
            with :class:`~txpaxos.errors.NoQuorum`. Without one it waits as long as no quorum answers (cancel it to
            stop that).
        :raises TypeError: if ``query`` is no bytes.
        :raises ValueError: if there is no such consistency.
        """
        return fail(_no_node(self)) if self._node is None else self._node.read(query, consistency, deadline_seconds)

    def status(self) -> NodeStatus:
        """A frozen copy of what is worth knowing of the node.

        :raises NodeStopped: if this service runs on no node.
        """
        return _node_of(self).status()

    @replaceable_property
    def leader(self) -> NodeId | None:
        """The node that leads, as far as this one knows."""
        return None if self._node is None else self._node.leader

    @replaceable_property
    def applied_through(self) -> Slot:
        """The last slot that this node has applied, with all before it; 0 if it has applied none."""
        return 0 if self._node is None else self._node.applied_through

    @replaceable_property
    def clock(self) -> IReactorTime:
        """Timers that keep the node's own time, which is monotonic, and simulated in a simulation: ``callLater``.

        :raises NodeStopped: if this service runs on no node.
        """
        return _node_of(self).clock

    def watch_leader(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever :attr:`leader` has changed.

        :raises NodeStopped: if this service runs on no node.
        """
        _node_of(self).watch_leader(watcher)

    def stop(self) -> Deferred[None]:
        """Take part no longer. Fires when everything that was begun is on disk, and the store is closed."""
        return succeed(None) if self._node is None else self._node.stop()

    # from Twisted

    def startProtocol(self) -> None:
        """The socket is open: the node takes part from now on.

        :raises NodeStopped: if this service runs on no node.
        """
        _node_of(self).start(self.transport)

    def stopProtocol(self) -> None:
        """The socket was closed. A node that was not stopped gives up."""
        if self._node is not None:
            self._node.port_closed()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Take one datagram."""
        if self._node is not None:
            self._node.datagram_received(datagram, addr)


def _node_of(service: PaxosProtocol) -> Node:
    """The node of a service.

    :raises NodeStopped: if it runs on none.
    """
    if service._node is None:
        raise _no_node(service)
    return service._node


def _no_node(service: PaxosProtocol) -> NodeStopped:
    name = type(service).__name__
    return NodeStopped(f"{name} runs on no node yet: give it to a PaxosService, and start that")
