"""Exactly once: which commands of each session were applied, and with what result.

A command carries its session and a sequence within the session. A command that is sent again, through any node and
leader, has the same two, and gets its first result instead of a second application. The table is part of the replicated
state: it changes only with the log, the same on every node (Ongaro's thesis, 2014, section 6.3), and goes into every
snapshot.

The table is bounded, so it forgets sessions, and it remembers how far it has forgotten. A session's name says when the
session was made. A session that is not in the table and was made before the :attr:`~Sessions.horizon` may have been in
the table once, so its commands are not applied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import attrs
import msgspec
from twisted.internet.defer import Deferred

from txpaxos.core.messages import Slot
from txpaxos.errors import CodecError, CommandFailed, OutcomeUnknown, SessionExpired
from txpaxos.fields import LEAVES, without_sets
from txpaxos.wire.commands import COMMAND_BYTES_MAX, Count, Run, Session, owner_of, session_created_at_slot

SESSIONS_MAX = 65536
"""How many sessions are remembered. Beyond that, the session used longest ago, in log order, is forgotten."""

OWNER_SHARES = 2
"""How many equal shares of sessions there are, and of the bytes of results, when keys are on. A client with more
sessions than one share loses its own session used longest ago. One with more bytes loses its own results."""

OUTCOMES_MAX = 8192
"""How many outcomes of one session are kept. Beyond that, the eighth with the lowest sequences counts as
acknowledged."""

KEPT_BYTES_MAX = 256 * 2**20
"""How many bytes of results are kept, of all sessions together. Beyond that, the results of the session that has most
are forgotten; among sessions that have about as many, within a factor of two, those of the session used longest ago. So
a session with many results does not cost a session with few results its own."""

RESULT_BYTES_MAX = COMMAND_BYTES_MAX + 2**12
"""The longest result: one that returns the longest command, with some bytes around it."""

ERROR_CHARACTERS_MAX = 4096
"""How much of the text of an exception is told to the caller of its command."""

TEXTS_MAX = 1024
"""How many texts of exceptions are remembered. They are no part of the replicated state: see :class:`Failed`."""

CHUNK_BYTES = 2**16
_DIGITS_MAX = 64
DUMP_VERSION = 1


@attrs.frozen
class Failed:
    """The outcome of a command that gave no result: its caller gets an error of this class, with these words.

    The text of an exception is no part of the replicated state, since it need not be the same on every node: it may
    hold the address of an object, the order of a set, or the words of one release of Python.

    :ivar reason: the same on every node; for an exception, the name of its class.
    :ivar text: what this node can say beyond that; empty if it does not know more.
    """

    error: type[CommandFailed | SessionExpired | OutcomeUnknown]
    reason: str
    text: str = attrs.field(default="", eq=False)

    @property
    def words(self) -> str:
        """What the caller is told."""
        return self.text or self.reason


Outcome: TypeAlias = bytes | Failed
"""What became of a command: what ``apply`` returned, as MessagePack, or why there is no result. An outcome is the same
on every node, and never changes while it is remembered."""

Outcomes: TypeAlias = Sequence[Outcome]
"""The outcomes of a run: one for each of its commands, in their order."""


def not_kept(value: object, why: str) -> Failed:
    """The outcome of a command for which ``apply`` returned a ``value`` that :func:`encode_result` does not take."""
    reason = "applied, but its result cannot be kept"
    if isinstance(value, (Awaitable, Deferred)):
        why = f"apply returned a {type(value).__name__}; it must return the result itself, as a plain function does"
        if isinstance(value, Coroutine):
            value.close()  # It will never be awaited.
    return Failed(CommandFailed, reason, f"{reason}: {why}")


def raised(kind: str, text: str) -> Failed:
    """The outcome of a command for which ``apply`` raised an exception of the class ``kind`` that says ``text``."""
    words = f"{kind}: {text}" if text else ""
    return Failed(CommandFailed, _sendable(kind), _sendable(words))


def _sendable(words: str) -> str:
    """``words``, cut and escaped. Not every str can be encoded as UTF-8, and this text goes to clients and disks."""
    return words[:ERROR_CHARACTERS_MAX].encode(errors="backslashreplace").decode()


def value_of(outcome: Outcome) -> Any:
    """What ``apply`` returned, as MessagePack carries it.

    :raises CommandFailed: if it raised, or its result could not be kept or cannot be decoded.
    :raises SessionExpired: if the command was not applied.
    :raises OutcomeUnknown: if the result is no longer kept.
    """
    if isinstance(outcome, Failed):
        raise outcome.error(outcome.words)
    try:
        return decode_result(outcome)
    except ValueError as error:  # An earlier release has kept it.
        raise CommandFailed(f"applied, but its result is no use: {error}") from None


class _Piece(NamedTuple):
    """A session in a dump. A session with many results goes in several pieces, each with some of the results."""

    session: Session
    acknowledged: Count
    last_used: Count
    outcomes: tuple[tuple[Count, bytes | None, str | None], ...]


class _Chunk(NamedTuple):
    """A part of a dump that can be decoded without the others."""

    version: int
    horizon: Count
    pieces: tuple[_Piece, ...]


_Kept: TypeAlias = bytes | str | None
"""An outcome in the table: the result, or the reason of an error, or ``None`` if the result was too much to keep. It is
no instance of a class of ours: the garbage collector would look at every one of those, sometimes at all in one go."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Chunk).decode
_decode_any = msgspec.msgpack.Decoder().decode


