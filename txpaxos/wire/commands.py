"""Commands, and the values of the log: batches of them.

Commands travel as runs: those of one session whose sequences follow each other. Whatever a client, or a node's own
program, submits within one turn of its reactor is one run, and stays one from there on: sent, proposed, applied and
answered together, with what belongs to the session said once.

A batch is one byte of format version (2) and a MessagePack array of ``[session, sequence, acknowledged, [payload,
...]]``. It is encoded once, by the leader that proposes it, and from there carried as bytes. The empty batch is
``b""``, which is also the no-op of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from txpaxos.errors import CodecError, UnknownVersion

BATCH_VERSION = 2
SESSION_BYTES_MIN = 8
SESSION_BYTES_MAX = 32
COMMAND_BYTES_MAX = 16 * 2**20
"""The longest command, query, or value of a subject."""

RUN_BYTES = 2**16
RUN_COMMANDS = 1024
"""No further command joins a run beyond these, so a bigger command is a run by itself."""

PAYLOADS_MAX = 4096
RUNS_MAX = 2048
BATCH_COMMANDS_MAX = 2 * PAYLOADS_MAX
"""No run has more commands, no batch and no message more runs and more commands in all: they would take a node much
longer to take apart, and many times the memory, than the bytes that they came in."""

_BYTES_UNCOUNTED = 2**20
"""Of what is shorter, the commands need not be counted before it is decoded: they cannot be so many that it matters."""

_CREATED_AT_BYTES = 8
_RANDOM_BYTES = 16
_COUNT_MAX = 2**64 - 1
_ONLY_BYTES = {bytes}

Session: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=SESSION_BYTES_MIN, max_length=SESSION_BYTES_MAX)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Payloads: TypeAlias = Annotated[tuple[bytes, ...], msgspec.Meta(min_length=1, max_length=PAYLOADS_MAX)]


class Run(NamedTuple):
    """Commands that their caller wants applied, in this order, each once.

    :ivar session: the caller's own, 8 to 32 bytes, made with ``new_session``.
    :ivar sequence: of the first command; each that follows has one more. It counts the commands of a session, 0 to
        2**64 - 1. Sent again, a command keeps it, though perhaps in another run.
    :ivar acknowledged: the caller has every answer up to this sequence, so they need not be remembered.
    :ivar payloads: at least one: opaque bytes for ``apply``.
    """

    session: Session
    sequence: Count
    acknowledged: Count
    payloads: Payloads

    @property
    def sequences(self) -> range:
        """The sequences of the commands."""
        return range(self.sequence, self.sequence + len(self.payloads))

    @property
    def size_bytes(self) -> int:
        """The bytes of all payloads."""
        return sum(map(len, self.payloads))


def new_session(random_bytes: bytes, created_at_slot: int) -> bytes:
    """A session's name.

    It says when the session was made, so that a session which is not known can be told from one that was forgotten:
    what was made after the last one forgotten is new for sure.

    :param random_bytes: 16 bytes that nobody else has.
    :param created_at_slot: a slot that some node has applied, with all before it, when the session is made.
    """
    assert len(random_bytes) == _RANDOM_BYTES
    return created_at_slot.to_bytes(_CREATED_AT_BYTES, "big") + random_bytes


def session_created_at_slot(session: bytes) -> int:
    """The slot that was applied when the session was made."""
    return int.from_bytes(session[:_CREATED_AT_BYTES], "big")


Runs: TypeAlias = Annotated[tuple[Run, ...], msgspec.Meta(max_length=RUNS_MAX)]


class _UndecodedRun(NamedTuple):
    """A run whose parts are not looked into."""

    session: msgspec.Raw
    sequence: msgspec.Raw
    acknowledged: msgspec.Raw
    payloads: msgspec.Raw


_UndecodedRuns: TypeAlias = Annotated[tuple[_UndecodedRun, ...], msgspec.Meta(max_length=RUNS_MAX)]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Runs).decode
_decode_no_payloads = msgspec.msgpack.Decoder(_UndecodedRuns).decode
_VERSION_BYTE = bytes([BATCH_VERSION])


def encode_batch(runs: Sequence[Run]) -> bytes:
    """The value that holds ``runs``; ``b""`` if there are none.

    :raises ValueError: if a command is not one: no node could read it again once it is chosen.
    """
    check_runs(runs)
    count = sum(len(run.payloads) for run in runs)
    if len(runs) > RUNS_MAX or count > BATCH_COMMANDS_MAX:
        raise ValueError(
            f"{count} commands in {len(runs)} runs: at most {BATCH_COMMANDS_MAX} in {RUNS_MAX} are one value"
        )
    return _VERSION_BYTE + _encode(runs) if runs else b""


def decode_batch(value: bytes) -> tuple[Run, ...]:
    """The runs that ``value`` holds.

    :raises CodecError: if it is not the value of a batch. Nothing else is raised.
    :raises UnknownVersion: which is one, if it may be that of another release.
    """
    if not value:
        return ()
    if value[0] != BATCH_VERSION:
        raise UnknownVersion(
            f"batch of version {value[0]}, this node reads {BATCH_VERSION}: run one release everywhere"
        )
    try:
        check_command_count(memoryview(value)[1:])
        runs = _decode(memoryview(value)[1:])
        for run in runs:
            check_count(run.sequence, len(run.payloads))
    except (msgspec.MsgspecError, ValueError) as error:
        raise CodecError(f"no batch of commands: {error}") from None
    return runs


def check_command_count(runs: memoryview) -> None:
    """Look whether there are too many commands in an encoded array of runs, without decoding them.

    :raises ValueError: if there are, or if it is no such array.
    """
    if len(runs) <= _BYTES_UNCOUNTED:
        return
    count = sum(_length(memoryview(shape.payloads)) for shape in _decode_no_payloads(runs))
    if count > BATCH_COMMANDS_MAX:
        raise ValueError(f"{count} commands at once: at most {BATCH_COMMANDS_MAX} are taken")


def _length(array: memoryview) -> int:
    """How many items a MessagePack array says that it has; none if it is no array."""
    match array[0]:
        case 0xDC:
            return int.from_bytes(array[1:3], "big")
        case 0xDD:
            return int.from_bytes(array[1:5], "big")
        case first:
            return first & 0x0F if first & 0xF0 == 0x90 else 0


def check_count(first: int, count: int) -> None:
    """Look whether ``count`` sequences from ``first`` on can be told.

    :raises ValueError: if they cannot.
    """
    if first + count - 1 > _COUNT_MAX:
        raise ValueError(f"no number is left for the last of {count} from {first} on")


def check_run(run: object) -> None:
    """Look whether a run was made of the right types, and can be told to others.

    :raises TypeError: naming what is of a wrong type.
    :raises ValueError: as :func:`check_runs`.
    """
    if not isinstance(run, Run):
        raise TypeError(f"a run must be a Run, not {type(run).__name__}")
    if type(run.payloads) is tuple and _is_sound(run):
        return
    session, sequence, acknowledged, payloads = run
    if type(payloads) is not tuple:
        raise TypeError(f"the payloads of a run must be a tuple, not {type(payloads).__name__}")
    if not set(map(type, payloads)) <= _ONLY_BYTES:
        wrong = next(type(payload).__name__ for payload in payloads if type(payload) is not bytes)
        raise TypeError(f"a command must be bytes, not {wrong}")
    if type(session) is not bytes or type(sequence) is not int or type(acknowledged) is not int:
        types = ", ".join(type(one).__name__ for one in run[:3])
        raise TypeError(f"session, sequence and acknowledged of a run must be bytes, int and int, not {types}")
    check_runs((run,))


def check_runs(runs: Iterable[Run]) -> None:
    """Look for what would encode but not decode.

    :raises ValueError: naming the first run that is not one.
    """
    for run in runs:
        session, sequence, acknowledged, payloads = run
        if len(payloads) > PAYLOADS_MAX:
            raise ValueError(f"a run of {len(payloads)} commands: at most {PAYLOADS_MAX} go together")
        if not _is_sound(run):
            kinds = ", ".join(sorted({type(payload).__name__ for payload in payloads}))
            raise ValueError(
                f"session {session!r}, sequence {sequence!r}, acknowledged {acknowledged!r}, {len(payloads)} payloads"
                f" of type {kinds or 'nothing'}: a run needs a session of {SESSION_BYTES_MIN} to {SESSION_BYTES_MAX}"
                " bytes, counts of 0 to 2**64 - 1, and bytes"
            )


def _is_sound(run: Run) -> bool:
    """Whether ``run`` can be decoded again once it is encoded."""
    session, sequence, acknowledged, payloads = run
    return (
        type(session) is bytes
        and SESSION_BYTES_MIN <= len(session) <= SESSION_BYTES_MAX
        and type(sequence) is int  # which a bool is not
        and type(acknowledged) is int
        and 0 <= acknowledged <= _COUNT_MAX
        and set(map(type, payloads)) == _ONLY_BYTES
        and len(payloads) <= PAYLOADS_MAX
        and 0 <= sequence <= _COUNT_MAX - len(payloads) + 1
    )
