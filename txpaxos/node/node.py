"""One node: it connects the core with the network, the disk, the reactor and the application.

A datagram comes in at :mod:`txpaxos.node.peers` and is decoded. The core handles the message once and returns one
Ready. :class:`~txpaxos.node.performer.Performer` performs that Ready: it saves first, and releases then. Only what is
released is sent, applied or answered.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, chain
from math import inf
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, cast

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application import Application, name_of
from txpaxos.application_checks import check_class, check_object
from txpaxos.arguments import checked_node
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Address, Cluster
from txpaxos.core.drops import by_name
from txpaxos.core.messages import (
    MEMBERS_BYTE,
    ChosenValues,
    Message,
    NodeId,
    PromiseLog,
    Slot,
    TakeOver,
    Truncated,
)
from txpaxos.core.ready import (
    AnswerFact,
    ChangeCompleted,
    Chosen,
    Configured,
    HandOverEnded,
    Installed,
    LeadershipAcquired,
    LeadershipLost,
    Learned,
    LogRecord,
    PeerMet,
    ReadIndexConfirmed,
    Ready,
    Record,
    SubjectState,
    Voted,
    Voter,
)
from txpaxos.core.replica import Replica
from txpaxos.errors import ConfigError, NodeStopped, NotHandedOver, PaxosError, RemovedFromCluster, StoreError
from txpaxos.log_lines import REASON_CHARACTERS_MAX, LineLimiter, for_log, printable
from txpaxos.node.admission import Admission
from txpaxos.node.applier import Applier
from txpaxos.node.asks import Asks
from txpaxos.node.backups import BackupPart, Backups
from txpaxos.node.calls import Calls
from txpaxos.node.counts import Count, Counts, Labelled
from txpaxos.node.disk_watch import DiskWatch
from txpaxos.node.events import (
    CommandReached,
    MessageReceived,
    Observer,
    PromiseCounted,
    ReadyReleased,
    RegisterReached,
    RunFinished,
    RunSubmitted,
    SaveFinished,
    SlotApplied,
    SnapshotInstalled,
    SnapshotRestored,
    SnapshotTaken,
    TimePassed,
    ValueReached,
)
from txpaxos.node.former_members import FormerMembers
from txpaxos.node.founding import Founding
from txpaxos.node.hand_over import HandOverCalls
from txpaxos.node.heard_keep_alives import HeardKeepAlives
from txpaxos.node.hooks import Hooks
from txpaxos.node.keep_alives import KeepAlives
from txpaxos.node.known_peers import KnownPeers
from txpaxos.node.leader_clock import LeaderClock
from txpaxos.node.leadership import LeadershipNews
from txpaxos.node.local_session import LocalSession
from txpaxos.node.member_changes import MemberChanges
from txpaxos.node.member_clocks import MemberClocks
from txpaxos.node.members import ChosenMembers, Members
from txpaxos.node.peers import REQUIRED_WAYS, Peers
from txpaxos.node.performer import APPLY_SECONDS_MAX, Performer
from txpaxos.node.reads import Reads
from txpaxos.node.recording import CoreRecording
from txpaxos.node.sealing import Sealing
from txpaxos.node.secured_peers import SecuredPeers
from txpaxos.node.sessions import Outcomes
from txpaxos.node.settings import Settings
from txpaxos.node.snapshots.coordinator import SnapshotCoordinator
from txpaxos.node.snapshots.taking import head_of
from txpaxos.node.status import NodeStatus
from txpaxos.node.submissions import Submissions
from txpaxos.node.timer import Timer
from txpaxos.node.timers import Timers
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import Store
from txpaxos.wire.codec import Received
from txpaxos.wire.commands import REGISTERS_MARK, Run
from txpaxos.wire.members import MembersRequest, base_name
from txpaxos.wire.peer_messages import (
    AskClock,
    AskStateDigest,
    Challenge,
    ClockReading,
    CollectRegisters,
    Fetching,
    FetchSnapshot,
    Forward,
    ForwardKeepAlives,
    Hello,
    Introduction,
    PeerMessage,
    Proof,
    Refusal,
    RegisterMessage,
    RegisterVotes,
    Removed,
    SnapshotMessage,
    SnapshotPart,
    StateDigest,
    StateDigestsHeard,
)
from txpaxos.wire.stamps import KeptAlive, stamped

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys
    from txpaxos.node.peer_tls import PeerTls

UNHEARD_SECONDS = 2.0
"""A leader lists a peer in its status as unheard after this time, or after four heartbeats if these take longer."""

GRACE_SECONDS = 1.0
"""How long a new leader lets no kept-alive timer fire, beside two of the longest liveness windows: so long it may take
until it hears what clients sent to the one before."""

CLOSE_SECONDS = 3.0
"""The longest time that a node waits for its disk when it stops."""

READYS_WAITING_MAX = 4096
"""Upper bound on the Readys that wait for a slow disk. Beyond it messages of peers are dropped; peers repeat them."""

HINT_SECONDS = 0.05
"""The shortest time between two requests to a peer that follow hints, since hints may be forged."""

SNAPSHOT_MESSAGES = (FetchSnapshot, SnapshotPart, StateDigest, StateDigestsHeard, AskStateDigest, Fetching)
HANDSHAKE_MESSAGES = (Hello, Challenge, Proof, Refusal)


class Node:
    """One node of a cluster, and the application on it.

    When the constructor returns, the application has the state that was saved. Then call :meth:`start` with a socket.
    :class:`~txpaxos.server.service.PaxosService` does both.

    :param application: the application. The node calls its hooks.
    :param reactor: provides ``IReactorTime`` and ``IReactorTCP``, for timers and streams.
    :param name: this node's id in the cluster.
    :param cluster: the cluster, with IP addresses (:meth:`Cluster.resolve <txpaxos.cluster.Cluster.resolve>`).
    :param store: the records and snapshots that this node has saved. The node closes it when it stops.
    :param settings: limits and times; the defaults if not given.
    :param rng: the source of randomness; one seeded by the system if not given.
    :param monotonic: the clock, in monotonic seconds. The reactor's own clock may be the wall clock, which can jump.
    :param utc_seconds: the time of day, in seconds since 1970: what this node says it is while it leads.
    :param restored_from: the checksum of the backup that the store was restored from; empty if it was not. It founds a
        cluster only with nodes that were restored from the same one.
    :param observe: called with each step of the node (:mod:`txpaxos.node.events`).
    :param observe_commands: whether it is called with each command and each run, too, of which there are far more than
        of other steps.
    :param recording: records all that enters the core; nothing does if not given.
    :param keys: the keys with which the nodes know each other; ``None`` if keys are off.
    :param tls: what it does with its keys; TLS by OpenSSL, and AES-GCM, if not given.
    :ivar clock: timers that follow ``monotonic``.
    :ivar counters: how often each event of :class:`~txpaxos.node.counts.Count` has happened.
    :ivar failed: fails when the node has given up, with the reason: a failed save, or a broken invariant.
    :ivar stopped: fires when :meth:`stop` is called, unless the node had given up before.
    :raises ConfigError: if something is wrong with the application. Nothing was loaded then.
    :raises StoreError: if the saved records cannot be read, or do not fit the cluster.
    :raises RemovedFromCluster: if the store is that of a node which was removed.
    """

    log = Logger()

    def __init__(
        self,
        application: Application,
        reactor: Any,
        name: NodeId,
        cluster: Cluster,
        store: Store,
        settings: Settings | None = None,
        *,
        rng: Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        utc_seconds: Callable[[], float] = time.time,
        observe: Observer | None = None,
        observe_commands: bool = True,
        recording: CoreRecording | None = None,
        restored_from: str = "",
        keys: Keys | None = None,
        tls: PeerTls | None = None,
    ) -> None:
        check_class(type(application))
        check_object(application)
        self.application, self.name, self.cluster = application, name, cluster
        self.members = Members(name, cluster)
        self.settings = settings or Settings()
        self.counters: Counts = Counter()
        self.failed: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()
        self.clock = monotonic_clock(reactor, monotonic)
        self._monotonic, self._utc_seconds, self._observe = monotonic, utc_seconds, observe
        self._observe_commands = observe if observe_commands else None
        self._store, self._restored_from, self._recording = store, restored_from, recording
        self._rng = rng or Random()
        self._is_listening = self._stopping = self._gives_up = self._has_pulsed = False
        self._refill_at = inf  # When something is to be proposed, or told to the leader, whatever happens until then.
        self._started_at = 0.0
        self._received: dict[Slot, tuple[Snapshot, Sequence[ChosenMembers]]] = {}
        self._digest_asked_at: dict[NodeId, float] = {}
        self._compose_performer()
        self._compose_peers(reactor, partial((rng or SystemRandom()).getrandbits, 64), keys, tls)
        self._compose_application()
        self._compose_members()
        self._compose_admission()
        application._node = self
        try:
            self._load()
        except BaseException:
            for stop_part in (self._performer.stop, self._timer.cancel, self._calls.close, self._end_recording):
                stop_part()
            raise

    # composition

    def _compose_performer(self) -> None:
        """Make what performs Readys, and the timer for when the core is to be called again."""
        release = self._release if self._recording is None else self._recording.around(self._release)
        observe = self._observe
        saved = None if observe is None else lambda seconds: observe(SaveFinished(seconds))
        self._performer = Performer(self.clock, self._store, self._refill, release, self._give_up, saved)
        self._timer = Timer(self.clock, self._tick)

    def _compose_peers(
        self, reactor: Any, new_token: Callable[[], int], keys: Keys | None, tls: PeerTls | None
    ) -> None:
        """Make the parts that talk to the other nodes."""
        self._known_peers = KnownPeers(self._save_peer, self.counters)
        make_peers: Callable[..., Peers] = Peers
        if keys is not None:
            self._check_keys(keys)
            make_peers = partial(SecuredPeers, keys=keys, tls=tls)
        self._peers = make_peers(
            reactor,
            self.name,
            self.cluster,
            self._store.incarnation,
            self._known_peers,
            new_token,
            self._receive_from_peer,
            self._peer_ended,
            self.counters,
        )

    def _compose_application(self) -> None:
        """Make the parts between the application, its callers and the log."""
        application, settings = self.application, self.settings
        lines = LineLimiter(self._monotonic)
        self._hooks = Hooks(lines)
        self._keep_alives = KeepAlives(lambda: self.timers, lambda: self._reads.wait(), self._keep_alives_wait)
        self._heard_keep_alives = HeardKeepAlives(lambda: self.timers)
        each = self._observe_commands
        reached = None if each is None else lambda slot, command: each(CommandReached(slot, command))
        self._applier = Applier(
            *(application.apply, settings.sessions_max, application.timer_fired, self._keep_alives.note),
            *(reached, self._monotonic),
        )
        grace_ms = int((GRACE_SECONDS + 2 * settings.timing.liveness_window_seconds[1]) * 1000)
        self._member_clocks = MemberClocks(
            *(self.members, self._monotonic, self._utc_seconds, self.send, self._wake_by, lines)
        )
        utc_ms = self._member_clocks.utc_ms
        self._leader_clock = LeaderClock(lambda: self.timers.now, self._monotonic, utc_ms, grace_ms)
        self._submissions = Submissions(self._applier, settings.command_limits)
        self._session = LocalSession(
            self._rng, self._submit_own_run, self._submissions.refusal, lambda: self._applier.applied_through
        )
        self._reads = Reads(self._applier, application.query, self._request_read_index)
        self._compose_registers()
        calls = self._calls = Calls(
            self.name,
            self.clock,
            settings.command_limits,
            self._session,
            self._submissions,
            self._asks,
            self._reads,
            self._sealing,
            self._keep_alives,
            self._performer.schedule,
        )
        self._hand_overs = HandOverCalls(
            self.name, lambda: self.members.entry.members, self.clock, self, lambda: len(calls)
        )
        # The calls of programs and clients, which Calls implements.
        self.submit, self.submit_run, self.ask, self.read = calls.submit, calls.submit_run, calls.ask, calls.read
        self.forget, self.keep_alive = calls.forget, calls.keep_alive
        self._snapshots = SnapshotCoordinator(
            *(self.clock, self, self.name, self.cluster.name, self.members, self._store, application, self._applier),
            *(settings.snapshot_policy, settings.transfer_limits, self.counters, self._rng),
        )
        self._news = LeadershipNews(self.name, application, self._submissions, self._hooks, lines)
        self._news.watch(lambda: self._peers.keep_open(self.leader))

    def _compose_members(self) -> None:
        """Make the part that changes the members, and follow them."""
        self.members.watch(self._follow_members)
        self._member_changes = MemberChanges(
            self.members,
            lambda: self._replica,
            self._monotonic,
            self._performer.schedule,
            lambda node: self._store.incarnation if node == self.name else self._known_peers.incarnation(node),
            self.hand_over,
            lambda: None if self._applier.registers.sealed_at else self._sealing.seal(),
        )
        self._former_members = FormerMembers(
            *(self.members, self._member_changes, lambda: self._replica, self.settings.limits.ahead_slots),
            *(self._rng, self.send, self._wake_by),
        )

    def _compose_registers(self) -> None:
        """Make the parts that answer calls about registers."""
        submissions = self._submissions
        session = LocalSession(
            self._rng,
            self._submit_own_run,
            submissions.refusal_for_registers,
            lambda: self._applier.applied_through,
            REGISTERS_MARK,
        )
        self._asks = Asks(
            self._applier,
            session,
            self._submit_own_run,
            self._reads,
            lambda: self._sealing.seal(),
            self._performer.schedule,
        )
        self._sealing = Sealing(
            self.name,
            tuple(self.cluster.founding_members),
            self._applier,
            lambda peer, message: self.send((peer,), message),
            self._asks.submit,
            self._monotonic,
            self._wake_by,
            self.settings.timing,
            self._rng,
            self.counters,
        )

    def _compose_admission(self) -> None:
        """Make the parts that decide whether this node takes part: whether it may vote, and whether its disk works."""
        members, timing = self.cluster.founding_members, self.settings.timing
        self._founding = Founding(
            *(self.name, members, self._store.incarnation, timing, self._rng),
            *(lambda peer, say: self.send((peer,), say), self._restored_from),
        )
        self._admission = Admission(self.name, members, self._founding, self._save_voter, self._reads.catch_up)
        self._backups = Backups(
            *(self.name, self.members.cluster, name_of(self.application), self._store, lambda: self._replica.log),
            *(self._applier, self._snapshots.note_backup),
        )
        self._disk = DiskWatch(
            self.name, self._performer, timing.liveness_window_seconds[1], self._disk_hangs, self._disk_works
        )

    # start

    def _load(self) -> None:
        """Load the saved records, and bring the application to the state that they describe."""
        records = self._store.load()
        for record in records:
            if isinstance(record, PeerMet):
                self._known_peers.recover(record.peer, record.incarnation)
        if self._store.snapshot is not None:
            self.members.restore(head_of(self._store.snapshot, self.cluster.name).chosen_members)
        self._voter = self._admission.recover(records, self._have_members_changed(records))
        self._load_core(records)
        self._sealing.recover(record for record in records if isinstance(record, SubjectState))
        self._sealing.is_voter = self._voter is not None
        self._snapshots.load()
        self._report_decided(self._applier.applied_through)
        for chosen in self._replica.recovered():
            self._deliver(chosen)
        self._snapshots.loaded()
        if self._applier.registers.sealed_at:
            self._forget_older_registers()
        self.log.info(
            "node {node} of {members} starts with {slots} applied slots and {registers} registers",
            node=self.name,
            members=len(self.members.entry.voters),
            slots=self._applier.applied_through,
            registers=len(self._applier.registers),
            event="node_starts",
        )

    def _have_members_changed(self, records: Iterable[Record]) -> bool:
        """Whether a snapshot or the log says who the members are, instead of the cluster file."""
        values = (value for record in records if isinstance(record, Learned) for value in record.values)
        voted = (record.value for record in records if isinstance(record, Voted))
        return bool(self.members.slot) or any(value[:1] == MEMBERS_BYTE for value in chain(values, voted))

    def _load_core(self, records: list[Record]) -> None:
        """Make the core from the saved records."""
        settings, votes = self.settings, self._voter is not None
        members = self.cluster.founding_members if self._voter is None else self._voter.members
        log = [record for record in records if isinstance(record, LogRecord)]
        base = 0 if self._store.snapshot is None else self._store.snapshot.slot
        now, timing = self._monotonic(), settings.timing
        make_core = Replica if self._recording is None else self._recording.make_core
        self._replica = make_core(
            *(self.name, members, self._rng, now, log, timing, settings.limits, base, votes, self._applier.admits),
            change_of=self.members.change_of,
            configurations=self.members.configurations,
        )
        self._replica.admit_contacts(tuple(self.cluster.members), self.cluster.slot)
        if missing := self._replica.missing_checkpoint():
            self._performer.add(Ready(save=(*missing, *self._known_peers.records())))
        self._refuse_lost_state(self._replica.log.lost_through)

    def _refuse_lost_state(self, slot: Slot) -> None:
        """Report that the snapshot at ``slot`` is lost and its log is compacted: only other nodes have that state.

        :raises StoreError: if there is no other node.
        """
        if not slot:
            return
        if len(self.members.entry.members) == 1:
            raise StoreError(f"the snapshot at slot {slot} is gone, and no other node has that state: put it back")
        self.log.warn(
            "this node has lost the state up to slot {slot}: the other nodes are asked for it",
            slot=slot,
            event="state_lost",
        )

    def start(self, transport: Any) -> None:
        """Take part in the cluster.

        :param transport: a socket for datagrams (``IUDPTransport``) at this node's own address.
        """
        if self._stopping:
            return  # The application has stopped it while the saved log was applied.
        now = self._started_at = self._monotonic()
        self._is_listening = True
        self._peers.start(transport, now)
        self._reads.start()
        self._snapshots.start()
        self._admission.start(self._voter, self._known_peers.records(), now)
        self._schedule_founding()
        self._tick()

    def use_keys(self, keys: Keys) -> None:
        """Use other keys with the other nodes from now on. Streams are opened anew, one after the other, and each is
        used until the next one is established, so no message is lost.

        :raises ConfigError: if the node was started without keys, or they are those of another node."""
        if not isinstance(self._peers, SecuredPeers):
            raise ConfigError(f"node {self.name} was started without keys: start it with them")
        self._check_keys(keys)
        self._peers.use_keys(keys)

    def _check_keys(self, keys: Keys) -> None:
        if keys.name != base_name(self.name) or keys.role != "node":
            raise ConfigError(f"the keys are those of {keys.role} {keys.name}, not of node {self.name}")

    def listen_also(self, transport: Any, address: Address) -> None:
        """Use one more socket: send over it where the first one cannot, and accept streams at its ``address``."""
        self._peers.add_socket(transport, address)

    # stop

    def stop(self) -> Deferred[None]:
        """Stop taking part, answer all callers, and close the store.

        :returns: fires when the store is closed, or after ``CLOSE_SECONDS``.
        """
        if not self._stopping:
            self._stopping = True
            parts: tuple[Callable[[], object], ...] = (
                self._timer.cancel,
                self._performer.stop,
                self._peers.stop,
                self._snapshots.stop,
                partial(self._hand_overs.close, NotHandedOver(f"node {self.name} has stopped")),
                *self._calls.closers(),
                partial(self._member_changes.close, NodeStopped(f"node {self.name} stopped on the way")),
                self._end_recording,
            )
            for stop_part in parts:
                try:
                    stop_part()
                except Exception:  # The others stop all the same: no process may stay behind half stopped.
                    self.log.failure(
                        "node {node} cannot stop a part of itself", for_log(), node=self.name, event="part_not_stopped"
                    )
            if not self._gives_up:
                self.stopped.callback(None)
        return self._closed(maybeDeferred(self._store.close))

    def _end_recording(self) -> None:
        if self._recording is not None:
            self._recording.close()

    def _closed(self, closed: Deferred[None]) -> Deferred[None]:
        """Wait for ``closed``, but no longer than ``CLOSE_SECONDS``: a disk that hangs may never answer.

        A save under way is not cancelled. No caller was told that it is on disk.
        """
        ended: Deferred[None] = Deferred()

        def leave() -> None:
            self.log.warn(
                "node {node} stops without its disk, which has not finished in {seconds} s: the save under way was"
                " not acknowledged; the next start finds it or not",
                node=self.name,
                seconds=CLOSE_SECONDS,
                event="disk_not_closed",
            )
            ended.callback(None)

        def finish(result: Failure | None) -> None:
            if timer.active():
                timer.cancel()
                ended.callback(result)

        timer = self.clock.callLater(CLOSE_SECONDS, leave)
        closed.addBoth(finish)
        return ended

    def port_closed(self) -> None:
        """Give up if the socket was closed while the node runs: it can receive nothing any longer."""
        if not self._stopping:
            self._give_up(Failure(RuntimeError("the datagram port was closed; is the network gone?")))

    def _give_up(self, failure: Failure, after: Deferred[None] | None = None) -> None:
        """Stop for good: the disk has failed, or an invariant is broken. Logs the reason and sends nothing more.

        :param failure: the reason.
        :param after: :attr:`failed` fails when this has fired; at once if it is not given.
        """
        if self._stopping:
            return
        self._gives_up = True
        line = "node {node} gives up: {reason}"
        reason = printable(failure.getErrorMessage(), REASON_CHARACTERS_MAX)
        if failure.check(PaxosError):
            self.log.critical(line, node=self.name, reason=reason, event="gives_up")
        else:  # A broken invariant: the traceback shows which one.
            self.log.failure(line, for_log(failure), node=self.name, reason=reason, event="gives_up")
        self.stop().addErrback(lambda _: None)
        (after or succeed(None)).addBoth(lambda _: self.failed.errback(failure))

    # from the application and from clients

    @property
    def leader(self) -> NodeId | None:
        """The leader, as far as this node knows; ``None`` if it knows none."""
        return self._replica.leader_node

    def hand_over(self, to: NodeId | None = None) -> Deferred[NodeId]:
        """Hand over the lead. See :meth:`PaxosProtocol.hand_over <txpaxos.protocol.PaxosProtocol.hand_over>`."""
        return self._hand_overs.hand_over(None if to is None else checked_node(to))

    def leave(self) -> Deferred[None]:
        """Prepare to stop: hand over the lead, if this node leads, and wait for the outcomes of its callers' commands.
        Call :meth:`stop` then.

        :returns: fires when that is done, or has taken too long: after about two seconds.
        """
        departure = self._hand_overs.leave()
        self._news.tell_watchers()
        return departure

    @property
    def is_leaving(self) -> bool:
        """Whether this node is about to stop, so that clients should use another one."""
        return self._hand_overs.is_leaving

    @property
    def is_catching_up(self) -> bool:
        """Whether this node needs another's snapshot, and has not caught up yet: no command is answered until then."""
        return self._snapshots.is_catching_up

    @property
    def timers(self) -> Timers:
        """The replicated time, and what is to happen later."""
        return self._applier.timers

    @property
    def applied_through(self) -> Slot:
        """The last slot that this node has applied; 0 if it has applied none."""
        return self._applier.applied_through

    def logged_values(
        self, first_slot: Slot, last_slot: Slot, bytes_max: int | None = None
    ) -> list[tuple[Slot, bytes]]:
        """The chosen values from ``first_slot`` to ``last_slot`` that this node still has in its log, each with its
        slot, oldest first.

        :param bytes_max: leave out the oldest of them, so that the others are no more bytes than this.
        """
        first_slot = max(first_slot, self._replica.log.first_slot)
        values = self._replica.log.values_from(first_slot, max(0, last_slot - first_slot + 1))
        logged = [*enumerate(values, first_slot)]
        if bytes_max is not None:
            sizes = accumulate(len(value) for value in reversed(values))
            logged = logged[sum(size > bytes_max for size in sizes) :]
        return logged

    @property
    def liveness_window_seconds(self) -> tuple[float, float]:
        """The shortest and the longest silence after which a follower considers its leader dead, in seconds."""
        return self.settings.timing.liveness_window_seconds

    def change_members(self, request: MembersRequest) -> Deferred[ChosenMembers]:
        """Change the members. See :meth:`MemberChanges.change <txpaxos.node.member_changes.MemberChanges.change>`."""
        if self._stopping:
            return fail(NodeStopped(f"node {self.name} is stopping; ask another"))
        return self._member_changes.change(request)

    def at_end_of_turn(self, function: Callable[[], None]) -> bool:
        """Have ``function`` called when all is applied and answered that the node is about to.

        :returns: whether the node is in a turn. Otherwise ``function`` is not called.
        """
        return self._performer.at_end(partial(self._hooks.call, function))

    def watch_leader(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever :attr:`leader`, :attr:`sends_clients_away`, :attr:`is_leaving` or
        :attr:`is_catching_up` has changed."""
        self._news.watch(watcher)

    def knows_session(self, session: bytes) -> bool:
        """Whether a command of this session was applied and the session is still remembered."""
        return session in self._applier.sessions

    @property
    def disk_hangs(self) -> bool:
        """Whether a save takes so long that this node neither leads nor votes; false in a cluster of one node."""
        return self._disk.hung_since is not None and len(self.members.entry.members) > 1

    @property
    def is_folder_lost(self) -> bool:
        """Whether this node has lost its data folder: the folder is new, and peers know this node with another one.

        Those peers refuse its messages.
        """
        return self._founding.is_folder_lost(self._monotonic())

    @property
    def sends_clients_away(self) -> bool:
        """Whether clients should use another node: requests that need the disk or other nodes may never finish here."""
        return self.disk_hangs or self.is_folder_lost

    @property
    def sessions_total(self) -> int:
        """How many sessions of clients this node remembers."""
        return len(self._applier.sessions)

    @property
    def registers_total(self) -> int:
        """How many registers are decided, as far as this node has applied the log."""
        return len(self._applier.registers)

    def accept_clock(self) -> dict[str, Any]:
        """Let the next time in the log be what the clocks say, however late that is. It is proposed at once.

        :returns: the leader, that time, and how much later it is than it should be.
        :raises NotHandedOver: if this node does not lead.
        """
        if not self._leader_clock.is_running:
            leader = self.leader or "no node"
            raise NotHandedOver(f"{self.name} does not lead, {leader} does: the leader says what time it is")
        refused_seconds = self._member_clocks.report().refused_seconds
        utc_ms = self._member_clocks.accept()
        if self._replica.has_room:  # Otherwise the next value has it.
            self._propose_stamped(b"", self._monotonic())
        return {"leader": self.name, "utc_ms": utc_ms, "refused_seconds": refused_seconds}

    def confirm_quorum(self) -> Deferred[Any]:
        """Fires when a quorum has confirmed the leader, after this call, and this node has applied all that was chosen
        before. It waits as long as none does; cancel it to end that.

        :returns: fails with :class:`~txpaxos.errors.Overloaded` or :class:`~txpaxos.errors.NodeStopped`.
        """
        if self._stopping:
            return fail(NodeStopped(f"node {self.name} is stopping; ask another"))
        return self._reads.wait()

    def backup_part(self, snapshot_slot: Slot, position: int) -> BackupPart:
        """A part of a backup. See :meth:`Backups.part <txpaxos.node.backups.Backups.part>`."""
        return self._backups.part(snapshot_slot, position)

    def status(self) -> NodeStatus:
        """The current status of this node. It does not change afterwards."""
        now, hung_since, clocks = self._monotonic(), self._disk.hung_since, self._member_clocks.report()
        return NodeStatus(
            self._replica.status(),
            self._applier.applied_through,
            len(self._calls),
            self._snapshots.status(),
            by_name(self.counters),
            **self._peers.refusals.status(),
            heard=self._peers.silence_seconds(now),
            unheard=self._unheard(now),
            up_seconds=now - self._started_at if self._is_listening else 0.0,
            disk_hangs_seconds=None if hung_since is None else now - hung_since,
            waits_for=list(self._founding.waits_for()),
            keys_expire_in_seconds=self._peers.keys_expire_in_seconds(),
            failure_tolerance=self._replica.failure_tolerance(now),
            application=name_of(self.application),
            clock_offsets_seconds=clocks.offsets_seconds,
            clock_jump_refused_seconds=clocks.refused_seconds,
            journal_bytes=self._store.journal_bytes,
        )

    def _unheard(self, now: float) -> list[NodeId]:
        """The peers that this node, as the leader, has not heard for too long. Followers need not hear each other."""
        seconds = max(UNHEARD_SECONDS, 4 * self.settings.timing.heartbeat_seconds)
        leads_since = self._news.leads_since
        if leads_since is None or now - leads_since < seconds or not self._replica.is_leader:
            return []  # While the disk hangs, this node is told late that it leads no more.
        heard = self._peers.silence_seconds(now)
        return [peer for peer, ago in heard.items() if ago is None or ago > seconds]

    # from peers, and from this node itself

    def datagram_received(self, datagram: bytes, address: tuple[str, int]) -> None:
        """Handle one datagram."""
        self._peers.datagram_received(datagram, address)

    def _receive_from_peer(self, received: Received) -> None:
        """Handle a message of a peer: only if the peer is known, and only as a hint if the message may be forged."""
        sender, incarnation, message, way = received
        if sender not in self.members and self._former_members.turns_away(sender, self._monotonic()):
            return
        if sender not in self._known_peers:
            self.counters[Count.MESSAGE_OF_A_PEER_NOT_MET] += 1
            self._peers.open_stream(sender)
            self._peers.note_unmet(sender)
            return
        if not self._known_peers.admits(sender, incarnation):
            self._peers.refuse(sender, "it came back with another data folder")
            self._founding.refuse(sender, self._monotonic())
            return
        if REQUIRED_WAYS.get(type(message), way) is way:
            self._receive(sender, message)
        else:
            self._receive_hint(sender, message)

    def _receive_hint(self, sender: NodeId, message: PeerMessage) -> None:
        """Handle a message that may be forged. It shows at most that there is something to ask the peer for."""
        if self._stopping:
            return
        now = self._monotonic()
        match message:
            case Introduction():
                was_folder_lost = self.is_folder_lost
                self._founding.receive_hint(sender, message, now)
                self._schedule_founding()
                if self.is_folder_lost and not was_folder_lost:
                    self._news.tell_watchers()
            case ChosenValues() | Truncated() | TakeOver():
                self._enqueue(self._replica.receive_hint(sender, now))
            case Removed():
                self._peers.open_stream(sender)
            case StateDigest() | StateDigestsHeard() if now >= self._digest_asked_at.get(sender, -inf) + HINT_SECONDS:
                self._digest_asked_at[sender] = now
                self._peers.send((sender,), AskStateDigest(message.slot))
        self.counters[Labelled(Count.POSSIBLY_FORGED, type(message).__name__)] += 1

    def _save_peer(self, met: PeerMet) -> None:
        self._performer.add(Ready(save=(met,), answers=(met,)))

    def _peer_ended(self, peer: NodeId) -> None:
        """Handle that the process of ``peer`` has ended: no process listens at its address."""
        if not self._stopping:
            self._enqueue(self._replica.observe_end(peer, self._monotonic()))

    def _receive(self, sender: NodeId, message: PeerMessage) -> None:
        if self._stopping:
            return
        now = self._monotonic()
        if self._disk.hung_since is not None and self._disk.still_hangs(now):
            self.counters[Count.DROPPED_WHILE_DISK_HUNG] += 1
            return
        if self._performer.waiting > READYS_WAITING_MAX:
            self.counters[Count.DROPPED_WHILE_DISK_BUSY] += 1
            return
        if self._observe is not None:
            self._observe(MessageReceived(sender, message, now))
        try:
            take = self._HANDLERS.get(type(message))
            if take is None:
                self._enqueue(self._replica.receive(sender, cast("Message", message), now))
            else:
                take(self, sender, message, now)
        except Exception:
            self._give_up(Failure())

    def _handle_promise(self, sender: NodeId, message: PromiseLog, now: float) -> None:
        dropped = self._replica.dropped.total()
        ready = self._replica.receive(sender, message, now)
        if self._observe is not None and self._replica.dropped.total() == dropped:
            self._observe(PromiseCounted(sender, message, now))
        self._enqueue(ready)

    def _handle_register_message(self, sender: NodeId, message: RegisterMessage, now: float) -> None:
        self._sealing.receive(sender, message)

    def _handle_snapshot_message(self, sender: NodeId, message: SnapshotMessage, now: float) -> None:
        self._snapshots.receive(sender, message)

    def _handle_introduction(self, sender: NodeId, message: Introduction, now: float) -> None:
        self._founding.receive(sender, message, now)
        self._schedule_founding()
        self._admission.step(now)

    def _handle_forwarded(self, sender: NodeId, message: Forward, now: float) -> None:
        if self._submissions.is_leader:
            self._submissions.submit_forwarded(message.runs)
            self._performer.schedule()
        else:
            self.counters[Count.FORWARDED_TO_A_FOLLOWER] += 1

    def _handle_keep_alives(self, sender: NodeId, message: ForwardKeepAlives, now: float) -> None:
        if self._submissions.is_leader:
            self._heard_keep_alives.hear(message.kept_alive, forwarded=True)
            self._performer.schedule()
        else:
            self.counters[Count.FORWARDED_TO_A_FOLLOWER] += 1

    def _handle_removed(self, sender: NodeId, message: Removed, now: float) -> None:
        """Stop, and never start again: this node is a member no more."""
        if not self._former_members.believes(message):
            self.counters[Count.REMOVAL_OF_A_MEMBER] += 1
            return
        line = f"node {self.name} was removed from the cluster at slot {message.slot}, as {sender} says"
        self._give_up(Failure(RemovedFromCluster(line)), self._store.mark_removed(line))

    def _handle_clock(self, sender: NodeId, message: AskClock | ClockReading, now: float) -> None:
        self._member_clocks.receive(sender, message)

    def _ignore(self, sender: NodeId, message: PeerMessage, now: float) -> None:
        """Do nothing: the streams have handled this message."""

    # The handler of each kind of message that is not about the log. The replica handles all others.
    _HANDLERS: dict[type[Any], Callable[[Node, NodeId, Any, float], None]] = {
        PromiseLog: _handle_promise,
        Forward: _handle_forwarded,
        ForwardKeepAlives: _handle_keep_alives,
        CollectRegisters: _handle_register_message,
        RegisterVotes: _handle_register_message,
        Introduction: _handle_introduction,
        Removed: _handle_removed,
        AskClock: _handle_clock,
        ClockReading: _handle_clock,
        **dict.fromkeys(SNAPSHOT_MESSAGES, _handle_snapshot_message),
        **dict.fromkeys(HANDSHAKE_MESSAGES, _ignore),
    }

    # from the timer

    def _tick(self) -> None:
        now = self._monotonic()
        if self._observe is not None:
            self._observe(TimePassed(now))
        try:
            self._peers.tick(now)
            self._member_changes.tick()
            self._former_members.tick(now)
            self._member_clocks.tick(now)
            if self._disk.is_hung(now):
                return
            if (look_at := self._disk.look_at) is not None:
                self._timer.schedule_no_later_than(look_at)
            if now >= self._replica.wake_at:
                self._enqueue(self._replica.tick(now))
            else:  # Its timer was put off.
                self._timer.schedule_no_later_than(self._replica.wake_at)
            if self._sealing.is_needed:
                self._sealing.tick(now)
            if now >= self._refill_at:
                self._performer.schedule()
            elif self._refill_at < inf:
                self._timer.schedule_no_later_than(self._refill_at)
            self._founding.tick(now)
            self._schedule_founding()
            self._admission.step(now)
        except Exception:
            self._give_up(Failure())
        self._forward_later(now)

    def _disk_hangs(self, now: float) -> None:
        if len(self.members.entry.members) > 1:
            self._enqueue(self._replica.suspend(now))
        self._news.tell_watchers()

    def _disk_works(self, now: float) -> None:
        if self._replica.is_suspended:
            self._enqueue(self._replica.resume(now))
        self._news.tell_watchers()
        self._timer.schedule_no_later_than(now)

    # from the performer

    def _refill(self) -> None:
        """Propose waiting commands, while the window has room, or forward them to the leader."""
        if not self._is_listening:
            return  # Commands submitted before the start wait for it.
        now, self._refill_at = self._monotonic(), inf
        self._session.flush()
        self._asks.flush()
        if self._submissions.is_leader:
            self._tell_keep_alives(now, lambda told: self._heard_keep_alives.hear(told))
            self._propose(now)
        elif (leader := self._replica.leader_node) is not None and leader != self.name:
            while runs := self._submissions.due_for_forwarding(now):
                self._peers.send((leader,), Forward(runs))
            self._forward_later(now)
            self._tell_keep_alives(now, lambda told: self._peers.send((leader,), ForwardKeepAlives(told)))

    def _tell_keep_alives(self, now: float, tell: Callable[[tuple[KeptAlive, ...]], object]) -> None:
        """Tell the leader, which may be this node, which timers the clients of this node keep alive."""
        while told := self._keep_alives.take_due(now, pause=True):
            tell(told)
        if (wake_at := self._keep_alives.wake_at) is not None:
            self._refill_by(wake_at)

    def _keep_alives_wait(self) -> None:
        """A client keeps timers alive. Have the leader told, which may be this node, when that is due."""
        wake_at = self._keep_alives.wake_at
        if wake_at is None or wake_at <= self._monotonic():
            self._performer.schedule()
        else:
            self._refill_by(wake_at)

    def _propose(self, now: float) -> None:
        """Propose what waits, while the window has room, and what makes timers fire that are due."""
        if not self._leader_clock.is_running and self._applier.applied_through >= self._replica.first_own_slot:
            self._leader_clock.start()
        if self._replica.has_room and (entry := self._member_changes.next_value()) is not None:
            self._enqueue(self._replica.propose(entry, now, urgent=True))
        if self._performer.is_behind:
            return  # What is chosen is to be applied first. It shows how much goes into the next slot.
        while self._replica.has_room and (value := self._submissions.next_value()) is not None:
            self._propose_stamped(value.value, now, value.urgent)
        while (propose_at := self._heard_keep_alives.propose_at()) is not None and self._replica.has_room:
            if now < propose_at:
                self._refill_by(propose_at)
                break
            self._propose_stamped(b"", now)
        if (due_ms := self.timers.earliest_ms) is not None:
            self._fire_timers(due_ms, now)

    def _fire_timers(self, due_ms: int, now: float) -> None:
        """Have the timers fire that are due, or see to it that this is called when the next one may be.

        :param due_ms: when that is, by the elapsed milliseconds."""
        pulse_at = self._leader_clock.pulse_at(due_ms)
        if pulse_at is None:
            return
        if now < pulse_at:
            self._refill_by(pulse_at)
        elif (next_due_ms := self.timers.next_due_ms) is not None and next_due_ms > due_ms:
            self._fire_timers(next_due_ms, now)
        elif self._replica.has_room and not self._has_pulsed:
            # The rest waits for the reactor's next turn. Where a slot takes no time, all would be in this one.
            self._has_pulsed = True
            self.clock.call_soon(self._end_pulse)
            self._propose_stamped(b"", now)

    def _end_pulse(self) -> None:
        self._has_pulsed = False
        self._performer.schedule()

    def _propose_stamped(self, batch: bytes, now: float, urgent: bool = False) -> None:
        """Propose ``batch``, with the time, and with the timers that clients keep alive."""
        time, urgent = self._leader_clock.stamp(), urgent or self._heard_keep_alives.is_forwarded
        grace_ms = self._leader_clock.take_grace_ms(time) if self.timers.has_kept_alive else 0
        while told := self._keep_alives.take_due(now, pause=False):  # There is a value for them: none has to wait.
            self._heard_keep_alives.hear(told)
        value = stamped(time, batch, self._heard_keep_alives.take(now), grace_ms)
        self._enqueue(self._replica.propose(value, now, urgent=urgent))

    def _release(self, ready: Ready) -> Ready | None:
        """Perform ``ready`` after its save: send, apply, answer. Its records, and all before them, are on disk.

        :returns: what is left of it, if its values have taken long.
        """
        if self._disk.hung_since is not None:
            self._disk.still_hangs(self._monotonic())
        if self._observe is not None:
            self._observe(ReadyReleased(ready, self._replica.log.first_slot))
        for envelope in ready.send:
            self._peers.send(envelope.to, envelope.message)
            if self.name in envelope.to:
                self._receive(self.name, envelope.message)
        if (rest := self._deliver_all(ready)) is not None:
            return rest
        for answer in ready.answers:
            self._answer(answer)
        if ready.snapshot_source is not None:
            self._snapshots.fetch_from(ready.snapshot_source)
        for fact in ready.leadership:
            self._news.tell(fact, self._monotonic())
            self._keep_alives.leader_changed()
            match fact:
                case LeadershipAcquired():
                    self._member_clocks.lead()
                case LeadershipLost():
                    self._member_changes.lead_lost()
                    self._leader_clock.stop()
                    self._heard_keep_alives.clear()
                    self._member_clocks.lead_lost()
        return None

    def _deliver_all(self, ready: Ready) -> Ready | None:
        """Hand its values to the application, as many as there is time for. What is left of it, if some are left."""
        if len(ready.chosen) == 1:
            self._deliver(ready.chosen[0])
            return None
        until = self._monotonic() + APPLY_SECONDS_MAX
        for count, chosen in enumerate(ready.chosen, 1):
            self._deliver(chosen)
            # No snapshot may come between the members that a value says and that value.
            if isinstance(chosen, Chosen) and count < len(ready.chosen) and self._monotonic() >= until:
                return attrs.evolve(ready, save=(), send=(), chosen=ready.chosen[count:])
        return None

    def _answer(self, answer: AnswerFact) -> None:
        match answer:
            case ReadIndexConfirmed():
                self._reads.read_from(answer.number, answer.slot)
            case PeerMet():
                now = self._monotonic()
                self._known_peers.peer_saved(answer)
                self._founding.peer_saved(answer, now)
                self._schedule_founding()
                self._admission.step(now)
            case Voter():
                self._start_voting(answer)
            case ChangeCompleted():
                self._member_changes.completed(answer.slot)
                self._former_members.tell(answer.slot)
            case HandOverEnded():  # pragma: no branch
                self._peers.keep_open(self.leader)
                self._hand_overs.ended(answer)

    def _save_voter(self, voter: Voter, is_new: bool) -> None:
        """Save that this node is a voter. If that ``is_new``, the node begins to vote when the record is on disk."""
        self._performer.add(Ready(save=(voter,), answers=(voter,) if is_new else ()))

    def _start_voting(self, voter: Voter) -> None:
        """Begin to vote: ``voter`` is on disk."""
        now = self._monotonic()
        self._enqueue(self._replica.start_voting(now))
        self._sealing.is_voter = True
        self._admission.voter_saved(voter, now)

    def _schedule_founding(self) -> None:
        if self._founding.wake_at < inf and not self._stopping:
            self._timer.schedule_no_later_than(self._founding.wake_at)

    # to the application

    def _deliver(self, chosen: Chosen | Configured | Installed) -> None:
        observe, each = self._observe, self._observe_commands
        match chosen:
            case Chosen():
                if observe is not None:
                    observe(ValueReached(chosen))
                for run, outcomes in self._applier.apply(chosen):
                    if self._applier.registers.news:
                        self._report_decided(chosen.slot)
                    if each is not None:
                        each(RunFinished(run, outcomes))
                    self._submissions.complete(run, outcomes)
                self._member_clocks.applied(self.timers.now.utc_ms)
                self._snapshots.applied(chosen)
                self._reads.applied()
                self._keep_alives.applied()
                if self._sealing.is_needed:
                    self._sealing.applied()
                if observe is not None:
                    observe(SlotApplied(chosen.slot))
            case Configured():
                self.members.configure(chosen.configuration.slot, chosen.value)
                self._member_changes.configured(chosen.configuration.slot)
            case Installed():  # pragma: no branch
                snapshot, chosen_members = self._received.pop(chosen.slot)
                self.members.restore(chosen_members)
                self._snapshots.restore(snapshot)
                self.log.info(
                    "node {node} continues from a snapshot at slot {slot}",
                    node=self.name,
                    slot=chosen.slot,
                    event="snapshot_restored",
                )
                if not self._submissions.is_leader:
                    self._submissions.become_follower()  # The snapshot may have the outcomes of its callers.
                self._report_decided(chosen.slot)
                self._reads.applied()
                self._keep_alives.restored()
                if self._sealing.is_needed:
                    self._sealing.applied()
                if observe is not None:
                    observe(SnapshotInstalled(chosen))

    def _report_decided(self, slot: Slot) -> None:
        """Report to the application which registers are decided at ``slot`` that were not, or otherwise, before."""
        for decided in self._applier.registers.take_news():
            if self._observe is not None:
                self._observe(RegisterReached(slot, decided))
            self._hooks.call(self.application.value_chosen, decided.subject, decided.value)

    def _forget_older_registers(self) -> None:
        """Remove what earlier releases have saved about registers: it is in the log, and in this node's own state."""
        self._sealing.forget()
        self._store.forget_registers().addErrback(self._give_up)

    # members

    def _follow_members(self) -> None:
        """Talk to the members that the log names, at the addresses that it gives. A node that joins, or was away, knows
        newer members than those that it finds first in the log."""
        if self.members.slot < self.cluster.slot:
            return
        entry, addresses = self.members.entry, self.members.addresses
        for peer, one in addresses.items():
            self._peers.add_peer(peer, Address.parse(one.address))
            self._known_peers.expect(peer, one.incarnation)
        for peer in self._peers.peers:
            if peer not in addresses and peer not in self.members.former:
                self._peers.remove_peer(peer)
        self._founding.follow_members(entry.voters, {node: one.incarnation for node, one in entry.members.items()})
        own = self.members.own
        if own is not None and own.role == "voter" and own.incarnation == self._store.incarnation:
            self._admission.named_in_log()

    # from the snapshots

    def checkpoint(self, slot: Slot) -> None:
        """Save the records to keep beyond the snapshot at ``slot``, which is being taken."""
        self._performer.add(Ready(save=(*self._replica.checkpoint(slot), *self._known_peers.records())))

    def compact(self, through: Slot) -> None:
        """Drop the log up to ``through``, which snapshots replace."""
        self._replica.compact(through)

    def install(self, snapshot: Snapshot) -> None:
        """Continue from ``snapshot``, which has come from another node, unless this node is past it."""
        chosen_members = head_of(snapshot, self.cluster.name).chosen_members
        configurations = [entry.configuration(slot) for slot, entry in chosen_members]
        ready = self._replica.install(snapshot.slot, self._monotonic(), configurations)
        if ready.save:
            self._received[snapshot.slot] = snapshot, chosen_members
            ready = attrs.evolve(ready, save=(*ready.save, *self._known_peers.records()))
        self._enqueue(ready)

    def heard_through(self) -> tuple[Slot, Slot]:
        """The last slot through which this node has all chosen values, and the last slot that it knows to be chosen."""
        return self._replica.log.chosen_through, self._replica.heard_through

    def send(self, to: Iterable[NodeId], message: PeerMessage) -> None:
        """Send a message that depends on no save under way."""
        self._peers.send(tuple(to), message)

    def snapshot_taken(self, digest: StateDigest) -> None:
        """Tell the observer that a snapshot of this node's own state is complete."""
        if 0 < self._applier.registers.sealed_at <= digest.slot:
            self._forget_older_registers()
        if self._observe is not None:
            self._observe(SnapshotTaken(digest.slot, digest.state_hash))

    def catching_up_changed(self) -> None:
        """Tell the clients whether this node can answer them."""
        self._news.tell_watchers()

    def snapshot_restored(self, slot: Slot) -> None:
        """Tell the observer that the application has the state of the snapshot at ``slot``."""
        if self._applier.registers.sealed_at:
            self._forget_older_registers()
        if self._observe is not None:
            self._observe(SnapshotRestored(slot, self._snapshots.state_hash))

    def give_up(self, error: PaxosError, after: Deferred[None] | None = None) -> None:
        """Stop for good: a snapshot of this node is damaged, or its state differs from that of the majority.

        :attr:`failed` fails when ``after`` has fired, or at once if it is not given.
        """
        self._give_up(Failure(error), after)

    # to the core

    def _submit_own_run(self, run: Run) -> Deferred[Outcomes]:
        if self._observe_commands is not None:
            self._observe_commands(RunSubmitted(run))
        return self._submissions.submit_run(run)

    def begin_hand_over(self, to: NodeId | None) -> str:
        """Begin to hand over the lead to a node; ``None`` for the best one.

        :returns: why that cannot be, in a few words; empty if the hand-over has begun.
        """
        refusal, ready = self._replica.hand_over(to, self._monotonic())
        target = self._replica.hand_over_target
        if not refusal and target is not None:
            self._peers.keep_open(target)  # To learn at once if its process ends.
            self._hand_overs.begun(target)
        self._enqueue(ready)
        return refusal

    def say_leaving(self) -> None:
        """Tell the leader that this node is about to stop, and do not campaign any more."""
        if self._is_listening:
            self._enqueue(self._replica.leave(self._monotonic()))

    def _request_read_index(self) -> int:
        number, ready = self._replica.request_read_index(self._monotonic())
        self._enqueue(ready)
        return number

    def _enqueue(self, ready: Ready) -> None:
        """Enqueue ``ready`` for the performer, and set the timer to the core's next time."""
        if not ready.is_empty:
            self._performer.add(ready)
        if ready.wake_at is not None and not self._stopping:
            self._timer.schedule_no_later_than(ready.wake_at)

    def _wake_by(self, time: float) -> None:
        if self._is_listening and not self._stopping:
            self._timer.schedule_no_later_than(time)

    def _refill_by(self, time: float) -> None:
        """Propose, or tell the leader, at that time at the latest."""
        self._refill_at = min(self._refill_at, time)
        self._wake_by(time)

    def _forward_later(self, now: float) -> None:
        """Set the timer for the next time that commands are forwarded. If that is now, the performer does it next."""
        wake_at = self._submissions.wake_at
        if wake_at is None or self._stopping:
            return
        if wake_at > now:
            self._timer.schedule_no_later_than(wake_at)
        else:
            self._performer.schedule()
