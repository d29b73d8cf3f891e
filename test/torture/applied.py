"""The applied log, put together from the apply logs of all incarnations of all nodes, and applied once more.

Every command is in some apply log: in that of the node that was asked, or in that of the node whose snapshot replaced
it. The log is then compared with each apply log, and with the clients' histories (:mod:`.checker`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import msgspec

from test.torture.apply_log import NOTHING, Applied, AppliedSequence, Incarnation, StateDigest
from test.torture.commands import Input, input_of, text_of
from txpaxos.application import Application
from txpaxos.core.messages import Slot


class State(Application):
    """A second implementation of the key-value store of ``examples/kv.py``, with texts for values."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[str | None, int]] = {}
        self.revision = 0

    def perform(self, input: Input) -> Any:
        """Apply ``input``. Returns its result."""
        match input:
            case ("put", key, text):
                return self._change(key, text)
            case ("delete", key):
                return key in self.items and self._change(key, None) > 0
            case ("cas", key, old, new):  # pragma: no branch
                return self.items.get(key, (None, 0))[0] == old and self._change(key, new) > 0

    def mark(self) -> StateDigest:
        """The digest of this state."""
        return StateDigest.of(self.revision, self.items)

    def apply(self, slot: Slot, command: bytes) -> Any:
        """Apply a command, as a node does."""
        return self.perform(input_of(command))

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Restore a snapshot, as a node does."""
        self.items = {}
        for chunk in chunks:
            self.revision, items = msgspec.msgpack.decode(chunk)
            self.items |= {key: (text_of(key, value), revision) for key, (value, revision) in items}

    def _change(self, key: str, text: str | None) -> int:
        self.revision += 1
        if text is None:
            del self.items[key]
        else:
            self.items[key] = text, self.revision
        return self.revision


class AppliedLog:
    """All commands that were applied.

    :ivar entries: the commands, in order.
    :ivar marks: the digests of the states between them, by revision.
    :ivar revisions: the revision before each entry, and after the last one.
    :ivar found: results that differ from those of the second implementation.
    """

    def __init__(self, entries: Iterable[Applied]) -> None:
        self.entries = list(entries)
        self.marks = [NOTHING]
        self.revisions = [0]
        self.found: list[str] = []
        state = State()
        for entry in self.entries:
            result = state.perform(entry.input)
            if result != entry.result or type(result) is not type(entry.result):
                self.found.append(f"{entry.input} at slot {entry.slot} came to {entry.result} instead of {result}")
            if state.revision == len(self.marks):
                self.marks.append(state.mark())
            self.revisions.append(state.revision)
        self.end = state

    @classmethod
    def of(cls, incarnations: Iterable[Incarnation]) -> AppliedLog:
        """Put together what ``incarnations`` applied.

        For each slot the incarnation counts that applied most of it, since others ended in the middle. Where they
        differ, :meth:`differences` says so.
        """
        slots: dict[Slot, list[Applied]] = {}
        for incarnation in incarnations:
            for sequence in incarnation.sequences:
                for slot, group in groupby(sequence.applied, lambda entry: entry.slot):
                    entries = list(group)
                    if len(entries) > len(slots.get(slot, ())):
                        slots[slot] = entries
        return cls(entry for slot in sorted(slots) for entry in slots[slot])

    def differences(self, incarnation: Incarnation) -> Iterator[str]:
        """What ``incarnation`` did differently.

        It must begin with a state of the log, leave nothing out from there on, and apply nothing twice.
        """
        for sequence in incarnation.sequences:
            yield from self._difference(incarnation.name, sequence)
        for mark in incarnation.told:
            if not self.has(mark):
                yield f"{incarnation.name} told a snapshot of a state that never was, of revision {mark.revision}"

    def has(self, mark: StateDigest) -> bool:
        """Whether the log has that state."""
        return mark.revision < len(self.marks) and self.marks[mark.revision] == mark

    def _difference(self, name: str, sequence: AppliedSequence) -> Iterator[str]:
        if not self.has(sequence.begin):
            yield f"{name} took on a state that never was, of revision {sequence.begin.revision}"
        elif sequence.applied:
            begin = bisect_left(self.entries, sequence.applied[0].slot, key=lambda entry: entry.slot)
            if self.revisions[begin] != sequence.begin.revision:
                yield (
                    f"{name} applied slot {sequence.applied[0].slot} to a state of revision {sequence.begin.revision},"
                    f" and not {self.revisions[begin]}"
                )
            expected = self.entries[begin : begin + len(sequence.applied)]
            for applied, other in zip(sequence.applied, expected, strict=False):
                if applied != other:
                    yield f"{name} applied {applied} where {other} has its place"
                    return
            if len(expected) < len(sequence.applied):
                yield f"{name} applied {sequence.applied[len(expected)]} after the end"
