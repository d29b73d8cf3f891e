"""Chosen values to the application: each command once, in slot order, the same on every node."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.logger import Logger

from txpaxos.core.messages import NO_OP, Slot
from txpaxos.core.ready import Chosen
from txpaxos.sessions import Outcome, Sessions
from txpaxos.wire.commands import Command, decode_batch


class Applier:
    """Takes values apart and applies what is in them.

    An exception in ``apply`` is an outcome like any other: logged with slot and command, recorded in the session, and
    the log goes on. An ``apply`` that depends on nothing but its arguments and the state raises on every node alike, so
    the nodes stay equal; whatever it changed before it raised stays changed, on all of them.

    :param apply: the application's ``apply(slot, command)``.
    :ivar applied_through: every slot up to this one is applied.
    """

    log = Logger()

    def __init__(self, apply: Callable[[Slot, bytes], object]) -> None:
        self.sessions = Sessions()
        self.applied_through: Slot = 0
        self._apply = apply

    def apply(self, chosen: Chosen) -> Iterator[tuple[Command, Outcome | None]]:
        """Apply the value of the next slot, command by command.

        :returns: each command with its outcome; of one applied before, the first outcome, or ``None`` if forgotten; of
            one that is not applied because its session is forgotten, an outcome that says so.
        """
        assert chosen.slot == self.applied_through + 1, (chosen.slot, self.applied_through)
        if chosen.value != NO_OP:
            for command in decode_batch(chosen.value):
                if self.sessions.is_applied(command):
                    yield command, self.sessions.outcome(command)
                    continue
                outcome = self.sessions.refusal(chosen.slot, command)
                if outcome is None:
                    outcome = self._outcome(chosen.slot, command)
                    self.sessions.record(chosen.slot, command, outcome)
                yield command, outcome
        self.applied_through = chosen.slot

    def install(self, slot: Slot, sessions: Sessions) -> None:
        """Go on from a snapshot at ``slot``, in which the sessions were these."""
        self.applied_through = slot
        self.sessions = sessions

    def _outcome(self, slot: Slot, command: Command) -> Outcome:
        try:
            return Outcome.returned(self._apply(slot, command.payload))
        except Exception as error:
            self.log.failure("apply raised at slot {slot} for {command!r}", slot=slot, command=command.payload[:80])
            return Outcome.raised(_words(error))


def _words(error: Exception) -> str:
    """What is wrong, in words. Some exceptions have none, and raise another when they are asked."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
