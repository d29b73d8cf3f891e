"""The application of the nodes: examples/kv.py, and a diary of what it is given to apply, to tell and to take on.

Each life of a node has a diary of its own, written line by line before anybody is answered. What is in them is what was
applied, whatever the disks say.
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

DIARY = "TXPAXOS_TORTURE_DIARY"
"""The environment variable that says in which file."""

Items = Mapping[str, tuple[str | None, int]]
"""Key to the text of its value, and its revision."""


class Diarist(PaxosProtocol):
    """What is added to the application."""

    items: dict[str, tuple[bytes, int]]
    revision: int

    def __init__(self) -> None:
        super().__init__()
        self._diary = os.open(os.environ[DIARY], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

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

    def _telling(self, chunks: Iterable[bytes], mark: Mark) -> Iterator[bytes]:
        yield from chunks
        self._note("told", *mark)

    def _mark(self) -> Mark:
        items = {key: (text_of(key, value), revision) for key, (value, revision) in self.items.items()}
        return Mark.of(self.revision, items)

    def _note(self, *entry: Any) -> None:
        os.write(self._diary, msgspec.json.encode(entry) + b"\n")


KeyValue = type("KeyValue", (Diarist, load_application(f"{APP}:KeyValue")), {})


class Applied(NamedTuple):
    """A command that was given to the application.

    :ivar result: what came of it.
    """

    slot: Slot
    input: Input
    result: Any


class Mark(NamedTuple):
    """A state: its revision, and a hash of the whole."""

    revision: int
    digest: str

    @classmethod
    def of(cls, revision: int, items: Items) -> Mark:
        """The mark of a state."""
        return cls(revision, hashlib.blake2b(msgspec.json.encode(sorted(items.items())), digest_size=16).hexdigest())


NOTHING = Mark.of(0, {})


@attrs.frozen
class Stretch:
    """What a life applied, one after the other, and the state in which it began that."""

    begin: Mark
    applied: list[Applied] = attrs.field(factory=list)


@attrs.frozen
class Life:
    """One life of a node.

    :ivar name: the node, and which of its lives.
    :ivar stretches: the first begins with nothing, each other with a snapshot.
    :ivar told: the snapshots that it has told to the end.
    """

    name: str
    stretches: list[Stretch]
    told: list[Mark]


def diary_file(folder: Path, node: str, life: int) -> Path:
    """Where the diary of a life is."""
    return folder / f"{node}-{life}.diary"


def read_life(file: Path) -> Life:
    """What a diary says. The end of a line, and all after it, is missing if the node was killed meanwhile."""
    life = Life(file.stem, [Stretch(NOTHING)], [])
    for line in file.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        match msgspec.json.decode(line):
            case ["applied", slot, input, result]:
                life.stretches[-1].applied.append(Applied(slot, freeze(input), result))
            case ["restored", revision, digest]:
                life.stretches.append(Stretch(Mark(revision, digest)))
            case ["told", revision, digest]:  # pragma: no branch
                life.told.append(Mark(revision, digest))
    return life


def read_lives(folder: Path) -> Iterator[Life]:
    """What all diaries in a folder say, one after the other."""
    return map(read_life, sorted(folder.glob("*.diary")))
