"""What is wrong with an application is said before its node starts, in one line that says what to do."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from test.helpers.fakes import ONE, NodeHarness, Reactor, RecordingStore, node_of
from txpaxos.application_checks import make_application
from txpaxos.counter import Counter
from txpaxos.errors import ConfigError
from txpaxos.protocol import PaxosProtocol


class Service(PaxosProtocol):
    """Nothing is wrong with it."""

    def apply(self, slot: int, command: bytes) -> Any:
        return 1


def made(kind: Callable[..., PaxosProtocol]) -> Any:
    """A node with the application on it."""
    return node_of(make_application(kind), Reactor(), "a", ONE, RecordingStore())


def refused(kind: Callable[..., PaxosProtocol]) -> str:
    """What is said of ``kind`` when its node is made."""
    with pytest.raises(ConfigError) as caught:
        made(kind)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 300
    return line


# ------------------------------------------------------------------- hooks


class NoApply(PaxosProtocol):
    pass


class AskedOnly(PaxosProtocol):
    def value_chosen(self, subject: str, value: bytes) -> None:
        pass


class AsyncApply(PaxosProtocol):
    async def apply(self, slot: int, command: bytes) -> Any:
        return 1


class TakesNoSlot(PaxosProtocol):
    def apply(self, command: bytes) -> Any:  # type: ignore[override]
        return 1


class NeedsMore(Service):
    def query(self, query: bytes, more: int) -> Any:  # type: ignore[override]
        return 1


class Yields(PaxosProtocol):
    def apply(self, slot: int, command: bytes) -> Any:
        yield 1


class TakesItDifferently(PaxosProtocol):
    """Nothing is wrong with it either."""

    @staticmethod
    def apply(*args: Any) -> Any:
        return 1

    def query(self, question: bytes, more: int = 0) -> Any:
        return 1


class AsyncQuery(Service):
    async def query(self, query: bytes) -> Any:
        return 1


class AsyncLeadership(Service):
    async def leadership_acquired(self) -> None:  # type: ignore[override]
        pass


class AsyncSnapshot(Service):
    async def snapshot(self) -> Any:
        yield b""

    def restore(self, chunks: Iterator[bytes]) -> None:
        pass


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


class WrappedAsync(PaxosProtocol):
    @wrapped
    async def apply(self, slot: int, command: bytes) -> Any:
        return 1


class HookIsNoFunction(Service):
    query = None  # type: ignore[assignment]


class SnapshotOnly(Service):
    def snapshot(self) -> bytes:
        return b""


class SnapshotOnlyInherited(SnapshotOnly):
    pass


class RestoreOnly(Service):
    def restore(self, chunks: Iterator[bytes]) -> None:
        pass


class FieldsAndRestore(Counter):
    """So that it understands the snapshots of an older release, too."""

    def restore(self, chunks: Iterator[bytes]) -> None:
        super().restore(chunks)


class NoSuchField(Service):
    state_fields = ("nosuch",)


class FieldsAreText(Service):
    state_fields = "total"  # type: ignore[assignment]


HOOKS = [
    (NoApply, "NoApply has no apply: write def apply(self, slot, command)"),
    (AsyncApply, "AsyncApply.apply is an async function: it must be a plain one (def apply)"),
    (WrappedAsync, "WrappedAsync.apply is an async function"),
    (TakesNoSlot, "TakesNoSlot.apply does not take what it is called with: write def apply(self, slot, command)"),
    (NeedsMore, "NeedsMore.query does not take what it is called with: write def query(self, query)"),
    (Yields, "Yields.apply has a yield in it, so that its body would never run"),
    (AsyncQuery, "AsyncQuery.query is an async function: it must be a plain one (def query); it may return Deferred"),
    (AsyncSnapshot, "AsyncSnapshot.snapshot is an async function"),
    (AsyncLeadership, "AsyncLeadership.leadership_acquired is an async function"),
    (HookIsNoFunction, "HookIsNoFunction.query is no function"),
    (SnapshotOnly, "SnapshotOnly has snapshot and no restore"),
    (SnapshotOnlyInherited, "SnapshotOnlyInherited has snapshot and no restore"),
    (RestoreOnly, "RestoreOnly has restore and no snapshot"),
    (NoSuchField, "NoSuchField.state_fields names 'nosuch', and NoSuchField has no such attribute"),
    (FieldsAreText, "FieldsAreText.state_fields is 'total': it must be names in a tuple"),
]


@pytest.mark.parametrize(("kind", "line"), HOOKS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_hook_that_cannot_be(kind: type[PaxosProtocol], line: str) -> None:
    assert refused(kind).startswith(line)


def test_a_hook_that_can_be_called() -> None:
    made(TakesItDifferently)


# ------------------------------------------------------------- constructors


class NoSuper(Service):
    """Its ``__init__`` needs no ``super``."""

    def __init__(self) -> None:
        self.x = 1


class WantsMore(Service):
    def __init__(self, path: str) -> None:
        self.path = path


class Raises(Service):
    def __init__(self) -> None:
        raise KeyError("my own\nmistake")


class Leaves(Service):
    def __init__(self) -> None:
        raise SystemExit(3)


CONSTRUCTORS = [
    (WantsMore, "WantsMore.__init__ wants arguments, and a node makes its application without any: give them defaults"),
    (Raises, "Raises cannot be made: KeyError: 'my own\\nmistake' ("),
    (Leaves, "Leaves cannot be made: SystemExit: 3 ("),
]


@pytest.mark.parametrize(("kind", "line"), CONSTRUCTORS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_constructor_that_makes_no_application(kind: type[PaxosProtocol], line: str) -> None:
    assert refused(kind).startswith(line)


def test_where_it_raised_is_told() -> None:
    line = Raises.__init__.__code__.co_firstlineno + 1
    assert refused(Raises).endswith(f"({__file__}, line {line})")


class ReadOnly(Service):
    state_fields = ("total",)

    @property
    def total(self) -> int:
        return 1


class OtherType(Service):
    state_fields = ("total",)
    total: int = "none"  # type: ignore[assignment]


class NoSuchType(Service):
    state_fields = ("total",)
    total: Missing = 0  # type: ignore[name-defined] # noqa: F821


class TooBig(Service):
    state_fields = ("total",)
    total = 2**64


FIELDS = [
    (ReadOnly, "ReadOnly.state_fields: total cannot be set: "),
    (
        OtherType,
        "OtherType.state_fields: the value of total cannot be saved and loaded again: Expected `int`, got `str`",
    ),
    (NoSuchType, "NoSuchType.state_fields: the annotations of NoSuchType cannot be looked up: name 'Missing' is not"),
    (TooBig, "TooBig.state_fields: the value of total cannot be saved and loaded again: "),
]


@pytest.mark.parametrize(("kind", "line"), FIELDS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_field_that_could_not_be_loaded_again(kind: type[PaxosProtocol], line: str) -> None:
    """Else the node runs until it is started again after its first snapshot."""
    assert refused(kind).startswith(line)


def test_an_object_is_an_application_too() -> None:
    service = WantsMore("data")
    assert make_application(service) is service


def test_what_makes_something_else() -> None:
    with pytest.raises(ConfigError, match=r"^<lambda> makes a int, which is no subclass of txpaxos.PaxosProtocol$"):
        make_application(lambda: 5)  # type: ignore[type-var]


def test_an_application_has_one_node() -> None:
    service = NoSuper()
    node_of(service, Reactor(), "a", ONE, RecordingStore())
    with pytest.raises(ConfigError, match="this NoSuper has a node already, and what that applied: make a new one"):
        node_of(service, Reactor(), "a", ONE, RecordingStore())


# ------------------------------------------------------------------- names


class NodeOfItsOwn(Service):
    def __init__(self) -> None:
        self._node = "machine 7"  # type: ignore[assignment]


class NodeOfItsClass(Service):
    _node = "machine 7"  # type: ignore[assignment]


NAMES = [
    (NodeOfItsOwn, "this NodeOfItsOwn has a node already"),
    (NodeOfItsClass, "NodeOfItsClass._node: that name is for the node that NodeOfItsClass runs on; give yours another"),
]


@pytest.mark.parametrize(("kind", "line"), NAMES, ids=lambda one: getattr(one, "__name__", ""))
def test_the_one_name_that_is_the_nodes(kind: type[PaxosProtocol], line: str) -> None:
    assert refused(kind).startswith(line)


class Extends(Service):
    """It adds to what a method does, and so calls what was there."""

    state_fields = ("items", "total")

    def __init__(self) -> None:
        self.early = 1
        super().__init__()
        self.items: list[int] = []
        self.total = 0

    def stop(self) -> Deferred[None]:
        return super().stop()


@pytest.mark.parametrize("kind", [Service, Counter, Extends, FieldsAndRestore, AskedOnly, NoSuper, PaxosProtocol])
def test_nothing_is_said_of_what_works(kind: type[PaxosProtocol]) -> None:
    harness = NodeHarness("a", ONE, application=kind)
    assert harness.node.status().replica.node == "a"
    assert harness.failures == []


# ------------------------------------------------------------- to the terminal

TRIALS = """\
from txpaxos.protocol import PaxosProtocol
class NodeClash(PaxosProtocol):
    def __init__(self):
        self._node = []
    def apply(self, slot, command):
        return 1
class WantsMore(PaxosProtocol):
    def __init__(self, path):
        self.path = path
    def apply(self, slot, command):
        return 1
class RestoreMissing(PaxosProtocol):
    def apply(self, slot, command):
        return 1
    def snapshot(self):
        return b"x"
"""


@pytest.mark.parametrize("name", ["NodeClash", "WantsMore", "RestoreMissing"])
def test_twistd_says_it_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "trials.py").write_text(TRIALS)
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "paxos"]
    done = subprocess.run(
        [*command, "--app", f"trials.py:{name}"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stdout
