"""Changes of members, one at a time: checked and proposed by the leader, and waited for until they are complete.

A change is complete when a majority of the new voters has on disk all that was chosen before they began to govern. Only
then are members that left not needed any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from math import inf
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import MembersRefused, NodeStopped, NotTheLeader, OutcomeUnknown, PaxosError
from txpaxos.node.changed_members import changed_members
from txpaxos.node.members import ChosenMembers, Members
from txpaxos.wire.members import MembersEntry, MembersRequest, PromoteMember, encode_members

WAITING_MAX = 16
"""The most changes that wait for their turn."""

PROMOTE_SECONDS = 1.0
"""How long a joining member waits that could not be made a voter, until that is tried again."""

LEVEL_SECONDS = 1.0
"""How long a change waits for members that it needs and that are not level yet, before it is refused."""


class Log(Protocol):
    """The log of the node, as far as this module needs it."""

    @property
    def is_leader(self) -> bool:
        """Whether this node leads."""

    @property
    def may_change_members(self) -> bool:
        """Whether a change may be proposed now."""

    def level_nodes(self, now: float) -> Collection[NodeId]:
        """The nodes that the leader hears, and that have learned what was chosen a moment ago, itself included."""


@attrs.define(eq=False)
class _Change:
    """A change under way.

    :ivar entry: the entry that was asked for.
    :ivar slot: where it was chosen; 0 before that.
    """

    entry: MembersEntry
    answer: Deferred[ChosenMembers]
    is_proposed: bool = False
    slot: Slot = 0


@attrs.frozen
class _Waiting:
    """A request that waits for its turn, and until when it waits for members that are not level."""

    request: MembersRequest
    answer: Deferred[ChosenMembers]
    patient_until: float


class _NotLevel(MembersRefused):
    """Too few of the voters to be are up and level, or one of the new ones is not."""


class MemberChanges:
    """The changes of members of one node, while it leads.

    :param members: the members.
    :param log: the log. It may change with each call.
    :param now: the clock, in monotonic seconds.
    :param wanted: called when a value waits to be proposed.
    :param incarnation_of: the incarnation of a node's folder; 0 if this node has not met it.
    :param hand_over: hands over the lead. A leader that is removed does so first, and the next leader removes it.
    :param seal: has the registers sealed, which must come before the first change; returns ``None`` if they are.
    """

    log = Logger()

    def __init__(
        self,
        members: Members,
        log: Callable[[], Log],
        now: Callable[[], float],
        wanted: Callable[[], None],
        incarnation_of: Callable[[NodeId], int],
        hand_over: Callable[[], Deferred[NodeId]],
        seal: Callable[[], Deferred[None] | None],
    ) -> None:
        self._members = members
        self._log = log
        self._now = now
        self._wanted = wanted
        self._incarnation_of = incarnation_of
        self._hand_over = hand_over
        self._seal = seal
        self._is_sealing = False
        self._change: _Change | None = None
        self._waiting: deque[_Waiting] = deque()
        self._completed_slot: Slot = 0
        self._promote_at = -inf  # When joining members are looked at again.

    @property
    def is_under_way(self) -> bool:
        """Whether a change waits for its end."""
        return self._change is not None

    @property
    def is_complete(self) -> bool:
        """Whether the newest change is complete, as far as this node knows: it leads then."""
        return bool(self._members.slot) and self._members.slot == self._completed_slot

    def change(self, request: MembersRequest) -> Deferred[ChosenMembers]:
        """Change the members.

        :returns: fires with the new entry and its slot when the change is complete. Fails with
            :class:`~txpaxos.errors.MembersRefused` if nothing was changed, and with
            :class:`~txpaxos.errors.OutcomeUnknown` if the lead was lost on the way; to ask again is safe.
        """
        if not self._log().is_leader:
            return fail(NotTheLeader("this node does not lead: ask the leader"))
        if len(self._waiting) >= WAITING_MAX:
            return fail(MembersRefused(f"{WAITING_MAX} changes of members wait already: wait for their end"))
        try:
            changed_members(self._members.entry, self._members.slot, request)
        except MembersRefused as error:
            return fail(error)
        answer: Deferred[ChosenMembers] = Deferred()
        self._waiting.append(_Waiting(request, answer, self._now() + LEVEL_SECONDS))
        self._begin_next()
        return answer

    def tick(self) -> None:
        """Begin the next change, if there is one and it is its turn: a request, or a joining member that has caught up
        and is to be made a voter."""
        if not self._is_free:
            return
        self._begin_next()
        if self._change is not None or self._waiting or self._now() < self._promote_at:
            return
        log = self._log()
        joining = [node for node, one in self._members.entry.members.items() if one.role == "joining"]
        level = log.level_nodes(self._now()) if joining else ()
        for node in joining:
            if node in level:
                self.log.info("{node} has caught up, and is made a voter", node=node, event="voter_promoted")
                self.change(PromoteMember(node)).addErrback(self._log_refusal, node)
                return

    @property
    def _is_free(self) -> bool:
        """Whether a change can begin: this node leads, the last one is complete, and none waits for the registers."""
        if self._change is not None or self._is_sealing:
            return False
        return self._members.slot in (0, self._completed_slot) and self._log().may_change_members

    def _begin_next(self) -> None:
        """Begin the change that waits longest, if it is its turn. One that cannot be made now is refused."""
        while self._waiting and self._is_free:
            waiting = self._waiting[0]
            try:
                entry = self._checked(waiting.request)
            except MembersRefused as error:
                if isinstance(error, _NotLevel) and self._now() < waiting.patient_until:
                    return  # The leader may be new, or a member about to be level.
                self._waiting.popleft().answer.errback(error)
                continue
            if entry is not self._members.entry and (sealed := self._seal()) is not None:
                self._is_sealing = True
                sealed.addCallbacks(self._sealed, lambda _: None)  # It fails only if this node stops.
                return
            self._waiting.popleft()
            if entry is self._members.entry:
                waiting.answer.callback((self._members.slot, entry))
                continue
            if self._is_to_lead(self._members.entry) and not self._is_to_lead(entry):
                self._hand_over().addBoth(self._lead_handed_over, waiting)
                return
            self._change = _Change(entry, waiting.answer)
            self._wanted()

    def _sealed(self, _: None) -> None:
        self._is_sealing = False
        self._begin_next()

    def _is_to_lead(self, entry: MembersEntry) -> bool:
        """Whether this node may lead, as ``entry`` says."""
        own = entry.members.get(self._members.name)
        return own is not None and own.role == "voter" and own.priority > 0

    def _lead_handed_over(self, result: NodeId | Failure, waiting: _Waiting) -> None:
        """The lead was handed over, or not, for a change after which this node may not lead."""
        answer = waiting.answer
        if isinstance(result, Failure) and self._log().is_leader and self._now() < waiting.patient_until:
            self._waiting.appendleft(waiting)  # The others may be able to take over in a moment.
        elif isinstance(result, Failure):
            reason = f"this node leads, and cannot hand over the lead first: {result.getErrorMessage()}"
            answer.errback(MembersRefused(reason))
        else:
            answer.errback(
                NotTheLeader(f"this node has handed over the lead to {result} for this change: ask {result}")
            )

    # from the node

    def next_value(self) -> bytes | None:
        """The value to propose now, ahead of commands; ``None`` if there is none."""
        change = self._change
        if change is None or change.is_proposed or not self._log().may_change_members:
            return None
        change.is_proposed = True
        return encode_members(change.entry)

    def configured(self, slot: Slot) -> None:
        """The members changed: an entry was chosen at ``slot``."""
        change = self._change
        if change is None or change.slot:
            return
        if self._members.entry == change.entry:
            change.slot = slot
        else:
            self._change = None
            error = MembersRefused("the members were changed otherwise meanwhile: look at them, and ask again")
            change.answer.errback(error)

    def completed(self, slot: Slot) -> None:
        """The change that was chosen at ``slot`` is complete."""
        self._completed_slot = slot
        change = self._change
        if change is not None and change.slot == slot:
            self._change = None
            change.answer.callback((slot, change.entry))
        self._begin_next()

    def lead_lost(self) -> None:
        """This node leads no more. The next leader completes a change that was chosen; whether it was is not known."""
        self._end(OutcomeUnknown("the leader changed on the way: look at the members, and ask again"))

    def close(self, error: NodeStopped) -> None:
        """The node stops: a caller that still waits fails with ``error``."""
        self._end(error)

    # inside

    def _checked(self, request: MembersRequest) -> MembersEntry:
        """The entry that ``request`` makes.

        :raises MembersRefused: if it cannot be made now.
        """
        entry = changed_members(self._members.entry, self._members.slot, request)
        if entry is self._members.entry:
            return entry
        self._check_quorum(entry, self._log())
        return self._with_incarnations(entry)

    def _with_incarnations(self, entry: MembersEntry) -> MembersEntry:
        """``entry`` with the incarnations of the founders that vote and are level, so that from then on no other folder
        can vote in their names. Of founders that are down it is not known whether the folder that this node has met is
        the one that votes."""
        level = self._log().level_nodes(self._now())
        members = {
            node: attrs.evolve(one, incarnation=self._incarnation_of(node))
            if one.role == "voter" and not one.incarnation and node in level
            else one
            for node, one in entry.members.items()
        }
        return attrs.evolve(entry, members=members)

    def _check_quorum(self, entry: MembersEntry, log: Log) -> None:
        """Check that a majority of the voters of ``entry`` is up and has caught up, the new ones among them."""
        before, level = self._members.entry.voters, log.level_nodes(self._now())
        if set(entry.voters) == set(before):
            return
        behind = [voter for voter in entry.voters if voter not in level]
        if fresh := [voter for voter in behind if voter not in before]:
            raise _NotLevel(f"{', '.join(fresh)} has not caught up yet, or is not heard: wait until it has")
        if not entry.configuration(self._members.slot).is_majority(level):
            raise _NotLevel(
                f"of the voters {', '.join(entry.voters)} no majority would be up and level, without"
                f" {', '.join(behind)}: start these first, or remove them first"
            )

    def _end(self, error: PaxosError) -> None:
        change, self._change = self._change, None
        waiting = [one.answer for one in self._waiting]
        self._waiting.clear()
        for answer in waiting if change is None else [change.answer, *waiting]:
            answer.errback(error)

    def _log_refusal(self, failure: object, node: NodeId) -> None:
        self._promote_at = self._now() + PROMOTE_SECONDS
        self.log.info(
            "{node} is no voter yet: {reason}",
            node=node,
            reason=str(getattr(failure, "value", failure)),
            event="voter_not_yet",
        )
