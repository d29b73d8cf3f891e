"""Which node a client talks to, and how it notices that it should talk to another.

A node that loses its power or its cable says nothing of it: no connection breaks. So while answers are due, a client
looks for silence. Where nothing has come for a moment it asks the node to say something (``Ping``). If still nothing
comes, or the node speaks but answers nothing that needs a quorum, or says that it knows no leader, the client makes a
second connection, a *probe*, to another node. Nodes tell every connection when the leader changes, so the probe tells
at once whom the others have elected, and there the client goes. Only if no such word comes does it leave a silent
node by itself.

Nothing is sent twice until then: an overloaded cluster that answers late costs each client one more connection, and a
``Ping`` now and then. Who left a node for its silence is twice as patient the next time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txpaxos.client.connection import ClientConnection
from txpaxos.client.requests import Request
from txpaxos.cluster import Address
from txpaxos.wire.client_messages import ClientCodec, FromClient, FromNode, Pong, Welcome

LIVENESS_SECONDS = 0.25
"""A node's shortest liveness window, as long as none has told its own. What follows is counted in ticks: a window has
:data:`TICKS`."""

LIVENESS_SECONDS_MIN, LIVENESS_SECONDS_MAX = 0.01, 60.0
TICKS = 5
PING_TICKS = 2
"""Silence after which the node is asked to say something."""

PROBE_TICKS = 4
"""Silence after which another node is asked, too."""

WELCOME_TICKS = 3
"""A node that does not greet for so long is silent."""

STALLED_TICKS = 5
"""Another is asked, too, if the node speaks, but answers nothing for so long of what needs a quorum. One that has said
that it leads no longer is left then: the others may not hear it."""

LEAVE_TICKS = 5
LEAVE_LEADER_TICKS = 10
"""Silence after which a node is left: the former if any node can answer something that waits; the latter if only a
leader can, since then it costs less to wait for the word of who that is."""

LEAVE_UNPROBED_TICKS = 20
"""The same if nothing tells silence from work: the node is asked in vain, or is the only one."""

PATIENCE_MAX = 8
PATIENT_TICKS = 100
"""Patience that has grown is halved after so many ticks in which no node was left."""

PROBE_KEPT_TICKS = 100
"""A probe is kept for so long after there was a reason for it."""

PROBE_TICKS_MAX = 10
"""Between two attempts to find a node that knows more, at most."""

BYTES_A_SECOND = 20e6
"""Big requests are given the time on top that they take at this speed."""

RETRY_SECONDS = 0.02
RETRY_SECONDS_MAX = 0.5


NO_GREETING = "does not answer (it takes connections: it stands still, or this is not its client port)"


class Owner(Protocol):
    """What a route works for: the client."""

    waiting_bytes: int

    def due(self) -> Iterable[Request]:
        """The requests without an answer."""

    def begin(self, connection: ClientConnection) -> None:
        """What has no answer is to be sent on this connection, again or not."""

    def end(self) -> None:
        """There is no connection to send anything on."""

    def answer(self, connection: ClientConnection, message: FromNode) -> None:
        """A node said something that is no matter of the route."""


class Route:
    """The connections of one client.

    :param places: the nodes to talk to, and their addresses.
    :param follows_leader: whether to go where the leader is.
    :ivar current: the connection on which requests go; it may not stand yet.
    :ivar is_ready: whether something can be sent on it.
    :ivar is_watching: whether time is counted while something has no answer.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        codec: ClientCodec,
        places: Mapping[str, Address],
        follows_leader: bool,
        rng: Random,
        owner: Owner,
    ) -> None:
        self.current: ClientConnection | None = None
        self.is_ready = self.is_watching = False
        self._reactor = reactor
        self._clock = clock
        self._codec = codec
        self._places = places
        self._follows_leader = follows_leader
        self._rng = rng
        self._owner = owner
        self._node = rng.choice(list(places))
        self._probes: list[ClientConnection] = []
        self._probe_in = 0
        self._probes_made = 0
        self._kept = 0
        self._unreachable = ""
        self._retry: IDelayedCall | None = None
        self._failures = 0
        self._tick_call: IDelayedCall | None = None
        self._tick_seconds = LIVENESS_SECONDS / TICKS
        self._ticks = 1  # That pass until the next call.
        self._patience = 1
        self._patient = 0
        self._progress = False
        self._stalled = 0
        self._leaderless = 0
        self._findings: dict[str, str] = {}
        self._closed = False

    # from the client

    def want(self) -> None:
        """A request waits for an answer."""
        if self.current is None and self._retry is None:
            self._connect()
        if self._tick_call is None:
            self._start_ticks()

    def answered(self) -> None:
        """Something that needs a quorum was answered."""
        self._progress = True

    def renew(self, connection: ClientConnection) -> None:
        """Make the connection anew: the node is to greet once more."""
        connection.close()
        self._switch_to(self._dial(connection.node))

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for timer in (self._retry, self._tick_call):
            if timer is not None and timer.active():
                timer.cancel()
        self._retry = self._tick_call = None
        self.is_ready = self.is_watching = False
        if self.current is not None:
            self.current.close()
        self._drop_probes()

    def findings(self) -> str:
        """What each node was last found to be like, in a few words each."""
        return ", ".join(f"{node} at {address} {self._finding(node)}" for node, address in self._places.items())

    # from connections

    def opened(self, connection: ClientConnection) -> None:
        """A node took a connection. It has yet to greet."""
        self._findings[connection.node] = NO_GREETING

    def received(self, connection: ClientConnection, message: FromNode | FromClient) -> None:
        """A node said something."""
        match message:
            case Welcome():
                self._welcomed(connection, message)
            case Pong():
                connection.ponged()
            case _:
                self._owner.answer(connection, message)  # type: ignore[arg-type]

    def lost(self, connection: ClientConnection, reason: str) -> None:
        """A connection broke, or could not be made."""
        self._findings[connection.node] = reason
        if connection is not self.current:
            if connection in self._probes:
                self._probes.remove(connection)
            return
        self.current = None
        self.is_ready = False
        self._owner.end()
        self._unreachable = connection.node
        if self._closed:
            return
        standing = next((probe for probe in self._probes if probe.welcome is not None), None)
        if standing is not None:
            self._promote(standing)
            return
        self._node = self._other_than(connection.node)
        if self._any_due():
            seconds = min(RETRY_SECONDS * 2 ** min(self._failures, 8), RETRY_SECONDS_MAX)
            self._failures += 1
            self._retry = self._clock.callLater(seconds * self._rng.uniform(0.5, 1.0), self._connect)

    # inside: where to

    def _connect(self) -> None:
        self._retry = None
        self._switch_to(self._dial(self._node))

    def _dial(self, node: str) -> ClientConnection:
        connection = ClientConnection(self, self._codec, node, self._places[node])
        self._findings.setdefault(node, "does not answer")
        connection.dial(self._reactor)
        return connection

    def _switch_to(self, connection: ClientConnection) -> None:
        """Send what waits on ``connection`` from now on, once it stands."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.current = connection
        self.is_ready = False
        self._owner.end()
        self._stalled = self._leaderless = 0
        if connection.welcome is not None:
            self._begin(connection)

    def _promote(self, probe: ClientConnection) -> None:
        if probe in self._probes:
            self._probes.remove(probe)
        probe.silent = 0
        self._switch_to(probe)

    def _begin(self, connection: ClientConnection) -> None:
        self._failures = 0
        self.is_ready = True
        self._owner.begin(connection)
        if self._tick_call is None and self._any_due():
            self._start_ticks()

    def _welcomed(self, connection: ClientConnection, welcome: Welcome) -> None:
        """A node says who leads. Its address is that of our own file: the node may know it by another."""
        before, connection.welcome = connection.welcome, welcome
        first = before is None
        connection.deposed = welcome.leader != connection.node and (
            connection.deposed or (before is not None and before.leader == connection.node)
        )
        if first:
            connection.round_trip_ticks = min(connection.age, LEAVE_UNPROBED_TICKS)
        connection.welcomed_at = self._clock.seconds()
        connection.silent = 0
        if welcome.liveness_window_seconds > 0:
            seconds = min(max(welcome.liveness_window_seconds, LIVENESS_SECONDS_MIN), LIVENESS_SECONDS_MAX)
            self._tick_seconds = seconds / TICKS
        self._findings[connection.node] = _standing(welcome)
        current = self.current
        if connection is current:
            self._failures = self._leaderless = 0
            if not self._follow(connection) and first:
                if self._kept <= 0:
                    self._drop_probes()
                self._begin(connection)
        elif current is None:
            self._promote(connection)
            self._follow(connection)
        elif current.welcome is None and self._is_suspect(current):
            self._unreachable = current.node
            current.close()
            self._promote(connection)
            self._follow(connection)
        elif current.welcome is None or self._is_suspect(current):
            self._follow(connection)

    def _follow(self, connection: ClientConnection) -> bool:
        """Go to the leader that the node at the end of ``connection`` names, if it can be gone to and is not where the
        client is. Whether that is on the way."""
        assert connection.welcome is not None
        leader = connection.welcome.leader
        if not self._follows_leader or leader not in self._places or leader is None:
            return False
        assert self.current is not None
        if leader == self.current.node or (leader == self._unreachable and leader != connection.node):
            if leader == connection.node:
                self._unreachable = ""
            return False
        left = self.current
        if connection is not left:
            self._unreachable = left.node  # It has not said so itself, so it does not know, or cannot speak.
        if leader == connection.node:
            self._promote(connection)
            self._keep(left)
        else:
            self._keep(left)  # It may know better soon, if that leader is not there any more.
            self._switch_to(self._dial(leader))
        return True

    def _keep(self, left: ClientConnection) -> None:
        """Listen to a connection for a while that nothing is sent on any more: an answer may be on its way."""
        if left.is_open and not self._closed:
            self._probes.append(left)
        else:
            left.close()

    def _other_than(self, node: str) -> str:
        return self._rng.choice([one for one in self._places if one != node] or list(self._places))

    # inside: silence

    def _any_due(self) -> bool:
        return any(True for _ in self._owner.due())

    def _start_ticks(self) -> None:
        if self.current is not None:
            self.current.silent = 0
            self.current.heard = False
        self._stalled = 0
        self._schedule(2)

    def _schedule(self, ticks: int) -> None:
        self._ticks = ticks
        self.is_watching = True
        self._tick_call = self._clock.callLater(ticks * self._tick_seconds, self._tick)

    def _tick(self) -> None:
        """Time has passed. Ticks are counted, not seconds: a client that stood still itself has seen one."""
        try:
            self._pass()
        finally:  # Whatever that raised, the next one comes, and comes once.
            self._tick_call = None
            self.is_watching = False
            due = self._any_due()
            if not self._closed and (due or self._probes):
                current = self.current
                calm = current is not None and current.welcome is not None and not current.silent
                self._schedule(1 if due and (self._leaderless or not calm) else 2)

    def _pass(self) -> None:
        due = self._any_due()
        for connection in self._connections():
            connection.age += self._ticks
            connection.silent = 0 if connection.heard or not due else connection.silent + self._ticks
            connection.heard = False
        if due:
            self._look()
        self._tidy(due)

    def _connections(self) -> list[ClientConnection]:
        return [*([] if self.current is None else [self.current]), *self._probes]

    def _tidy(self, due: bool) -> None:
        """Forget what is over: patience that was needed, probes that are not."""
        self._patient += self._ticks
        if self._patient > PATIENT_TICKS:
            self._patient = 0
            self._patience = max(1, self._patience // 2)
            self._unreachable = ""
        suspect = due and self.current is not None and self._is_suspect(self.current)
        self._kept = PROBE_KEPT_TICKS if suspect else self._kept - self._ticks
        if self._kept <= 0:
            self._drop_probes()

    def _drop_probes(self) -> None:
        probes, self._probes = self._probes, []
        self._probe_in = self._probes_made = 0
        for probe in probes:
            probe.close()

    def _look(self) -> None:
        """Requests wait. See whether the node that should answer them can."""
        current = self.current
        if current is None:
            return
        needs_quorum = any(request.needs_quorum for request in self._owner.due())
        self._stalled = 0 if self._progress or not needs_quorum else self._stalled + self._ticks
        current.deposed = current.deposed and not self._progress
        self._progress = False
        lacks = needs_quorum and current.welcome is not None and current.welcome.leader is None
        self._leaderless = self._leaderless + self._ticks if lacks else 0
        if current.welcome is not None and current.silent >= PING_TICKS and current.welcome.liveness_window_seconds:
            current.ping()
        if not self._is_suspect(current):
            return
        for probe in self._probes:
            if probe.silent >= PING_TICKS and probe.welcome is not None and probe.welcome.liveness_window_seconds:
                probe.ping()
        if self._should_leave(current, needs_quorum):
            self._leave(current)
        else:
            self._probe(current)

    def _is_suspect(self, connection: ClientConnection) -> bool:
        """Whether another node is to be asked, too."""
        if connection.welcome is None:
            return connection.age >= WELCOME_TICKS + self._extra_ticks()
        late = max(connection.silent - PROBE_TICKS, self._stalled - STALLED_TICKS)
        return late >= self._extra_ticks() or self._leaderless > 0

    def _extra_ticks(self) -> float:
        """The time that big requests take by themselves, and that the way to the node takes."""
        round_trip_ticks = 0 if self.current is None else self.current.round_trip_ticks
        return round_trip_ticks + self._owner.waiting_bytes / BYTES_A_SECOND / self._tick_seconds

    def _better(self) -> ClientConnection | None:
        """A probe whose node speaks: one that knows a leader, if there is one, and was not just left itself."""
        speaking = [one for one in self._probes if one.welcome is not None and one.silent < PROBE_TICKS]
        return max(speaking, key=lambda one: (_knows_leader(one), one.node != self._unreachable), default=None)

    def _should_leave(self, current: ClientConnection, needs_quorum: bool) -> bool:
        """Whether to go to another node, though none has named another leader."""
        better, extra = self._better(), self._extra_ticks()
        if better is None:  # Nowhere to go but to the same node, on a new connection: it may have been away.
            alone = len(self._places) == 1 and current.welcome is not None
            return alone and current.silent >= LEAVE_UNPROBED_TICKS * self._patience + extra
        assert better.welcome is not None
        if current.welcome is None:
            return current.age >= WELCOME_TICKS * self._patience + extra
        if current.welcome.liveness_window_seconds <= 0:  # It knows no Ping.
            return current.silent >= LEAVE_UNPROBED_TICKS * self._patience + extra
        leaders_alone = self._follows_leader and all(request.needs_leader for request in self._owner.due())
        leave_ticks = LEAVE_LEADER_TICKS if leaders_alone else LEAVE_TICKS
        if current.silent >= leave_ticks * self._patience + extra:
            return True
        if not needs_quorum or not _knows_leader(better):
            return False
        if self._leaderless >= LEAVE_TICKS:
            return True
        if current.deposed and self._stalled >= STALLED_TICKS + extra:
            return True
        leads = self._follows_leader and better.welcome.leader == current.node
        stalled_ticks = LEAVE_UNPROBED_TICKS if leads else LEAVE_LEADER_TICKS
        return self._stalled >= stalled_ticks * self._patience + extra

    def _leave(self, current: ClientConnection) -> None:
        """Go to another node, and be more patient with that."""
        self._findings[current.node] = "does not answer" if current.silent else self._finding(current.node)
        self._unreachable = current.node
        if current.welcome is not None:
            self._patience = min(2 * self._patience, PATIENCE_MAX)
            self._patient = 0
        better = self._better()
        if better is not None:
            self._promote(better)
            self._keep(current)
        else:
            self._keep(current)
            self._switch_to(self._dial(current.node))

    def _probe(self, current: ClientConnection) -> None:
        """Ask one more node, unless one that knows a leader is listened to."""
        better = self._better()
        self._probe_in -= self._ticks
        if (
            better is not None and better.welcome is not None and better.welcome.leader is not None
        ) or self._probe_in > 0:
            return
        known = {connection.node for connection in self._connections()}
        others = [node for node in self._places if node not in known]
        if others:
            rounds = self._probes_made // len(self._places)
            self._probe_in = min(WELCOME_TICKS * 2 ** min(rounds, 4), PROBE_TICKS_MAX)
            self._probes_made += 1
            # One that closed its connection, or was left, is asked again when there is no other.
            fresh = [node for node in others if node != self._unreachable]
            self._probes.append(self._dial(self._rng.choice(fresh or others)))

    def _finding(self, node: str) -> str:
        return self._findings.get(node, "was not asked")


def _knows_leader(connection: ClientConnection) -> bool:
    """Whether its node knows a leader, by its own word."""
    return connection.welcome is not None and connection.welcome.leader is not None


def _standing(welcome: Welcome) -> str:
    """How a node that speaks stands to the others, by its own word."""
    if welcome.leader is None:
        return "knows no leader"
    return "says that it leads" if welcome.leader == welcome.node else f"follows {welcome.leader}"
