"""One node with its store and its disk, in a cluster whose other nodes continue without it.

Of the other nodes only the messages exist that they may send, all of them at any time. They have chosen a value at
every slot in the ballot :data:`LATER`, and do not need this node's vote. Before that another value was proposed in the
ballot :data:`EARLIER`, and not chosen. So this node may have voted for that value, and must never take its vote for the
chosen value.

A state is a running node, or a platter from which the node may start, and beside it the node's :class:`Past`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias, cast

import attrs

from txpaxos.core.messages import (
    LOWEST,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Heartbeat,
    Message,
    NodeId,
    PrepareLog,
    PromiseLog,
    Slot,
    Vote,
)
from txpaxos.testing.model.disk import ModelViolation, require
from txpaxos.testing.model.formatting import show
from txpaxos.testing.model.node import ModelEvent
from txpaxos.testing.model.states import States
from txpaxos.testing.model.stored import EMPTY, FOLDER, StoredNode
from txpaxos.testing.model.stored_model import Act, FaultBudget, Known, Moved, Spent, StoredModel

NODE, MEMBERS = "c", ("a", "b", "c")
EARLIER, LATER, HIGHEST = Ballot(1, "a"), Ballot(2, "b"), Ballot(3, "a")
STALE, CHOSEN = b"stale", b"chosen"

Step: TypeAlias = tuple[int, tuple[ModelEvent, ...], str]
"""The state afterwards, the events, and the violation, which may be empty."""


@attrs.frozen
class DiskBounds:
    """The bounds that make the model finite and keep it small.

    :ivar slots: how many slots have a chosen value.
    :ivar stale: the slots at which another value was proposed.
    :ivar segment_saves: how many saves fill a segment of the journal.
    :ivar owed_max: with a slow disk, the number of waiting saves up to which messages are taken; 0 if the disk is fast.
    :ivar promises: whether a candidate asks for a promise and is not heard again.
    :ivar dominate: see :class:`States`.
    """

    slots: Slot
    stale: tuple[Slot, ...]
    budget: FaultBudget
    segment_saves: int = 1
    owed_max: int = 0
    promises: bool = False
    dominate: bool = True


@attrs.frozen(cache_hash=True)
class Past:
    """What the node has told other nodes.

    :ivar promised: the highest ballot that it promised.
    :ivar votes: the last vote at each slot that it reported.
    :ivar excused: votes that need not be on its disk, since they were reported before its snapshots were discarded. The
        node must promise nothing about their slots.
    """

    promised: Ballot = LOWEST
    votes: tuple[Vote, ...] = ()
    excused: frozenset[Vote] = frozenset()

    def told(self, votes: Iterable[Vote], ballots: Iterable[Ballot]) -> Past:
        """This past, with these votes reported and these ballots promised."""
        last = {vote.slot: vote for vote in self.votes}
        for vote in votes:
            last[vote.slot] = max(vote, last.get(vote.slot, vote))
        return attrs.evolve(self, promised=max([self.promised, *ballots]), votes=tuple(sorted(last.values())))

    def judge_start(self, known: Known) -> None:
        """Compare it with the state of a node that has just started.

        :raises ModelViolation: if the node has forgotten something.
        """
        require(known.promised >= self.promised, "it promised", self.promised, "and starts with", known.promised)
        for vote in self.votes:
            now = known.votes.get(vote.slot)
            remembers = now is not None and now.ballot >= vote.ballot
            is_chosen = vote.slot <= known.chosen_through or vote.slot in known.chosen
            require(remembers or is_chosen or vote in self.excused, "it told of", vote, "and starts without it")

    def judge_promise(self, promise: PromiseLog) -> None:
        """Compare it with a promise.

        :raises ModelViolation: if the promise leaves out a vote.
        """
        through = promise.first_slot + len(promise.values) - 1
        told = {vote.slot: vote.ballot for vote in promise.votes}
        for vote in self.votes:
            says = vote.slot <= through or told.get(vote.slot, LOWEST) >= vote.ballot
            require(says, promise, "says nothing of", vote, "which it told of")


class DiskSpace:
    """The states of that node, and the steps between them."""

    def __init__(self, bounds: DiskBounds) -> None:
        self.bounds = bounds
        self.model = StoredModel(NODE, MEMBERS, bounds.slots, bounds.segment_saves, slow=bounds.owed_max > 0)
        self._states = States(bounds.dominate)

    # the space

    def initial(self) -> int:
        """An empty folder."""
        return self._state(False, self.model.platter(EMPTY), Past(), Spent())

    def fold(self, state: int) -> int:
        """The state itself: there is only one node."""
        return state

    def successors(self, state: int) -> Iterator[Step]:
        """The steps from ``state``."""
        holds, spent = self._states.of(state)
        runs, number, past = cast(tuple[bool, int, Past], holds)
        steps = self._from_running if runs else self._from_platter
        return steps(number, past, cast(Spent, spent))

    def _state(self, runs: bool, number: int, past: Past, spent: Spent) -> int:
        return self._states.number((runs, number, past), spent)

    # a node that does not run

    def _from_platter(self, number: int, past: Past, spent: Spent) -> Iterator[Step]:
        yield from self._start(number, past, spent)
        for harm in self.model.harms(number, spent, self.bounds.budget):
            after = attrs.evolve(past, excused=past.excused | set(past.votes)) if harm.discards else past
            yield self._state(False, harm.platter, after, harm.spent), event(harm.what), ""

    def _start(self, number: int, past: Past, spent: Spent) -> Iterator[Step]:
        started = self.model.start(number)
        here = self._state(False, number, past, spent)
        if isinstance(started, str):
            yield here, event("does not start"), "" if spent.losses else f"nothing was lost, and {started}"
            return
        for platter, call in started.left:
            yield self._state(False, platter, past, spent), event(f"starts, and loses power after {call}"), ""
        known = self.model.known(started.after)
        try:
            past.judge_start(known)
        except ModelViolation as violation:
            yield here, event("starts"), str(violation)
            return
        # What was loaded is on disk, whether it was told or not: it may as well have been.
        yield self._moved(started, past.told(known.votes.values(), (known.promised,)), spent, "starts")

    # a node that runs

    def _from_running(self, number: int, past: Past, spent: Spent) -> Iterator[Step]:
        for platter, _ in self.model.known(number).left:
            yield self._state(False, platter, past, spent), event("loses power"), ""
        for what, act, begins in self._acts(number, spent):
            moved = self.model.move(number, what, act, begins)
            if moved is not None:
                after = spent._replace(snapshots=spent.snapshots + begins)
                for platter, call in moved.left:
                    lost = event(f"{what}, and loses power after {call}")
                    yield self._state(False, platter, past, after), lost, ""
                yield self._moved(moved, past, after, what)

    def _acts(self, number: int, spent: Spent) -> Iterator[tuple[str, Act, bool]]:
        """The possible actions: the name, the function, and whether it begins a snapshot."""
        may_begin = spent.snapshots < self.bounds.budget.snapshots
        yield from self.model.acts(number, may_begin)
        node, known = self.model.running(number), self.model.known(number)
        if may_begin:
            for slot in range(known.chosen_through + 1, self.bounds.slots + 1):
                yield f"receives a snapshot at {slot}", partial(StoredNode.receive_snapshot, slot=slot), True
        if len(node.owed) + len(node.saves.given) <= self.bounds.owed_max:
            for sender, message in self._messages(known):
                yield f"takes {show(message)}", partial(StoredNode.receive, sender=sender, message=message), False

    def _messages(self, known: Known) -> Iterator[tuple[NodeId, Message]]:
        """The messages that may arrive and have an effect. A leader's proposals arrive in order or not at all."""
        slots_max = self.bounds.slots
        if self.bounds.promises and known.promised < HIGHEST:
            yield HIGHEST.node, PrepareLog(HIGHEST, slots_max + 1)
        for ballot, value, slots in (EARLIER, STALE, self.bounds.stale), (LATER, CHOSEN, range(1, slots_max + 1)):
            voted = max((vote.slot for vote in known.votes.values() if vote.ballot == ballot), default=0)
            for slot in slots:
                if known.promised <= ballot and slot > max(voted, known.chosen_through):
                    yield ballot.node, AcceptSlot(ballot, slot, value, 0)
        if known.chosen_through < slots_max:
            if known.promised <= LATER:
                yield LATER.node, Heartbeat(LATER, known.chosen_through + 1, 0)
            yield LATER.node, ChosenValues(known.chosen_through + 1, (CHOSEN,), slots_max)

    # what must hold

    def _moved(self, moved: Moved, past: Past, spent: Spent, what: str) -> Step:
        happened = event(what, sends=moved.sends, hands_out=moved.handed_out)
        if moved.wrong:
            return self.initial(), happened, moved.wrong
        messages = [message for _, message in moved.sends]
        promised = [one.ballot for one in messages if isinstance(one, PromiseLog | AcceptedSlot)]
        past = past.told(moved.voted, promised)
        known = self.model.known(moved.after)
        wrong = ""
        try:
            for slot, value in (*((one.slot, one.value) for one in moved.handed_out), *known.chosen.items()):
                require(value == CHOSEN, f"taken for chosen at slot {slot}:", value)
            for promise in (*(one for one in messages if isinstance(one, PromiseLog)), *known.promises):
                past.judge_promise(promise)
        except ModelViolation as violation:
            wrong = str(violation)
        return self._state(True, moved.after, past, spent), happened, wrong


def event(what: str, **more: Any) -> tuple[ModelEvent, ...]:
    """An event at the node."""
    return (ModelEvent(NODE, what.replace(f"{FOLDER}/", ""), **more),)
