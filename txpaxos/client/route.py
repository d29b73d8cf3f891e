"""Which node a client talks to. The dispatcher asks for a connection to send on; connections tell what happens on them.

A node that loses its power or its cable breaks no connection. So while requests wait, the client looks for silence.
When nothing has come for a moment it has the node send something (``Ping``). If still nothing comes, or the node
answers nothing that needs a quorum, or says that it knows no leader or is catching up, the node is *suspect*, and the
client makes a second connection, a *probe*, to another node. Nodes tell every client when the leader changes, so the
probe tells at once whom the others have elected, and the client goes there. Only if no node names a new leader does the
client leave a silent node by itself (:mod:`~txpaxos.client.suspicion` says when).

A node that is about to stop says so in a Welcome. The client leaves it before it stops: for the new leader, or, if the
node does not lead, for any other node.

Nodes tell each client who the members are, so the client comes to know the nodes that were added, and leaves one that
was removed (:mod:`~txpaxos.client.known_nodes`).

Nothing is sent twice until then: an overloaded cluster that answers late costs each client one more connection, and a
Ping now and then.

When the client gets other keys while requests wait, it makes a second connection to the same node, and goes there when
the node takes them.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txpaxos.client.connection import ClientConnection
from txpaxos.client.endpoints import Place
from txpaxos.client.known_nodes import KnownNodes
from txpaxos.client.pending import PendingRequests
from txpaxos.client.suspicion import PING_TICKS, PROBE_TICKS, TICKS, WELCOME_TICKS, Suspicion, is_able, knows_leader
from txpaxos.log_lines import printable
from txpaxos.wire.client_messages import ClientCodec, FromClient, FromNode, Members, Pong, Welcome

if TYPE_CHECKING:
    from txpaxos.client.credentials import Credentials

CALM_TICKS = 2
"""Ticks between two looks at a node that answers, or has nothing to answer."""

FIRST_ROUND_TRIP_TICKS_MAX = 4 * TICKS
"""Upper bound on what the first Welcome may say of the round trip: it may have been late for another reason."""

PROBE_KEPT_TICKS = 100
"""How long a probe is kept after there was a reason for it."""

REMOVED_KEPT_TICKS = 20
"""How long a connection to a node that is no member any more is kept for the answers that are on their way."""

PROBE_TICKS_MAX = 10
"""Longest time between two attempts to find a node that knows more."""

FAILED_TICKS = 10
"""Time without the first Welcome after which the attempt to reach a node counts as failed, though it goes on."""

PROBE_DOUBLINGS_MAX = 4
"""How often that time is doubled."""

SEED_ROUNDS = 2
"""After this number of rounds of probes that found no leader, the seeds are tried, too."""

RETRY_SECONDS = 0.02
"""Pause after an attempt to connect that failed. It doubles when all nodes have failed, and not before: one of them may
answer at once."""

RETRY_SECONDS_MAX = 0.5
"""Longest pause between two attempts to connect."""

RETRY_DOUBLINGS_MAX = 8
"""How often the pause is doubled before its upper bound is taken for good."""

UNREACHED = (
    "; none of the nodes that this client was started with answers: start one of them, or start the client with the"
    " address of a node that runs"
)
"""What a client adds when no node has ever answered."""

RENEWAL_BYTES_MAX = 2**25
"""While more than this waits for answers, a connection is not replaced by one with newer keys: all of it would be sent
again while the node is still at work on it, and might be too much for the node."""

RENEWAL_TICKS = 100
"""Time between two attempts to do so."""

LEAVING_SECONDS = 1.0
"""A client does not go to a node that has told it so short a time ago to use another one: if all nodes that it reaches
say so, it stays where it is, and does not go to and fro between them."""

NO_WELCOME = "does not answer (it takes connections: it stands still, or this is not its client port)"
"""What is found of a node that accepts a connection and sends no Welcome."""


class RouteOwner(Protocol):
    """What a route calls: the dispatcher."""

    def connected(self, connection: ClientConnection) -> None:
        """Requests go to ``connection`` from now on. Everything without an answer is to be sent there, whether it was
        sent before or not."""

    def disconnected(self) -> None:
        """There is no connection that requests can go to."""

    def refused(self) -> None:
        """Each node refuses this client or cannot be reached. To try again would change nothing."""

    def received(self, connection: ClientConnection, message: FromNode) -> None:
        """A node has sent a message that does not concern the route.

        :raises CodecError: if no node sends such a message.
        """


class Route:
    """The connections of one client.

    :param clock: the monotonic clock.
    :param known: the nodes to talk to, and where their client ports are.
    :param follows_leader: whether to talk to the leader when a node says which it is.
    :param pending: the requests without an answer.
    :param credentials: what the client shows nodes; ``None`` if it has no keys.
    :ivar credentials: the same; those that it has now.
    :ivar current: the connection that requests go to; it may not be made yet.
    :ivar is_ready: whether something can be sent on it.
    :ivar is_watching: whether a tick is due while something has no answer.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        codec: ClientCodec,
        known: KnownNodes,
        follows_leader: bool,
        rng: Random,
        pending: PendingRequests,
        owner: RouteOwner,
        credentials: Credentials | None = None,
    ) -> None:
        self.current: ClientConnection | None = None
        self.is_ready = self.is_watching = False
        self._reactor = reactor
        self._clock = clock
        self._codec = codec
        self._known = known
        self._follows_leader = follows_leader
        self._rng = rng
        self._pending = pending
        self._owner = owner
        self.credentials = credentials
        self._suspicion = Suspicion(pending, follows_leader, known)
        self._findings: dict[str, str] = {}
        self._failed_once: set[str] = set()
        # The nodes that failed since one has last answered, and whether one of them refuses this client.
        self._failed_since: set[str] = set()
        self._is_refused = False
        # Where to go.
        self._next_node = rng.choice(known.candidates)
        self._unreachable = ""  # The node that was left last, or broke its connection.
        self._sent_away_at: dict[str, float] = {}  # When a node has said last that clients should use another one.
        self._retry_call: IDelayedCall | None = None
        self._rounds = 0  # How often in a row all nodes have failed.
        # The other connections.
        self._probes: list[ClientConnection] = []
        self._probe_in = 0  # Ticks until the next probe may be made.
        self._probes_made = 0
        self._probes_kept = 0  # Ticks for which probes are still kept.
        self._renewal: ClientConnection | None = None  # The one that takes the place of the current one: it has keys.
        self._renew_in = 0  # Ticks until the next one may be made.
        self._renewal_failed_by = ""  # What the log was told of the last attempt.
        # The ticks.
        self._tick_call: IDelayedCall | None = None
        self._ticks = 1  # How many pass until the next call.
        self._is_closed = False

    # from the dispatcher

    def request_made(self) -> None:
        """A request waits for an answer."""
        if self.current is None and self._retry_call is None:
            self._connect()
        if self._tick_call is None:
            self._start_ticks()

    def seek_leader(self) -> None:
        """A request will be made that only the leader can answer. Go to the leader that the current node names, though
        it was left a while ago."""
        current = self.current
        if current is not None and current.welcome is not None:
            self._unreachable = ""
            self._follow(current)

    def reconnect(self, connection: ClientConnection) -> None:
        """Make a connection to the same node again, which brings a new Welcome."""
        connection.close()
        self._switch_to(self._connect_to(connection.target))

    def close(self) -> None:
        """Close all connections, for good."""
        self._is_closed = True
        for timer in (self._retry_call, self._tick_call):
            if timer is not None and timer.active():
                timer.cancel()
        self._retry_call = self._tick_call = None
        self.is_ready = self.is_watching = False
        if self.current is not None:
            self.current.close()
        self._drop_probes()
        self._drop_renewal()

    def use_credentials(self, credentials: Credentials) -> None:
        """Show nodes ``credentials`` from now on. Connections that were made with others are replaced."""
        self.credentials = credentials
        self._drop_probes()
        self._drop_renewal()
        self._renew_in, self._renewal_failed_by = 0, ""
        self._renew()

    def findings(self) -> str:
        """What each node was last found to be like, in a few words each."""
        known = self._known
        places = {node: known.address_of(node) for node in known.candidates}
        lines = (f"{_place(node, str(address))} {self._finding(node)}" for node, address in places.items())
        return ", ".join(lines) + ("" if known.was_reached or not self._were_all_tried() else UNREACHED)

    # from connections

    def opened(self, connection: ClientConnection) -> None:
        """A node has accepted a connection. Its Welcome is still to come."""
        if connection is not self._renewal:
            self._findings[connection.target] = NO_WELCOME

    def received(self, connection: ClientConnection, message: FromNode | FromClient) -> None:
        """A node has sent a message."""
        match message:
            case Welcome():
                self._welcomed(connection, message)
            case Members():
                connection.members = message
                self._take_members(connection, message)
            case Pong():
                connection.ponged()
            case _:
                self._owner.received(connection, message)  # type: ignore[arg-type]

    def lost(self, connection: ClientConnection, reason: str) -> None:
        """A connection has ended, or could not be made."""
        if connection is self._renewal:
            self._renewal = None
            self._renew_later(f"{_place(connection.target, str(connection.address))} {reason}")
            return
        self._findings[connection.target] = reason
        self._note_failure(connection)
        self._note_refusal(connection)
        if connection is not self.current:
            self._probe_lost(connection)
            return
        self.current = None
        self.is_ready = False
        self._owner.disconnected()
        self._unreachable = connection.node
        if self._is_closed:
            return
        if self._renewal is not None:
            self._switch_to(self._renewal)
            return
        usable = next((one for one in self._probes if one.welcome and not self._known.is_gone(one.node)), None)
        if usable is not None:
            self._promote(usable)
            return
        is_round_over = self._known.is_round_over(connection.target)
        self._next_node = self._other_than(connection.node)
        if self._pending:
            seconds = min(RETRY_SECONDS * 2 ** min(self._rounds, RETRY_DOUBLINGS_MAX), RETRY_SECONDS_MAX)
            self._rounds += is_round_over
            self._retry_call = self._clock.callLater(seconds * self._rng.uniform(0.5, 1.0), self._connect)

    # inside: where to go

    def _connect(self) -> None:
        self._retry_call = None
        self._switch_to(self._connect_to(self._next_node))

    def _connect_to(self, node: str) -> ClientConnection:
        connection = self._new_connection(node, self._known.address_of(node))
        self._findings.setdefault(node, "does not answer")
        connection.connect(self._reactor)
        return connection

    def _new_connection(self, node: str, address: Place) -> ClientConnection:
        if self.credentials is None:
            return ClientConnection(self, self._codec, node, address)
        from txpaxos.client.secured_connection import SecuredConnection

        return SecuredConnection(self, self._codec, node, address, self.credentials)

    def _switch_to(self, connection: ClientConnection) -> None:
        """Have requests go to ``connection`` from now on, as soon as its node has sent a Welcome."""
        if self._retry_call is not None:
            self._retry_call.cancel()
            self._retry_call = None
        self.current = connection
        self.is_ready = False
        self._drop_renewal(but=connection)
        self._owner.disconnected()
        self._suspicion.node_changed()
        if connection.welcome is not None:
            self._begin(connection)

    def _promote(self, probe: ClientConnection) -> None:
        """Have requests go to what was a probe."""
        if probe in self._probes:
            self._probes.remove(probe)
        probe.silent = 0
        self._switch_to(probe)

    def _begin(self, connection: ClientConnection) -> None:
        """The node of the current connection is there: requests can be sent to it."""
        self._rounds = 0
        self.is_ready = True
        self._owner.connected(connection)
        if self._tick_call is None and self._pending:
            self._start_ticks()

    def _welcomed(self, connection: ClientConnection, welcome: Welcome) -> None:
        """A node says who leads. Its own address of the leader is not used: the node may know it by another one."""
        before, connection.welcome = connection.welcome, welcome
        first = before is None
        connection.deposed = welcome.leader != connection.node and (
            connection.deposed or (before is not None and before.leader == connection.node)
        )
        if first:
            connection.round_trip_ticks = min(connection.age, FIRST_ROUND_TRIP_TICKS_MAX)
        connection.welcomed_at = self._clock.seconds()
        self._failed_since.clear()
        self._is_refused = False
        connection.silent = 0
        connection.is_failed = False
        if welcome.liveness_window_seconds > 0:
            self._suspicion.set_liveness_window(welcome.liveness_window_seconds)
        self._findings[connection.target] = _role(welcome)
        leads_on = welcome.leader is not None
        connection.node = self._known.reached(connection.target, connection.address, welcome.node, leads_on)
        self._go_to_welcomed(connection, first)
        if not first and connection.members is not None:  # A node that knows a leader now may be believed now.
            self._take_members(connection, connection.members)

    def _go_to_welcomed(self, connection: ClientConnection, first: bool) -> None:
        """See whether what a node says of the leader changes where requests go.

        :param first: whether this is the first Welcome on the connection.
        """
        current, welcome = self.current, connection.welcome
        assert welcome is not None
        if connection is self._renewal:
            self._renewed(connection)
        elif connection is current:
            self._rounds = 0
            self._suspicion.welcomed()
            followed = self._follow(connection)
            if not followed and welcome.leaving and welcome.leader != connection.node:
                followed = self._leave_in_time(connection)
            if not followed and first:
                if self._probes_kept <= 0:
                    self._drop_probes()
                self._begin(connection)
        elif current is None:
            self._promote(connection)
            self._follow(connection)
        elif current.welcome is None and self._suspicion.is_suspect(current):
            self._unreachable = current.node
            current.close()
            self._promote(connection)
            self._follow(connection)
        elif current.welcome is None or self._suspicion.is_suspect(current):
            self._follow(connection)

    def _follow(self, connection: ClientConnection) -> bool:
        """Go to the leader that the node at the end of ``connection`` names, unless the client is there already or has
        just left that leader. Whether the client goes."""
        assert connection.welcome is not None
        leader = connection.welcome.leader
        if not self._follows_leader or leader not in self._known or leader is None:
            return False
        assert self.current is not None
        if leader == self.current.node or (leader == self._unreachable and leader != connection.node):
            if leader == connection.node:
                self._unreachable = ""
            return False
        left = self.current
        if connection is not left and (left.welcome is not None or left.age):
            self._unreachable = left.node  # It has not named that leader itself, so it is cut off or silent.
        if leader == connection.node:
            self._promote(connection)
            self._keep(left)
        else:
            self._keep(left)  # If that leader is gone, the node that was left may soon name another.
            self._switch_to(self._connect_to(leader))
        return True

    def _leave_in_time(self, connection: ClientConnection) -> bool:
        """Go to another node, since the one at the end of ``connection`` is about to stop. Whether there is one that
        has not said the same a moment ago."""
        now = self._clock.seconds()
        self._sent_away_at = {one: at for one, at in self._sent_away_at.items() if now - at < LEAVING_SECONDS}
        self._sent_away_at |= dict.fromkeys((connection.node, connection.target), now)
        other = self._other_than(*self._sent_away_at)
        if other in self._sent_away_at:
            return False
        self._unreachable = connection.node
        self._keep(connection)
        self._switch_to(self._connect_to(other))
        return True

    def _keep(self, left: ClientConnection) -> None:
        """Listen for a while to a connection that nothing is sent on any more: an answer may be on its way."""
        if left.is_open and not self._is_closed and left.credentials is self.credentials:
            self._probes.append(left)
        else:
            left.close()

    def _other_than(self, *nodes: str) -> str:
        candidates = self._known.candidates
        return self._rng.choice(self._known.fresh(one for one in candidates if one not in nodes) or candidates)

    def _probe_lost(self, connection: ClientConnection) -> None:
        """A connection that nothing is sent on has ended, or could not be made. If its node was not there, the next one
        is asked soon, until each was: some of them may have been gone for long."""
        if connection in self._probes:
            self._probes.remove(connection)
            if connection.welcome is None and self._probes_made % len(self._known):
                self._probe_in = 0

    # inside: other keys

    def _renew(self) -> None:
        """If the current connection was made with other keys than the client has now, have one with these in its place.
        While requests wait for answers, it is used on until a node takes the new keys."""
        current = self.current
        if current is None or current.credentials is self.credentials or self._is_closed:
            return
        if current.welcome is None:  # Nothing was sent on it.
            current.close()
            self._switch_to(self._connect_to(current.target))
        elif not self._pending:
            self._drop_renewal()
            current.close()
            self.current = None
            self.is_ready = False
            self._owner.disconnected()
            self._next_node = current.node if current.node in self._known else self._other_than(current.node)
        elif self._renewal is None and self._renew_in <= 0 and self._pending.size_bytes <= RENEWAL_BYTES_MAX:
            self._renewal = self._connect_to(current.target)

    def _look_at_renewal(self) -> None:
        """Time has passed. Nothing is sent on the new connection, so it is not looked at as the others are."""
        self._renew_in -= self._ticks
        renewal = self._renewal
        if renewal is not None:
            renewal.age += self._ticks
            if renewal.age >= FAILED_TICKS:
                self._drop_renewal()
                self._renew_later(f"{_place(renewal.target, str(renewal.address))} {NO_WELCOME}")
        self._renew()

    def _renewed(self, renewal: ClientConnection) -> None:
        """A node takes the new keys."""
        old = self.current
        assert old is not None
        if renewal.principal != old.principal:
            self._drop_renewal()
            self._renew_later(f"they are those of {renewal.principal}, and this client is {old.principal}")
            return
        old.close()  # All that waits for an answer is sent again.
        self._promote(renewal)
        self._follow(renewal)

    def _renew_later(self, why: str) -> None:
        self._renew_in = RENEWAL_TICKS
        if why != self._renewal_failed_by:
            self._renewal_failed_by = why
            self.log.warn(
                "the new keys of this client are not in use yet: {why}", why=printable(why), event="keys_not_in_use"
            )

    def _drop_renewal(self, but: ClientConnection | None = None) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None and renewal is not but:
            renewal.close()

    # inside: who the members are

    def _take_members(self, connection: ClientConnection, members: Members) -> None:
        """A node tells who the members are. Leave those that are none any more, in order: what was sent to such a node
        may be answered yet, and is sent again to the next."""
        if not self._known.tell(members, connection.node, knows_leader(connection)):
            return
        current = self.current
        if self._next_node not in self._known:
            self._next_node = self._other_than(self._next_node)
        if current is None or (current.welcome is not None and self._follow(current)):
            return
        if self._known.is_gone(current.node):
            better = self._better()
            self._keep(current)
            self._probes_kept = max(self._probes_kept, REMOVED_KEPT_TICKS)
            if better is not None:
                self._promote(better)
            else:
                self._switch_to(self._connect_to(self._next_node))

    def _note_failure(self, connection: ClientConnection) -> None:
        """The attempt to reach a node has failed, as far as can be seen by now."""
        if not connection.is_failed:
            connection.is_failed = True
            self._failed_once.add(connection.target)
            self._failed_since.add(connection.target)
            self._known.failed(connection.target, connection.welcome is not None)

    def _note_refusal(self, connection: ClientConnection) -> None:
        """A connection has ended. If that was because of keys, and no node is left that may take the client, all
        requests end."""
        if connection.is_refused:
            self._is_refused = self._known.was_reached = True
        if self._is_refused and self._failed_since.issuperset(self._known.candidates):
            self._failed_since.clear()
            self._is_refused = False
            self._owner.refused()

    def _were_all_tried(self) -> bool:
        return self._failed_once.issuperset(self._known.candidates)

    # inside: the ticks

    def _start_ticks(self) -> None:
        if self.current is not None:
            self.current.silent = 0
            self.current.heard = False
        self._suspicion.requests_began()
        self._schedule_tick(CALM_TICKS)

    def _schedule_tick(self, ticks: int) -> None:
        self._ticks = ticks
        self.is_watching = True
        self._tick_call = self._clock.callLater(ticks * self._suspicion.tick_seconds, self._tick)

    def _tick(self) -> None:
        """Time has passed."""
        try:
            self._look()
        finally:  # Whatever raises, there is one next tick.
            self._tick_call = None
            self.is_watching = False
            waits = bool(self._pending)
            if not self._is_closed and (waits or self._probes):
                current = self.current
                calm = current is not None and current.welcome is not None and self._is_calm(current)
                in_doubt = self._suspicion.is_unable or not calm
                self._schedule_tick(1 if waits and in_doubt else CALM_TICKS)

    def _is_calm(self, current: ClientConnection) -> bool:
        """Whether no Ping is due before the next look at a node that is not in doubt."""
        return current.silent + CALM_TICKS <= self._suspicion.ping_ticks

    def _look(self) -> None:
        """Count the ticks that have passed, and do what follows from the silence."""
        waits = bool(self._pending)
        for connection in self._connections():
            connection.age += self._ticks
            connection.silent = 0 if connection.heard or not waits else connection.silent + self._ticks
            connection.heard = False
            if connection.welcome is None and connection.age >= FAILED_TICKS:
                self._note_failure(connection)
        if self.credentials is not None:
            self.credentials.warn_of_expiry(self._clock.seconds())
            self._look_at_renewal()
        if waits and self.current is not None:
            self._look_at(self.current)
        self._tidy(waits)

    def _look_at(self, current: ClientConnection) -> None:
        """Requests wait. See whether the node at the end of ``current`` can answer them."""
        self._suspicion.observe(current, self._ticks)
        self._ping_if_silent(current, self._suspicion.ping_ticks)
        if not self._suspicion.is_suspect(current):
            return
        for probe in self._probes:
            self._ping_if_silent(probe, PING_TICKS)
        if self._suspicion.should_leave(current, self._better()):
            self._leave(current)
        else:
            self._probe()

    def _ping_if_silent(self, connection: ClientConnection, ticks: int) -> None:
        """Have a silent node send something. A node that has told no liveness window knows no Ping."""
        welcome = connection.welcome
        if welcome is not None and connection.silent >= ticks and welcome.liveness_window_seconds:
            connection.ping()

    def _tidy(self, waits: bool) -> None:
        """Drop what there is no reason for any more."""
        if self._suspicion.age_backoff(self._ticks):
            self._unreachable = ""
        suspect = waits and self.current is not None and self._suspicion.is_suspect(self.current)
        self._probes_kept = PROBE_KEPT_TICKS if suspect else self._probes_kept - self._ticks
        if self._probes_kept <= 0:
            self._drop_probes()

    def _connections(self) -> list[ClientConnection]:
        return [*([] if self.current is None else [self.current]), *self._probes]

    # inside: probes

    def _better(self) -> ClientConnection | None:
        """A probe whose node sends something: one that can answer and was not just left itself, if there is one."""
        speaking = [
            one
            for one in self._probes
            if one.welcome is not None and one.silent < PROBE_TICKS and not self._known.is_gone(one.node)
        ]
        return max(
            speaking, key=lambda one: (is_able(one), knows_leader(one), one.node != self._unreachable), default=None
        )

    def _leave(self, current: ClientConnection) -> None:
        """Go to another node, or make a new connection to the same one if there is no other."""
        self._findings[current.target] = "does not answer" if current.silent else self._finding(current.target)
        self._unreachable = current.node
        if current.welcome is not None and not current.welcome.catching_up:
            self._suspicion.node_left()
        better = self._better()
        if better is not None:
            self._promote(better)
            self._keep(current)
        else:
            self._keep(current)
            self._switch_to(self._connect_to(current.target))

    def _probe(self) -> None:
        """Make one more probe, unless there is one whose node can answer."""
        better = self._better()
        self._probe_in -= self._ticks
        if (better is not None and is_able(better)) or self._probe_in > 0:
            return
        rounds = self._probes_made // len(self._known)
        tried = {node for connection in self._connections() for node in (connection.target, connection.node)}
        if rounds >= SEED_ROUNDS or tried.issuperset(self._known.candidates):
            self._known.try_seeds()
        others = [node for node in self._known.candidates if node not in tried]
        if others:
            self._probe_in = min(WELCOME_TICKS * 2 ** min(rounds, PROBE_DOUBLINGS_MAX), PROBE_TICKS_MAX)
            self._probes_made += 1
            # A node that was left, or closed its connection, is asked again when the others were asked.
            self._probes.append(self._connect_to(self._rng.choice(self._known.fresh(others, last=self._unreachable))))

    def _drop_probes(self) -> None:
        probes, self._probes = self._probes, []
        self._probe_in = self._probes_made = 0
        for probe in probes:
            probe.close()

    def _finding(self, node: str) -> str:
        return self._findings.get(node, "was not asked")


def _place(node: str, address: str) -> str:
    """A node and its address, once if the address is all that is known of it."""
    return address if node == address else f"{node} at {address}"


def _role(welcome: Welcome) -> str:
    """What a node says of itself and the leader, in a few words."""
    if welcome.leader is None:
        return "knows no leader"
    return "says that it leads" if welcome.leader == welcome.node else f"follows {welcome.leader}"
