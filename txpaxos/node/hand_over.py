"""Handing over the lead: for a caller that names a node, and before this node stops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Protocol

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.logger import Logger

from txpaxos.clock import MonotonicClock
from txpaxos.core.messages import NodeId
from txpaxos.core.ready import HandOverEnded
from txpaxos.errors import NotHandedOver, PaxosError
from txpaxos.log_lines import printable

HAND_OVER_SECONDS = 1.0
"""The longest time that a leader which is about to stop tries to hand over."""

ANSWER_SECONDS = 1.0
"""The longest time that a node which is about to stop waits for the outcomes of its callers' commands."""

CHECK_SECONDS = 0.005
"""The time between two looks for commands without an outcome."""


class HandOverOwner(Protocol):
    """What a hand-over needs of its node."""

    @property
    def leader(self) -> NodeId | None:
        """The leader, as far as the node knows."""

    def begin_hand_over(self, to: NodeId | None) -> str:
        """Begin to hand over; ``None`` for the best target. Returns why that cannot be, or nothing."""

    def say_leaving(self) -> None:
        """Tell the leader that the node is about to stop, and do not campaign any more."""


class HandOverCalls:
    """The hand-overs of one node.

    :param name: this node's id.
    :param members: returns the ids of all nodes.
    :param waiting: returns how many commands of this node's callers have no outcome.
    :ivar is_leaving: whether this node is about to stop.
    """

    log = Logger()

    def __init__(
        self,
        name: NodeId,
        members: Callable[[], Collection[NodeId]],
        clock: MonotonicClock,
        owner: HandOverOwner,
        waiting: Callable[[], int],
    ) -> None:
        self.is_leaving = False
        self._name = name
        self._members = members
        self._clock = clock
        self._owner = owner
        self._waiting = waiting
        self._target: NodeId | None = None
        # The Deferreds of those who wait for the end of the hand-over under way.
        self._callers: list[Deferred[NodeId]] = []
        self._departure: Deferred[None] | None = None
        self._is_closed = False

    def hand_over(self, to: NodeId | None) -> Deferred[NodeId]:
        """See :meth:`PaxosProtocol.hand_over <txpaxos.protocol.PaxosProtocol.hand_over>`."""
        leader = self._owner.leader
        if self._is_closed:
            return fail(NotHandedOver(f"node {self._name} has stopped"))
        if to is not None and to not in self._members():
            return fail(NotHandedOver(f"{printable(to)} is no node of this cluster"))
        if to is not None and to == leader:
            return succeed(to)
        if leader != self._name:
            hint = "and knows no leader" if leader is None else f"but {leader}"
            return fail(NotHandedOver(f"{self._name} does not lead, {hint}"))
        if not self._callers or to not in (None, self._target):
            refusal = self._owner.begin_hand_over(to)
            if refusal:
                return fail(NotHandedOver(refusal))
        caller: Deferred[NodeId] = Deferred(self._cancelled)
        self._callers.append(caller)
        return caller

    def begun(self, target: NodeId) -> None:
        """The hand-over to ``target`` has begun."""
        self._target = target
        self.log.info(
            "node {node} hands over the lead to {target}", node=self._name, target=target, event="hand_over_begun"
        )

    def ended(self, ended: HandOverEnded) -> None:
        """The hand-over has ended: tell those who wait for that."""
        if ended.reason:
            line = "node {node} has not handed over the lead to {target}: {reason}"
            self.log.warn(line, node=self._name, target=ended.target, reason=ended.reason, event="hand_over_failed")
        else:
            self.log.info(
                "node {node} has handed over the lead to {target}",
                node=self._name,
                target=ended.target,
                event="hand_over_done",
            )
        self._tell(None if not ended.reason else NotHandedOver(ended.reason), ended.target)

    def leave(self) -> Deferred[None]:
        """Prepare to stop: hand over the lead, if this node leads, and wait for the outcomes of its callers' commands.
        A node that is alone stops at once.

        :returns: fires when that is done, after ``HAND_OVER_SECONDS`` and ``ANSWER_SECONDS`` at the latest.
        """
        if self._is_closed or len(self._members()) == 1:
            return succeed(None)
        if self._departure is None:
            self.is_leaving = True
            self._owner.say_leaving()
            self._departure = Deferred.fromCoroutine(self._leave())
        done: Deferred[None] = Deferred()

        def fire(result: object) -> object:
            done.callback(None)
            return result

        self._departure.addBoth(fire)
        return done

    async def _leave(self) -> None:
        deadline = self._clock.seconds() + HAND_OVER_SECONDS
        while self._owner.leader == self._name and (seconds := deadline - self._clock.seconds()) > 0:
            attempt = self.hand_over(None)
            was_refused = attempt.called
            with contextlib.suppress(PaxosError, TimeoutError):
                await attempt.addTimeout(seconds, self._clock)
            if was_refused:
                break  # No node can take over.
        deadline = self._clock.seconds() + ANSWER_SECONDS
        while self._waiting() and self._clock.seconds() < deadline and not self._is_closed:
            pause: Deferred[None] = Deferred()
            self._clock.callLater(CHECK_SECONDS, pause.callback, None)
            await pause

    def close(self, error: PaxosError) -> None:
        """The node stops: nothing is handed over any more."""
        self._is_closed = True
        self._tell(error)

    def _tell(self, error: PaxosError | None, target: NodeId = "") -> None:
        callers, self._callers = self._callers, []
        for caller in callers:
            if error is None:
                caller.callback(target)
            else:
                caller.errback(error)

    def _cancelled(self, caller: Deferred[NodeId]) -> None:
        self._callers.remove(caller)
