"""A Twisted service that runs on one node at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Literal, TypeAlias

from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txpaxos.arguments import check_seconds
from txpaxos.clock import is_real, monotonic_clock
from txpaxos.errors import ConfigError, PaxosError
from txpaxos.recipes.arguments import check_name, check_text
from txpaxos.recipes.lease import SessionState
from txpaxos.recipes.near_leader import Calls, party_of
from txpaxos.recipes.permit import Hold
from txpaxos.recipes.recipes import TTL_SECONDS, Recipes
from txpaxos.recipes.replicated.sessions import TTL_MS_MAX, TTL_MS_MIN
from txpaxos.recipes.session import Session
from txpaxos.service.declaration import ServiceError

_log = Logger()

OnOverrun: TypeAlias = Literal["exit", "log"]

EXIT_STATUS = 70
"""That of a process that was ended because its child did not stop in time."""

RETRY_SECONDS = 1.0
"""How long to wait before contending anew after a term has ended, or has not begun, because of an error."""


class LeaderService(Service):
    """Runs a child service on one node at a time.

    .. code-block:: python

        service = LeaderService(Recipes(client, reactor), "cron", lambda lead: Cron(lead.token))
        service.setServiceParent(application)

    It contends for the lock ``name`` with a session of its own. Each time that it is granted, a term begins: a new
    child is made and started. When the session is suspended or over, or this service is stopped, the child is stopped.
    The lock is given up after that, so that the next child is started when this one is stopped. Then it contends anew.

    A session is suspended at two thirds of its time, so that a child has the rest to stop in. If it has not stopped
    when the lease of the session ends, another child may be started elsewhere. A child that cannot be stopped must not
    run beside it: the process ends at once, with status 70 and a line on the standard error. A thread sees to that,
    even while the reactor is blocked. What a process does that was stopped for a while (on a machine that sleeps)
    before it knows, nothing can prevent: so give the token of the lead to all that the child writes to.

    :param recipes: of the cluster where it contends.
    :param name: of the lock.
    :param factory: makes the child of a term. It is called with the lead, whose ``token`` is higher than that of every
        earlier term, and whose ``still_held()`` asks no node.
    :param ttl_seconds: after a node is lost, the next child is started at most so long and a fail-over later: 1 second
        to a day.
    :param value: what others see of this contender, such as its address.
    :param on_overrun: ``"exit"`` to end the process as above, ``"log"`` to log it, and wait for the child.
    :param near_leader: says whether the node in this process leads the cluster, as
        :meth:`ServedNode.leads <txpaxos.server.served_node.ServedNode.leads>` does. The child then comes to the node
        that has led for ten seconds, with an orderly stop, from a contender that has this parameter, too. The lead
        gives no right to run: the lock alone does. Not given, the child stays where it is.
    :raises ConfigError: if ``factory`` cannot be called, ``on_overrun`` is something else, or ``near_leader`` is
        no function.
    :raises TypeError: if another argument has the wrong type, or ``name`` or ``value`` is out of its bounds.
    :raises ValueError: if ``ttl_seconds`` is out of its bounds.
    :ivar lead: the lead of the term; ``None`` while no child runs here.
    """

    def __init__(
        self,
        recipes: Recipes,
        name: str,
        factory: Callable[[Hold], IService],
        *,
        ttl_seconds: float = TTL_SECONDS,
        value: str = "",
        on_overrun: OnOverrun = "exit",
        near_leader: Callable[[], bool] | None = None,
    ) -> None:
        if not isinstance(recipes, Recipes):
            raise TypeError(f"recipes must be Recipes(client, reactor), not {type(recipes).__name__}")
        if not callable(factory):
            raise ConfigError(f"factory makes a service of the lead: it is no function but {factory!r:.100}")
        if on_overrun not in ("exit", "log"):
            raise ConfigError(f"on_overrun is 'exit' or 'log', not {on_overrun!r:.100}")
        if not (near_leader is None or callable(near_leader)):
            raise ConfigError(f"near_leader says whether this node leads: it is no function but {near_leader!r:.100}")
        self._recipes = recipes
        self._name = check_name(name)
        if near_leader is not None:
            party_of(name)
        self._factory = factory
        self._ttl_seconds = _checked_ttl(ttl_seconds)
        self._value = check_text(value)
        self._on_overrun = on_overrun
        self._near_leader = near_leader
        self._answered: set[str] = set()
        self._clock = monotonic_clock(recipes.reactor)
        self._term: _Term | None = None
        self._contending: Deferred[None] | None = None
        self._is_closing = False

    @property
    def lead(self) -> Hold | None:
        """The lead of the term that is under way here, if there is one."""
        return None if self._term is None else self._term.lead

    def startService(self) -> None:
        """Contend, and go on contending."""
        super().startService()
        if self._contending is None:
            self._contending = Deferred.fromCoroutine(self._contend())

    def stopService(self) -> Deferred[None]:
        """Stop the child, and let another node have the lock at once.

        :returns: fires when that is done.
        """
        super().stopService()
        if self._term is not None:
            self._term.end()
        elif self._contending is not None and not self._is_closing:
            self._contending.cancel()
        stopped: Deferred[None] = Deferred()
        if self._contending is None:
            stopped.callback(None)
        else:
            self._contending.addBoth(lambda _: stopped.callback(None))
        return stopped

    async def _contend(self) -> None:
        while self.running:
            self._is_closing = False
            try:
                await self._contend_once()
            except CancelledError:
                continue  # This service was stopped.
            except (PaxosError, ServiceError) as error:
                _log.warn(
                    "the service of the leader of {name} contends anew: {error}",
                    name=self._name,
                    error=error,
                    event="leader_service_retries",
                )
                await self._pause()
            except Exception:
                _log.failure(
                    "the service of the leader of {name} contends anew", name=self._name, event="leader_service_retries"
                )
                await self._pause()
        self._contending = None

    async def _contend_once(self) -> None:
        """Wait for the lock, and run the child of one term. The session is closed to the end: the next child waits."""
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(await self._recipes.session(self._ttl_seconds))
            stack.callback(setattr, self, "_is_closing", True)
            calls = self._calls(session, stack)
            lead = await session.election(self._name, self._value).acquire()
            self._term = term = _Term(session, lead, self._on_overrun)
            if calls is not None and calls.granted(term.end):
                self._term = None
                return
            try:
                await self._term.run(self._factory, is_real(self._recipes.reactor))
            finally:
                self._term = None

    def _calls(self, session: Session, stack: AsyncExitStack) -> Calls | None:
        """What contenders near the leader of the cluster say, until the stack is left; ``None`` if that is all one."""
        if self._near_leader is None:
            return None
        calls = Calls(session, self._name, self._near_leader, self._clock, self._answered)
        stack.callback(calls.end)
        return calls

    async def _pause(self) -> None:
        with contextlib.suppress(CancelledError):
            await deferLater(self._clock, RETRY_SECONDS)


def _checked_ttl(ttl_seconds: object) -> float:
    seconds = check_seconds(ttl_seconds, "ttl_seconds")
    if not TTL_MS_MIN <= seconds * 1000 <= TTL_MS_MAX:
        raise ValueError(f"ttl_seconds must be from {TTL_MS_MIN / 1000:g} to {TTL_MS_MAX / 1000:g}, not {seconds:g}")
    return seconds


class _Term:
    """One child, from its start to its end."""

    def __init__(self, session: Session, lead: Hold, on_overrun: OnOverrun) -> None:
        self._session = session
        self.lead = lead
        self._on_overrun = on_overrun
        self._ending: Deferred[None] = Deferred()
        self._is_stopped = False

    async def run(self, factory: Callable[[Hold], IService], has_threads: bool) -> None:
        """Make the child, start it, and stop it in time.

        :param has_threads: whether time is that of the machine, so that a thread can watch the lease.
        """
        child = factory(self.lead)
        if not IService.providedBy(child):
            raise TypeError(f"the factory of {self.lead.name} must make a service, not {type(child).__name__}")
        stop_watching = self._session.watch(self._session_changed)
        # Its program may give the lead up by itself, or another client take it away.
        over = self.lead.over().addCallback(lambda _: self.end())
        watchdog = _Watchdog(lambda: self._session.lease_left_seconds, self._end_process)
        if has_threads and self._on_overrun == "exit":
            watchdog.start()
        try:
            if self._session.state == "held":  # Making it may have taken long.
                await self._run(child)
        finally:
            self._is_stopped = True
            watchdog.stop()
            stop_watching()
            over.addErrback(lambda failure: failure.trap(CancelledError)).cancel()

    def end(self) -> None:
        """Have the child stopped."""
        if not self._ending.called:
            self._ending.callback(None)

    async def _run(self, child: IService) -> None:
        try:
            child.startService()
        except Exception:
            # What it has started in part is stopped as well as it can be.
            await maybeDeferred(child.stopService).addErrback(
                lambda failure: _log.failure(
                    "the child of the leader of {name}", failure, name=self.lead.name, event="child_stop_raised"
                )
            )
            raise
        await self._ending
        await self._stop(child)

    async def _stop(self, child: IService) -> None:
        try:
            await maybeDeferred(child.stopService)
        except Exception:
            _log.failure(
                "the child of the leader of {name} has failed to stop", name=self.lead.name, event="child_stop_raised"
            )
            self._overrun()

    def _session_changed(self, state: SessionState) -> None:
        if state == "held":
            return
        self.end()
        if state != "suspended" and not self._is_stopped:
            self._overrun()

    def _overrun(self) -> None:
        """The lease is over, and the child is not stopped."""
        _log.critical(
            "the child of the leader of {name} did not stop in time", name=self.lead.name, event="child_overran"
        )
        if self._on_overrun == "exit":
            self._end_process()

    def _end_process(self) -> None:
        lead = self.lead
        end_process(
            f"the child of the leader of {lead.name} (token {lead.token}) did not stop in time: this process ends, as"
            " another child may be started elsewhere"
        )


class _Watchdog:
    """A thread that acts when a lease is over, whatever the reactor does."""

    def __init__(self, left_seconds: Callable[[], float], act: Callable[[], None]) -> None:
        self._left_seconds = left_seconds
        self._act = act
        self._is_stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="txpaxos lease", daemon=True).start()

    def stop(self) -> None:
        self._is_stopped.set()

    def _run(self) -> None:
        # Short waits: the clock of a wait may stand still while the machine sleeps, and that of the lease does not.
        while (left := self._left_seconds()) > 0:
            if self._is_stopped.wait(min(left, 1.0)):
                return
        if not self._is_stopped.is_set():
            self._act()


def end_process(line: str) -> None:
    """End this process at once, with a line on the standard error. Nothing that it has registered is run."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))
    os._exit(EXIT_STATUS)
