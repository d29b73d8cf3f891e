"""Commands, and the values of the log, which are batches of commands.

Commands travel as runs. A run is a row of commands of one session with consecutive sequences. The commands that a
client, or a program with a node in it, submits within one turn of its reactor are one run. A run is sent, proposed,
applied and answered as a whole, and names its session once.

A batch is one byte of format version (2) and a MessagePack array of ``[session, sequence, acknowledged, [payload,
...]]``. The leader that proposes a batch encodes it once, and all nodes copy the bytes. The empty batch is ``b""``,
which is also the no-op of the log.

A leader puts a stamp before each batch (:mod:`txpaxos.wire.stamps`). The batch after a stamp may be empty: such a value
makes timers fire, or keeps them alive.

The commands of the registers (:mod:`txpaxos.wire.registers`) travel in runs of their own. The session of such a run
ends in ``REGISTERS_MARK``. A batch with such a run begins with another byte (``R``), so that a node of an earlier
release refuses the batch: it would take those commands for commands of its application.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from txpaxos.errors import CodecError, UnknownVersion
from txpaxos.wire.stamps import batch_of

BATCH_VERSION = 2
REGISTERS_BATCH_VERSION = ord("R")
"""The first byte of a batch in which a run is for the registers."""
SESSION_BYTES_MIN = 8
SESSION_BYTES_MAX = 32
COMMAND_BYTES_MAX = 16 * 2**20
"""The longest command, the longest query, and the longest value of a register."""

RUN_BYTES = 2**16
"""No command joins a run that would then have more bytes. A bigger command is a run by itself."""
RUN_COMMANDS = 1024
"""No command joins a run that has this number of commands."""

PAYLOADS_MAX = 4096
"""The most commands that are taken in one run."""
RUNS_MAX = 2048
"""The most runs in a batch or a message."""
BATCH_COMMANDS_MAX = 2 * PAYLOADS_MAX
"""The most commands in a batch or a message. Without a limit, few bytes could hold a number of commands whose decoding
takes long, and many times the memory of the bytes."""

_BYTES_UNCOUNTED = 2**20
"""In shorter messages the commands are not counted before they are decoded: they are too few to matter."""

_CREATED_AT_BYTES = 8
_RANDOM_BYTES = 16
_OWNER_BYTES = 8
REGISTERS_MARK = b"register"
"""The end of the name of a session whose commands are for the registers."""
REGISTERS_MARK_AT = _CREATED_AT_BYTES + _RANDOM_BYTES
"""Where that end begins. The name of any other session that nodes and clients make ends there."""
_COUNT_MAX = 2**64 - 1
_ONLY_BYTES = {bytes}

Session: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=SESSION_BYTES_MIN, max_length=SESSION_BYTES_MAX)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Payloads: TypeAlias = Annotated[tuple[bytes, ...], msgspec.Meta(min_length=1, max_length=PAYLOADS_MAX)]


class Run(NamedTuple):
    """Commands that a caller wants applied in this order, each once.

    :ivar session: the caller's session, 8 to 32 bytes, made with ``new_session``.
    :ivar sequence: the sequence of the first command, 0 to 2**64 - 1. Each further command has one more. A command that
        is sent again keeps its sequence, though it may be in another run.
    :ivar acknowledged: the caller has the results up to this sequence, so nodes may forget them.
    :ivar payloads: the commands, at least one: opaque bytes for ``apply``.
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
    """The name of a new session.

    The name contains the slot at which the session was created. By it a node tells a new session from a forgotten one:
    a session that was created after the last use of every forgotten session must be new.

    :param random_bytes: 16 random bytes, which make the name unique.
    :param created_at_slot: a slot that a node has applied by now.
    """
    assert len(random_bytes) == _RANDOM_BYTES
    return created_at_slot.to_bytes(_CREATED_AT_BYTES, "big") + random_bytes


def owned_by(principal: str, random_bytes: bytes) -> bytes:
    """The random bytes for :func:`new_session`, when keys are on: the session belongs to ``principal``, and no node
    takes it from another one.

    :param random_bytes: 16 random bytes, of which the first 8 are used.
    """
    return random_bytes[:-_OWNER_BYTES] + session_owner(principal)


def session_owner(principal: str) -> bytes:
    """The end of the name of each session that belongs to ``principal``."""
    return blake2b(principal.encode(), digest_size=_OWNER_BYTES).digest()


def owner_of(session: bytes) -> bytes:
    """The :func:`session_owner` of the principal that ``session`` belongs to. Without keys each session has one of its
    own, since all of its name is random then."""
    if len(session) < REGISTERS_MARK_AT:
        return session
    return session[REGISTERS_MARK_AT - _OWNER_BYTES : REGISTERS_MARK_AT]


def belongs_to(session: bytes, owner: bytes) -> bool:
    """Whether ``session`` belongs to the principal of which ``owner`` is the :func:`session_owner`."""
    return len(session) == REGISTERS_MARK_AT and session[-_OWNER_BYTES:] == owner


