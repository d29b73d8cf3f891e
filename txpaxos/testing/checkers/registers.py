"""The registers, derived from the values of the log alone, and what clients are told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from txpaxos.core.messages import Slot
from txpaxos.wire.commands import Run
from txpaxos.wire.registers import DecideRegister, ForgetRegister, ImportRegisters, SealRegisters, decode_command


class ObservedRegisters:
    """All registers of a cluster, slot by slot, and the answers about them.

    :ivar reported_through: the newest slot whose state an answer has shown to any client.
    """

    def __init__(self) -> None:
        self.reported_through: Slot = 0
        self._sealed = False
        self._values: dict[str, bytes] = {}
        # The values of each register, each with the slot from which on it holds; ``None`` is undecided. A register may
        # change several times in one slot.
        self._history: dict[str, list[tuple[Slot, bytes | None]]] = {}
        # What each command gives, by session and sequence.
        self._results: dict[tuple[bytes, int], bytes | None] = {}
        # What an earlier release has chosen, and all that was ever proposed.
        self._chosen_before: dict[str, bytes] = {}
        self._proposed: dict[str, set[bytes]] = {}

    # from outside the log

    def begin_with(self, chosen: Mapping[str, bytes], proposed: Mapping[str, Iterable[bytes]]) -> None:
        """An earlier release has chosen some registers, and has proposed values for these and others."""
        self._chosen_before = dict(chosen)
        for subject, values in proposed.items():
            self._proposed.setdefault(subject, set()).update(values)

    def propose(self, subject: str, value: bytes) -> None:
        """A client proposes a value."""
        self._proposed.setdefault(subject, set()).add(value)

    # from the log

    def choose(self, slot: Slot, run: Run, sequences: Iterable[int]) -> str:
        """Those commands of ``run`` that have ``sequences`` are applied for the first time, at ``slot``. Returns the
        rule that this breaks, or nothing."""
        for sequence in sequences:
            payload = run.payloads[sequence - run.sequence]
            try:
                command = decode_command(payload)
            except ValueError:
                return "registers take only their commands"
            wrong, result = self._apply(slot, command)
            if wrong:
                return wrong
            self._results[run.session, sequence] = result
        return ""

    def is_another_result(self, session: bytes, sequence: int, result: object) -> bool:
        """Whether a node has another result for a command than follows from the log."""
        key = (session, sequence)
        return key in self._results and self._results[key] != result

    def is_decided(self, slot: Slot, subject: str, value: bytes) -> bool:
        """Whether ``subject`` is decided on ``value`` at ``slot``, or for a moment within that slot."""
        return value in self._values_from(slot, subject, through=slot)

    def _apply(self, slot: Slot, command: object) -> tuple[str, bytes | None]:
        match command:
            case SealRegisters() if self._sealed:
                return "", None  # Another node has sealed them, too. A client may have had some forgotten meanwhile.
            case SealRegisters():
                self._sealed = True
                lost = [name for name, value in self._chosen_before.items() if self._values.get(name) != value]
                return ("what was decided stays decided" if lost else "", None)
            case ImportRegisters(registers):
                for subject, value in () if self._sealed else registers:
                    if value not in self._proposed.get(subject, ()):
                        return "chosen values were proposed", None
                    self._set(slot, subject, self._values.get(subject, value))
                return "", None
            case _ if not self._sealed:
                return "registers are sealed before they are used", None
            case DecideRegister(subject, value):
                if value not in self._proposed.get(subject, ()):
                    return "chosen values were proposed", None
                decided = self._values.get(subject, value)
                self._set(slot, subject, decided)
                return "", decided
            case ForgetRegister(subject):
                before = self._values.get(subject)
                self._set(slot, subject, None)
                return "", before
        return "registers take only their commands", None

    def _set(self, slot: Slot, subject: str, value: bytes | None) -> None:
        if self._values.get(subject) == value:
            return
        self._history.setdefault(subject, [(0, None)]).append((slot, value))
        if value is None:
            del self._values[subject]
        else:
            self._values[subject] = value

    # from clients

    def answer(self, subject: str, value: bytes | None, known_through: Slot) -> bool:
        """A client was told that ``subject`` is decided on ``value``, or undecided.

        :param known_through: what ``reported_through`` was when the client asked. The answer must hold there or later.
        :returns: whether the answer may be true.
        """
        slots = [slot for slot, held in self._spans(subject, known_through) if held == value]
        if not slots:
            return False
        # The earliest state in which the answer is true: a later one might show too much.
        self.reported_through = max(self.reported_through, slots[0])
        return True

    def forgot(self, subject: str, value: bytes | None, known_through: Slot) -> bool:
        """A client was told that its call has forgotten ``value``; ``None`` if nothing was decided. Returns whether
        that may be true."""
        if value is None:
            return self.answer(subject, None, known_through)
        history = self._history.get(subject, [])
        ends = [
            slot
            for (_, held), (slot, after) in pairwise(history)
            if held == value and after is None and slot > known_through
        ]
        if not ends:
            return False
        self.reported_through = max(self.reported_through, ends[0])
        return True

    def _spans(self, subject: str, from_slot: Slot) -> list[tuple[Slot, bytes | None]]:
        """The states of a register from ``from_slot`` on: the first slot at which each holds there, and its value."""
        history = self._history.get(subject, [(0, None)])
        ends = [*(slot for slot, _ in history[1:]), None]
        return [
            (max(slot, from_slot), value)
            for (slot, value), end in zip(history, ends, strict=True)
            # A state that begins and ends within one slot is a state, too.
            if end is None or end > from_slot or slot >= from_slot
        ]

    def _values_from(self, slot: Slot, subject: str, through: Slot) -> list[bytes | None]:
        return [value for begins, value in self._spans(subject, slot) if begins <= through]
