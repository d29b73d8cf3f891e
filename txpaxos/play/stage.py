"""The stage: a cluster of real objects of the core, whose network, disks and clocks obey the user.

Actions go in, and the state changes. Nothing else changes it: there is no clock and no chance but that of a seed in
each node, so the same actions from the beginning always lead to the same state. To rewind is to play fewer of them.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

import attrs

from txpaxos.core.messages import Ballot, Heartbeat, HeartbeatAck, Message, Nack, NodeId
from txpaxos.core.ready import (
    Chosen,
    DecreeState,
    LeadershipAcquired,
    LeadershipChanged,
    LeadershipFact,
    LeadershipLost,
    Promised,
    Ready,
    Record,
    Voted,
)
from txpaxos.play.actions import (
    VALUE_CHARACTERS_MAX,
    AnyAction,
    Crash,
    Cut,
    Deliver,
    Double,
    Drop,
    Hang,
    Hold,
    Join,
    NotPossible,
    Prepare,
    Propose,
    Release,
    Resend,
    Restart,
    Save,
    Time,
    Timer,
)
from txpaxos.play.argument import Argument
from txpaxos.play.players import KINDS, Facts, Player, members_of, new_player, voters_of
from txpaxos.play.words import message_in_words, proposal_in_words, value_in_words

FLYING: Final = "flying"
DELIVERED: Final = "delivered"
LOST: Final = "lost"


@attrs.define
class Flight:
    """A message on its way, or at its end.

    :ivar fate: ``flying``, ``delivered`` or ``lost``.
    :ivar sent_row: the row in which it was sent. ``end_row``: the one in which it ended; ``None`` while it is flying.
    :ivar is_copy: whether the network made it.
    """

    number: int
    sender: NodeId
    to: NodeId
    message: Message
    sent_row: int
    is_copy: bool = False
    fate: str = FLYING
    end_row: int | None = None
    is_held: bool = False


@attrs.frozen
class Mark:
    """Something that happened at a node. ``kind``: ``vote``, ``learn``, ``lead``, ``no``, ``act`` for anything else,
    and ``echo`` for what the title of its row says, too."""

    node: NodeId
    text: str
    kind: str = "act"


@attrs.define
class Row:
    """What one action caused.

    :ivar title: the action, in words.
    :ivar time: the time of the stage, in seconds, after it.
    """

    title: str
    time: float
    marks: list[Mark] = attrs.field(factory=list)


@attrs.define
class Seat:
    """A node of the stage: what runs, and what stays when it does not.

    :ivar player: what runs; ``None`` while the node is down.
    :ivar disk: what it has saved.
    :ivar waiting: what it owes, in order, while its disk hangs.
    :ivar starts: how often it was started.
    :ivar ahead: how far its clock is ahead of the time of the stage, in seconds.
    """

    name: NodeId
    player: Player | None = None
    disk: list[Record] = attrs.field(factory=list)
    waiting: list[Ready] = attrs.field(factory=list)
    hangs: bool = False
    starts: int = 0
    ahead: float = 0.0


class Stage:
    """A cluster that is moved by actions.

    :param kind: one of ``KINDS``.
    :param count: how many nodes, where that can be chosen.
    :ivar now: the time, in seconds from the beginning.
    :ivar messages: all that was ever sent to another node; a message's number is its place.
    :ivar rows: what each action caused; the first row is the start.
    """

    def __init__(self, kind: str, count: int = 3) -> None:
        if kind not in KINDS:
            raise NotPossible("there is no such kind")
        if count not in (3, 5):
            raise NotPossible("there are 3 nodes, or 5")
        self.kind = kind
        self.members = members_of(kind, count)
        self.argument = Argument(voters_of(kind, self.members))
        self.now = 0.0
        self.messages: list[Flight] = []
        self.cut: set[frozenset[NodeId]] = set()
        self.rows = [Row("the start", 0.0)]
        self._seats = {name: Seat(name) for name in self.members}
        for seat in self._seats.values():
            self._start(seat)

    # the actions

    def perform(self, action: AnyAction) -> None:
        """Do what the user wants.

        :raises NotPossible: if that cannot be done now. Then nothing has changed.
        """
        self.rows.append(Row(self.describe(action), self.now))
        try:
            self._perform(action)
        except NotPossible:
            del self.rows[-1]
            raise
        self.rows[-1].time = self.now

    def _perform(self, action: AnyAction) -> None:
        match action:
            case Deliver(number):
                self._deliver(self._flying(number))
            case Drop(number):
                self._end(self._flying(number), LOST)
            case Double(number):
                one = self._flying(number)
                self.messages.append(
                    Flight(len(self.messages), one.sender, one.to, one.message, one.sent_row, is_copy=True)
                )
            case Hold(number) | Release(number):
                self._flying(number).is_held = isinstance(action, Hold)
            case Cut(node, other) | Join(node, other):
                self._set_link(node, other, isinstance(action, Cut))
            case Crash(node):
                self._crash(self._seat(node))
            case Restart(node):
                self._restart(self._seat(node))
            case Hang(node) | Save(node):
                self._set_disk(self._seat(node), isinstance(action, Hang))
            case Propose(node, value):
                self._propose(self._seat(node), value)
            case Prepare(node) | Resend(node):
                self._command(self._seat(node), isinstance(action, Prepare))
            case Time():
                self._let_time_pass()
            case Timer(node):
                self._fire(self._seat(node))

    def next_step(self) -> AnyAction:
        """What happens next if the user only looks on: the oldest message that is not held arrives; if there is none,
        time passes.

        :raises NotPossible: if nothing is left to happen.
        """
        for one in self.messages:
            if one.fate == FLYING and not one.is_held:
                return Deliver(one.number)
        if self._next_timer() is None:
            raise NotPossible("no message is under way, and no timer is set")
        return Time()

    def describe(self, action: AnyAction) -> str:
        """An action in words.

        :raises NotPossible: if it names a node or a message that there is not.
        """
        match action:
            case Deliver(number) | Drop(number) | Double(number) | Hold(number) | Release(number):
                one = self._flying(number)
                verbs = {"Deliver": "", "Drop": "lost, ", "Double": "doubled, ", "Hold": "held back, "}
                verb = verbs.get(type(action).__name__, "released, ")
                return f"{verb}{one.sender} to {one.to}: {message_in_words(one.message)}"
            case Cut(node, other) | Join(node, other):
                return f"the link between {node} and {other} {'is cut' if isinstance(action, Cut) else 'works again'}"
            case Propose(node, value):
                return f"{value} is offered at {node}"
            case Prepare(node):
                return f"{node} starts a ballot"
            case Resend(node):
                return f"{node} sends again what is unanswered"
            case Crash(node):
                return f"{node} crashes"
            case Restart(node):
                return f"{node} restarts from its disk"
            case Hang(node):
                return f"the disk of {node} hangs"
            case Save(node):
                return f"the disk of {node} goes on"
            case Timer(node):
                return f"the clock of {node} runs ahead to its next timer"
        return "time passes to the next timer"

    # nodes

    def _seat(self, node: NodeId) -> Seat:
        if node not in self._seats:
            raise NotPossible("there is no such node")
        return self._seats[node]

    def _running(self, seat: Seat) -> Player:
        if seat.player is None:
            raise NotPossible(f"{seat.name} is down")
        return seat.player

    def _start(self, seat: Seat) -> None:
        now = self.now + seat.ahead
        seat.player = new_player(self.kind, seat.name, self.members, seat.disk, seat.starts, now)
        seat.starts += 1

    def _crash(self, seat: Seat) -> None:
        self._running(seat)
        seat.player = None
        unsaved = any(ready.save for ready in seat.waiting)
        seat.waiting.clear()
        self._mark(seat.name, "loses what was not saved" if unsaved else "crashes", "no" if unsaved else "echo")

    def _restart(self, seat: Seat) -> None:
        if seat.player is not None:
            raise NotPossible(f"{seat.name} is running")
        self._start(seat)
        self._mark(seat.name, "restarts from its disk", "echo")

    def _set_disk(self, seat: Seat, hangs: bool) -> None:
        if seat.hangs == hangs:
            raise NotPossible(f"the disk of {seat.name} {'hangs already' if hangs else 'does not hang'}")
        seat.hangs = hangs
        self._mark(seat.name, "its disk hangs" if hangs else "its disk goes on", "echo")
        self._carry_out_what_waits(seat)

    def _propose(self, seat: Seat, value: str) -> None:
        player = self._running(seat)
        if "propose" not in player.may:
            raise NotPossible(f"{seat.name} is no proposer")
        if not 1 <= len(value) <= VALUE_CHARACTERS_MAX or not value.isprintable() or value != value.strip():
            raise NotPossible(f"a value has 1 to {VALUE_CHARACTERS_MAX} characters that can be printed")
        self._take(seat, player.propose(value.encode(errors="replace"), self.now + seat.ahead))
        self._mark(seat.name, f"is offered {value}", "echo")

    def _command(self, seat: Seat, prepares: bool) -> None:
        player = self._running(seat)
        if ("prepare" if prepares else "resend") not in player.may:
            raise NotPossible(f"{seat.name} does not do that by hand")
        self._take(seat, player.prepare() if prepares else player.resend())

    # time

    def _next_timer(self) -> Seat | None:
        """The node whose timer is over first."""
        waking = [seat for seat in self._seats.values() if seat.player is not None and seat.player.wake_at < inf]
        return min(waking, key=self._wakes_in, default=None)

    def _wakes_in(self, seat: Seat) -> float:
        return inf if seat.player is None else max(seat.player.wake_at - seat.ahead - self.now, 0.0)

    def _let_time_pass(self) -> None:
        seat = self._next_timer()
        if seat is None:
            raise NotPossible("no timer is set")
        self.now += self._wakes_in(seat)
        self._tick(seat)

    def _fire(self, seat: Seat) -> None:
        if self._running(seat).wake_at == inf:
            raise NotPossible(f"{seat.name} has no timer")
        seat.ahead += self._wakes_in(seat)
        self._tick(seat)

    def _tick(self, seat: Seat) -> None:
        player = self._running(seat)
        self._mark(seat.name, "its timer is over")
        # The sum may have been rounded down to just before the time of the timer.
        self._take(seat, player.tick(max(self.now + seat.ahead, player.wake_at)))

    # the network

    def _flying(self, number: int) -> Flight:
        if not 0 <= number < len(self.messages) or self.messages[number].fate != FLYING:
            raise NotPossible("that message is not under way")
        return self.messages[number]

    def _end(self, one: Flight, fate: str) -> None:
        one.fate = fate
        one.end_row = len(self.rows) - 1

    def _set_link(self, node: NodeId, other: NodeId, cut: bool) -> None:
        link = frozenset({self._seat(node).name, self._seat(other).name})
        if len(link) < 2 or (link in self.cut) == cut:
            raise NotPossible("that link is cut already" if cut else "that link is not cut")
        if not cut:
            self.cut.remove(link)
            return
        self.cut.add(link)
        for one in self.messages:
            if one.fate == FLYING and {one.sender, one.to} == link:
                self._end(one, LOST)

    def _deliver(self, one: Flight) -> None:
        seat = self._seats[one.to]
        if seat.player is None:
            self._end(one, LOST)
            self._mark(one.to, "is down", "no")
            return
        self._end(one, DELIVERED)
        self._receive(seat, one.sender, one.message)
        self._carry_out_what_waits(seat)

    def _receive(self, seat: Seat, sender: NodeId, message: Message) -> None:
        """``message`` is at its receiver. What comes of it is carried out by the caller."""
        player = self._running(seat)
        self.argument.received(seat.name, sender, message)
        seat.waiting.append(player.receive(sender, message, self.now + seat.ahead))

    # what the core says is to be done

    def _take(self, seat: Seat, ready: Ready) -> None:
        seat.waiting.append(ready)
        self._carry_out_what_waits(seat)

    def _carry_out_what_waits(self, seat: Seat) -> None:
        """Carry out, in order, what the node owes: all of it, or up to the first save if its disk hangs."""
        while seat.waiting and not (seat.hangs and seat.waiting[0].save):
            ready = seat.waiting.pop(0)
            for message in self._carry_out(seat, ready):
                self._receive(seat, seat.name, message)
        if any(ready.save for ready in seat.waiting):
            self._mark(seat.name, "waits for its disk")

    def _carry_out(self, seat: Seat, ready: Ready) -> list[Message]:
        """Save, then send, then hand out.

        :returns: the messages of the node to itself. They arrive at once, after the save as any other.
        """
        for record in ready.save:
            self._mark_save(seat, record)
            seat.disk.append(record)
            self.argument.saved(seat.name, record)
        own: list[Message] = []
        for envelope in ready.send:
            self.argument.sent(seat.name, envelope.message)
            if isinstance(envelope.message, Nack):
                self._mark(seat.name, f"refuses: {message_in_words(envelope.message)}", "no")
            for to in envelope.to:
                if to == seat.name:
                    own.append(envelope.message)
                else:
                    self._send(seat.name, to, envelope.message)
        for item in ready.chosen:
            if isinstance(item, Chosen):
                where = f"{item.slot} = " if item.slot else ""
                self._mark(seat.name, f"learns {where}{value_in_words(item.value)}", "learn")
        for fact in ready.leadership:
            self._mark_leadership(seat.name, fact)
        return own

    def _send(self, sender: NodeId, to: NodeId, message: Message) -> None:
        one = Flight(len(self.messages), sender, to, message, len(self.rows) - 1)
        self.messages.append(one)
        if frozenset({sender, to}) in self.cut:
            self._end(one, LOST)

    # what is told

    def _mark(self, node: NodeId, text: str, kind: str = "act") -> None:
        self.rows[-1].marks.append(Mark(node, text, kind))

    def _mark_save(self, seat: Seat, record: Record) -> None:
        match record:
            case DecreeState(promised, accepted):
                last = seat.disk[-1] if seat.disk else None
                before = last if isinstance(last, DecreeState) else DecreeState()
                if accepted is not None and accepted != before.accepted:
                    self._mark(seat.name, f"accepts {proposal_in_words(accepted)}", "vote")
                elif promised != before.promised and self._running(seat).promises:
                    self._mark_promise(seat.name, promised)
            case Promised(ballot):
                self._mark_promise(seat.name, ballot)
            case Voted(ballot, slot, value):
                self._mark(seat.name, f"accepts {slot} = {value_in_words(value)} in {ballot}", "vote")

    def _mark_promise(self, node: NodeId, ballot: Ballot) -> None:
        self._mark(node, f"promises {ballot}", "vote")

    def _mark_leadership(self, node: NodeId, fact: LeadershipFact) -> None:
        match fact:
            case LeadershipAcquired(ballot):
                self._mark(node, f"leads with {ballot}", "lead")
            case LeadershipLost():
                self._mark(node, "leads no longer", "no")
            case LeadershipChanged(_, current) if current is not None and current != node:
                self._mark(node, f"follows {current}", "lead")

    def facts_of(self, node: NodeId) -> Facts:
        """What a node holds, by name; nothing while it is down."""
        player = self._seats[node].player
        return {} if player is None else player.facts()

    def disk_of(self, node: NodeId) -> Facts:
        """What a node would know after a crash: what a new one holds that starts from its disk."""
        seat = self._seats[node]
        return new_player(self.kind, node, self.members, seat.disk, seat.starts, self.now).facts()

    def is_up(self, node: NodeId) -> bool:
        """Whether a node runs."""
        return self._seats[node].player is not None

    def under_way(self) -> list[Flight]:
        """The messages that are under way."""
        return [one for one in self.messages if one.fate == FLYING]

    # for the page

    def view(self) -> dict[str, Any]:
        """All that the page draws, as JSON has it."""
        return {
            "kind": self.kind,
            "time": round(self.now, 4),
            "nodes": [self._view_of(seat) for seat in self._seats.values()],
            "messages": [self._message_view(one) for one in self.messages],
            "rows": [attrs.asdict(row) for row in self.rows],
            "cut": sorted(sorted(link) for link in self.cut),
            "argument": [attrs.asdict(point) for point in self.argument.points()],
            "quorum": self.argument.quorum,
        }

    def _view_of(self, seat: Seat) -> dict[str, Any]:
        player = seat.player
        wakes_in = self._wakes_in(seat)
        waits = any(ready.save for ready in seat.waiting)
        facts = {} if player is None else player.facts()
        on_disk = self.disk_of(seat.name) if waits or player is None else {}
        lasting = ("promised", "accepted", "log", "ballot" if self.kind == "essential" else "promised")
        return {
            "name": seat.name,
            "up": player is not None,
            "roles": "down" if player is None else player.roles,
            "facts": list(facts.items()),
            "disk": [(label, on_disk[label]) for label in dict.fromkeys(lasting) if label in on_disk],
            "may": sorted(player.may) if player is not None else [],
            "hangs": seat.hangs,
            "waits": waits,
            "leads": facts.get("role") == "leader",
            "wakes_in": None if wakes_in == inf else round(wakes_in, 4),
        }

    @staticmethod
    def _message_view(one: Flight) -> dict[str, Any]:
        return {
            "number": one.number,
            "from": one.sender,
            "to": one.to,
            "text": message_in_words(one.message),
            "kind": type(one.message).__name__,
            "is_quiet": isinstance(one.message, Heartbeat | HeartbeatAck),
            "sent": one.sent_row,
            "end": one.end_row,
            "fate": one.fate,
            "held": one.is_held,
            "copy": one.is_copy,
        }
