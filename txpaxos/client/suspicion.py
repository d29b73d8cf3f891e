"""When a client suspects that its node cannot answer, and when it leaves that node. The route asks.

Time is counted in ticks, of which a node's liveness window has :data:`TICKS`. Ticks are counted, not seconds, so that a
client which was itself suspended has seen one tick pass, and blames no node for the silence.
"""

from __future__ import annotations

from collections.abc import Sized

from txpaxos.client.connection import ClientConnection
from txpaxos.client.pending import PendingRequests

LIVENESS_SECONDS = 0.25
"""Length of a liveness window, until a node has told its own."""

LIVENESS_SECONDS_MIN = 0.01
"""Shortest liveness window that a client takes from a node."""

LIVENESS_SECONDS_MAX = 60.0
"""Longest liveness window that a client takes from a node."""

TICKS = 5
"""Ticks in a liveness window."""

PING_TICKS = 2
"""Silence after which the node is sent a Ping, which has it send something."""

WAIT_TICKS = 3
"""By this much longer may the node be silent if all requests wait for something to happen, as watches do. So they cost
a Ping in a liveness window, and the node is left within two of them: within the longest one, by default."""

PROBE_TICKS = 4
"""Silence after which the node is suspect, so that another node is asked, too."""

WELCOME_TICKS = 3
"""Time without the first Welcome after which the node is suspect."""

STALLED_TICKS = 5
"""Time after which a node is suspect that sends something but answers no request that needs a quorum. A node that has
said that it leads no longer is left after this time, if another leads: the other nodes may not hear it."""

LEAVE_TICKS = 5
"""Silence after which a node is left, if any node can answer one of the requests."""

LEAVE_LEADER_TICKS = 10
"""Silence after which a node is left, if only a leader can answer the requests. Then it costs less to wait until a node
says who leads."""

LEAVE_UNPROBED_TICKS = 20
"""Silence after which a node is left, if the silence may also be work: the node knows no Ping, or is the only one."""

BACKOFF_MAX = 8
"""Upper bound on the factor by which the times above are lengthened."""

BACKOFF_TICKS = 100
"""Time without leaving a node after which the factor is halved."""

BYTES_A_SECOND = 20e6
"""The speed at which requests are taken to be sent. The times above are lengthened by the time that this takes."""


