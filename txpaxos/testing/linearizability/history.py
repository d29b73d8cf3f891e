"""What clients asked of a service and what they were answered: recorded while they run, kept as JSON lines.

One line is one event. Each operation begins with ``invoke`` and ends with one of the others, or with nothing at all::

    {"time": 0.51, "client": "a", "operation": 1, "type": "invoke", "input": ["write", 5]}
    {"time": 0.53, "client": "a", "operation": 1, "type": "ok", "output": null}

===========  ======================================================================
type         what it says
===========  ======================================================================
``invoke``   the client is about to ask; ``input`` is what
``ok``       it was answered; ``output`` is what
``fail``     it surely was not applied and never will be; ``error`` says why
``unknown``  it may have been applied, or be applied at any later time; so may one
             that does not end at all
===========  ======================================================================

**The order of the lines is the order of the events.** The line of an invocation is written before the operation
begins, that of its end after it has ended, and a line is one append, so that several processes may share a file (under
different client names). ``time`` (seconds) is for people; no decision rests on it, nor on any clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

import attrs
import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txpaxos.errors import NotChosen, Overloaded, PaxosError, ValueTooLarge

EventType: TypeAlias = Literal["invoke", "ok", "fail", "unknown"]

NOT_APPLIED = (ValueTooLarge, Overloaded, NotChosen)
"""The errors that promise that a command was not applied."""


class HistoryError(PaxosError):
    """A history cannot be written or read, or its events contradict each other. It was not checked."""


class Unknown(Enum):
    """The type of :data:`UNKNOWN`."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""The output of an operation whose output is not known."""


@attrs.frozen
class HistoryEvent:
    """One line of a history. ``time`` is in seconds. ``operation`` numbers the operations of ``client``. ``input``,
    ``output`` (JSON) and ``error`` are only read where the ``type`` has them."""

    time: float
    client: str
    operation: int
    type: EventType
    input: Any = None
    output: Any = None
    error: str = ""


@attrs.frozen(eq=False)
class Operation:
    """One operation, from its invocation to its end. Each is equal to itself alone.

    :ivar client: who asked.
    :ivar number: which of the client's operations.
    :ivar input: what was asked: frozen JSON, see :func:`freeze`.
    :ivar output: the answer, frozen JSON; :data:`UNKNOWN` unless ``outcome`` is ``ok``.
    :ivar outcome: how it ended.
    :ivar invoked: line of the invocation, from 1.
    :ivar returned: line of the end; ``None`` while it may still be applied.
    :ivar invoked_seconds: time of the invocation.
    :ivar returned_seconds: time of the end, if ``returned``.
    """

    client: str
    number: int
    input: Any
    output: Any
    outcome: EventType
    invoked: int
    returned: int | None
    invoked_seconds: float = 0.0
    returned_seconds: float = 0.0


