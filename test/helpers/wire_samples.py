"""Messages for the tests of the wire: a strategy and one sample of every class, and ways to spoil their bytes."""

from __future__ import annotations

from random import Random
from typing import Any
from zlib import crc32

from hypothesis import strategies as st

from txpaxos.core.messages import (
    NO_OP,
    Accept,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Decided,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Nack,
    Prepare,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    Promise,
    PromiseLog,
    Proposal,
    ReadIndexReply,
    ReadIndexRequest,
    TakeOver,
    Truncated,
    Vote,
)
from txpaxos.replicated_time import UTC_MS_MAX
from txpaxos.rights import ALL_RIGHTS
from txpaxos.wire.client_messages import (
    SPAN_BYTES,
    AcceptClock,
    Answer,
    Ask,
    AskAnswer,
    Authenticate,
    Authenticated,
    BackupAnswer,
    BackupRequest,
    ChangeAnswer,
    ChangeMembers,
    ChangeProgress,
    ClientCodec,
    Contact,
    Forget,
    HandedOver,
    HandOver,
    Join,
    JoinAnswer,
    KeepAlive,
    KeepAliveReply,
    KeepTimers,
    KeepTogether,
    Members,
    MembersAnswer,
    MembersRequest,
    Ping,
    Pong,
    Read,
    ReadAnswer,
    Recall,
    Refused,
    ReloadKeys,
    StatusAnswer,
    StatusRequest,
    Submit,
    TimersKept,
    Trace,
    Welcome,
    Withdraw,
)
from txpaxos.wire.codec import Codec
from txpaxos.wire.commands import Run
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
    Proof,
    Refusal,
    RegisterVote,
    RegisterVotes,
    Removed,
    SnapshotPart,
    StateDigest,
    StateDigestsHeard,
)
from txpaxos.wire.stamps import NUMBER_MAX, KeptAlive

COUNTS = st.integers(0, 2**64 - 1)
SLOTS = st.integers(1, 2**64 - 1)
BOOLEANS = st.booleans()
NAMES = st.text(min_size=1, max_size=60)
TEXTS = st.text(max_size=300)
VALUES = st.binary(max_size=300)
HASHES = st.binary(max_size=64)
TOKENS = st.binary(min_size=16, max_size=16)
PLACES = st.dictionaries(NAMES, st.tuples(NAMES, NAMES), max_size=5)
BALLOTS = st.builds(Ballot, COUNTS, NAMES | st.just(""))
PROPOSALS = st.builds(Proposal, BALLOTS, VALUES)
VOTES = st.builds(Vote, COUNTS, BALLOTS, VALUES)
SESSIONS = st.binary(min_size=8, max_size=32)
PAYLOADS = st.lists(VALUES, min_size=1, max_size=6).map(tuple)
FIRSTS = st.integers(0, 2**64 - 6)
RUNS = st.builds(Run, SESSIONS, FIRSTS, COUNTS, PAYLOADS)

NUMBERS = st.integers(1, NUMBER_MAX)
KEPT_ALIVE = st.builds(KeptAlive, TEXTS | NUMBERS, NUMBERS)
REGISTER_VOTES = st.builds(RegisterVote, NAMES, BALLOTS, VALUES, BOOLEANS)


def tuples(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=6).map(tuple)


