"""What recordings tell of slots or a ballot: the core of each node is run again, and a chronicle looks on.

A recording has what entered a core. What came out, and so what was saved, sent and known to be chosen, comes from
running the core again (:mod:`txpaxos.recording.replaying`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain

import attrs

from txpaxos.core.messages import Ballot, Message, NodeId, PromiseLog, Slot
from txpaxos.core.ready import Chosen, Installed, Ready
from txpaxos.errors import RecordingError
from txpaxos.explaining.chronicle import SLOTS_MAX, Chronicle
from txpaxos.explaining.recollection import Recollection
from txpaxos.explaining.values import slot_of_command, slot_of_register, tell_value
from txpaxos.recording.calls import Call, ready_of
from txpaxos.recording.events import ClocksRead, CoreCalled, CoreMade, ReadyReleased, SegmentBegun, SlotsApplied
from txpaxos.recording.reading import read_recording
from txpaxos.recording.replaying import Replayer, Step

BALLOTS_MAX = 2**20
"""How many ballots are remembered of a recording: all of them."""


class _Clocks:
    """What the two clocks of a recorded node said when both were last read."""

    def __init__(self) -> None:
        self.now = self.utc_seconds = 0.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> float:
        return self.utc_seconds


class _Run:
    """One run of a node, from its start to its end, as its recording tells it."""

    def __init__(self, node: NodeId, only: Collection[Slot]) -> None:
        clocks = self._clocks = _Clocks()
        self.chronicle = Chronicle(
            node, clocks.monotonic, clocks.utc, slots_max=max(SLOTS_MAX, len(only)), only=only, ballots_max=BALLOTS_MAX
        )
        self._only = only
        self._pending: dict[int, Ready] = {}
        self._applied_through = self._dropped = 0
        self.values: dict[Slot, bytes] = {}
        self.voters: tuple[NodeId, ...] = ()

    def take(self, step: Step) -> None:
        """Take one step of the run."""
        match step.event:
            case CoreMade(now, arguments):
                self._applied_through = arguments["base"]  # Up to there, it stands in a snapshot.
                self._recover(recovered_by(step), now)
            case CoreCalled(number, call, now, arguments):
                if call is Call.RECEIVE:
                    self._receive(arguments[0], arguments[1], now, step)
                ready = ready_of(step.result)
                if not ready.is_empty:  # Most calls return nothing to do, and there are very many.
                    self._pending[number] = ready
            case ReadyReleased(number, now):
                self._release(self._pending.pop(number, Ready()), now)
                if step.core is not None:
                    self.voters = tuple(step.core.membership.voters)
            case SlotsApplied(slot, now):
                # The slots that are asked for, and not all up to there: a snapshot, or a damaged file, names any slot.
                for one in sorted(one for one in self._only if self._applied_through < one <= slot):
                    self.chronicle.slot_applied(one, now)
                self._applied_through = max(self._applied_through, slot)
            case ClocksRead(now, utc_seconds):
                self._clocks.now, self._clocks.utc_seconds = now, utc_seconds
        if step.core is not None:
            self._dropped = step.core.dropped.total()

    def _receive(self, sender: NodeId, message: Message, now: float, step: Step) -> None:
        if not isinstance(message, PromiseLog):
            self.chronicle.message_received(sender, message, now)
        elif step.core is not None and step.core.dropped.total() == self._dropped:
            self.chronicle.promise_counted(sender, message, now)

    def _recover(self, recovered: Iterable[Chosen], now: float) -> None:
        """Take what the node knew to be chosen when it started. It applies that before anything else."""
        for slot, value in ((chosen.slot, chosen.value) for chosen in recovered):
            if slot in self._only:
                self.values[slot] = value
            self.chronicle.slot_applied(slot, now)
            self._applied_through = slot

    def _release(self, ready: Ready, now: float) -> None:
        self.chronicle.ready_released(ready, now)
        for chosen in ready.chosen:
            if isinstance(chosen, Installed):
                self._applied_through = max(self._applied_through, chosen.slot)
            elif isinstance(chosen, Chosen) and chosen.slot in self._only:
                self.values[chosen.slot] = chosen.value


def recovered_by(step: Step) -> list[Chosen]:
    """What a core that has just been made knows to be chosen, beside its snapshot."""
    return [] if step.core is None else [one for one in step.core.recovered() if isinstance(one, Chosen)]


def recollect_recorded(directory: str, node: NodeId, slots: Collection[Slot]) -> dict[Slot, Recollection]:
    """What the recording of ``node`` tells of each of ``slots``.

    :param directory: the folder of the recording.
    :raises RecordingError: if it cannot be read, or the core of this program does something else than was recorded.
    """
    runs = _runs(directory, node, frozenset(slots))
    return {slot: _recollection(node, runs, slot) for slot in slots}


def recollect_recorded_ballot(directory: str, node: NodeId, ballot: Ballot) -> Recollection:
    """What the recording of ``node`` tells of ``ballot``.

    :raises RecordingError: as of :func:`recollect_recorded`.
    """
    runs = _runs(directory, node, ())
    return Recollection(node, _voters(runs), 0, tuple(chain(*(one.chronicle.recall_ballot(ballot) for one in runs))))


def _runs(directory: str, node: NodeId, slots: Collection[Slot]) -> list[_Run]:
    runs: dict[int, _Run] = {}
    run = _Run(node, slots)
    for step in _steps(directory, node):
        if isinstance(step.event, SegmentBegun):
            run = runs.setdefault(step.event.run, _Run(node, slots))
        else:
            run.take(step)
    return list(runs.values())


def _voters(runs: Sequence[_Run]) -> tuple[NodeId, ...]:
    """The voters when the last run ended."""
    return next((one.voters for one in reversed(runs) if one.voters), ())


def _recollection(node: NodeId, runs: Sequence[_Run], slot: Slot) -> Recollection:
    ballots = set().union(*(one.chronicle.ballots_at(slot) for one in runs))
    facts = tuple(chain(*(one.chronicle.recall(slot, ballots) for one in runs)))
    value = next((tell_value(one.values[slot]) for one in runs if slot in one.values), None)
    return Recollection(node, _voters(runs), slot, facts, value)


def recorded_slot(directory: str, node: NodeId, command: tuple[bytes, int] | None, register: str) -> Slot:
    """The slot of a command (its session and its sequence) or of a register, as the recording of ``node`` has it; 0 if
    it has none.

    :raises RecordingError: as of :func:`recollect_recorded`. Values that were left out cannot be searched.
    """
    values = _values(directory, node)
    return slot_of_register(values, register) if command is None else slot_of_command(values, *command)


def _values(directory: str, node: NodeId) -> Iterator[tuple[Slot, bytes]]:
    """All values that the node knew to be chosen, with their slots. After a restart some come again."""
    for step in _steps(directory, node):
        if isinstance(step.event, SegmentBegun) and step.event.is_redacted:
            raise RecordingError(f"{step.event.path} was recorded without values: name the slot", step.event.path)
        chosen = recovered_by(step) if isinstance(step.event, CoreMade) else []
        if isinstance(step.event, CoreCalled):
            chosen = [one for one in ready_of(step.result).chosen if isinstance(one, Chosen)]
        yield from ((one.slot, bytes(one.value)) for one in chosen)


def _steps(directory: str, node: NodeId) -> Iterator[Step]:
    for step in Replayer().steps(read_recording(directory, node)):
        if step.difference is not None:
            difference = attrs.asdict(step.difference)
            line = f"call {difference['number']} ({difference['call']}) does something else now than was recorded"
            raise RecordingError(f"the recording of {node} in {directory}: {line}; see txpaxos replay", directory)
        yield step
