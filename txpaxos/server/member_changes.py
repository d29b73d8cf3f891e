"""Changes of members that clients ask for.

Only the leader changes members. A node that does not lead keeps a request until it does: its client, which was told who
leads, goes there and asks again. So a client needs no answer that says "ask another node", and a request outlives a
change of the leader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, assert_never

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txpaxos.cluster import Address, check_host
from txpaxos.errors import MembersRefused, NotTheLeader, OutcomeUnknown
from txpaxos.node.node import Node
from txpaxos.wire.client_messages import ChangeMembers
from txpaxos.wire.members import (
    PRIORITY_MAX,
    MembersRequest,
    MoveMember,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    SetPriority,
)

PROGRESS_SECONDS = 0.2
"""Time after which a client that waits is told again how far its change has come. So the client sees that the leader
is at work, and does not go to another node."""

Tell: TypeAlias = Callable[[str], None]
"""A function that tells a client, in one line, how far its change has come."""


class Changer(Protocol):
    """The node, as far as changes of members are concerned."""

    @property
    def is_leader(self) -> bool:
        """Whether the node leads."""

    def change(self, request: ChangeMembers, tell: Tell) -> Deferred[str]:
        """Change the members.

        :param tell: to be called when there is progress.
        :returns: fires with one line when the change is complete. It fails with
            :class:`~txpaxos.errors.MembersRefused`, and with :class:`LeadLost` if another node leads now.
        """


class LeadLost(Exception):
    """The node lost the lead before a change was complete. The next leader goes on with it when it is asked."""


class NodeChanger:
    """Changes the members through the node at hand. A leader that is to leave hands over first, and the next leader is
    asked to remove it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._under_way: list[Tell] = []
        node.members.watch(self._members_changed)

    @property
    def is_leader(self) -> bool:
        """Whether the node leads."""
        return self._node.leader == self._node.name

    def change(self, request: ChangeMembers, tell: Tell) -> Deferred[str]:
        """Change the members. See :meth:`Changer.change`."""
        return Deferred.fromCoroutine(self._change(request, tell))

    async def _change(self, request: ChangeMembers, tell: Tell) -> str:
        wanted = request_of(request)
        tell("asked for; a change waits for the one before it, and for a moment until its voters are level")
        self._under_way.append(tell)
        try:
            slot, entry = await self._node.change_members(wanted)
        except (NotTheLeader, OutcomeUnknown):
            raise LeadLost from None
        finally:
            self._under_way.remove(tell)
        return f"{result_of(request)}; the voters are {', '.join(entry.voters)}, since slot {slot}"

    def _members_changed(self) -> None:
        slot = self._node.members.slot
        for tell in list(self._under_way):
            tell(f"chosen at slot {slot}; waits until a majority of the voters has all of the log before it on disk")


def request_of(change: ChangeMembers) -> MembersRequest:
    """What the node is asked for.

    :raises MembersRefused: if an address is none, or the priority is too high.
    """
    match change.action:
        case "promote":
            return PromoteMember(change.node)
        case "remove":
            return RemoveMember(change.node)
        case "replace":
            return ReplaceMember(change.node, change.other)
        case "move":
            for text in (change.address, change.client):
                try:
                    check_host(Address.parse(text).host, listens=False)
                except ValueError as error:
                    raise MembersRefused(f"{text!a} is no address: {error}") from None
            return MoveMember(change.node, change.address, change.client)
        case "priority":
            if change.priority > PRIORITY_MAX:
                raise MembersRefused(f"a priority is at most {PRIORITY_MAX}")
            return SetPriority(change.node, change.priority)
    assert_never(change.action)


def result_of(change: ChangeMembers) -> str:
    """What has become of ``change``, in a few words."""
    match change.action:
        case "promote":
            return f"{change.node} is a voter"
        case "remove":
            return f"{change.node} is no member any more, and may be switched off"
        case "replace":
            return f"{change.other} is a voter in place of {change.node}, which may be switched off"
        case "move":
            return f"{change.node} is at {change.address}, for clients at {change.client}"
        case "priority":
            return f"{change.node} has priority {change.priority}"
    assert_never(change.action)


@attrs.frozen
class ChangeDone:
    """A change of members is complete.

    :ivar line: what has become of it.
    """

    line: str


@attrs.define(eq=False)
class _Change:
    """A change that clients have asked for, one or more.

    :ivar request: the change.
    :ivar waiting: the answers that clients wait for, each with what tells the client of progress.
    :ivar line: the last line of progress.
    :ivar is_running: whether the node is at work on it.
    """

    request: ChangeMembers
    waiting: dict[Deferred[ChangeDone], Tell] = attrs.field(factory=dict)
    line: str = ""
    is_running: bool = False

    def tell(self, line: str) -> None:
        """There is progress, or it is time to say so again."""
        self.line = line
        for tell in list(self.waiting.values()):
            tell(line)


class MemberChanges:
    """The changes of members that the clients of one node have asked for.

    A client that has lost its connection asks again. The same request then joins the change that is under way.

    :param clock: counts the time between two lines of progress.
    :param changer: makes the changes.
    """

    def __init__(self, clock: IReactorTime, changer: Changer) -> None:
        self._clock = clock
        self._changer = changer
        self._changes: dict[ChangeMembers, _Change] = {}
        self._repeating: IDelayedCall | None = None

    def request(self, request: ChangeMembers, tell: Tell) -> Deferred[ChangeDone]:
        """A client asks for a change.

        :param tell: tells the client how far its change has come.
        :returns: fires when the change is complete, or fails. Cancelling it ends the wait, and not the change.
        """
        key = attrs.evolve(request, request=0)
        change = self._changes.setdefault(key, _Change(key))
        answer: Deferred[ChangeDone] = Deferred(lambda answer: self._leave(change, answer))
        change.waiting[answer] = tell
        self._begin(change)
        if self._repeating is None and change.waiting:
            self._repeating = self._clock.callLater(PROGRESS_SECONDS, self._repeat)
        return answer

    def leader_changed(self) -> None:
        """The node may lead now: begin with what waits."""
        for change in list(self._changes.values()):
            self._begin(change)

    def stop(self) -> None:
        """Tell no client any more."""
        self._changes.clear()
        if self._repeating is not None:
            self._repeating.cancel()
            self._repeating = None

    def _begin(self, change: _Change) -> None:
        if not change.is_running and self._changer.is_leader:
            change.is_running = True
            self._changer.change(change.request, change.tell).addBoth(self._ended, change)

    def _ended(self, result: str | Failure, change: _Change) -> None:
        """The node has ended its work on a change. If it has lost the lead, the change waits until the node leads
        again, or its clients are gone."""
        change.is_running = False
        if isinstance(result, Failure) and result.check(LeadLost) and change.waiting:
            return
        self._changes.pop(change.request, None)
        waiting, change.waiting = change.waiting, {}
        for answer in waiting:
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(ChangeDone(result))

    def _leave(self, change: _Change, answer: Deferred[ChangeDone]) -> None:
        """A client is gone."""
        change.waiting.pop(answer, None)
        if not change.waiting and not change.is_running:
            self._changes.pop(change.request, None)

    def _repeat(self) -> None:
        self._repeating = None
        for change in list(self._changes.values()):
            self._begin(change)
            if change.is_running and change.line:
                change.tell(change.line)
        if self._changes:
            self._repeating = self._clock.callLater(PROGRESS_SECONDS, self._repeat)