ONE_DECREE: dict[type[Any], st.SearchStrategy[Any]] = {
    Prepare: st.builds(Prepare, BALLOTS),
    Promise: st.builds(Promise, BALLOTS, st.none() | PROPOSALS),
    Accept: st.builds(Accept, BALLOTS, VALUES),
    Accepted: st.builds(Accepted, BALLOTS, VALUES),
    Nack: st.builds(Nack, BALLOTS, BALLOTS),
    Decided: st.builds(Decided, VALUES),
}
PEER: dict[type[Any], st.SearchStrategy[Any]] = {
    **ONE_DECREE,
    Heartbeat: st.builds(Heartbeat, BALLOTS, COUNTS, COUNTS),
    HeartbeatAck: st.builds(HeartbeatAck, BALLOTS, COUNTS, COUNTS, st.booleans()),
    PreVote: st.builds(PreVote, COUNTS),
    PreVoteGranted: st.builds(PreVoteGranted, COUNTS),
    PrepareLog: st.builds(PrepareLog, BALLOTS, SLOTS),
    PromiseLog: st.builds(PromiseLog, BALLOTS, SLOTS, tuples(VALUES), tuples(VOTES)),
    AcceptSlot: st.builds(AcceptSlot, BALLOTS, SLOTS, VALUES, COUNTS),
    AcceptedSlot: st.builds(AcceptedSlot, BALLOTS, SLOTS),
    Fetch: st.builds(Fetch, SLOTS),
    ChosenValues: st.builds(ChosenValues, SLOTS, tuples(VALUES), COUNTS),
    Truncated: st.builds(Truncated, SLOTS),
    TakeOver: st.builds(TakeOver, BALLOTS, COUNTS),
    ReadIndexRequest: st.builds(ReadIndexRequest, COUNTS),
    ReadIndexReply: st.builds(ReadIndexReply, COUNTS, COUNTS),
    FetchSnapshot: st.builds(FetchSnapshot, COUNTS, COUNTS, COUNTS),
    SnapshotPart: st.builds(SnapshotPart, SLOTS, COUNTS, COUNTS, VALUES),
    StateDigest: st.builds(StateDigest, SLOTS, HASHES, HASHES),
    StateDigestsHeard: st.builds(StateDigestsHeard, SLOTS, tuples(st.tuples(NAMES, HASHES, HASHES))),
    Fetching: st.builds(Fetching, COUNTS),
    Hello: st.builds(Hello),
    Challenge: st.builds(Challenge, COUNTS),
    Proof: st.builds(Proof, COUNTS),
    AskStateDigest: st.builds(AskStateDigest, SLOTS),
    Refusal: st.builds(Refusal, st.text()),
    Removed: st.builds(Removed, SLOTS),
    Introduction: st.builds(Introduction, BOOLEANS, COUNTS, BOOLEANS, BOOLEANS, tuples(NAMES), BOOLEANS),
    Forward: st.builds(Forward, tuples(RUNS)),
    ForwardKeepAlives: st.builds(ForwardKeepAlives, tuples(KEPT_ALIVE)),
    CollectRegisters: st.builds(CollectRegisters, COUNTS, st.text(max_size=60)),
    RegisterVotes: st.builds(RegisterVotes, COUNTS, st.text(max_size=60), tuples(REGISTER_VOTES), BOOLEANS),
    AskClock: st.builds(AskClock, COUNTS),
    ClockReading: st.builds(ClockReading, COUNTS, st.integers(0, UTC_MS_MAX)),
}
CLIENT: dict[type[Any], st.SearchStrategy[Any]] = {
    Submit: st.builds(Submit, FIRSTS, SESSIONS, FIRSTS, COUNTS, PAYLOADS),
    Ask: st.builds(Ask, COUNTS, st.text(), st.none() | VALUES),
    Forget: st.builds(Forget, COUNTS, st.binary(min_size=24, max_size=24), COUNTS, st.text()),
    KeepTimers: st.builds(KeepTimers, COUNTS, NUMBERS, st.lists(TEXTS, min_size=1, max_size=6).map(tuple)),
    KeepTogether: st.builds(KeepTogether, COUNTS, NUMBERS, NUMBERS, st.integers(1, 1024)),
    TimersKept: st.builds(TimersKept, COUNTS, tuples(st.none() | COUNTS), COUNTS),
    StatusRequest: st.builds(StatusRequest, COUNTS),
    ReloadKeys: st.builds(ReloadKeys, COUNTS),
    AcceptClock: st.builds(AcceptClock, COUNTS),
    Recall: st.builds(
        Recall, COUNTS, COUNTS, st.text(max_size=60), st.binary(max_size=32), COUNTS, st.text(max_size=60)
    ),
    HandOver: st.builds(HandOver, COUNTS, NAMES),
    Join: st.builds(Join, COUNTS, NAMES, NAMES, NAMES, SLOTS, TOKENS, NAMES, st.booleans(), NAMES),
    BackupRequest: st.builds(BackupRequest, COUNTS, COUNTS, COUNTS),
    KeepAliveReply: st.builds(KeepAliveReply),
    KeepAlive: st.builds(KeepAlive),
    Read: st.builds(Read, COUNTS, VALUES, st.booleans()),
    Ping: st.builds(Ping),
    Withdraw: st.builds(Withdraw, COUNTS),
    Trace: st.builds(Trace, COUNTS, st.binary(min_size=SPAN_BYTES, max_size=SPAN_BYTES)),
    Welcome: st.builds(Welcome, NAMES, st.none() | NAMES, st.none() | NAMES, COUNTS, st.floats(0.0, 60.0)),
    Pong: st.builds(Pong),
    Answer: st.builds(Answer, COUNTS, tuples(VALUES)),
    AskAnswer: st.builds(AskAnswer, COUNTS, st.none() | VALUES),
    ReadAnswer: st.builds(ReadAnswer, COUNTS, COUNTS, VALUES),
    StatusAnswer: st.builds(StatusAnswer, COUNTS, VALUES),
    HandedOver: st.builds(HandedOver, COUNTS, NAMES),
    JoinAnswer: st.builds(
        JoinAnswer, COUNTS, NAMES, NAMES, PLACES, COUNTS, PLACES, st.lists(NAMES, max_size=2).map(tuple)
    ),
    BackupAnswer: st.builds(BackupAnswer, COUNTS, VALUES),
    Refused: st.builds(Refused, COUNTS, st.text(), st.text(), COUNTS),
    MembersRequest: st.builds(MembersRequest, COUNTS),
    ChangeMembers: st.builds(
        ChangeMembers, COUNTS, st.sampled_from(["move", "remove"]), TEXTS, TEXTS, TEXTS, TEXTS, COUNTS
    ),
    Members: st.builds(Members, COUNTS, tuples(st.builds(Contact, TEXTS, TEXTS, TEXTS))),
    MembersAnswer: st.builds(MembersAnswer, COUNTS, VALUES),
    ChangeProgress: st.builds(ChangeProgress, COUNTS, st.text()),
    ChangeAnswer: st.builds(ChangeAnswer, COUNTS, st.text()),
    Authenticate: st.builds(Authenticate, st.binary(min_size=1, max_size=256)),
    Authenticated: st.builds(Authenticated, st.text(max_size=64), tuples(st.sampled_from(ALL_RIGHTS))),
}

