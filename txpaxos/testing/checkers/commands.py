"""The effect of a log of commands on the state, derived from the log's values alone."""

from __future__ import annotations

from collections.abc import Sequence

from txpaxos.core.messages import Slot
from txpaxos.wire.commands import Run, is_for_registers, session_created_at_slot


class ExpectedCommands:
    """Each command is applied at most once: not after its client has acknowledged the result, and not after its session
    was forgotten.

    :param sessions_max: how many sessions are kept. Of more, the session that was used longest ago is forgotten.
    """

    def __init__(self, sessions_max: int) -> None:
        self._sessions_max = sessions_max
        # The last slot of each session that is kept, in the order of last use, and the last slot of those forgotten.
        self._sessions: dict[bytes, Slot] = {}
        self._horizon: Slot = 0
        self._given_up: dict[bytes, int] = {}
        self._applied_at: dict[tuple[bytes, int], Slot] = {}
        self._applied_through = [0]

    def choose(self, runs: Sequence[Run]) -> list[tuple[Run, list[int]]]:
        """``runs`` are in the next slot.

        :returns: the runs of which commands are applied for the first time, and the sequences of those commands.
        """
        slot = len(self._applied_through)
        applied = []
        count = self._applied_through[-1]
        for run in runs:
            given_up = self._given_up.get(run.session, 0)
            new = [
                sequence
                for sequence in run.sequences
                if sequence > given_up and (run.session, sequence) not in self._applied_at
            ]
            if not new or not self._is_welcome(run.session, slot):
                continue
            applied.append((run, new))
            if not is_for_registers(run.session):
                count += len(new)
            self._applied_at.update(((run.session, sequence), slot) for sequence in new)
            self._given_up[run.session] = max(given_up, run.acknowledged)
            self._use(run.session, slot)
        self._applied_through.append(count)
        return applied

    def applied_through(self, slot: Slot) -> int:
        """How many commands the application applies through ``slot``."""
        return self._applied_through[slot]

    def applied_at(self, session: bytes, sequence: int) -> Slot | None:
        """The slot at which a command is applied; ``None`` if it is in no slot."""
        return self._applied_at.get((session, sequence))

    def is_forgotten(self, session: bytes) -> bool:
        """Whether no command of ``session`` is applied any more."""
        return session not in self._sessions and session_created_at_slot(session) < self._horizon

    def _is_welcome(self, session: bytes, slot: Slot) -> bool:
        return session in self._sessions or self._horizon <= session_created_at_slot(session) < slot

    def _use(self, session: bytes, slot: Slot) -> None:
        self._sessions.pop(session, None)
        self._sessions[session] = slot
        if len(self._sessions) > self._sessions_max:
            self._horizon = self._sessions.pop(next(iter(self._sessions)))