class Suspicion:
    """What a client makes of the silence of the node that it talks to.

    A client that has left a node for its silence waits twice as long before it leaves the next one. So an overloaded
    cluster, which answers late everywhere, is not made to answer everything twice.

    :param pending: the requests without an answer.
    :param follows_leader: whether the client talks to the leader when it knows which node that is.
    :param nodes: the nodes that the client may talk to.
    :ivar tick_seconds: how long a tick is.
    :ivar backoff: the factor by which times are lengthened.
    """

    def __init__(self, pending: PendingRequests, follows_leader: bool, nodes: Sized) -> None:
        self.tick_seconds = LIVENESS_SECONDS / TICKS
        self.backoff = 1
        self._backoff_age = 0
        self._pending = pending
        self._follows_leader = follows_leader
        self._nodes = nodes
        self._answers_seen = 0
        self._stalled = 0  # For how many ticks nothing that needs a quorum was answered, though it should be.
        self._leaderless = 0  # For how many ticks the node has said that it knows no leader.
        self._is_behind = False  # Whether the node has said that it is catching up, and a request needs more.
        self._wait_ticks = 0  # By how much longer it may be silent now.
        self._patience_ticks = 0  # By how much longer it may answer nothing that needs a quorum.

    # what has happened

    def set_liveness_window(self, seconds: float) -> None:
        """A node has told the shortest liveness window of the nodes."""
        self.tick_seconds = min(max(seconds, LIVENESS_SECONDS_MIN), LIVENESS_SECONDS_MAX) / TICKS

    def node_changed(self) -> None:
        """The client talks to another node from now on."""
        self._stalled = self._leaderless = 0
        self._is_behind = False

    def welcomed(self) -> None:
        """The node has said who leads."""
        self._leaderless = 0

    def requests_began(self) -> None:
        """There are requests without an answer, after a time without any."""
        self._stalled = 0

    def node_left(self) -> None:
        """The client has left a node for its silence."""
        self.backoff = min(2 * self.backoff, BACKOFF_MAX)
        self._backoff_age = 0

    def observe(self, current: ClientConnection, ticks: int) -> None:
        """``ticks`` have passed in which requests waited for the node at the end of ``current``."""
        self._note_urgency(current)
        needs_quorum, answers = self._needs_quorum(), self._pending.quorum_answers
        has_progress, self._answers_seen = answers != self._answers_seen, answers
        self._stalled = 0 if has_progress or not needs_quorum else self._stalled + ticks
        current.deposed = current.deposed and not has_progress
        welcome = current.welcome if needs_quorum else None
        self._leaderless = self._leaderless + ticks if welcome is not None and welcome.leader is None else 0
        self._is_behind = welcome is not None and welcome.catching_up

    def _note_urgency(self, current: ClientConnection) -> None:
        """See whether all requests have time: they wait for something to happen, or for a slot that others share. If
        one has none any more, the silence until now says less than it would if one never had: the node was not asked to
        say something, or to answer soon."""
        pending = self._pending
        waited, patience = self._wait_ticks, self._patience_ticks
        self._patience_ticks = int(pending.patience_seconds / self.tick_seconds)
        self._wait_ticks = WAIT_TICKS if pending.all_wait else self._patience_ticks
        if pending.has_waits:
            self._wait_ticks = min(WAIT_TICKS, self._wait_ticks)
        current.silent = max(0, current.silent - max(0, waited - self._wait_ticks))
        self._stalled = max(0, self._stalled - max(0, patience - self._patience_ticks))

    def age_backoff(self, ticks: int) -> bool:
        """``ticks`` have passed, with requests or without. Whether that halves the factor."""
        self._backoff_age += ticks
        if self._backoff_age <= BACKOFF_TICKS:
            return False
        self._backoff_age = 0
        self.backoff = max(1, self.backoff // 2)
        return True

    # what follows from it

    @property
    def ping_ticks(self) -> int:
        """Silence after which the node that the client talks to is sent a Ping."""
        return PING_TICKS + self._wait_ticks

    @property
    def is_unable(self) -> bool:
        """Whether a request waits that the node cannot answer now, by its own word: it knows no leader, or is catching
        up."""
        return self._leaderless > 0 or self._is_behind

    def is_suspect(self, current: ClientConnection) -> bool:
        """Whether to ask another node, too."""
        if current.welcome is None:
            return current.age >= WELCOME_TICKS + self._extra_ticks(current)
        stalled = self._stalled - self._patience_ticks
        late = max(current.silent - PROBE_TICKS - self._wait_ticks, stalled - STALLED_TICKS)
        return late >= self._extra_ticks(current) or self.is_unable

    def should_leave(self, current: ClientConnection, better: ClientConnection | None) -> bool:
        """Whether to leave the node at the end of ``current``, though no node has named another leader.

        :param better: the connection to go to; ``None`` if there is none but a new one to the same node.
        """
        extra = self._extra_ticks(current)
        if better is None:  # A new connection helps if the node was away, and has forgotten this one.
            is_only = len(self._nodes) == 1 and current.welcome is not None
            return is_only and current.silent >= LEAVE_UNPROBED_TICKS * self.backoff + extra + self._wait_ticks
        assert better.welcome is not None
        if current.welcome is None:
            return current.age >= WELCOME_TICKS * self.backoff + extra
        if current.welcome.liveness_window_seconds <= 0:  # The node knows no Ping.
            return current.silent >= LEAVE_UNPROBED_TICKS * self.backoff + extra + self._wait_ticks
        only_leader_helps = self._follows_leader and all(request.needs_leader for request in self._pending)
        leave_ticks = LEAVE_LEADER_TICKS if only_leader_helps else LEAVE_TICKS
        if current.silent >= leave_ticks * self.backoff + extra + self._wait_ticks:
            return True
        if not self._needs_quorum() or not is_able(better):
            return False
        if self._is_behind or self._leaderless >= LEAVE_TICKS:
            return True
        stalled = self._stalled - self._patience_ticks
        if current.deposed and stalled >= STALLED_TICKS + extra:
            return True
        leads = self._follows_leader and better.welcome.leader == current.node
        stalled_ticks = LEAVE_UNPROBED_TICKS if leads else LEAVE_LEADER_TICKS
        return stalled >= stalled_ticks * self.backoff + extra

    def _needs_quorum(self) -> bool:
        return any(request.needs_leader for request in self._pending)

    def _extra_ticks(self, current: ClientConnection) -> float:
        """The time that the round trip takes, and that big requests take to be sent."""
        return current.round_trip_ticks + self._pending.size_bytes / BYTES_A_SECOND / self.tick_seconds


def knows_leader(connection: ClientConnection) -> bool:
    """Whether the node at the end of ``connection`` knows a leader, by its own word."""
    return connection.welcome is not None and connection.welcome.leader is not None


def is_able(connection: ClientConnection) -> bool:
    """Whether the node at the end of ``connection`` can answer requests that need a quorum, by its own word."""
    return knows_leader(connection) and connection.welcome is not None and not connection.welcome.catching_up