CODEC = Codec("orders", "node-a", 0x0123456789ABCDEF)
CLIENT_CODEC = ClientCodec("orders")

BALLOT, HIGHER = Ballot(7, "node-a"), Ballot(300, "node-b")
BATCH = (Run(b"session1", 1, 0, (b"put", b"get")), Run(b"\xff" * 32, 2**64 - 1, 70000, (b"",)))

PEER_SAMPLES: tuple[Any, ...] = (
    Prepare(BALLOT),
    Promise(HIGHER, Proposal(BALLOT, b"value")),
    Accept(BALLOT, b"value"),
    Accepted(BALLOT, b"value"),
    Nack(BALLOT, HIGHER),
    Decided(b"value"),
    Heartbeat(BALLOT, 41, 1000),
    HeartbeatAck(BALLOT, 40, 1000),
    PrepareLog(BALLOT, 42),
    PromiseLog(HIGHER, 41, (b"value",), (Vote(42, BALLOT, b"value"), Vote(44, BALLOT, NO_OP))),
    AcceptSlot(BALLOT, 42, b"value", 41),
    AcceptedSlot(BALLOT, 42),
    Fetch(42),
    ChosenValues(42, (b"value", NO_OP), 44),
    Hello(),
    Refusal("it comes from 10.0.0.9:4001"),
    Removed(44),
    Forward(BATCH),
    ForwardKeepAlives((KeptAlive("größe", 2**62), KeptAlive("b", 1))),
    PreVote(5),
    PreVoteGranted(5),
    Truncated(43),
    TakeOver(BALLOT, 41),
    ReadIndexRequest(2**62),
    ReadIndexReply(2**62, 44),
    FetchSnapshot(40, 2**20, 38),
    SnapshotPart(40, 2**21, 2**20, b"data"),
    StateDigest(40, b"log", b"state"),
    Challenge(2**64 - 1),
    Proof(2**63),
    AskStateDigest(40),
    StateDigestsHeard(40, (("node-b", b"log", b"state"), ("node-c", b"log", b""))),
    Fetching(40),
    Introduction(True, 2**63, True, True, ("node-a", "node-b"), True),
    CollectRegisters(2**62, "größe"),
    RegisterVotes(2**62, "größe", (RegisterVote("länge", BALLOT, b"value", True),), True),
    AskClock(7),
    ClockReading(7, 1_795_834_800_123),
)
CLIENT_SAMPLES: tuple[Any, ...] = (
    Submit(1, b"session1", 5, 4, (b"put", b"get")),
    Ask(2, "größe", b"value"),
    Forget(5, bytes(24), 1, "größe"),
    KeepTimers(8, 2**62, ("größe", "b")),
    KeepTogether(8, 2**60, 2**60 + 1, 100),
    TimersKept(8, (2**62, None), 10_000),
    StatusRequest(3),
    ReloadKeys(7),
    AcceptClock(7),
    Recall(7, 12, "3.node-a", bytes(24), 5, "größe"),
    HandOver(5, "node-b"),
    Join(6, "node-d", "10.0.0.4:4001", "10.0.0.4:5001", 2**63, b"sixteen bytes of", "counter:Counter", True, "node-b"),
    BackupRequest(6, 120, 2**18),
    Read(4, b"get", True),
    Ping(),
    Withdraw(4),
    Trace(4, bytes(range(25))),
    Welcome("node-a", "node-b", "[::1]:7002", 42, 0.25, takes_withdrawals=True),
    Pong(),
    Answer(1, (b"\xc0", b"\x07")),
    AskAnswer(2, None),
    ReadAnswer(4, 42, b"\xc0"),
    StatusAnswer(3, b"{}"),
    HandedOver(5, "node-b"),
    JoinAnswer(
        6,
        "orders",
        "node-d",
        {"node-a": ("a:1", "a:2")},
        42,
        {"node-d": ("d:1", "d:2")},
        ("node-d",),
        {"shop": ("read", "write")},
    ),
    BackupAnswer(6, b"bytes"),
    Refused(1, "Overloaded", "too much is waiting: send it again later", 2),
    KeepAliveReply(),
    KeepAlive(),
    MembersRequest(5),
    ChangeMembers(6, "replace", "node-b", "node-d"),
    Members(42, (Contact("node-a", "[::1]:7002", "voter"), Contact("node-d", "d.example.org:7002", "learner"))),
    MembersAnswer(5, b"{}"),
    ChangeProgress(6, "node-d has 40 of 44 slots"),
    ChangeAnswer(6, "node-d votes in place of node-b"),
    Authenticate(b"a token"),
    Authenticated("shop", ("read", "write")),
)


def reseal(data: bytes) -> bytes:
    """``data`` with its correct checksum, so that a spoiled message passes that check."""
    checksum = crc32(data[8:], crc32(data[:4]))
    return data[:4] + checksum.to_bytes(4, "big") + data[8:]


def spoil(rng: Random, data: bytes) -> bytes:
    """``data`` with a few bytes changed, removed, doubled or inserted, or without its end."""
    spoiled = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(spoiled) + 1)
        match rng.randrange(5):
            case 0:
                spoiled[at : at + 1] = rng.randbytes(1)
            case 1:
                del spoiled[at : at + rng.randint(1, 8)]
            case 2:
                spoiled[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                spoiled[at:at] = spoiled[at : at + rng.randint(1, 20)]
            case _:
                del spoiled[at:]
    return bytes(spoiled)
