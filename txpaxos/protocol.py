"""The node: where core, wire, storage and the reactor meet. Subclass :class:`PaxosProtocol` and write ``apply``.

A datagram comes in at the peer port, is decoded, goes down to the core once, and one Ready comes back up, which
:class:`~txpaxos.node.performer.Performer` performs: save, then release. Nothing else sends, saves or applies.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from math import inf
from random import Random, SystemRandom
from typing import Any, TypeVar, cast

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application import Application
from txpaxos.application_checks import check_class, check_object
from txpaxos.arguments import check_consistency, check_deadline, checked_bytes, checked_subject, checked_value
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Address, Cluster
from txpaxos.core.config import Limits, Timing
from txpaxos.core.messages import AboutSubject, ChosenValues, Message, NodeId, Slot, Truncated
from txpaxos.core.ready import (
    AskAnswered,
    Chosen,
    Installed,
    LeadershipAcquired,
    LeadershipChanged,
    LeadershipFact,
    LeadershipLost,
    LogRecord,
    PeerMet,
    ReadIndexConfirmed,
    Ready,
    Record,
    Status,
    SubjectChosen,
    SubjectState,
    Voter,
)
from txpaxos.core.replica import Replica
from txpaxos.core.subjects import Subjects
from txpaxos.errors import NodeStopped, NoQuorum, OutcomeUnknown, PaxosError, StoreError, ValueTooLarge
from txpaxos.log_lines import REASON_CHARACTERS_MAX, Sparing, for_log, printable
from txpaxos.node.applier import Applier
from txpaxos.node.asks import PendingAsks
from txpaxos.node.command_limits import CommandLimits
from txpaxos.node.founding import Meeting, has_voted
from txpaxos.node.known_peers import Acquaintances
from txpaxos.node.local_session import LocalSession
from txpaxos.node.peers import WAYS, Network
from txpaxos.node.performer import Performer
from txpaxos.node.reads import Reads
from txpaxos.node.sessions import Outcomes
from txpaxos.node.snapshots.coordinator import Compaction
from txpaxos.node.snapshots.taking import Policy
from txpaxos.node.snapshots.transfer import TransferLimits
from txpaxos.node.status import NodeStatus
from txpaxos.node.submissions import Submissions
from txpaxos.node.timer import Timer
from txpaxos.reading import Consistency, Reading
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import Store
from txpaxos.wire.codec import SUBJECT_BYTES_MAX as SUBJECT_BYTES_MAX
from txpaxos.wire.codec import Received
from txpaxos.wire.commands import Run, check_run
from txpaxos.wire.peer_messages import (
    AskAudit,
    Audit,
    AuditsHeard,
    Challenge,
    CompactionMessage,
    Fetching,
    FetchSnapshot,
    Forward,
    Hello,
    Introduction,
    PeerMessage,
    Proof,
    Refusal,
    SnapshotPart,
)

T = TypeVar("T")

UNHEARD_SECONDS = 2.0
"""A leader that has not heard a peer for so long, or for four heartbeats if that is longer, says so in its status."""

CLOSE_SECONDS = 3.0
"""How long a node that stops waits for its disk."""

READYS_WAITING_MAX = 4096
"""While so many Readys wait for a slow disk, what peers send is dropped; they send it again."""

HINT_SECONDS = 0.05
"""A peer is not asked sooner again for a message of which a hint came that may be forged."""


class PaxosProtocol(Application, DatagramProtocol):
    """One node of a replicated service. Give it to ``reactor.listenUDP`` with its address from the cluster.

    Subclass it and reimplement the hooks (:class:`~txpaxos.application.Application`). A subclass that has state of its
    own takes ``(*args, **kwargs)`` in ``__init__`` and passes them on.

    :param reactor: provides ``IReactorTime`` and ``IReactorTCP``; used for timers and streams.
    :param node: this node's id in the cluster.
    :param cluster: the cluster, with IP addresses (:meth:`Cluster.resolve <txpaxos.cluster.Cluster.resolve>`).
    :param store: what this node saved. The node loads it when it starts and closes it when it stops.
    :param rng: the source of chance; one that the system has seeded if not given.
    :param monotonic: monotonic seconds. Not the reactor's own clock, which may be the wall clock and step.
    :ivar failed: fails with the failure after which this node can do no more: a failed save, or a broken invariant.
    """

    log = Logger()
    noisy = False
    _started = _stopping = _gives_up = False
    _started_at = 0.0
    _leads_since: float | None = None
    _hung_since: float | None = None
    """When the save was begun that takes so long that this node leaves its part to the others."""
    _made: dict[str, Any] | None = None

    def __init__(
        self,
        reactor: Any,
        node: NodeId,
        cluster: Cluster,
        store: Store,
        *,
        timing: Timing | None = None,
        limits: Limits | None = None,
        command_limits: CommandLimits | None = None,
        snapshot_policy: Policy | None = None,
        transfer_limits: TransferLimits | None = None,
        rng: Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        before = dict(vars(self))
        self.reactor, self.node, self.cluster = reactor, node, cluster
        self.failed: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()  # When somebody has called `stop`.
        self.counters: Counter[str] = Counter()
        self._store = store
        self._timing, self._limits = timing, limits
        self._command_limits = command_limits or CommandLimits()
        self._rng = rng or Random()
        self._monotonic, self._clock = monotonic, monotonic_clock(self.reactor, monotonic)
        self._acquaintances = Acquaintances(self._save_peer, self.counters)
        self._network = self._make_network(partial((rng or SystemRandom()).getrandbits, 64))
        self._applier = Applier(self.apply)
        self._submissions = Submissions(self._applier, self._command_limits)
        self._performer = Performer(self._clock, store, self._refill, self._release, self._give_up)
        self._timer = Timer(self._clock, self._tick)
        self._session = LocalSession(
            self._rng, self.submit_run, self._submissions.refusal, lambda: self._applier.applied_through
        )
        self._asks = PendingAsks(self._ask, lambda question: self._subjects.forget(question))
        self._reads = Reads(self._applier, self.query, self._request_read_index)
        policy, transfer, counters = snapshot_policy or Policy(), transfer_limits or TransferLimits(), self.counters
        self._compaction = Compaction(
            self._clock, self, node, cluster, store, self, self._applier, policy, transfer, counters, self._rng
        )
        self._received: dict[Slot, Snapshot] = {}
        self._leader_watchers: list[Callable[[], None]] = [lambda: self._network.hold(self.leader)]
        self._lines = Sparing(monotonic)
        self._audit_asked_at: dict[NodeId, float] = {}
        self._meeting = Meeting(node, [*cluster.members], store.incarnation, timing, self._rng, self._send_to_peer)
        # The core; set when the node starts and has loaded what it saved.
        self._replica: Replica
        self._subjects: Subjects
        self._made = {**vars(self), **before}

    def _make_network(self, new_token: Callable[[], int]) -> Network:
        return Network(
            self.reactor,
            self.node,
            self.cluster,
            self._store.incarnation,
            self._acquaintances,
            new_token,
            self._receive_from_peer,
            self._peer_ended,
            self.counters,
        )

    # from the application

    def submit(self, command: bytes, deadline_seconds: float | None = None) -> Deferred[Any]:
        """Have ``command`` applied, on any node.

        :param deadline_seconds: how long that may take, counted from the call; without end unless given.
        :returns: fires with what ``apply`` returned on this node; fails with :class:`~txpaxos.errors.CommandFailed`,
            :class:`~txpaxos.errors.ValueTooLarge`, :class:`~txpaxos.errors.Overloaded`, or, when this node stops
            first, :class:`~txpaxos.errors.NodeStopped`; when the deadline is over, with
            :class:`~txpaxos.errors.OutcomeUnknown`.
        :raises TypeError: if ``command`` is no bytes.
        """
        command, deadline_seconds = checked_bytes(command, "a command"), check_deadline(deadline_seconds)
        if self._stopping:
            return fail(NodeStopped(f"node {self.node} is stopping; submit to another"))
        self._performer.schedule()
        error = OutcomeUnknown("no outcome came in time; the command may have been applied or not")
        return self._within(deadline_seconds, self._session.submit(command), error)

    def submit_run(self, run: Run) -> Deferred[Outcomes]:
        """Have commands of somebody else's session applied. Fires with their outcomes, fails as :meth:`submit` does,
        for all of them.

        :raises TypeError: if ``run`` is none, or what is in it is of a wrong type.
        :raises ValueError: if it has no command, or its session or numbers are none.
        """
        check_run(run)
        if self._stopping:
            return fail(NodeStopped(f"node {self.node} is stopping; submit to another"))
        self._performer.schedule()
        return self._submissions.submit_run(run)

    def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> Deferred[bytes | None]:
        """Have ``subject`` decided, once and for ever, on ``value`` unless somebody was first; ``None`` only reads.

        :returns: fires with the decided value, or with ``None`` if nothing was proposed yet; waits as long as no
            quorum answers (cancel it to stop asking). Fails with :class:`~txpaxos.errors.ValueTooLarge`; when the
            deadline is over, with :class:`~txpaxos.errors.OutcomeUnknown` if there was a value to propose, else with
            :class:`~txpaxos.errors.NoQuorum`.
        :raises TypeError: if ``subject`` is no str, or ``value`` neither bytes nor ``None``.
        """
        subject, value = checked_subject(subject), checked_value(value)
        deadline_seconds = check_deadline(deadline_seconds)
        if self._stopping:
            return fail(NodeStopped(f"node {self.node} is stopping; ask another"))
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            return fail(ValueTooLarge(f"a subject has 1 to {SUBJECT_BYTES_MAX} bytes"))
        size, most = len(value or b""), self._command_limits.command_bytes_max
        if size > most:
            return fail(ValueTooLarge(f"the value has {size} bytes and may have {most}"))
        answer = self._asks.ask(subject, value)
        error: PaxosError = NoQuorum("no quorum answered in time")
        if value is not None:
            error = OutcomeUnknown("no quorum answered in time; the subject may be decided or not")
        return self._within(deadline_seconds, answer, error)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Deferred[Reading]:
        """Have ``query`` answered by this node's application, through its ``query`` hook.

        :param consistency: see :data:`~txpaxos.reading.Consistency`.
        :returns: fails with :class:`~txpaxos.errors.QueryFailed`, :class:`~txpaxos.errors.ValueTooLarge` or
            :class:`~txpaxos.errors.Overloaded`; when the deadline is over, with :class:`~txpaxos.errors.NoQuorum`.
            Without one it waits as long as no quorum answers (cancel it to stop that).
        :raises TypeError: if ``query`` is no bytes.
        :raises ValueError: if there is no such consistency.
        """
        query, consistency = checked_bytes(query, "a query"), check_consistency(consistency)
        deadline_seconds = check_deadline(deadline_seconds)
        if self._stopping:
            return fail(NodeStopped(f"node {self.node} is stopping; ask another"))
        size, most = len(query), self._command_limits.command_bytes_max
        if size > most:
            return fail(ValueTooLarge(f"the query has {size} bytes and may have {most}"))
        answer = self._reads.read(query, consistency)
        return self._within(deadline_seconds, answer, NoQuorum("no quorum answered in time"))

    def _within(self, seconds: float | None, answer: Deferred[T], error: PaxosError) -> Deferred[T]:
        """``answer``, but ``error`` when that takes longer than ``seconds``."""
        if seconds is None:
            return answer
        return answer.addTimeout(seconds, self._clock, lambda _, __: Failure(error))

    @property
    def leader(self) -> NodeId | None:
        """The node that leads, as far as this one knows."""
        return self._replica.leader_node if self._started else None

    @property
    def liveness_window_seconds(self) -> tuple[float, float]:
        """The shortest and the longest silence after which a follower takes its leader for dead."""
        return (self._timing or Timing()).liveness_window_seconds

    @property
    def applied_through(self) -> Slot:
        """The last slot that this node has applied, with all before it."""
        return self._applier.applied_through

    def watch_leader(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever :attr:`leader` has changed."""
        self._leader_watchers.append(watcher)

    @property
    def disk_hangs(self) -> bool:
        """Whether a save takes so long that this node has left its part to the others, until the disk works again."""
        return self._hung_since is not None and len(self.cluster.members) > 1

    @property
    def is_forgotten(self) -> bool:
        """Whether this node's data folder is new, and others know it with another: they do not hear it."""
        return self._meeting.is_forgotten(self._monotonic())

    @property
    def sends_clients_away(self) -> bool:
        """Whether what needs the disk or other nodes may take for ever here, and not at another node."""
        return self.disk_hangs or self.is_forgotten

    def status(self) -> NodeStatus:
        """A frozen copy of what is worth knowing. The role of a node that has not loaded its store yet is
        ``starting``."""
        now = self._monotonic()
        return NodeStatus(
            self._replica.status() if self._started else Status.of_starting(self.node),
            self._applier.applied_through,
            len(self._submissions) + len(self._session),
            self._compaction.status(),
            dict(self.counters),
            **self._network.refusals.status(),
            heard=self._network.heard_seconds(now),
            unheard=self._unheard(now),
            up_seconds=now - self._started_at if self._started else 0.0,
            disk_hangs_seconds=None if self._hung_since is None else now - self._hung_since,
            waits_for=list(self._meeting.waits_for()) if self._started else [],
        )

    def _unheard(self, now: float) -> list[NodeId]:
        """The peers that a leader ought to hear and does not. Others need not hear each other."""
        heartbeat_seconds = (self._timing or Timing()).heartbeat_seconds
        seconds = max(UNHEARD_SECONDS, 4 * heartbeat_seconds)
        if self._leads_since is None or now - self._leads_since < seconds:
            return []
        heard = self._network.heard_seconds(now)
        return [peer for peer, ago in heard.items() if ago is None or ago > seconds]

    def stop(self) -> Deferred[None]:
        """Take part no longer, and close the store. Fires when that is done."""
        if not self._stopping:
            self._stopping = True
            error = NodeStopped(f"node {self.node} stopped before it had the outcome")
            for stop in (
                lambda: self._timer.cancel(),
                lambda: self._performer.stop(),
                lambda: self._network.stop(),
                lambda: self._compaction.stop(),
                lambda: self._session.close(error),
                lambda: self._submissions.close(error),
                lambda: self._asks.close(error),
                lambda: self._reads.close(error),
            ):
                try:
                    stop()
                except Exception:  # An application has overwritten what stands there. The others stop all the same.
                    self.log.failure("node {node} cannot stop a part of itself", node=self.node)
            if not self._gives_up:
                self._ended.callback(None)
        return self._closed(maybeDeferred(self._store.close))

    def _closed(self, closed: Deferred[None]) -> Deferred[None]:
        """``closed``, or ``None`` after :data:`CLOSE_SECONDS`: a disk that hangs may never answer. What was under way
        is left to it, and not cancelled: nobody was told that it is saved."""
        ended: Deferred[None] = Deferred()

        def leave() -> None:
            self.log.warn(
                "node {node} stops without its disk, which has not finished in {seconds} s: a save is left under way"
                " that was not acknowledged; the next start finds it or not",
                node=self.node,
                seconds=CLOSE_SECONDS,
            )
            ended.callback(None)

        def finish(result: Failure | None) -> None:
            if timer.active():
                timer.cancel()
                ended.callback(result)

        timer = self._clock.callLater(CLOSE_SECONDS, leave)
        closed.addBoth(finish)
        return ended

    # from Twisted

    def logPrefix(self) -> str:
        """What Twisted calls this node in its own lines of the log."""
        return f"node {self.node}, datagrams of peers:"

    def listen_also(self, transport: Any, address: Address) -> None:
        """Send over one more socket, where it fits, and take streams at its ``address``. What comes there goes to
        :meth:`datagramReceived`."""
        self._network.add(transport, address)

    def startProtocol(self) -> None:
        """Load what was saved, hand it to the application again, and begin.

        :raises txpaxos.errors.StoreError: if what was saved cannot be read.
        """
        assert self.transport is not None
        check_class(type(self), PaxosProtocol)
        check_object(self, PaxosProtocol, self._made)
        records = self._store.load()
        subjects = [record for record in records if isinstance(record, SubjectState)]
        log = [record for record in records if isinstance(record, LogRecord)]
        for record in records:
            if isinstance(record, PeerMet):
                self._acquaintances.recover(record.peer, record.incarnation)
        base = self._compaction.load()
        now = self._monotonic()
        members = tuple(self.cluster.members)
        voter = self._recover_voter(records)
        votes = voter is not None
        self._replica = Replica(
            self.node, members, self._rng, now, log, self._timing, self._limits, base, votes, self._applier.admits
        )
        if missing := self._replica.missing_checkpoint():
            self._performer.add(Ready(save=(*missing, *self._acquaintances.records())))
        self._refuse_lost_state(self._replica.log.lost_through)
        self._subjects = Subjects(self.node, members, self._rng, subjects, self._timing, votes, self._replica.dropped)
        known: list[Chosen | SubjectChosen | Installed] = [*self._replica.recovered(), *self._subjects.decided()]
        for chosen in known:
            self._hand_out(chosen)
        self._compaction.loaded()
        self.log.info(
            "node {node} of {members} starts with {slots} applied slots and {subjects} subjects",
            node=self.node,
            members=len(members),
            slots=self._applier.applied_through,
            subjects=len(subjects),
        )
        self._started = True
        self._started_at = self._monotonic()
        self._network.start(self.transport, self._started_at)
        self._reads.start()
        self._asks.start()
        self._compaction.start()
        self._meeting.start(voter, self._acquaintances.records(), now)
        self._become_voter()
        self._tick()

    def _recover_voter(self, records: list[Record]) -> Voter | None:
        """What says that this node is a voter, if it is one, and of these members.

        :raises StoreError: if it voted among more or fewer nodes: two quorums need not meet then."""
        members = tuple(self.cluster.members)
        voter = next((record for record in records if isinstance(record, Voter)), None)
        if voter is None and not has_voted(records):
            return None
        known = Voter(members) if voter is None else voter
        if len(known.members) != len(members):
            raise StoreError(
                f"node {self.node} has voted among {len(known.members)} nodes ({', '.join(known.members)}), and the"
                f" cluster file has {len(members)} ({', '.join(members)}): there is no way yet to have more or fewer of"
                " them; put the old cluster file back"
            )
        if set(known.members) != set(members):
            self.log.warn(
                "node {node} voted among {old}, and votes among {new} now, as the cluster file says",
                node=self.node,
                old=", ".join(known.members),
                new=", ".join(members),
            )
            known = Voter(members)
        if known != voter:
            self._performer.add(Ready(save=(known,)))
        return known

    def _refuse_lost_state(self, slot: Slot) -> None:
        """What led to ``slot`` was compacted, and the snapshot of it is gone: only other nodes have that state."""
        if not slot:
            return
        if len(self.cluster.members) == 1:
            raise StoreError(f"the snapshot at slot {slot} is gone, and no other node has that state: put it back")
        self.log.warn("the state up to slot {slot} is gone from here: the other nodes are asked for it", slot=slot)

    def stopProtocol(self) -> None:
        """The port was closed. If nobody asked for that, this node is deaf and must not go on."""
        if not self._stopping:
            self._give_up(Failure(RuntimeError("the datagram port was closed; is the network gone?")))

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Take one datagram."""
        self._network.datagram_received(datagram, addr)

    # from the network, and from this node itself

    def _receive_from_peer(self, received: Received) -> None:
        """Take a message of a peer that this node has met, if it came in the way in which it has to."""
        sender, incarnation, message, way = received
        if sender not in self._acquaintances:
            self.counters["message of a peer not met yet"] += 1
            self._network.meet(sender)
            self._network.not_met(sender)
            return
        if not self._acquaintances.admits(sender, incarnation):
            self._network.refuse(sender, "it came back with another data folder")
            self._meeting.refuse(sender, self._monotonic())
            return
        if WAYS.get(type(message), way) is way:
            self._receive(sender, message)
        else:
            self._take_hint(sender, message)

    def _take_hint(self, sender: NodeId, message: PeerMessage) -> None:
        """Of a message that may have been forged, take no more than that there may be something to ask for."""
        if self._stopping:
            return
        now = self._monotonic()
        match message:
            case Introduction():
                was_forgotten = self.is_forgotten
                self._meeting.take_hint(sender, message, now)
                self._meet_later()
                if self.is_forgotten and not was_forgotten:
                    self._tell_watchers()
            case ChosenValues() | Truncated():
                self._add(self._replica.take_hint(sender, now))
            case Audit() | AuditsHeard() if now >= self._audit_asked_at.get(sender, -inf) + HINT_SECONDS:
                self._audit_asked_at[sender] = now
                self._network.send((sender,), AskAudit(message.slot))
        self.counters[f"{type(message).__name__} that may be forged"] += 1

    def _save_peer(self, met: PeerMet) -> None:
        self._performer.add(Ready(save=(met,), answers=(met,)))

    def _peer_ended(self, peer: NodeId) -> None:
        """Nobody listens where ``peer`` did."""
        if not self._stopping:
            self._add(self._replica.observe_end(peer, self._monotonic()))

    def _receive(self, sender: NodeId, message: PeerMessage) -> None:
        if self._stopping:
            return
        if self._hung_since is not None and self._still_hangs():
            self.counters["dropped while the disk hung"] += 1
            return
        if self._performer.waiting > READYS_WAITING_MAX:
            self.counters["dropped while the disk was busy"] += 1
            return
        now = self._monotonic()
        try:
            take = self._takers.get(type(message))
            if take is None:
                self._add(self._replica.receive(sender, cast("Message", message), now))
            else:
                take(sender, message, now)
        except Exception:
            self._give_up(Failure())

    @cached_property
    def _takers(self) -> dict[type[Any], Callable[[NodeId, Any, float], None]]:
        """What takes each kind of message that is not about the log."""
        about_snapshots = FetchSnapshot, SnapshotPart, Audit, AuditsHeard, AskAudit, Fetching
        between_networks = Hello, Challenge, Proof, Refusal
        return {
            Forward: lambda sender, message, now: self._take_forwarded(message),
            AboutSubject: lambda sender, message, now: self._add(self._subjects.receive(sender, message, now)),
            Introduction: self._take_introduction,
            **dict.fromkeys(about_snapshots, lambda sender, message, now: self._compaction.receive(sender, message)),
            **dict.fromkeys(between_networks, lambda sender, message, now: None),
        }

    def _take_introduction(self, sender: NodeId, message: Introduction, now: float) -> None:
        self._meeting.receive(sender, message, now)
        self._become_voter()

    def _take_forwarded(self, message: Forward) -> None:
        if self._submissions.is_leader:
            self._submissions.submit_forwarded(message.runs)
            self._performer.schedule()
        else:
            self.counters["forwarded to a node that does not lead"] += 1

    # from the timer

    def _tick(self) -> None:
        now = self._monotonic()
        try:
            self._network.tick(now)
            if self._performer.saving_since is not None and self._watch_disk(now):
                return
            if now >= self._replica.wake_at:
                self._add(self._replica.tick(now))
            else:  # What it was to do has been put off.
                self._timer.schedule_no_later_than(self._replica.wake_at)
            if self._subjects.in_work:
                self._add(self._subjects.tick(now))
            self._meeting.tick(now)
            self._become_voter()
        except Exception:
            self._give_up(Failure())
        self._forward_later(now)

    # the disk

    def _watch_disk(self, now: float) -> bool:
        """A save is under way. Whether it takes so long that this node does nothing until the disk works again."""
        since = self._performer.saving_since
        assert since is not None
        hangs_at = since + (self._timing or Timing()).liveness_window_seconds[1]  # Nobody waits longer for a leader.
        if self._hung_since is None and now < hangs_at:
            self._timer.schedule_no_later_than(hangs_at)
            return False
        if self._hung_since is None:
            self._hung_since = since
            self.log.warn(
                "the disk of node {node} hangs: a save that began {seconds:.1f} s ago has not ended; until it has, this"
                " node neither leads nor votes, and sends its clients to the others",
                node=self.node,
                seconds=now - since,
            )
            if len(self.cluster.members) > 1:
                self._add(self._replica.suspend(now))
            self._tell_watchers()
        return self._still_hangs()

    def _still_hangs(self) -> bool:
        """Whether the save that took too long is still under way. If not, this node takes part again."""
        since = self._hung_since
        if since is None or self._performer.saving_since == since:
            return since is not None
        now = self._monotonic()
        self._hung_since = None
        self.log.warn(
            "the disk of node {node} works again: a save took {seconds:.1f} s", node=self.node, seconds=now - since
        )
        if self._replica.is_suspended:
            self._add(self._replica.resume(now))
        self._tell_watchers()
        self._timer.schedule_no_later_than(now)
        return False

    # from the performer

    def _refill(self) -> None:
        """Propose what waits while the window has room; pass on what a follower's callers wait for."""
        if not self._started:
            return  # What is submitted before the start waits for it.
        now = self._monotonic()
        self._session.flush()
        if self._submissions.is_leader:
            while self._replica.has_room and (value := self._submissions.next_value()) is not None:
                self._add(self._replica.propose(value[0], now, urgent=value[1]))
        elif (leader := self._replica.leader_node) is not None and leader != self.node:
            while runs := self._submissions.due_for_forwarding(now):
                self._network.send((leader,), Forward(runs))
            self._forward_later(now)

    def _release(self, ready: Ready) -> None:
        """All that ``ready`` asked to save, and all before it, is on disk."""
        if self._hung_since is not None:
            self._still_hangs()
        for envelope in ready.send:
            self._network.send(envelope.to, envelope.message)
            if self.node in envelope.to:
                self._receive(self.node, envelope.message)
        for chosen in ready.chosen:
            self._hand_out(chosen)
        for answer in ready.answers:
            match answer:
                case ReadIndexConfirmed():
                    self._reads.read_from(answer.number, answer.slot)
                case AskAnswered():
                    self._asks.answer(answer)
                case PeerMet():
                    self._acquaintances.saved(answer)
                    self._meeting.on_disk(answer, self._monotonic())
                    self._become_voter()
                case Voter():  # pragma: no branch
                    self._start_voting(answer)
        if ready.snapshot_source is not None:
            self._compaction.fetch_from(ready.snapshot_source)
        for fact in ready.leadership:
            self._tell_leadership(fact)

    def _give_up(self, failure: Failure, after: Deferred[None] | None = None) -> None:
        """This node can do no more: its disk failed, or an invariant is broken. It says so and falls silent at once;
        :attr:`failed` fails when ``after`` has fired, if that is given."""
        if self._stopping:
            return
        self._gives_up = True
        line = "node {node} gives up: {reason}"
        reason = printable(failure.getErrorMessage(), REASON_CHARACTERS_MAX)
        if failure.check(PaxosError):
            self.log.critical(line, node=self.node, reason=reason)
        else:  # An invariant: its traceback says which.
            self.log.failure(line, for_log(failure), node=self.node, reason=reason)
        try:  # A subclass may have a `stop` of its own, or overwrite what it needs.
            maybeDeferred(self.stop).addErrback(lambda _: None)
        finally:
            (after or succeed(None)).addBoth(lambda _: self.failed.errback(failure))

    # becoming a voter

    def _become_voter(self) -> None:
        """Take the next step to that, if there is one to take."""
        self._meet_later()
        if self._meeting.is_over:
            return
        voter = self._meeting.founding(self._monotonic())
        if voter is not None:
            self._save_voter(voter)
        elif self._meeting.is_known() and not self._meeting.catches_up:
            self._meeting.catches_up = True
            members = tuple(self.cluster.members)
            # The leader answers once a quorum has told it, after this question, that it leads. This node tells nothing.
            self._reads.catch_up().addCallbacks(lambda _: self._save_voter(Voter(members)), lambda _: None)

    def _save_voter(self, voter: Voter) -> None:
        if not self._meeting.is_over:
            self._meeting.is_over = True
            self._performer.add(Ready(save=(voter,), answers=(voter,)))

    def _start_voting(self, voter: Voter) -> None:
        """``voter`` is on disk."""
        now = self._monotonic()
        self.log.info("node {node} is a voter now", node=self.node)
        self._add(self._replica.start_voting(now))
        self._add(self._subjects.start_voting(now))
        self._meeting.start_voting(voter, now)

    def _meet_later(self) -> None:
        if self._meeting.wake_at < inf and not self._stopping:
            self._timer.schedule_no_later_than(self._meeting.wake_at)

    def _send_to_peer(self, peer: NodeId, message: PeerMessage) -> None:
        self._network.send((peer,), message)

    # to the application

    def _hand_out(self, chosen: Chosen | SubjectChosen | Installed) -> None:
        match chosen:
            case Chosen():
                for run, outcomes in self._applier.apply(chosen):
                    self._submissions.complete(run, outcomes)
                self._compaction.applied(chosen)
                self._reads.applied()
            case SubjectChosen():
                self._call_hook(self.value_chosen, chosen.subject, chosen.value)
            case Installed():  # pragma: no branch
                self._compaction.restore(self._received.pop(chosen.slot))
                self.log.info("node {node} goes on from a snapshot at slot {slot}", node=self.node, slot=chosen.slot)
                if not self._submissions.is_leader:
                    self._submissions.become_follower()  # What its callers wait for may be in there.
                self._reads.applied()

    def _tell_leadership(self, fact: LeadershipFact) -> None:
        match fact:
            case LeadershipAcquired():
                more = self._lines.admits("leads")
                if more is not None:
                    line = "node {node} leads with ballot {ballot}{more}"
                    self.log.info(line, node=self.node, ballot=str(fact.ballot), more=more)
                self._leads_since = self._monotonic()
                self._submissions.become_leader()
                self._call_hook(self.leadership_acquired)
            case LeadershipLost():
                more = self._lines.admits("no longer leads")
                if more is not None:
                    line = "node {node} no longer leads with {ballot}{more}"
                    self.log.info(line, node=self.node, ballot=str(fact.ballot), more=more)
                self._leads_since = None
                self._submissions.become_follower()
                self._call_hook(self.leadership_lost)
            case LeadershipChanged():
                more = None if fact.current == self.node else self._lines.admits("follows")
                if more is not None:  # That it leads, it has said.
                    said = "knows no leader" if fact.current is None else f"follows {printable(fact.current)}"
                    self.log.info(
                        "node {node} {said} (before: {previous}){more}",
                        node=self.node,
                        said=said,
                        previous=printable(fact.previous or "none"),
                        more=more,
                    )
                if not self._submissions.is_leader:
                    self._submissions.become_follower()
                self._call_hook(self.leadership_changed, fact.previous, fact.current)
                self._tell_watchers()

    def _tell_watchers(self) -> None:
        for watcher in list(self._leader_watchers):
            self._call_hook(watcher)

    def _call_hook(self, hook: Callable[..., None], *args: Any) -> None:
        """Call a hook whose exception concerns nobody else."""
        try:
            hook(*args)
        except KeyboardInterrupt:
            raise
        except BaseException:
            name = getattr(hook, "__name__", repr(hook))
            more = self._lines.admits(f"{name} raised")
            if more is not None:
                self.log.failure("{hook} raised{more}", for_log(), hook=name, more=more)

    # from compaction

    def checkpoint(self, slot: Slot) -> None:
        """A snapshot at ``slot`` is being taken: save what is to be remembered beyond it."""
        self._performer.add(Ready(save=(*self._replica.checkpoint(slot), *self._acquaintances.records())))

    def compact(self, through: Slot) -> None:
        """Snapshots hold all up to ``through``."""
        self._replica.compact(through)

    def install(self, snapshot: Snapshot) -> None:
        """Go on from ``snapshot``, which has come from another node."""
        ready = self._replica.install(snapshot.slot, self._monotonic())
        if ready.save:
            self._received[snapshot.slot] = snapshot
            ready = attrs.evolve(ready, save=(*ready.save, *self._acquaintances.records()))
        self._add(ready)

    def heard_through(self) -> tuple[Slot, Slot]:
        """How far this node knows what is chosen, and how far it has heard that something is."""
        return self._replica.log.chosen_through, self._replica.heard_through

    def send(self, to: Iterable[NodeId], message: CompactionMessage) -> None:
        """Send a message that rests on nothing but complete snapshots."""
        self._network.send(to, message)

    def give_up(self, error: PaxosError, after: Deferred[None] | None = None) -> None:
        """This node can do no more: its snapshot has rotted, or its state is another than that of the others."""
        self._give_up(Failure(error), after)

    def _ask(self, question: int, subject: str, value: bytes | None) -> None:
        now = self._monotonic()
        self._add(self._subjects.ask(question, subject, value, now))

    def _request_read_index(self) -> int:
        now = self._monotonic()
        number, ready = self._replica.request_read_index(now)
        self._add(ready)
        return number

    # inside

    def _add(self, ready: Ready) -> None:
        """Queue what the core wants done, and wake it when it wants to be woken."""
        if not ready.is_empty:
            self._performer.add(ready)
        if ready.wake_at is not None and not self._stopping:
            self._timer.schedule_no_later_than(ready.wake_at)

    def _forward_later(self, now: float) -> None:
        """Wake up when commands are to be passed on again; if that is now, it is for the performer's next turn."""
        wake_at = self._submissions.wake_at
        if wake_at is None or self._stopping:
            return
        if wake_at > now:
            self._timer.schedule_no_later_than(wake_at)
        else:
            self._performer.schedule()
