"""A node whose peers all lie: they send well-formed messages with wrong content, on every path.

:class:`Allowed` says, record by record, what the node may still save. It is what *some* history of correct peers could
    have caused, as far as one node can know: it cannot tell a value that was never proposed from one that was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from random import Random
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from test.helpers.fakes import (
    INCARNATION,
    STORE_INCARNATION,
    THREE,
    NodeHarness,
    Recorder,
    RecordingStore,
    StreamTransport,
    framed,
)
from txpaxos.core.config import Limits
from txpaxos.core.guards import ROUND_MAX, ROUNDS_AHEAD_MAX
from txpaxos.core.messages import (
    LOWEST,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Nack,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
    ReadIndexReply,
    ReadIndexRequest,
    TakeOver,
    Truncated,
    Vote,
)
from txpaxos.core.ready import Checkpoint, Learned, PeerMet, Promised, Record, Voted, Voter
from txpaxos.node.snapshots.taking import Policy
from txpaxos.replicated_time import UTC_MS_MAX
from txpaxos.wire.codec import Codec
from txpaxos.wire.commands import Run, decode_batch, encode_batch, new_session
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
    RegisterVote,
    RegisterVotes,
    SnapshotPart,
    StateDigest,
    StateDigestsHeard,
)
from txpaxos.wire.stamps import NUMBER_MAX, KeptAlive

MEMBERS = ("a", "b", "c")
NODE, PEERS = "b", ("a", "c")
SUBJECTS = tuple(f"subject {number}" for number in range(8))
NASTY = ("\x1b[2J", "a\nb", "", "d", "A", "a" * 1000, "\u202e")
BIG = (0, 1, 2, 2**31, 2**32 - 1, 2**32 + 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)


class NotAllowed(AssertionError):
    """A record was saved that no correct peer could have caused."""


class Allowed:
    """What a node may save, given what it has saved before.

    * A ballot names a member, and its round is at most :data:`ROUND_MAX` and at most :data:`ROUNDS_AHEAD_MAX` above the
      highest that the node had saved, used or believed before. What it has promised never becomes lower.
    * A vote is for a value that decodes, at a slot above all that the node knows to be chosen without a gap, but no
      further above it than a leader's window can be. There is one value for each slot and ballot.
    * A value that is learned decodes, and no slot has two. None is learned further above what is known without a gap
      than the window, unless all in between came with it.
    * A checkpoint is at a slot that the node has applied, or that a snapshot which it asked for stands for.
    * The incarnation of a peer is the one that it really has. A voter is one of the cluster's own members.
    """

    def __init__(self, incarnations: dict[str, int]) -> None:
        self.promised = LOWEST
        self.round = 0
        self.through = 0
        self._incarnations = incarnations
        self._votes: dict[tuple[int, Ballot], bytes] = {}
        self._learned: dict[int, bytes] = {}

    def check(self, records: Iterable[Record], known_through: int) -> None:
        """The node saves ``records`` together, and knows every slot up to ``known_through``.

        :raises NotAllowed: naming the first record that is not allowed.
        """
        for record in records:
            if not self._may_be(record, known_through):
                raise NotAllowed(f"{record} after promise {self.promised}, round {self.round}, through {known_through}")

    def _may_be(self, record: Record, known_through: int) -> bool:
        match record:
            case Promised(ballot):
                return self._is_promise(ballot)
            case Voted(ballot, slot, value, _) if self._votes.get((slot, ballot)) == value:
                return True  # Said again, behind a checkpoint.
            case Voted(ballot, slot, value, through):
                same = self._votes.setdefault((slot, ballot), value) == value
                near = through < slot <= through + 2 * Limits().ahead_slots
                return self._is_promise(ballot) and same and near and decodes(value) and through <= known_through
            case Learned(first_slot, values):
                slots = range(first_slot, first_slot + len(values))
                same = all(self._learned.setdefault(*one) == one[1] for one in zip(slots, values, strict=True))
                near = 1 <= first_slot <= known_through + 1 + 2 * Limits().ahead_slots
                return same and near and all(map(decodes, values))
            case Checkpoint(slot):
                return 0 < slot <= known_through
            case Voter(members, founders):
                known = all(self._incarnations.get(one.peer) == one.incarnation for one in founders)
                return members == MEMBERS and known
            case PeerMet(peer, incarnation):
                return self._incarnations.get(peer) == incarnation
        return False

    def _is_promise(self, ballot: Ballot) -> bool:
        possible = self._is_ballot(ballot) and ballot >= self.promised
        self.promised = max(self.promised, ballot)
        self.round = max(self.round, ballot.round)
        return possible

    def _is_ballot(self, ballot: Ballot) -> bool:
        known = ballot.node in MEMBERS or ballot == LOWEST
        return known and 0 <= ballot.round <= min(ROUND_MAX, self.round + ROUNDS_AHEAD_MAX)


def decodes(value: bytes) -> bool:
    """Whether all nodes can apply ``value``."""
    try:
        decode_batch(value)
    except Exception:
        return False
    return True


class CheckedStore(RecordingStore):
    """Checks the records that it saves, and does not keep its events."""

    def __init__(
        self, events: Any, saved: Iterable[Record], allowed: Allowed, known_through: Callable[[], int]
    ) -> None:
        super().__init__(events, saved)
        self.allowed = allowed
        self.known_through = known_through

    def save(self, records: Sequence[Record]) -> Any:
        self.allowed.check(records, self.known_through())
        done = super().save(records)
        self.events.clear()
        return done


class Ledger(Recorder):
    """An application with a small state and small snapshots."""

    state_fields = ("count",)
    count: int

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def apply(self, slot: int, command: bytes) -> object:
        self.count += 1
        if command.startswith(b"!"):
            raise ValueError(f"no: {command!r}")
        return self.count

    def query(self, query: bytes) -> object:
        return self.count


@cache
def codec(sender: str) -> Codec:
    return Codec("test", sender, INCARNATION, MEMBERS)


class NodeAmongLiars(NodeHarness):
    """Node ``b``, whose peers the test plays, with streams in both directions.

    :param new: whether it has not met them.
    """

    def __init__(self, seed: int, new: bool = False) -> None:
        self.rng = Random(seed)
        self.own: dict[str, tuple[Any, StreamTransport]] = {}
        self.theirs: dict[str, tuple[Any, StreamTransport]] = {}
        self._dials = 0
        policy = Policy(log_bytes=self.rng.choice((3000, 2**40)))
        saved: list[Record] | None = [] if new else None
        super().__init__(NODE, THREE, saved, Ledger, rng=Random(seed), snapshot_policy=policy, votes=not new)

    def _make_store(self, saved: Iterable[Record]) -> CheckedStore:
        allowed = Allowed(dict.fromkeys(PEERS, INCARNATION))
        return CheckedStore(self.events, saved, allowed, lambda: self.node._replica.log.chosen_through)

    @property
    def ended(self) -> bool:
        """Whether the node has stopped."""
        return bool(self.failures) or bool(self.node._stopping)

    # the ways in

    def open_streams(self) -> None:
        """Open a stream in each direction to each peer, if the node takes part in it."""
        for streams in (self.own, self.theirs):
            for peer, (stream, transport) in list(streams.items()):
                if transport.disconnected:
                    del streams[peer]
                    stream.connectionLost(Failure(ConnectionDone()))
        for host, _, dial, *_ in self.reactor.tcpClients[self._dials :]:
            peer = next(name for name, member in THREE.members.items() if member.address.host == host)
            dialled: Any = dial.buildProtocol(None)
            if dialled is not None:
                self.own[peer] = self._connect(dialled)
                self._say(self.own[peer], peer, Hello())
        self._dials = len(self.reactor.tcpClients)
        for peer in PEERS:
            if peer not in self.theirs:
                came: Any = self.reactor.tcpServers[-1][1].buildProtocol(None)  # type: ignore[arg-type]
                self.theirs[peer] = self._connect(came)
                self.events.clear()
                self._say(self.theirs[peer], peer, Hello())
                for to, message in self.said():
                    if to == peer and isinstance(message, Challenge):
                        self._say(self.theirs[peer], peer, Proof(message.token))

    def _connect(self, stream: Any) -> tuple[Any, StreamTransport]:
        transport = StreamTransport()
        stream.makeConnection(transport)
        return stream, transport

    def _say(self, end: tuple[Any, StreamTransport], sender: str, message: PeerMessage) -> None:
        stream, transport = end
        if not transport.disconnected:
            stream.dataReceived(framed(codec(sender).encode(message)))
        transport.clear()

    def lie(self, sender: str, message: PeerMessage) -> None:
        """``message`` arrives on one of the possible paths."""
        allowed = self.store.allowed  # type: ignore[attr-defined]
        allowed.round = max(allowed.round, self.node._replica.election.highest_seen.round)
        way = self.rng.randrange(4)
        # Two members that lie of their states on the streams to them, or one that lies of another's, stop a third: that
        # is what these messages are for.
        stops = isinstance(message, StateDigestsHeard) or (isinstance(message, StateDigest) and sender != PEERS[0])
        if way < 2 or (way == 2 and stops):
            address = THREE.members[sender].address
            self.node.datagram_received(codec(sender).encode(message), (address.host, address.port))
        else:
            streams = (self.own, self.theirs)[way - 2]
            if sender in streams:
                self._say(streams[sender], sender, message)

    # what a node can be

    def begin(self) -> None:
        """Bring the node into one of several states, as correct peers would."""
        self.open_streams()
        self.reactor.turn(3)
        match self.rng.randrange(5):
            case 0:  # a newcomer, or a follower that has heard no leader
                return
            case 1:  # a leader
                self._elect()
            case 2:  # a follower
                self.hear("a", Heartbeat(Ballot(1, "a"), 0, 1))
            case 3:  # behind
                self.hear("a", Heartbeat(Ballot(1, "a"), 50, 1))
            case 4:  # with something applied, and maybe a snapshot
                values = tuple(
                    encode_batch([Run(new_session(bytes(16), 0), number, 0, (b"%d" % number,))])
                    for number in range(1, 41)
                )
                self._say(self.own["a"], "a", ChosenValues(1, values, 40))
        self.reactor.spend(self.rng.random() * 0.2)

    def _elect(self) -> None:
        replica = self.node._replica
        for _ in range(100):
            self.reactor.spend(0.05)
            self.hear("a", PreVoteGranted(replica.election.pre_vote_number))
            self.reactor.turn()
            promise = PromiseLog(replica.election.own_ballot, replica.log.chosen_through + 1)
            self.hear("a", promise)
            self.reactor.turn(2)
            if replica.is_leader:
                return

    def call(self) -> None:
        """The application at this node submits, asks, reads or looks at the status."""
        match self.rng.randrange(4):
            case 0:
                self.node.submit(b"x" * self.rng.choice((1, 2000))).addErrback(lambda _: None)
            case 1:
                value = self.rng.choice((None, b"mine"))
                self.node.ask(self.rng.choice(SUBJECTS), value).addErrback(lambda _: None)
            case 2:
                self.node.read(b"").addErrback(lambda _: None)
            case _:
                self.node.status()


class Liar:
    """Makes well-formed messages with wrong content, close to what the node would believe."""

    def __init__(self, rng: Random, node: Any) -> None:
        self.rng = rng
        self.node = node
        self._makers = [
            *(self._make_heartbeat, self._make_acknowledgement, self._make_pre_vote, self._make_pre_vote_granted),
            *(self._make_prepare, self._make_promise, self._make_accept, self._make_accepted, self._make_nack),
            *(
                self._make_values,
                self._make_truncated,
                self._make_take_over,
                self._make_fetch,
                self._make_read,
                self._make_subject,
                self._make_clock,
            ),
            *(self._make_forward, self._make_snapshot, self._make_digest, self._make_stream),
        ]
        self._values = [
            *(b"", b"rubbish", b"\1", b"\2", b"\2\x90", b"\2\xdd\xff\xff\xff\xff", bytes(2000)),
            *(encode_batch([self._make_run(number)]) for number in range(20)),
            encode_batch([self._make_run(1), self._make_run(1)]),
        ]

    def message(self) -> PeerMessage:
        """The next message."""
        return self.rng.choice(self._makers)()

    # parts

    def _make_run(self, number: int) -> Run:
        created_at_slot = self.rng.choice((0, 1, 2**63, 2**64 - 1))
        session = new_session(bytes([number % 4] * 16), created_at_slot)
        sequence, acknowledged = self.rng.choice((1, 2, 3, *BIG)), self.rng.choice((0, 1, 2, *BIG))
        payloads = tuple(self.rng.choice((b"", b"x", b"!", b"y" * 3000)) for _ in range(self.rng.randint(1, 3)))
        return Run(session, min(sequence, 2**64 - len(payloads)), acknowledged, payloads)

    @property
    def _replica(self) -> Any:
        return self.node._replica

    def _ballot(self) -> Ballot:
        replica = self._replica
        known = (replica.log.promised, replica.election.highest_seen, replica.election.leader_ballot)
        near: Ballot = self.rng.choice(known)
        if self.rng.random() < 0.3:
            return near
        steps = (-1, 0, 0, 1, 1, 1, 2, ROUNDS_AHEAD_MAX - 1, ROUNDS_AHEAD_MAX, ROUNDS_AHEAD_MAX + 1)
        round = near.round + self.rng.choice(steps) if self.rng.random() < 0.8 else self.rng.choice(BIG)
        node = self.rng.choice(MEMBERS) if self.rng.random() < 0.8 else self.rng.choice(NASTY)
        return Ballot(min(max(round, 0), 2**64 - 1), node)

    def _slot(self, least: int = 1) -> int:
        through = self._replica.log.chosen_through
        near = through + self.rng.choice((-40, -3, -1, 0, 1, 1, 1, 2, 3, 8, 9, 31, 32, 33, 64, 65, 66, 1000))
        return max(least, near if self.rng.random() < 0.85 else self.rng.choice(BIG))

    def _value(self) -> bytes:
        return self.rng.choice(self._values)

    def _some_values(self) -> tuple[bytes, ...]:
        return tuple(self._value() for _ in range(self.rng.choice((0, 1, 1, 2, 5, 40))))

    def _count(self) -> int:
        election = self._replica.election
        near = self.rng.choice((election.sequence, election.pre_vote_number, self._replica._read_index.number))
        return max(0, near + self.rng.randint(-1, 1)) if self.rng.random() < 0.8 else self.rng.choice(BIG)

    # messages

    def _make_heartbeat(self) -> PeerMessage:
        return Heartbeat(self._ballot(), self._slot(0), self._count())

    def _make_acknowledgement(self) -> PeerMessage:
        return HeartbeatAck(self._ballot(), self._slot(0), self._count(), self.rng.random() < 0.1)

    def _make_pre_vote(self) -> PeerMessage:
        return PreVote(self._count())

    def _make_pre_vote_granted(self) -> PeerMessage:
        return PreVoteGranted(self._count())

    def _make_prepare(self) -> PeerMessage:
        return PrepareLog(self._ballot(), self._slot())

    def _make_promise(self) -> PeerMessage:
        votes = [Vote(self._slot(), self._ballot(), self._value()) for _ in range(self.rng.choice((0, 1, 3, 40)))]
        if self.rng.random() < 0.7:
            votes.sort()
        return PromiseLog(self._ballot(), self._slot(), self._some_values(), tuple(votes))

    def _make_accept(self) -> PeerMessage:
        return AcceptSlot(self._ballot(), self._slot(), self._value(), self._slot(0))

    def _make_accepted(self) -> PeerMessage:
        return AcceptedSlot(self._ballot(), self._slot())

    def _make_nack(self) -> PeerMessage:
        return Nack(self._ballot(), self._ballot())

    def _make_values(self) -> PeerMessage:
        return ChosenValues(self._slot(), self._some_values(), self._slot(0))

    def _make_take_over(self) -> PeerMessage:
        return TakeOver(self._ballot(), self._slot(0))

    def _make_truncated(self) -> PeerMessage:
        return Truncated(self._slot())

    def _make_fetch(self) -> PeerMessage:
        return (
            Fetch(self._slot())
            if self.rng.random() < 0.5
            else FetchSnapshot(self._slot(0), self._slot(0), self._slot(0))
        )

    def _make_read(self) -> PeerMessage:
        return (
            ReadIndexRequest(self._count()) if self.rng.random() < 0.5 else ReadIndexReply(self._count(), self._slot(0))
        )

    def _make_subject(self) -> PeerMessage:
        sealing = self.node._sealing
        number = self.rng.choice((sealing._number, sealing._number, self._count()))
        names = (*SUBJECTS, "x" * 512, "\x1b")
        after = self.rng.choice(("", "", *sealing._told_through.values(), *names))
        if self.rng.random() < 0.3:
            return CollectRegisters(number, after)
        votes = tuple(
            RegisterVote(self.rng.choice(names), self._subject_ballot(), self._value(), self.rng.random() < 0.3)
            for _ in range(self.rng.choice((0, 1, 3)))
        )
        return RegisterVotes(number, after, votes, self.rng.random() < 0.5)

    def _subject_ballot(self) -> Ballot:
        round = self.rng.choice((0, 1, 1, 2, 2, 3, 4, 5, *BIG)) if self.rng.random() < 0.5 else self.rng.randint(1, 6)
        return Ballot(round, self.rng.choice(MEMBERS) if self.rng.random() < 0.9 else self.rng.choice(NASTY))

    def _make_forward(self) -> PeerMessage:
        if self.rng.random() < 0.2:
            names = self.rng.choices((*SUBJECTS, "x" * 512, "\x1b"), k=self.rng.choice((0, 1, 3)))
            return ForwardKeepAlives(tuple(KeptAlive(name, self.rng.choice((1, 2, NUMBER_MAX))) for name in names))
        return Forward(tuple(self._make_run(number) for number in range(self.rng.choice((0, 1, 3)))))

    def _make_snapshot(self) -> PeerMessage:
        return SnapshotPart(
            self._slot(), self.rng.choice((0, 100, *BIG)), self.rng.choice((0, 100, *BIG)), self._value()
        )

    def _make_digest(self) -> PeerMessage:
        slot, digest = self._slot(), self.rng.choice((b"", bytes(16), b"\1" * 16, self._value()[:16]))
        heard = tuple((node, digest, bytes(16)) for node in self.rng.choices((*MEMBERS, *NASTY), k=3))
        return self.rng.choice(
            (
                StateDigest(slot, bytes(16), digest),
                AskStateDigest(slot),
                StateDigestsHeard(slot, heard),
                Fetching(self._slot(0)),
            )
        )

    def _make_clock(self) -> PeerMessage:
        number = self.rng.choice((self.node._member_clocks._number, self._count()))
        if self.rng.random() < 0.3:
            return AskClock(number)
        return ClockReading(number, self.rng.choice((0, 50_000, UTC_MS_MAX, self.rng.randrange(UTC_MS_MAX))))

    def _make_stream(self) -> PeerMessage:
        number = self.rng.choice((*BIG, INCARNATION, STORE_INCARNATION))
        introduction = Introduction(
            votes=self.rng.random() < 0.5,
            met=number,
            together=self.rng.random() < 0.5,
            unchanged=self.rng.random() < 0.5,
            founders=tuple(self.rng.choices((*MEMBERS, *NASTY), k=self.rng.choice((0, 2, 3)))),
            asks=self.rng.random() < 0.5,
        )
        refusal = Refusal(self.rng.choice(("x" * 200, *NASTY)))
        return self.rng.choice((Hello(), Challenge(number), Proof(number), introduction, refusal))
