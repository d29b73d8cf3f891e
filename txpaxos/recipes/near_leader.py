"""How the child of a ``LeaderService`` comes to the node that leads the cluster.

A contender whose node has led for a while says so, by a party beside the lock: it calls. The one whose child runs
elsewhere stops it then, gives the lock up, and goes to the end of the line. So does each that is granted the lock
before the caller is. Whether a child may run depends on the lock alone, as ever.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.errors import PaxosError
from txpaxos.recipes.arguments import check_name
from txpaxos.recipes.gathering import Party
from txpaxos.recipes.replicated.bounds import NAME_CHARACTERS_MAX
from txpaxos.recipes.replicated.gatherings import Member
from txpaxos.recipes.session import Session
from txpaxos.service.declaration import ServiceError
from txpaxos.service.watching import Watch

_log = Logger()

SETTLED_SECONDS = 10.0
"""How long a node must have led before its contender calls: a child does not move each time that the lead does."""

LOOK_SECONDS = 0.5
"""How often to look whether this node leads."""

RETRY_SECONDS = 1.0
"""How long to wait before asking anew who calls, after an error."""

PARTY = "near the leader: "
"""With what the name of the party begins. The name of the lock follows."""


class Calls:
    """What the contenders of one lock say to each other, as one of them has it for its session.

    :param leads: says whether this node leads the cluster.
    :param answered: for which callers this one has given the lock up; kept from one session to the next. A caller that
        calls on when this one is granted the lock again was not in the line. It is passed over.
    """

    def __init__(
        self, session: Session, name: str, leads: Callable[[], bool], clock: IReactorTime, answered: set[str]
    ) -> None:
        self._session = session
        self._party: Party = session.party(party_of(name))
        self._leads = leads
        self._clock = clock
        self._answered = answered
        self._callers: set[str] = set()
        self._led_since: float | None = None
        self._is_leading = self._is_granted = self._is_calling = False
        self._changing: Deferred[None] | None = None
        self._moves: Callable[[], None] | None = None
        self._watch: Watch[tuple[Member, ...]] | None = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._watching = Deferred.fromCoroutine(self._watch_callers())
        self._watching.addErrback(self._failed)
        self._looking.start(LOOK_SECONDS).addErrback(self._failed)

    def end(self) -> None:
        """Neither call nor hear any more. The session takes the call with it."""
        self._moves = None
        self._callers = set()
        if self._looking.running:
            self._looking.stop()
        self._watching.cancel()

    def granted(self, moves: Callable[[], None]) -> bool:
        """The lock is granted to this contender, which need not call any more.

        :param moves: called when another calls.
        :returns: whether one does already: then give the lock up.
        """
        self._is_granted = True
        if self._is_elsewhere():
            return True
        self._moves = moves
        self._set_calling(False)
        return False

    def _is_elsewhere(self) -> bool:
        """Whether another should have the lock. Who asks gives it up if so."""
        callers = self._callers - self._answered
        if not callers or self._is_calling or self._is_leading:
            return False
        self._answered |= callers
        return True

    def _look(self) -> None:
        now = self._clock.seconds()
        self._is_leading = self._leads()
        if not self._is_leading:
            self._led_since = None
        elif self._led_since is None:
            self._led_since = now
        is_settled = self._led_since is not None and now - self._led_since >= SETTLED_SECONDS
        self._set_calling(is_settled and not self._is_granted)
        self._move_if_called()

    def _move_if_called(self) -> None:
        if self._moves is not None and self._is_elsewhere():
            moves, self._moves = self._moves, None
            moves()

    def _set_calling(self, is_calling: bool) -> None:
        """Call, or do not call any more. What fails, or has to wait for its forerunner, is done at the next look."""
        if is_calling == self._is_calling or self._changing is not None:
            return
        self._changing = Deferred()

        def done(result: object) -> None:
            self._changing = None
            if isinstance(result, Failure):
                result.trap(PaxosError, ServiceError, CancelledError)
            else:
                self._is_calling = is_calling

        changed: Deferred[object] = self._party.join() if is_calling else self._party.leave()  # type: ignore[assignment]
        changed.addBoth(done).addErrback(self._failed)

    async def _watch_callers(self) -> None:
        while not self._session.is_over:
            try:
                async for members in self._party.changes():
                    self._callers = {member.session_id for member in members} - {self._session.session_id}
                    self._answered &= self._callers
                    self._move_if_called()
            except PaxosError as error:
                _log.warn(
                    "who calls {party} is asked anew: {error}",
                    party=self._party.name,
                    error=error,
                    event="near_leader_retries",
                )
                await deferLater(self._clock, RETRY_SECONDS)

    def _failed(self, failure: Failure) -> None:
        """The child stays where it is, for the rest of this session."""
        if failure.check(CancelledError) is None:
            _log.failure("no child comes near the leader", failure, event="near_leader_ended")
        self.end()


def party_of(name: str) -> str:
    """The name of the party beside the lock ``name``.

    :raises TypeError: if it is too long.
    """
    if len(name) > (longest := NAME_CHARACTERS_MAX - len(PARTY)):
        raise TypeError(f"name must have at most {longest} characters with near_leader, not {len(name)}")
    return check_name(PARTY + name)