class FrozenDict(dict[Any, Any]):
    """A JSON object that can be hashed, so that it can be part of a state. It must not be changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def freeze(value: Any) -> Any:
    """``value`` (JSON) with tuples for lists and :class:`FrozenDict` for objects, so that it can be hashed."""
    if isinstance(value, list):
        return tuple([freeze(item) for item in value])
    if isinstance(value, dict):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    return value


class HistoryRecorder:
    """Records what clients do.

    :param clock: tells the time.
    :param path: the file to write; without one, the events are only kept in memory.
    :param append: let ``path`` be there already: another process writes it too, or did before.
    :param not_applied: the errors after which an operation is taken for surely not applied.
    :ivar events: the events of this recorder, as :func:`read_history` would return them.
    :raises HistoryError: if ``path`` cannot be created, or is there and ``append`` is not set.
    """

    def __init__(
        self,
        clock: IReactorTime,
        path: str | None = None,
        *,
        append: bool = False,
        not_applied: tuple[type[BaseException], ...] = NOT_APPLIED,
    ) -> None:
        self.events: list[HistoryEvent] = []
        self.not_applied = not_applied
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._path = path
        self._file: int | None = None
        if path is not None:
            must_be_new = 0 if append else os.O_EXCL
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | must_be_new, 0o666)
            except FileExistsError:
                raise HistoryError(f"{path} is there already: remove it, or record to another file") from None
            except OSError as error:
                raise HistoryError(f"cannot record to {path}: {error.strerror}") from error

    def record(
        self,
        client: str,
        input: Any,
        begin: Callable[[], Any],
        output: Callable[[Any], Any] = lambda result: result,
    ) -> Deferred[Any]:
        """Begin an operation by calling ``begin``, and record its invocation and its end.

        :param client: who asks. Different processes that share a file use different names.
        :param input: what is asked, for the model to understand: anything that JSON can carry.
        :param begin: returns a Deferred, a coroutine or the result.
        :param output: makes of the result what the model is to see: anything that JSON can carry.
        :returns: fires with the result of ``begin``, or fails as it does. After one of the errors in ``not_applied``
            the operation is recorded as ``fail``, after any other as ``unknown``.
        :raises HistoryError: if the invocation cannot be written; ``begin`` is not called then. If the end cannot be
            written, the Deferred fails with it.
        """
        number = self.invoke(client, input)

        def succeeded(result: Any) -> Any:
            self.ok(client, number, output(result))
            return result

        def failed(failure: Failure) -> Failure:
            end = self.fail if failure.check(*self.not_applied) else self.unknown
            end(client, number, f"{type(failure.value).__name__}: {failure.getErrorMessage()}")
            return failure

        return maybeDeferred(begin).addCallbacks(succeeded, failed)

    def invoke(self, client: str, input: Any) -> int:
        """``client`` is about to ask. Returns the number of the operation."""
        number = self._numbers.get(client, 0) + 1
        self._add(client, number, "invoke", input=input)
        self._numbers[client] = number
        return number

    def ok(self, client: str, number: int, output: Any = None) -> None:
        """The operation was answered."""
        self._add(client, number, "ok", output=output)

    def fail(self, client: str, number: int, error: str = "") -> None:
        """The operation was certainly not applied, and never will be."""
        self._add(client, number, "fail", error=error)

    def unknown(self, client: str, number: int, error: str = "") -> None:
        """The operation may have been applied, or be applied at any later time."""
        self._add(client, number, "unknown", error=error)

    def operations(self) -> list[Operation]:
        """The operations so far."""
        return pair(self.events)

    def close(self) -> None:
        """Close the file. An operation that has not ended stays open for ever."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _add(self, client: str, number: int, type: EventType, **content: Any) -> None:
        fields = {"time": self._clock.seconds(), "client": client, "operation": number, "type": type, **content}
        try:
            line = msgspec.json.encode(fields)
            event = _decode(line)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise HistoryError(f"client {client}, operation {number}: JSON cannot carry it: {error}") from None
        if self._path is not None:
            self._write(line + b"\n")
        self.events.append(event)

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise HistoryError(f"{self._path} is closed: the end of an operation came too late to be recorded")
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise HistoryError(f"cannot record to {self._path}: {error.strerror}") from error
        if written != len(line):
            raise HistoryError(f"cannot record to {self._path}: only part of a line was written; is the disk full?")


_decode = msgspec.json.Decoder(HistoryEvent).decode


def read_history(path: str) -> list[HistoryEvent]:
    """The events in a file, one to a line.

    :raises HistoryError: if it cannot be read, or a line is no event.
    """
    events = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    events.append(_decode(line))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise HistoryError(f"{path}, line {number} is no event: {error}") from None
    except OSError as error:
        raise HistoryError(f"cannot read {path}: {error.strerror}") from error
    return events


def pair(events: Iterable[HistoryEvent]) -> list[Operation]:
    """The operations of ``events``, in the order of their invocations.

    :raises HistoryError: if an operation is invoked twice, ends twice, or ends without an invocation; or if its input
        or output is nested too deeply.
    """
    invocations: dict[tuple[str, int], tuple[int, HistoryEvent]] = {}
    ended: dict[tuple[str, int], tuple[int, HistoryEvent]] = {}
    for line, event in enumerate(events, 1):
        key = event.client, event.operation
        wrong = ""
        if event.type == "invoke":
            wrong = "is invoked twice" if key in invocations else ""
            invocations[key] = line, event
        else:
            wrong = "ends and was not invoked" if key not in invocations else "ends twice" if key in ended else ""
            ended[key] = line, event
        if wrong:
            raise HistoryError(f"line {line}: operation {event.operation} of client {event.client!r} {wrong}")
    operations = []
    for key, (line, event) in invocations.items():
        try:
            operations.append(_operation(line, event, *ended.get(key, (None, None))))
        except RecursionError:
            raise HistoryError(f"line {line}: the input or output is nested too deeply") from None
    return operations


def _operation(invoked: int, event: HistoryEvent, returned: int | None, end: HistoryEvent | None) -> Operation:
    outcome: EventType = "unknown"
    output: Any = UNKNOWN
    returned_seconds = 0.0
    if end is None or end.type == "unknown":
        returned = None
    else:
        outcome, returned_seconds = end.type, end.time
        output = freeze(end.output) if outcome == "ok" else UNKNOWN
    client, number, asked = event.client, event.operation, freeze(event.input)
    return Operation(client, number, asked, output, outcome, invoked, returned, event.time, returned_seconds)
