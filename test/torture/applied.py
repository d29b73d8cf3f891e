"""The log as it was applied, put together from the diaries of all lives of all nodes, and done once more.

Every command is in some diary: if not in that of the node which was asked, then in that of the one whose snapshot took
its place. What stands where is then held against each diary, and against the clients' histories (:mod:`.checker`).
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
    """The key-value store again, as its docstring says it is, with texts for values."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[str | None, int]] = {}
        self.revision = 0

    def perform(self, input: Input) -> Any:
        """What ``input`` changes, and its result."""
        match input:
            case ("put", key, text):
                return self._change(key, text)
            case ("delete", key):
                return key in self.items and self._change(key, None) > 0
            case ("cas", key, old, new):  # pragma: no branch
                return self.items.get(key, (None, 0))[0] == old and self._change(key, new) > 0

    def mark(self) -> StateDigest:
        """Of this state."""
        return StateDigest.of(self.revision, self.items)

    def apply(self, slot: Slot, command: bytes) -> Any:
        """As a node does."""
        return self.perform(input_of(command))

    def restore(self, chunks: Iterator[bytes]) -> None:
        """As a node does."""
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
    """All that was applied.

    :ivar entries: in order.
    :ivar marks: of the states that they lead through, by revision.
    :ivar revisions: of the state before each entry, and of the last one.
    :ivar found: where the results are not those that they should be.
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
    def of(cls, lives: Iterable[Incarnation]) -> AppliedLog:
        """Put together what ``lives`` applied. Of each slot the life that saw most of it tells: others were ended in
        the middle. Where they differ, :meth:`differences` says so."""
        slots: dict[Slot, list[Applied]] = {}
        for life in lives:
            for sequence in life.sequences:
                for slot, group in groupby(sequence.applied, lambda entry: entry.slot):
                    entries = list(group)
                    if len(entries) > len(slots.get(slot, ())):
                        slots[slot] = entries
        return cls(entry for slot in sorted(slots) for entry in slots[slot])

    def differences(self, life: Incarnation) -> Iterator[str]:
        """What ``life`` did otherwise: it must begin nowhere but with a state that the log leads through, leave nothing
        out from there on, and apply nothing twice."""
        for sequence in life.sequences:
            yield from self._difference(life.name, sequence)
        for mark in life.told:
            if not self.has(mark):
                yield f"{life.name} told a snapshot of a state that never was, of revision {mark.revision}"

    def has(self, mark: StateDigest) -> bool:
        """Whether the log leads through that state."""
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
