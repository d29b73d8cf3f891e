"""The application of the nodes: examples/kv.py, and a log of the commands it applies and the snapshots it takes and
restores.

Each incarnation of a node writes an apply log of its own, line by line, before any client is answered. So it shows what
was applied, whatever the disks hold.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import msgspec

from test.torture.commands import APP, Input, input_of, text_of
from txpaxos.core.messages import Slot
from txpaxos.protocol import PaxosProtocol
from txpaxos.tap import load_application
from txpaxos.testing.linearizability.history import freeze

APPLY_LOG = "TXPAXOS_TORTURE_APPLY_LOG"
"""The environment variable with the name of the file."""

Items = Mapping[str, tuple[str | None, int]]
"""Key to the text of its value, and its revision."""


class ApplyLogger(PaxosProtocol):
    """The part that writes the apply log. It is mixed into the application."""

    items: dict[str, tuple[bytes, int]]
    revision: int

    def __init__(self) -> None:
        super().__init__()
        self._apply_log = os.open(os.environ[APPLY_LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def apply(self, slot: Slot, command: bytes) -> object:
        result = super().apply(slot, command)
        self._note("applied", slot, input_of(command), result)
        return result

    def snapshot(self) -> Iterable[bytes]:
        chunks = super().snapshot()
        return self._telling([chunks] if isinstance(chunks, bytes) else chunks, self._mark())

    def restore(self, chunks: Iterator[bytes]) -> None:
        super().restore(chunks)
        self._note("restored", *self._mark())

    def _telling(self, chunks: Iterable[bytes], mark: StateDigest) -> Iterator[bytes]:
        yield from chunks
        self._note("told", *mark)

    def _mark(self) -> StateDigest:
        items = {key: (text_of(key, value), revision) for key, (value, revision) in self.items.items()}
        return StateDigest.of(self.revision, items)

    def _note(self, *entry: Any) -> None:
        os.write(self._apply_log, msgspec.json.encode(entry) + b"\n")


KeyValue = type("KeyValue", (ApplyLogger, load_application(f"{APP}:KeyValue")), {})


class Applied(NamedTuple):
    """A command that was applied.

    :ivar result: its result.
    """

    slot: Slot
    input: Input
    result: Any


class StateDigest(NamedTuple):
    """A state: its revision, and a hash of the whole."""

    revision: int
    digest: str

    @classmethod
    def of(cls, revision: int, items: Items) -> StateDigest:
        """The digest of a state."""
        return cls(revision, hashlib.blake2b(msgspec.json.encode(sorted(items.items())), digest_size=16).hexdigest())


NOTHING = StateDigest.of(0, {})


@attrs.frozen
class AppliedSequence:
    """Commands that an incarnation applied one after another, and the state before them."""

    begin: StateDigest
    applied: list[Applied] = attrs.field(factory=list)


@attrs.frozen
class Incarnation:
    """One run of a node's process.

    :ivar name: the node, and the number of this incarnation.
    :ivar sequences: the first begins with nothing, each other with a snapshot.
    :ivar told: the snapshots that it has produced to the end.
    """

    name: str
    sequences: list[AppliedSequence]
    told: list[StateDigest]


def apply_log_file(folder: Path, node: str, number: int) -> Path:
    """The apply log of an incarnation."""
    return folder / f"{node}-{number}.applylog"


def read_incarnation(file: Path) -> Incarnation:
    """Read an apply log. The end of a line, and all lines after it, are missing if the node was killed while it
    wrote."""
    incarnation = Incarnation(file.stem, [AppliedSequence(NOTHING)], [])
    for line in file.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        match msgspec.json.decode(line):
            case ["applied", slot, input, result]:
                incarnation.sequences[-1].applied.append(Applied(slot, freeze(input), result))
            case ["restored", revision, digest]:
                incarnation.sequences.append(AppliedSequence(StateDigest(revision, digest)))
            case ["told", revision, digest]:  # pragma: no branch
                incarnation.told.append(StateDigest(revision, digest))
    return incarnation


def read_incarnations(folder: Path) -> Iterator[Incarnation]:
    """Read all apply logs in a folder, one after the other."""
    return map(read_incarnation, sorted(folder.glob("*.applylog")))