@attrs.define
class _Session:
    """The outcomes, by sequence, that the caller has not acknowledged yet.

    :ivar generation: the table's generation when this session was last changed. A dump may hold a session of an older
        generation, so such a session is copied before it is changed.
    :ivar highest: no sequence of the session is above this one.
    """

    generation: int
    acknowledged: int = 0
    last_used: Slot = 0
    highest: int = 0
    kept_bytes: int = 0
    outcomes: dict[int, _Kept] = attrs.field(factory=dict)

    def outcome(self, sequence: int) -> Outcome | None:
        """The outcome of the command with this sequence; ``None`` if the command was not applied."""
        kept = self.outcomes.get(sequence)
        if isinstance(kept, bytes):
            return kept
        if isinstance(kept, str):
            return Failed(CommandFailed, kept)
        if sequence in self.outcomes or sequence <= self.acknowledged:
            return Failed(OutcomeUnknown, f"command {sequence} was applied before; its result is no longer kept")
        return None


class Sessions:
    """The table of all sessions.

    :ivar horizon: a session made before this slot that is not in the table may have been forgotten.
    """

    def __init__(self, sessions_max: int = SESSIONS_MAX, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self.horizon: Slot = 0
        self._sessions: dict[bytes, _Session] = {}  # In the order of their last use.
        # The sessions that have results to forget, by the number of binary digits of their bytes.
        self._keeping: list[dict[bytes, None]] = [{} for _ in range(_DIGITS_MAX + 1)]
        self._kept_bytes = 0
        self._generation = 0
        self._sessions_max = sessions_max
        self._of_one_owner_max = max(1, sessions_max // OWNER_SHARES)
        self._counts: dict[bytes, int] = {}  # How many sessions each owner has.
        self._bytes_of: dict[bytes, int] = {}  # How many bytes of results each owner has, if any.
        self._kept_bytes_max = kept_bytes_max
        # The texts of the newest commands that failed on this node, by session and sequence. No dump has them.
        self._texts: dict[tuple[bytes, int], str] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session: bytes) -> bool:
        """Whether ``session`` is remembered."""
        return session in self._sessions

    # questions

    def is_expired(self, session: bytes) -> bool:
        """Whether ``session`` may have been forgotten. A session that has expired stays so."""
        return session not in self._sessions and session_created_at_slot(session) < self.horizon

    def outcomes(self, run: Run) -> list[Outcome | None]:
        """The outcome of each command of ``run``; ``None`` for each command that was not applied."""
        session = self._sessions.get(run.session)
        sequences = run.sequences
        # Usually all commands are new, and need not be looked at one by one.
        if session is None or (run.sequence > session.acknowledged and session.outcomes.keys().isdisjoint(sequences)):
            return [None] * len(sequences)
        known = [session.outcome(sequence) for sequence in sequences]
        return (
            [self._with_text(run.session, *one) for one in zip(sequences, known, strict=True)] if self._texts else known
        )

    def _with_text(self, session: bytes, sequence: int, outcome: Outcome | None) -> Outcome | None:
        """``outcome``, with the text of its exception if the command failed and the text is still remembered."""
        if not isinstance(outcome, Failed) or outcome.error is not CommandFailed:
            return outcome
        return attrs.evolve(outcome, text=self._texts.get((session, sequence), ""))

    # changes, by the log alone

    def apply_once(self, slot: Slot, run: Run, apply: Callable[[Slot, bytes], Outcome]) -> Sequence[Outcome]:
        """``run`` is in the log at ``slot``: apply its commands that were not applied before, unless their session is
        forgotten, and remember their outcomes.

        A session cannot have been made at ``slot`` or later. One whose name says so is refused: once forgotten, it
        would never count as expired.
        """
        session = self._sessions.get(run.session)
        if session is None:
            created_at_slot = session_created_at_slot(run.session)
            if created_at_slot < self.horizon:
                return expired(run)
            if created_at_slot >= slot:
                words = f"the session says it was made at slot {created_at_slot}, its commands are in {slot}"
                return [Failed(SessionExpired, words)] * len(run.payloads)
        known = self.outcomes(run)
        if None not in known:
            return [outcome for outcome in known if outcome is not None]
        sequences = run.sequences
        believed = _believed(session, min(run.acknowledged, run.sequence - 1))
        session = self._use(run.session)
        session.last_used = slot
        # Before anything is added: usually all outcomes may go, and need not be looked through.
        self._acknowledge(run.session, session, believed)
        outcomes = [
            apply(slot, payload) if one is None else one for payload, one in zip(run.payloads, known, strict=True)
        ]
        kept = {
            sequence: outcome.reason if isinstance(outcome, Failed) else outcome
            for sequence, outcome, before in zip(sequences, outcomes, known, strict=True)
            if before is None
        }
        session.outcomes.update(kept)
        if Failed in map(type, outcomes):
            self._remember_texts(run, outcomes)
        session.highest = max(session.highest, sequences[-1])
        self._keep(run.session, session, sum(map(len, kept.values())))
        while len(session.outcomes) > OUTCOMES_MAX:
            self._acknowledge(run.session, session, sorted(session.outcomes)[OUTCOMES_MAX // 8 - 1])
        owner = owner_of(run.session)
        self._forget_results_for_room(owner)
        if self._counts[owner] > self._of_one_owner_max:
            self._evict(next(name for name in self._sessions if owner_of(name) == owner))
        elif len(self._sessions) > self._sessions_max:
            self._evict(next(iter(self._sessions)))
        return outcomes

    def _forget_results_for_room(self, owner: bytes) -> None:
        """Forget results while there are too many: of ``owner``, which has more now, or of all together."""
        while self._bytes_of.get(owner, 0) > self._kept_bytes_max // OWNER_SHARES:
            own = (name for some in reversed(self._keeping) for name in some if owner_of(name) == owner)
            self._forget_results(next(own))
        while self._kept_bytes > self._kept_bytes_max:
            self._forget_results(next(next(iter(some)) for some in reversed(self._keeping) if some))

    def _remember_texts(self, run: Run, outcomes: Iterable[Outcome]) -> None:
        """Remember the texts of the commands of ``run`` that failed, for a caller that asks again."""
        for sequence, outcome in zip(run.sequences, outcomes, strict=True):
            if isinstance(outcome, Failed) and outcome.text:
                self._texts[run.session, sequence] = outcome.text
        while len(self._texts) > TEXTS_MAX:
            del self._texts[next(iter(self._texts))]

    def _use(self, name: bytes) -> _Session:
        """The session ``name``, which may be changed, and is the one used last from now on."""
        session = self._sessions.pop(name, None)
        if session is None:
            session = _Session(self._generation)
            self._count(name)
        self._sessions[name] = session = self._own(session)
        return session

    def _count(self, name: bytes) -> None:
        """Count a session that is new to the table."""
        owner = owner_of(name)
        self._counts[owner] = self._counts.get(owner, 0) + 1

    def _own(self, session: _Session) -> _Session:
        """``session``, or a copy of it if a dump may hold it."""
        if session.generation == self._generation:
            return session
        return attrs.evolve(session, generation=self._generation, outcomes=dict(session.outcomes))

    def _keep(self, name: bytes, session: _Session, size_bytes: int) -> None:
        """Count ``size_bytes`` more of results for ``session``, now the last of those that have about as many."""
        if session.kept_bytes:
            del self._keeping[session.kept_bytes.bit_length()][name]
        session.kept_bytes += size_bytes
        self._count_bytes(name, size_bytes)
        if session.kept_bytes:
            self._keeping[session.kept_bytes.bit_length()][name] = None

    def _count_bytes(self, name: bytes, size_bytes: int) -> None:
        """Count ``size_bytes`` more of results: of all sessions, and of the owner of the session ``name``."""
        self._kept_bytes += size_bytes
        owner = owner_of(name)
        kept = self._bytes_of.pop(owner, 0) + size_bytes
        if kept:
            self._bytes_of[owner] = kept

    def _acknowledge(self, name: bytes, session: _Session, sequence: int) -> None:
        """The caller has every outcome up to ``sequence``: forget them."""
        first, outcomes = session.acknowledged + 1, session.outcomes
        if sequence < first:
            return
        session.acknowledged = sequence
        if sequence >= session.highest:
            outcomes.clear()
            self._keep(name, session, -session.kept_bytes)
            return
        if sequence - first < len(outcomes):
            gone = [outcomes.pop(one) for one in range(first, sequence + 1) if one in outcomes]
        else:
            gone = [outcomes.pop(one) for one in [one for one in outcomes if one <= sequence]]
        self._keep(name, session, -sum(len(kept) for kept in gone if kept is not None))

    def _forget_results(self, name: bytes) -> None:
        """Forget the results of a session, and remember only that its commands were applied."""
        session = self._sessions[name] = self._own(self._sessions[name])
        session.outcomes = dict.fromkeys(session.outcomes)
        self._keep(name, session, -session.kept_bytes)

    def _evict(self, name: bytes) -> None:
        session = self._sessions.pop(name)
        if session.kept_bytes:
            del self._keeping[session.kept_bytes.bit_length()][name]
            self._count_bytes(name, -session.kept_bytes)
        owner = owner_of(name)
        self._counts[owner] -= 1
        if not self._counts[owner]:
            del self._counts[owner]
        # A session of an owner that has too many may have been used after one that was forgotten before.
        self.horizon = max(self.horizon, session.last_used)

    # into a snapshot, and out of it

    def dump(self) -> Iterator[bytes]:
        """The whole table as it is now, in chunks of about 64 KiB. A single longer result has a longer chunk.

        The table may change while the chunks are taken: a session that is in a dump is copied before it is changed.
        """
        self._generation += 1
        return _chunks(self.horizon, list(self._sessions), list(self._sessions.values()))

    def load(self, chunks: Iterable[bytes]) -> None:
        """Become the table that was dumped.

        :raises CodecError: if ``chunks`` are no dump. The table stays as it was.
        """
        table = Sessions(self._sessions_max, self._kept_bytes_max)
        for chunk in chunks:
            table.add(chunk)
        table._generation = self._generation
        self.__dict__.update(table.__dict__)

    def add(self, chunk: bytes) -> None:
        """Add the next chunk of a dump. The table must have been empty before the first chunk.

        :raises CodecError: if ``chunk`` is none. The table must not be used after that.
        """
        try:
            version, self.horizon, pieces = _decode(chunk)
        except msgspec.MsgspecError as error:
            raise CodecError(f"no table of sessions: {error}") from None
        if version != DUMP_VERSION:
            raise CodecError(f"table of sessions of version {version}, this node reads {DUMP_VERSION}")
        for name, acknowledged, last_used, outcomes in pieces:
            session = self._sessions.get(name)
            if session is None:
                session = self._sessions[name] = _Session(self._generation, acknowledged, last_used)
                self._count(name)
            for sequence, result, words in outcomes:
                session.highest = max(session.highest, sequence)
                kept = session.outcomes[sequence] = words if result is None else result
                self._keep(name, session, _size_bytes(kept))


def encode_result(value: object) -> bytes:
    """The MessagePack of what a hook returned: of equal values the same on every node, so a set is sorted. The caller
    can decode it: MessagePack can be made of some values, such as a dictionary with an object for a key, and yet
    nothing of that.

    :raises ValueError: if it cannot be encoded, or not decoded again, or is too big.
    """
    is_leaf = type(value) in LEAVES
    try:
        result = _encode(value if is_leaf else without_sets(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if len(result) > RESULT_BYTES_MAX:
        raise ValueError(f"it has {len(result)} bytes and may have {RESULT_BYTES_MAX}")
    if not is_leaf:
        decode_result(result)
    return result


def decode_result(result: bytes) -> Any:
    """What a hook returned, as MessagePack carries it.

    :raises ValueError: if that cannot be decoded.
    """
    try:
        return _decode_any(result)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"it could not be decoded again: {error}") from None


def expired(run: Run) -> list[Outcome]:
    """The outcomes of the commands of ``run``, whose session is forgotten."""
    session = f"session made at slot {session_created_at_slot(run.session)} is no longer known"
    words = f"{session}; commands from {run.sequence} on were not applied now"
    return [Failed(SessionExpired, words)] * len(run.payloads)


def _believed(session: _Session | None, sequence: int) -> int:
    """How far an acknowledgement up to ``sequence`` is believed.

    An acknowledgement may cover commands that never came: their caller gave them up. But one that covers very many of
    those does not come from the session's owner. Believed, it would make all that the owner sends from now on count as
    applied before. The first acknowledgement of a new session is always believed.
    """
    if session is None or sequence - session.acknowledged - len(session.outcomes) <= OUTCOMES_MAX:
        return sequence
    return session.acknowledged


def _size_bytes(kept: _Kept) -> int:
    """Roughly how many bytes an outcome takes."""
    return 0 if kept is None else len(kept)


def _chunks(horizon: Slot, names: list[bytes], sessions: list[_Session]) -> Iterator[bytes]:
    """The chunks of a dump: at least one, which says the horizon."""
    pieces: list[_Piece] = []
    size = 0
    for name, session in zip(names, sessions, strict=True):
        rows: list[tuple[int, bytes | None, str | None]] = []
        for sequence, kept in session.outcomes.items():
            if size > CHUNK_BYTES:
                pieces.append(_Piece(name, session.acknowledged, session.last_used, tuple(rows)))
                yield _encode(_Chunk(DUMP_VERSION, horizon, tuple(pieces)))
                pieces, rows, size = [], [], 0
            rows.append((sequence, None, kept) if isinstance(kept, str) else (sequence, kept, None))
            size += _size_bytes(kept) + 12
        pieces.append(_Piece(name, session.acknowledged, session.last_used, tuple(rows)))
        size += len(name) + 24
        if size > CHUNK_BYTES:
            yield _encode(_Chunk(DUMP_VERSION, horizon, tuple(pieces)))
            pieces, size = [], 0
    if pieces or not sessions:
        yield _encode(_Chunk(DUMP_VERSION, horizon, tuple(pieces)))
