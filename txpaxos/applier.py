"""Chosen values to the application: each command once, in slot order, the same on every node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.logger import Logger

from txpaxos.core.messages import NO_OP, Slot
from txpaxos.core.ready import Chosen
from txpaxos.sessions import Outcome, Sessions, raised, returned
from txpaxos.wire.commands import Run, decode_batch


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

    def apply(self, chosen: Chosen) -> Iterator[tuple[Run, Sequence[Outcome]]]:
        """Apply the value of the next slot, run by run.

        :returns: each run, with an outcome for each of its commands: of one applied before, the first.
        """
        assert chosen.slot == self.applied_through + 1, (chosen.slot, self.applied_through)
        if chosen.value != NO_OP:
            for run in decode_batch(chosen.value):
                yield run, self.sessions.apply_once(chosen.slot, run, self._outcome)
        self.applied_through = chosen.slot

    def install(self, slot: Slot, sessions: Sessions) -> None:
        """Go on from a snapshot at ``slot``, in which the sessions were these."""
        self.applied_through = slot
        self.sessions = sessions

    def _outcome(self, slot: Slot, command: bytes) -> Outcome:
        try:
            value = self._apply(slot, command)
        except Exception as error:
            self.log.failure("apply raised at slot {slot} for {command!r}", slot=slot, command=command[:80])
            return raised(_words(error))
        return returned(value)


def _words(error: Exception) -> str:
    """What is wrong, in words. Some exceptions have none, and raise another when they are asked."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
