"""Exactly once: what each session has had applied, and with what result.

A command carries its session and a sequence within it. A command sent again, through whichever node and leader, has the
same two, and gets the first result instead of a second application. The table is part of the replicated state: it
changes only with the log, the same on every node (Ongaro's thesis, 2014, section 6.3).
"""

from __future__ import annotations

import attrs

from txpaxos.wire.commands import Command

SESSIONS_MAX = 65536
"""Sessions remembered. Of more, the one used longest ago, in log order, is forgotten."""


@attrs.frozen
class Outcome:
    """What became of a command.

    :ivar value: what ``apply`` returned.
    :ivar error: the exception it raised instead, as text, or ``None``.
    """

    value: object = None
    error: str | None = None


@attrs.define
class _Session:
    """Results by sequence, of those the caller has not acknowledged yet."""

    acknowledged: int = 0
    outcomes: dict[int, Outcome] = attrs.field(factory=dict)


class Sessions:
    """The table of all sessions."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions: dict[bytes, _Session] = {}
        self._sessions_max = sessions_max

    def is_applied(self, command: Command) -> bool:
        """Whether the command was applied before."""
        session = self._sessions.get(command.session)
        return session is not None and (
            command.sequence <= session.acknowledged or command.sequence in session.outcomes
        )

    def outcome(self, command: Command) -> Outcome | None:
        """What the command gave when it was applied, if that is still remembered."""
        session = self._sessions.get(command.session)
        return None if session is None else session.outcomes.get(command.sequence)

    def record(self, command: Command, outcome: Outcome) -> None:
        """Note that the command was applied now."""
        session = self._sessions.pop(command.session, None) or _Session()
        self._sessions[command.session] = session  # At the end: used last.
        session.outcomes[command.sequence] = outcome
        if command.acknowledged > session.acknowledged:
            session.acknowledged = command.acknowledged
            for sequence in [one for one in session.outcomes if one <= command.acknowledged]:
                del session.outcomes[sequence]
        if len(self._sessions) > self._sessions_max:
            del self._sessions[next(iter(self._sessions))]

    def __len__(self) -> int:
        return len(self._sessions)
