"""The calls about registers at one node: ask and forget.

To decide a register, or to forget one, is a command of the log, in a session of this node's own. To read one saves
nothing: the node waits for a read index (:mod:`~txpaxos.node.reads`) and looks into its table. A call that wants a
register decided looks there first if this node knows it as decided, so such a call, too, saves nothing.

All calls wait until the registers are sealed (:mod:`~txpaxos.node.sealing`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txpaxos.errors import PaxosError, SessionExpired
from txpaxos.node.applier import Applier
from txpaxos.node.local_session import LocalSession
from txpaxos.node.reads import Reads
from txpaxos.node.sessions import Outcomes, value_of
from txpaxos.wire.commands import REGISTERS_MARK, Run
from txpaxos.wire.registers import DecideRegister, ForgetRegister, encode_command


class Asks:
    """Answers the calls about registers.

    :param applier: has the table of the registers.
    :param session: this node's session for commands of the registers.
    :param submit_run: has a run of another session applied.
    :param seal: returns a Deferred, which fires when the registers are sealed on this node.
    :param wanted: called when a command was submitted, so that the node proposes or forwards it soon.
    """

    def __init__(
        self,
        applier: Applier,
        session: LocalSession,
        submit_run: Callable[[Run], Deferred[Outcomes]],
        reads: Reads,
        seal: Callable[[], Deferred[None]],
        wanted: Callable[[], None],
    ) -> None:
        self._applier = applier
        self._session = session
        self._submit_run = submit_run
        self._reads = reads
        self._seal = seal
        self._wanted = wanted

    def flush(self) -> None:
        """Submit the commands that wait. Those whose session has expired are submitted again at once."""
        self._session.flush()
        self._session.flush()

    def ask(self, subject: str, value: bytes | None) -> Deferred[bytes | None]:
        """Have ``subject`` decided on ``value`` unless it is decided; with ``None``, only read it.

        :returns: fires with what it is decided on, or ``None``; fails with :class:`~txpaxos.errors.Overloaded`.
        """
        if value is None:
            return self._read(subject)
        payload = encode_command(DecideRegister(subject, value))
        if subject in self._applier.registers:
            return self._read(subject).addCallback(lambda known: self.submit(payload) if known is None else known)
        return self._sealed().addCallback(lambda _: self.submit(payload))

    def forget(self, subject: str, session: bytes | None, sequence: int) -> Deferred[bytes | None]:
        """Make ``subject`` undecided.

        :param session: the session of the caller, so that a call that is sent again forgets once; this node's own
            session if ``None``.
        :param sequence: the number of the call in that session.
        :returns: fires with what it was decided on, or ``None``.
        """
        payload = encode_command(ForgetRegister(subject))
        if session is None:
            return self._sealed().addCallback(lambda _: self._submit(payload))
        run = Run(session + REGISTERS_MARK, sequence, 0, (payload,))
        return self._sealed().addCallback(lambda _: self._submit_one(run))

    def submit(self, payload: bytes) -> Deferred[Any]:
        """Have a command applied which may be applied twice: it is submitted again if the session has expired."""

        def again(failure: Failure) -> Deferred[Any]:
            failure.trap(SessionExpired)
            return self.submit(payload)

        return self._submit(payload).addErrback(again)

    def close(self, error: PaxosError) -> None:
        """The node stops: commands that still wait for ``flush`` fail with ``error``."""
        self._session.close(error)

    @property
    def _is_sealed(self) -> bool:
        return self._applier.registers.sealed_at > 0

    def _read(self, subject: str) -> Deferred[bytes | None]:
        """Fires with what ``subject`` is decided on, at a time between this call and the answer."""
        return self._sealed(self._reads.wait()).addCallback(lambda _: self._applier.registers.get(subject))

    def _sealed(self, begun: Deferred[Any] | None = None) -> Deferred[Any]:
        """Fires when the registers are sealed, and ``begun`` has fired.

        This node may only be behind. So it catches up before it concludes that nothing is sealed yet."""
        if begun is None:
            begun = succeed(None) if self._is_sealed else self._reads.wait()
        return begun.addCallback(lambda _: None if self._is_sealed else self._seal())

    def _submit(self, payload: bytes) -> Deferred[Any]:
        self._wanted()
        return self._session.submit(payload)

    def _submit_one(self, run: Run) -> Deferred[Any]:
        self._wanted()
        return self._submit_run(run).addCallback(lambda outcomes: value_of(outcomes[0]))