def is_for_registers(session: bytes) -> bool:
    """Whether the commands of ``session`` are for the registers, and not for the application."""
    return session[REGISTERS_MARK_AT:] == REGISTERS_MARK


def session_created_at_slot(session: bytes) -> int:
    """The slot at which the session was created, from its name."""
    return int.from_bytes(session[:_CREATED_AT_BYTES], "big")


Runs: TypeAlias = Annotated[tuple[Run, ...], msgspec.Meta(max_length=RUNS_MAX)]


class _UndecodedRun(NamedTuple):
    """A run whose parts are not decoded."""

    session: msgspec.Raw
    sequence: msgspec.Raw
    acknowledged: msgspec.Raw
    payloads: msgspec.Raw


_UndecodedRuns: TypeAlias = Annotated[tuple[_UndecodedRun, ...], msgspec.Meta(max_length=RUNS_MAX)]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Runs).decode
_decode_no_payloads = msgspec.msgpack.Decoder(_UndecodedRuns).decode
_VERSION_BYTE = bytes([BATCH_VERSION])
_REGISTERS_VERSION_BYTE = bytes([REGISTERS_BATCH_VERSION])


def encode_batch(runs: Sequence[Run]) -> bytes:
    """The value that holds ``runs``; ``b""`` if there are none.

    :raises ValueError: if there are too many, or one is not sound. A value that no node can decode must not be chosen.
    """
    check_runs(runs)
    count, has_registers = 0, False
    for run in runs:
        count += len(run.payloads)
        has_registers |= run.session[REGISTERS_MARK_AT:] == REGISTERS_MARK
    if len(runs) > RUNS_MAX or count > BATCH_COMMANDS_MAX:
        raise ValueError(
            f"{count} commands in {len(runs)} runs: at most {BATCH_COMMANDS_MAX} in {RUNS_MAX} are one value"
        )
    if not runs:
        return b""
    return (_REGISTERS_VERSION_BYTE if has_registers else _VERSION_BYTE) + _encode(runs)


def decode_batch(value: bytes) -> tuple[Run, ...]:
    """The runs that ``value`` holds, with a stamp or without one.

    :raises CodecError: if ``value`` is no batch. No other error is raised.
    :raises UnknownVersion: a CodecError: if the batch has another version, and may be from another release.
    """
    batch = batch_of(value)
    if not batch:
        return ()
    if batch[0] != BATCH_VERSION and batch[0] != REGISTERS_BATCH_VERSION:
        raise UnknownVersion(
            f"batch of version {batch[0]}, this node reads {BATCH_VERSION}: run one release everywhere"
        )
    try:
        check_command_count(batch[1:])
        runs = _decode(batch[1:])
        for run in runs:
            check_count(run.sequence, len(run.payloads))
    except (msgspec.MsgspecError, ValueError) as error:
        raise CodecError(f"no batch of commands: {error}") from None
    return runs


def check_command_count(runs: memoryview) -> None:
    """Check that an encoded array of runs has no more than ``BATCH_COMMANDS_MAX`` commands, without decoding them.

    :raises ValueError: if there are more, or if ``runs`` is no such array.
    """
    if len(runs) <= _BYTES_UNCOUNTED:
        return
    count = sum(_length(memoryview(shape.payloads)) for shape in _decode_no_payloads(runs))
    if count > BATCH_COMMANDS_MAX:
        raise ValueError(f"{count} commands at once: at most {BATCH_COMMANDS_MAX} are taken")


def _length(array: memoryview) -> int:
    """The length of a MessagePack array, from its head; 0 if ``array`` is no array."""
    match array[0]:
        case 0xDC:
            return int.from_bytes(array[1:3], "big")
        case 0xDD:
            return int.from_bytes(array[1:5], "big")
        case first:
            return first & 0x0F if first & 0xF0 == 0x90 else 0


def check_count(first: int, count: int) -> None:
    """Check that ``count`` numbers from ``first`` on are all below 2**64.

    :raises ValueError: if they are not.
    """
    if first + count - 1 > _COUNT_MAX:
        raise ValueError(f"{count} numbers from {first} on do not fit below 2**64")


def check_run(run: object) -> None:
    """Check that a run has parts of the right types, and can be decoded once it is encoded.

    :raises TypeError: if a part has a wrong type; the error names it.
    :raises ValueError: as of :func:`check_runs`.
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
    """Check that each run can be decoded once it is encoded.

    :raises ValueError: if one cannot; the error describes it.
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
    """Whether ``run`` can be decoded once it is encoded."""
    session, sequence, acknowledged, payloads = run
    return (
        type(session) is bytes
        and SESSION_BYTES_MIN <= len(session) <= SESSION_BYTES_MAX
        and type(sequence) is int  # A bool is refused, though it is an instance of int.
        and type(acknowledged) is int
        and 0 <= acknowledged <= _COUNT_MAX
        and set(map(type, payloads)) == _ONLY_BYTES
        and len(payloads) <= PAYLOADS_MAX
        and 0 <= sequence <= _COUNT_MAX - len(payloads) + 1
    )
