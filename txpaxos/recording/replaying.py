"""Runs the core again over a recording, step by step, and compares.

The core is made from the first entry of the oldest segment, or from the state there. Each call is made again, and is
given the chance that it was given. What it returns must have the digest that was recorded. Where another segment
begins, the whole state of the core must be the one that is written there. So a difference shows at the first call that
does something else, or, if nothing was to be seen outside, at the next segment.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any, TypeAlias, cast

import attrs

from txpaxos.core.membership import Change
from txpaxos.core.replica import Replica
from txpaxos.errors import RecordingError
from txpaxos.recording.calls import METHODS, digest, ready_of, shown, standing_for
from txpaxos.recording.entries import pack
from txpaxos.recording.events import CoreCalled, CoreMade, CoreState, Event, SegmentBegun
from txpaxos.recording.graph import Dump, Load
from txpaxos.recording.options import this_release
from txpaxos.recording.redaction import Value, restored, stored_again

Plain: TypeAlias = Any

MADE = "make"
STATE = "state"


@attrs.frozen
class Difference:
    """Where a core does not do what was recorded.

    :ivar run: the run of the node.
    :ivar number: the number of the call in that run; 0 when the core was made.
    :ivar call: the method; ``make`` when the core was made, ``state`` when its whole state was compared.
    :ivar now: the time of the call, in monotonic seconds.
    :ivar arguments: the arguments of the call, as text.
    :ivar returned: what the core of this program returns, as text.
    :ivar recorded: what was recorded: a digest of what was returned, or the name of an exception.
    """

    run: int
    number: int
    call: str
    now: float
    arguments: str
    returned: str
    recorded: str


@attrs.frozen
class Step:
    """An event, and what follows from it.

    :ivar event: the event.
    :ivar result: what the core has returned; ``None`` if the event is no call.
    :ivar core: the core, after the call; ``None`` before there is one. It goes on with the next step.
    :ivar difference: that it is not what was recorded; then this is the last step.
    """

    event: Event
    result: Any = None
    core: Replica | None = attrs.field(default=None, repr=False)
    difference: Difference | None = None


class Unexpected(Exception):
    """The core asks for something that it did not ask for when it was recorded."""


class _Given:
    """What a core is given during one call, as it was recorded."""

    def __init__(self) -> None:
        self._left: list[Any] = []

    def begin(self, given: Iterable[Any]) -> None:
        self._left = list(given)

    def take(self, kinds: type[Any] | tuple[type[Any], ...], what: str) -> Any:
        if not self._left or type(self._left[0]) not in (kinds if isinstance(kinds, tuple) else (kinds,)):
            raise Unexpected(f"it asks for {what}, and did not when it was recorded")
        return self._left.pop(0)

    def end(self) -> None:
        if self._left:
            raise Unexpected("it asks for less than when it was recorded")


class RecordedRandom(Random):
    """Gives what was drawn when it was recorded."""

    def __init__(self, given: _Given) -> None:
        super().__init__(0)
        self._given = given

    def __new__(cls, *_: object) -> RecordedRandom:
        """Make one."""
        return super().__new__(cls)

    def random(self) -> float:
        """A number from 0 to 1."""
        return cast(float, self._given.take(float, "a random number"))

    def getrandbits(self, k: int, /) -> int:
        """A number of ``k`` bits."""
        return cast(int, self._given.take(int, f"{k} random bits"))


class Replayer:
    """Runs the core of one node again.

    :ivar inputs: how many calls were the same.
    :ivar readys: how many of them returned something to do.
    """

    def __init__(self) -> None:
        self.inputs = self.readys = 0
        self._given = _Given()
        self._rng = RecordedRandom(self._given)
        self._core: Replica | None = None
        self._run = self._number = 0
        self._now = 0.0
        self._path = ""
        self._value: Value | None = None
        self._standing = standing_for(None)
        self._things: dict[str, Any] = {"rng": self._rng, "admits": self._admits, "change_of": self._change_of}
        # Bound methods are made anew each time they are looked up, so these are kept.
        self._names = {id(thing): name for name, thing in self._things.items()}

    def steps(self, events: Iterable[Event]) -> Iterator[Step]:
        """Each of ``events`` with what follows from it, up to the first difference.

        :raises RecordingError: if the recording cannot be read any further, or is of another release.
        """
        for event in events:
            step = self._step(event)
            yield step
            if step.difference is not None:
                return

    def _step(self, event: Event) -> Step:
        match event:
            case SegmentBegun():
                self._begin(event)
            case CoreMade():
                self._now = event.now
                return self._made(event)
            case CoreState():
                return self._state(event)
            case CoreCalled():
                self._number, self._now = event.number, event.now
                return self._called(event)
        return Step(event, None, self._core)

    def _begin(self, event: SegmentBegun) -> None:
        if event.release != this_release():
            line = f"was recorded by release {event.release}, and this is {this_release()}: replay it with that one"
            raise RecordingError(f"{event.path} {line}", event.path)
        if event.run != self._run or event.inputs != self._number:
            self._core = None  # Another start; or the node has removed what comes between, meanwhile.
        self._run, self._number, self._path = event.run, event.inputs, event.path
        self._value = stored_again if event.is_redacted else None
        self._standing = standing_for(self._value)

    # what the core asks of its node

    def _admits(self, value: bytes, chosen: bool) -> bool:
        return cast(bool, self._given.take(bool, "whether a value can be applied"))

    def _change_of(self, value: bytes) -> Change | None:
        return cast("Change | None", self._given.take((type(None), Change), "what a value says about members"))

    # steps

    def _made(self, event: CoreMade) -> Step:
        self._given.begin(event.given)
        named = event.arguments
        try:
            self._core = Replica(
                *(named["node"], named["members"], self._rng, event.now, named["saved"], named["timing"]),
                *(named["limits"], named["base"], named["votes"], self._things["admits"]),
                change_of=self._things["change_of"],
                configurations=named["configurations"],
            )
            self._given.end()
            state = zlib.crc32(pack(self._dump()[0]))
        except Exception as error:  # Whatever the bytes are.
            return self._differs(event, MADE, "", f"{type(error).__name__}: {error!s:.500}", "a core")
        if state != event.state:
            return self._differs(event, MADE, "", f"a core whose state is {state:08x}", f"{event.state:08x}")
        return Step(event, None, self._core)

    def _state(self, event: CoreState) -> Step:
        value = restored if self._value is not None else None
        if self._core is None:
            try:
                core: Replica = Load(self._things, value, _with(value, event.values)).item(event.plain)
                core.status()
            except Exception as error:  # Whatever the bytes are.
                raise RecordingError(f"{self._path} begins with no state of a core: {error}", self._path) from None
            self._core = core
            return Step(event, None, core)
        try:
            plain, values = self._dump()
        except Exception as error:  # A core that was made from such bytes may hold anything.
            return self._differs(event, STATE, "", f"{type(error).__name__}: {error!s:.500}", "the state of a core")
        if plain != event.plain:
            return self._differs(event, STATE, "", *_first_difference(plain, event.plain, "core"))
        if values != event.values:
            return self._differs(event, STATE, "", "other values in core.log", "those of the recording")
        return Step(event, None, self._core)

    def _called(self, event: CoreCalled) -> Step:
        if self._core is None:
            raise RecordingError(f"{self._path}: call {event.number} comes before there is a core", self._path)
        self._given.begin(event.given)
        result: Any = None
        try:
            result = METHODS[event.call](self._core, event.now, event.arguments)
            self._given.end()
            found: int | str = digest(result, self._standing)
            said = shown(result)
        except Unexpected as error:
            found, said = "", str(error)
        except Exception as error:
            found = type(error).__name__
            said = f"{found}: {error!s:.500}"
        if found != event.result:
            recorded = f"{event.result:08x}" if isinstance(event.result, int) else event.result
            said = f"{found:08x}: {said}" if isinstance(found, int) else said
            return self._differs(event, event.call.method, shown(event.arguments), said, recorded, result)
        self.inputs += 1
        if isinstance(found, int) and not ready_of(result).is_empty:
            self.readys += 1
        return Step(event, result, self._core)

    def _differs(
        self, event: Event, call: str, arguments: str, returned: str, recorded: str, result: Any = None
    ) -> Step:
        difference = Difference(self._run, self._number, call, self._now, arguments, returned, recorded)
        return Step(event, result, self._core, difference)

    def _dump(self) -> tuple[Plain, tuple[tuple[bytes, ...], ...]]:
        """The state of the core as plain data, and the lists of values in it, as they are recorded."""
        dump = Dump(self._names, self._value)
        plain = dump.plain(self._core)
        return plain, tuple(_with(self._value, dump.values))


def _first_difference(found: Plain, recorded: Plain, place: str) -> tuple[str, str]:
    """Where two states differ first: what is there now, and what was recorded, each with its place."""
    if isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        for index, (one, other) in enumerate(zip(found, recorded, strict=True)):
            if one != other:
                named = found[0] in ("o", "d") and index > 1 and isinstance(found[index - 1], str)
                inner = f"{place}.{found[index - 1]}" if named else place
                return _first_difference(one, other, inner)
    return f"{place}: {found!r:.500}", f"{recorded!r:.500}"


def _with(value: Value | None, lists: Iterable[Sequence[bytes]]) -> list[tuple[bytes, ...]]:
    return [tuple(one) if value is None else tuple(map(value, one)) for one in lists]
