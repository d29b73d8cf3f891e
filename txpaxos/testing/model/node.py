"""One node of the model: the shipped code, run once for each state of the node and each event.

A *local state* is the content of the node's memory, the content of its disk, and the Readys that it has yet to perform.
Each local state has a number. The core only computes, so the effect of an event in a local state is computed once and
looked up from then on. However many states the cluster has, the shipped code runs only for those of one node.

Saving. A Ready is performed as it comes: written, sent and handed out in one step. If the disk is *slow*, its save is a
step of its own. Until then the node takes more messages, and a crash loses the Ready. In both cases a crash may leave
any number of a Ready's records on disk. A crash after the save and before the messages have left needs no step: those
messages never arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import attrs

from txpaxos.core.messages import Message, NodeId, Prepare, PrepareLog
from txpaxos.core.ready import Chosen, Configured, Ready, Record
from txpaxos.testing.model.copies import clone, freeze
from txpaxos.testing.model.disk import Belief, ModelDisk, ModelViolation, require, values_at
from txpaxos.testing.model.parts import Move, Part

Sent: TypeAlias = tuple[NodeId, Message]
"""The receiver, and the message."""


@attrs.frozen(cache_hash=True)
class Owed:
    """A Ready that waits for its save, or for one before it. ``cause`` is the message that it answers."""

    ready: Ready
    cause: Message | None


@attrs.frozen
class Local:
    """A local state. ``handed_out``: how many values the application has. ``running`` is copied before each change."""

    running: Any
    disk: ModelDisk
    owed: tuple[Owed, ...]
    handed_out: int

    @property
    def running_key(self) -> object:
        """Equal for two local states exactly if their memories hold the same."""
        return freeze(self.running)


@attrs.frozen
class ModelEvent:
    """An event at a node, with its direct effects, for counterexamples.

    :ivar message: the message that the node took, and ``sender`` its sender, if the event is a message.
    :ivar gift: whether the node only sent something and did not change. ``restarts``: whether it crashed.
    """

    node: NodeId
    what: str
    sender: NodeId = ""
    message: Message | None = None
    saves: tuple[Record, ...] = ()
    sends: tuple[Sent, ...] = ()
    hands_out: tuple[Chosen, ...] = ()
    gift: bool = False
    restarts: bool = False


@attrs.frozen
class Outcome:
    """The effect of an event in a local state.

    :ivar local: the number of the local state afterwards.
    :ivar sends: the messages that leave. ``beliefs``: what must be chosen for the node's claims to be true.
    :ivar events: the events, one after another.
    :ivar violation: the rule that is broken, or nothing.
    :ivar restarted: whether there was a crash.
    """

    local: int
    sends: tuple[Sent, ...] = ()
    beliefs: frozenset[Belief] = frozenset()
    events: tuple[ModelEvent, ...] = ()
    violation: str = ""
    restarted: bool = False

    def then(self, other: Outcome) -> Outcome:
        """This outcome, followed by ``other``."""
        return attrs.evolve(
            other,
            sends=self.sends + other.sends,
            beliefs=self.beliefs | other.beliefs,
            events=self.events + other.events,
        )


class NodeModel:
    """All local states of one node that were reached, and the outcomes in each.

    :param owed_max: with a slow disk, how many Readys may wait; 0 if the disk is fast.
    :param own_at_once: whether the node takes its messages to itself at once, before any other.
    :param compact: whether disks with the same log are the same, see :meth:`ModelDisk.compacted`.
    :param like: a node that differs from this one only in its name. They share their local states.
    """

    def __init__(
        self,
        part: Part[Any],
        *,
        owed_max: int = 0,
        own_at_once: bool = False,
        compact: bool = True,
        like: NodeModel | None = None,
    ) -> None:
        self.part = part
        self.locals: list[Local] = [] if like is None else like.locals
        self._owed_max = owed_max
        self._own_at_once = own_at_once
        self._compact = compact
        self._numbers: dict[object, int] = {} if like is None else like._numbers
        self._settled: dict[int, int] = {}

    def initial(self) -> int:
        """The node as it starts for the first time."""
        return self._restarted(ModelDisk(self.part.node if self.part.starts_ballots else "", self.part.first_slot))

    # possible steps

    def receive(self, number: int, sender: NodeId, message: Message) -> list[Outcome]:
        """A message arrives. Without effect while the maximum of Readys waits."""
        event = ModelEvent(self.part.node, "takes", sender, message)
        return self._happen(number, event, lambda running: self.part.receive(running, sender, message))

    def spontaneous(self, number: int) -> list[Outcome]:
        """All steps without a message: a move, the end of a save, a crash with a restart."""
        local = self.locals[number]
        moves: Iterable[Move[Any]] = self.part.moves(clone(local.running))
        outcomes = []
        for move in moves:
            act = partial(_begin, local, move.act) if move.begins else move.act
            outcomes += self._happen(number, ModelEvent(self.part.node, move.name), act)
        if local.owed:
            outcomes += self._guard(
                ModelEvent(self.part.node, "has saved"), lambda event: self._finish_save(local, event)
            )
        outcomes.append(self._restart(local.disk))
        return [outcome for outcome in outcomes if outcome.local != number or outcome.sends]

    def is_deaf(self, number: int, sender: NodeId, message: Message) -> bool:
        """Whether a message changes nothing but counts in memory, and nothing on disk."""
        before = self.locals[self.settled(number)]
        for outcome in self.receive(number, sender, message):
            if outcome.violation:
                return False
            after = self.locals[self.settled(outcome.local)]
            if not outcome.restarted and (after.running_key, after.disk) != (before.running_key, before.disk):
                return False
        return True

    def settled(self, number: int) -> int:
        """The same local state without counts below a quorum."""
        if number not in self._settled:
            local = self.locals[number]
            running = clone(local.running)
            self.part.forget_counts(running)
            self._settled[number] = self._number(attrs.evolve(local, running=running))
        return self._settled[number]

    # effects of a step

    def _happen(self, number: int, event: ModelEvent, act: Callable[[Any], Ready]) -> list[Outcome]:
        local = self.locals[number]
        if self._owed_max and len(local.owed) >= self._owed_max:
            return []

        def happen(event: ModelEvent) -> Iterator[Outcome]:
            running = clone(local.running)
            ready = act(running)
            self.part.settle(running)
            after = attrs.evolve(local, running=running)
            owed = Owed(attrs.evolve(ready, leadership=(), wake_at=None), event.message)
            overtakes = ready.may_bypass(before.ready for before in local.owed)
            if self._owed_max and (local.owed or ready.save) and not overtakes:
                yield self._put_off(local, after, owed, event)
            else:
                yield from self._crash_within(after.disk, owed.ready.save)
                yield self._perform(local, after, owed, event)

        outcomes = self._guard(event, happen)
        if not self._own_at_once:
            return outcomes
        return [complete for outcome in outcomes for complete in self._take_own(outcome)]

    def _guard(self, event: ModelEvent, happen: Callable[[ModelEvent], Iterable[Outcome]]) -> list[Outcome]:
        """The outcome of a step. An exception is a violation."""
        try:
            return list(happen(event))
        except ModelViolation as violation:
            wrong = str(violation)
        except Exception as error:
            wrong = f"the core raised {error!r}"
        return [Outcome(-1, events=(event,), violation=wrong)]

    def _perform(self, before: Local, after: Local, owed: Owed, event: ModelEvent) -> Outcome:
        """Write, then send and hand out."""
        disk, beliefs = _write(after.disk, owed.ready.save)
        chosen: tuple[Any, ...] = tuple(item for item in owed.ready.chosen if not isinstance(item, Configured))
        for slot, item in enumerate(chosen, self.part.first_slot + after.handed_out):
            require(isinstance(item, Chosen) and item.slot == slot, item, "is handed out in the place of slot", slot)
            beliefs.add((item.slot, item.value))
        for envelope in owed.ready.send:
            beliefs |= disk.vouch_for(self.part.node, envelope.message, owed.cause)
        if owed.ready.save and self._compact:
            disk = disk.compacted()
        after = attrs.evolve(after, disk=disk, handed_out=after.handed_out + len(chosen))
        self._require_remembered(after)
        known = self.part.known(after.running)
        if known != self.part.known(before.running):
            beliefs |= values_at(self.part.first_slot, known)
        sends = tuple((to, self.part.plain(envelope.message)) for envelope in owed.ready.send for to in envelope.to)
        event = attrs.evolve(event, saves=owed.ready.save, sends=sends, hands_out=chosen)
        return Outcome(self._number(after), sends, frozenset(beliefs), (event,))

    def _put_off(self, before: Local, after: Local, owed: Owed, event: ModelEvent) -> Outcome:
        """Let the Ready wait for its save. What the node takes for chosen by now must be chosen nevertheless."""
        if owed.ready.save or owed.ready.send or owed.ready.chosen:
            after = attrs.evolve(after, owed=(*after.owed, owed))
        self._require_remembered(after)
        known = self.part.known(after.running)
        changed = known != self.part.known(before.running)
        beliefs = values_at(self.part.first_slot, known) if changed else set()
        return Outcome(self._number(after), (), frozenset(beliefs), (event,))

    def _finish_save(self, local: Local, event: ModelEvent) -> Iterator[Outcome]:
        """Save and perform the oldest Ready that waits, and those after it that save nothing."""
        yield from self._crash_within(local.disk, local.owed[0].ready.save)
        outcome = Outcome(self._number(local))
        performed = 0
        while performed == 0 or (local.owed and not local.owed[0].ready.save):
            after = attrs.evolve(local, owed=local.owed[1:])
            outcome = outcome.then(self._perform(local, after, local.owed[0], event))
            local, performed = self.locals[outcome.local], performed + 1
        yield outcome

    def _crash_within(self, disk: ModelDisk, records: tuple[Record, ...]) -> Iterator[Outcome]:
        """Crash when some of the records are on disk, but not all."""
        for count in range(1, len(records)):
            written, beliefs = _write(disk, records[:count])
            event = ModelEvent(
                self.part.node, "crashes within a save, and restarts", saves=records[:count], restarts=True
            )
            yield Outcome(self._restarted(written), (), frozenset(beliefs), (event,), restarted=True)

    def _restart(self, disk: ModelDisk) -> Outcome:
        event = ModelEvent(self.part.node, "crashes, and restarts", restarts=True)
        return Outcome(self._restarted(disk), events=(event,), restarted=True)

    def _restarted(self, disk: ModelDisk) -> int:
        running = self.part.start(disk)
        self.part.settle(running)
        self.part.forget_counts(running)
        return self._number(Local(running, disk, (), len(self.part.known(running))))

    def _take_own(self, outcome: Outcome) -> Iterator[Outcome]:
        """Take the messages that the node sent to itself, except those that it only counts. It may crash before it
        has."""
        node = self.part.node
        own = [message for to, message in outcome.sends if to == node and not self.part.counts(message)]
        if outcome.violation or outcome.restarted or not own:
            yield outcome
            return
        kept = tuple((to, message) for to, message in outcome.sends if to != node or message not in own)
        begun = [attrs.evolve(outcome, sends=kept)]
        yield begun[0].then(self._restart(self.locals[outcome.local].disk))
        for message in own:
            taken = [before.then(after) for before in begun for after in self.receive(before.local, node, message)]
            yield from (one for one in taken if one.restarted or one.violation)
            begun = [one for one in taken if not one.restarted and not one.violation]
        yield from begun

    def _require_remembered(self, local: Local) -> None:
        """If all waiting Readys were saved and the node restarted, its acceptor would be the same."""
        disk = local.disk
        for owed in local.owed:
            disk, _ = _write(disk, owed.ready.save)
        first_slot = self.part.first_slot + len(self.part.known(local.running))
        now = self.part.remembered(local.running, first_slot)
        then = self.part.remembered(self.part.start(disk), first_slot)
        require(now == then, "the acceptor holds", now, "and what it has saved makes it", then)

    def _number(self, local: Local) -> int:
        key = (freeze(local.running), local.disk, local.owed, local.handed_out)
        number = self._numbers.setdefault(key, len(self.locals))
        if number == len(self.locals):
            self.locals.append(local)
        return number


def _begin(local: Local, act: Callable[[Any], Ready], running: Any) -> Ready:
    """Start a ballot, which must not have been started before. The argument that old answers have no effect depends on
    it."""
    ready = act(running)
    owed = [envelope for each in local.owed for envelope in each.ready.send]
    asked = local.disk.begun | {one.message.ballot for one in owed if isinstance(one.message, Prepare | PrepareLog)}
    for message in (envelope.message for envelope in ready.send):
        if isinstance(message, Prepare | PrepareLog):
            require(message.ballot not in asked, message, "starts a ballot that was started before")
    return ready


def _write(disk: ModelDisk, records: Iterable[Record]) -> tuple[ModelDisk, set[Belief]]:
    beliefs: set[Belief] = set()
    for record in records:
        disk, more = disk.write(record)
        beliefs |= more
    return disk, beliefs
