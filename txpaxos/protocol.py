"""The base class of a replicated service: its hooks, and its calls to the node that it runs on."""

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
from txpaxos.node.timers import Timers
from txpaxos.reading import Consistency, Reading
from txpaxos.replicated_time import ReplicatedTime

T = TypeVar("T")


class replaceable_property(Generic[T]):
    """A read-only property that a subclass or an instance may replace by an attribute of its own.

    The node does not use it. So an application may use the name for something else.
    """

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

    A subclass is an ordinary class. It is made without a node, its ``__init__`` need not call ``super``, and
    ``Counter().apply(1, b"+5")`` is a unit test. :class:`~txpaxos.server.service.PaxosService` runs it on a node. A
    subclass may use every name that is not documented here, except ``_node``.
    """

    _node: Node | None = None

    def submit(self, command: bytes, deadline_seconds: float | None = None) -> Deferred[Any]:
        """Have ``command`` applied on all nodes. Any node may be called; it need not be the leader.

        :param deadline_seconds: how long that may take, from the call on; no limit if not given.
        :returns: fires with the value that ``apply`` returned on this node. Fails with
            :class:`~txpaxos.errors.CommandFailed` if ``apply`` raised, :class:`~txpaxos.errors.ValueTooLarge`,
            :class:`~txpaxos.errors.Overloaded`, :class:`~txpaxos.errors.NodeStopped` if this node stops first or there
            is none, or :class:`~txpaxos.errors.OutcomeUnknown` after the deadline.
        :raises TypeError: if ``command`` is not bytes.
        :raises ValueError: if ``deadline_seconds`` is not finite or not above zero.
        """
        return fail(_no_node(self)) if self._node is None else self._node.submit(command, deadline_seconds)

    def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> Deferred[bytes | None]:
        """Propose ``value`` for ``subject``, which is decided once, and get the decided value.

        :param value: the value to propose; ``None`` to read the decided value without proposing one.
        :param deadline_seconds: how long that may take, from the call on; no limit if not given.
        :returns: fires with the decided value, or with ``None`` if no value was proposed yet. It waits while no quorum
            answers; cancel it to stop that. Fails with :class:`~txpaxos.errors.ValueTooLarge`,
            :class:`~txpaxos.errors.Overloaded`, :class:`~txpaxos.errors.NodeStopped`, or, after the deadline, with
            :class:`~txpaxos.errors.OutcomeUnknown` if a value was proposed and :class:`~txpaxos.errors.NoQuorum`
            otherwise.
        :raises TypeError: if ``subject`` is not a str, or ``value`` is neither bytes nor ``None``.
        :raises ValueError: if ``subject`` has no UTF-8, or ``deadline_seconds`` is not finite or not above zero.
        """
        return fail(_no_node(self)) if self._node is None else self._node.ask(subject, value, deadline_seconds)

    def forget(self, subject: str, deadline_seconds: float | None = None) -> Deferred[bytes | None]:
        """Make ``subject`` undecided, so that it can be decided anew, perhaps on another value.

        Callers that were told the value are not told that it is forgotten. An ``ask`` that is under way at the same
        time may decide the subject anew. Forget a subject when nothing acts on it any more.

        :param deadline_seconds: how long that may take, from the call on; no limit if not given.
        :returns: fires with the value that is forgotten, or with ``None`` if nothing was decided. Fails with
            :class:`~txpaxos.errors.ValueTooLarge`, :class:`~txpaxos.errors.Overloaded`,
            :class:`~txpaxos.errors.SessionExpired`, :class:`~txpaxos.errors.NodeStopped`, or, after the deadline, with
            :class:`~txpaxos.errors.OutcomeUnknown`.
        :raises TypeError: if ``subject`` is not a str.
        :raises ValueError: if ``subject`` has no UTF-8, or ``deadline_seconds`` is not finite or not above zero.
        """
        return fail(_no_node(self)) if self._node is None else self._node.forget(subject, deadline_seconds)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Deferred[Reading]:
        """Have ``query`` answered by this node's application, through its ``query`` hook.

        :param consistency: how fresh the answer must be, see :data:`~txpaxos.reading.Consistency`.
        :param deadline_seconds: how long that may take, from the call on; no limit if not given.
        :returns: fires with a :class:`~txpaxos.reading.Reading`. It waits while no quorum answers; cancel it to stop
            that. Fails with :class:`~txpaxos.errors.QueryFailed` if ``query`` raised,
            :class:`~txpaxos.errors.ValueTooLarge`, :class:`~txpaxos.errors.Overloaded`,
            :class:`~txpaxos.errors.NodeStopped`, or :class:`~txpaxos.errors.NoQuorum` after the deadline.
        :raises TypeError: if ``query`` is not bytes.
        :raises ValueError: if there is no such consistency, or ``deadline_seconds`` is not finite or not above zero.
        """
        return fail(_no_node(self)) if self._node is None else self._node.read(query, consistency, deadline_seconds)

    def status(self) -> NodeStatus:
        """The current status of the node. It does not change afterwards.

        :raises NodeStopped: if this service runs on no node.
        """
        return _node_of(self).status()

    @replaceable_property
    def leader(self) -> NodeId | None:
        """The leader, as far as this node knows; ``None`` if it knows none, or if there is no node."""
        return None if self._node is None else self._node.leader

    @replaceable_property
    def applied_through(self) -> Slot:
        """The last slot that this node has applied; 0 if it has applied none, or if there is no node."""
        return 0 if self._node is None else self._node.applied_through

    @replaceable_property
    def clock(self) -> IReactorTime:
        """Timers (``callLater``) in the node's time, which is monotonic, and simulated in a simulation.

        :raises NodeStopped: if this service runs on no node.
        """
        return _node_of(self).clock

    @replaceable_property
    def now(self) -> ReplicatedTime:
        """The replicated time: in ``apply`` and ``timer_fired`` that of the slot, in ``query`` and ``snapshot`` that of
        the last slot that was applied."""
        return _timers_of(self).now

    @replaceable_property
    def timers(self) -> Timers:
        """Timers in the replicated state: ``self.timers.set("close", after_seconds=30)`` and ``self.timers.cancel``,
        within ``apply`` and ``timer_fired``. The hook ``timer_fired`` is called when one is due.

        Without a node, as in a unit test, they are this object's own, and the test has them fire:
        ``self.timers.advance(ReplicatedTime(elapsed_ms=30_000))``.
        """
        return _timers_of(self)

    def watch_leader(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever :attr:`leader` has changed.

        :raises NodeStopped: if this service runs on no node.
        """
        _node_of(self).watch_leader(watcher)

    def hand_over(self, to: NodeId | None = None) -> Deferred[NodeId]:
        """Hand over the lead to another node. Commands wait meanwhile, and none of them fails.

        :param to: the node that is to lead; by default the one that has learned most of the log.
        :returns: fires with the new leader when that node leads and has had an entry of its own chosen; at once if
            ``to`` leads already. Fails with :class:`~txpaxos.errors.NotHandedOver` if this node does not lead, if
            ``to`` cannot take over, or if it did not in time: after the longest liveness window, by default half a
            second.
        :raises TypeError: if ``to`` is neither a str nor ``None``.
        """
        return fail(_no_node(self)) if self._node is None else self._node.hand_over(to)

    def stop(self) -> Deferred[None]:
        """Stop the node, if there is one. A leader hands over first. Both together take a few seconds at most.

        :returns: fires when all saves under way have finished and the store is closed.
        """
        node = self._node
        return succeed(None) if node is None else node.leave().addCallback(lambda _: node.stop())

    # from Twisted

    def startProtocol(self) -> None:
        """Start the node, whose socket is open.

        :raises NodeStopped: if this service runs on no node.
        """
        _node_of(self).start(self.transport)

    def stopProtocol(self) -> None:
        """Note that the socket was closed. A node that was not stopped gives up."""
        if self._node is not None:
            self._node.port_closed()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Handle one datagram."""
        if self._node is not None:
            self._node.datagram_received(datagram, addr)


def _timers_of(service: PaxosProtocol) -> Timers:
    """The timers of the node, or those of a service that runs on none. These stand under a key that is no name in
    Python, since every name is the service's."""
    if service._node is not None:
        return service._node.timers
    own: Timers | None = vars(service).get("timers without a node")
    if own is None:
        own = vars(service)["timers without a node"] = Timers()
        own.allow_changes(True)
    return own


def _node_of(service: PaxosProtocol) -> Node:
    """The node that a service runs on.

    :raises NodeStopped: if it runs on none.
    """
    if service._node is None:
        raise _no_node(service)
    return service._node


def _no_node(service: PaxosProtocol) -> NodeStopped:
    name = type(service).__name__
    return NodeStopped(f"{name} runs on no node yet: give it to a PaxosService, and start that")
