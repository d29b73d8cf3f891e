"""Where clients come in: any request is answered or refused, and no client can do harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

import txpaxos.server.connection
from test.helpers.client_port_harness import (
    CODEC,
    Asked,
    ClientPortHarness,
    FakeClient,
    UnencodableResults,
    submit,
    submit_run,
)
from test.helpers.fakes import ONE, THREE, NodeHarness, Recorder, RecordingStore, framed, node_of
from test.helpers.fuzz import INPUTS, nothing_kept
from test.helpers.wire_samples import spoil
from txpaxos.core.config import Timing
from txpaxos.core.messages import Ballot, Heartbeat
from txpaxos.errors import StoreError
from txpaxos.log_lines import LINES_MAX
from txpaxos.node.counts import Count
from txpaxos.node.sessions import Sessions
from txpaxos.recipes.coordinator import Coordinator
from txpaxos.recipes.replicated.permits import Permits, Standing
from txpaxos.recipes.replicated.sessions import Sessions as RecipeSessions
from txpaxos.server.budget import BUFFERED_BYTES_MAX
from txpaxos.server.client_port import ClientPort
from txpaxos.server.connection import REQUEST_BYTES_MAX
from txpaxos.service.remote import encode_call
from txpaxos.service.watches import digest_of_answer, encode_watch
from txpaxos.wire.client_messages import (
    Answer,
    Ask,
    AskAnswer,
    ClientCodec,
    Contact,
    FromClient,
    FromNode,
    Members,
    Ping,
    Pong,
    Read,
    ReadAnswer,
    Refused,
    Request,
    StatusAnswer,
    StatusRequest,
    Submit,
    Welcome,
)
from txpaxos.wire.commands import COMMAND_BYTES_MAX, new_session
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter

reactor: Any = installed_reactor
BAD = Count.BAD_REQUEST


@pytest.fixture
def harness() -> Iterator[ClientPortHarness]:
    harness = ClientPortHarness(NodeHarness("a", ONE))
    yield harness
    harness.port.budget.check()


# ------------------------------------------------------------------- requests


def test_a_client_is_welcomed(harness: ClientPortHarness) -> None:
    client = FakeClient(harness.port)
    assert client.heard() == [Welcome("a", "a", "10.0.0.1:5000", 1, 0.25, takes_withdrawals=True)]
    assert client.transport.no_delay


def test_a_client_hears_of_every_leader() -> None:
    node_harness = NodeHarness("b")
    harness = ClientPortHarness(node_harness)
    client, gone = FakeClient(harness.port), FakeClient(harness.port)
    gone.disconnect()
    node_harness.hear("a", Heartbeat(Ballot(1, "a"), 0, 1))
    node_harness.reactor.idle()
    node_harness.hear("c", Heartbeat(Ballot(2, "c"), 0, 1))
    node_harness.reactor.idle()
    assert client.heard() == [
        Welcome("b", None, None, 0, 0.25, takes_withdrawals=True),
        Welcome("b", "a", "10.0.0.1:5000", 0, 0.25, takes_withdrawals=True),
        Welcome("b", "c", "10.0.0.3:5000", 0, 0.25, takes_withdrawals=True),
    ]
    assert gone.heard() == [Welcome("b", None, None, 0, 0.25, takes_withdrawals=True)]


def test_a_ping_is_answered() -> None:
    """It is told at once, whatever is in work, and without a leader, too."""
    node_harness = NodeHarness("b", timing=Timing(heartbeat_seconds=0.1, liveness_window_seconds=(0.7, 0.9)))
    harness = ClientPortHarness(node_harness)
    client = FakeClient(harness.port)
    assert client.heard() == [Welcome("b", None, None, 0, 0.7, takes_withdrawals=True)]
    client.say(submit(1, b"x"))
    client.say(Ping(), Ping())
    assert client.heard() == [Pong(), Pong()]
    assert node_harness.node.counters == {}


def test_a_command(harness: ClientPortHarness) -> None:
    assert harness.ask(submit(7, b"x")) == [Answer(7, (msgspec.msgpack.encode("x@1"),))]
    assert harness.node.application.applied == [(2, b"x")]


def test_what_one_slot_brings_about_is_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for what a command changes is told with the one whose command it was, and in the same piece."""
    harness = ClientPortHarness(NodeHarness("a", ONE, application=Coordinator))
    client, written = harness.client(), []
    node, open_session = harness.node_harness, encode_call(RecipeSessions, RecipeSessions.open, "s", 60_000)
    asks = [encode_call(Permits, Permits.acquire, "lock", "s", one) for one in ("first", "second")]
    client.say(submit_run(1, (open_session, *asks)))
    node.reactor.idle()
    standing = encode_call(Permits, Permits.standing, "s", "second")
    client.say(Read(4, encode_watch(digest_of_answer(Standing(True, 0)), standing, 0), True))
    client.heard()
    write = client.transport.write

    def note(data: bytes) -> None:
        written.append(data)
        write(data)

    monkeypatch.setattr(client.transport, "write", note)
    client.say(submit(5, encode_call(Permits, Permits.release, "lock", 1, "s"), sequence=4))
    node.reactor.turn()
    first, second = client.heard()
    assert (first, type(second), len(written)) == (Answer(5, (b"\xc0",)), ReadAnswer, 1)


def test_the_same_command_again(harness: ClientPortHarness) -> None:
    first = harness.ask(submit(7, b"x"))
    (again,) = harness.ask(submit(9, b"x"))
    assert isinstance(again, Answer)
    assert [Answer(7, again.results)] == first
    assert len(harness.node.application.applied) == 1


def test_a_command_that_fails(harness: ClientPortHarness, logged_errors: list[dict[str, Any]]) -> None:
    assert harness.ask(submit(7, b"!")) == [Refused(7, "CommandFailed", "ValueError: no ! at 2")]
    logged_errors.clear()


def test_a_command_that_is_too_large(harness: ClientPortHarness) -> None:
    ((refused),) = harness.ask(submit(7, bytes(COMMAND_BYTES_MAX + 1)))
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error) == (7, "ValueTooLarge")


def test_the_largest_command_fits_the_port(harness: ClientPortHarness) -> None:
    command = bytes(COMMAND_BYTES_MAX)
    (answer,) = harness.ask(Submit(2**64 - 1, bytes(32), 2**64 - 1, 2**64 - 2, (command,)))
    assert isinstance(answer, Answer)
    (answer,) = harness.ask(Ask(2**64 - 1, "k" * 512, bytes(COMMAND_BYTES_MAX)))
    assert isinstance(answer, AskAnswer)


def test_a_question(harness: ClientPortHarness) -> None:
    assert harness.ask(Ask(1, "king", None)) == [AskAnswer(1, None)]
    assert harness.ask(Ask(2, "king", b"Arthur")) == [AskAnswer(2, b"Arthur")]
    assert harness.ask(Ask(3, "king", b"Uther"), Ask(4, "king", None)) == [
        AskAnswer(3, b"Arthur"),
        AskAnswer(4, b"Arthur"),
    ]


def test_a_question_without_a_subject(harness: ClientPortHarness) -> None:
    (refused,) = harness.ask(Ask(1, "", b"x"))
    assert isinstance(refused, Refused)
    assert refused.error == "ValueTooLarge"


def test_a_query() -> None:
    harness = ClientPortHarness(NodeHarness("a", ONE, application=Asked))
    harness.ask(submit(1, b"x"))
    for local in (False, True):
        assert harness.ask(Read(2, b"how many?", local)) == [ReadAnswer(2, 2, msgspec.msgpack.encode(["how many?", 1]))]
    assert len(harness.node.application.applied) == 1


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (b"!", "ValueError: no such query"),
        (b"object", "what query returned cannot be sent: "),
        (b"unset", "what query returned cannot be sent: AttributeError: "),
        (b"lies", "what query returned cannot be sent: KeyError: 'a'"),
        (b"leaves", "what query returned cannot be sent: SystemExit: 1"),
        (b"key", "what query returned cannot be sent: "),
    ],
)
def test_a_query_that_fails_is_answered_and_logs_nothing(query: bytes, reason: str, local: bool) -> None:
    harness = ClientPortHarness(NodeHarness("a", ONE, application=Asked))
    (refused,) = harness.ask(Read(3, query, local))
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error) == (3, "QueryFailed")
    assert refused.reason.startswith(reason)
    assert harness.ask(Read(4, b"next", local)) != []


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (submit(3, b"x"), "OutcomeUnknown"),
        (Ask(3, "king", b"x"), "OutcomeUnknown"),
        (Read(3, b"q", True), "QueryFailed"),
        (StatusRequest(3), "QueryFailed"),
    ],
)
def test_an_answer_that_cannot_be_made_is_a_refusal_and_some_lines_of_the_log(
    request_: Request, error: str, logged_errors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a fault of our own")

    monkeypatch.setattr(txpaxos.server.connection, "answers_to", broken)
    harness = ClientPortHarness(NodeHarness("a", ONE, application=Asked))
    for _ in range(10):
        (refused,) = harness.ask(request_)
        assert refused == Refused(3, error, "the node could not make an answer: AssertionError: a fault of our own")
    harness.port.budget.check()
    assert len(logged_errors) == LINES_MAX
    logged_errors.clear()


def test_a_client_leaves_whose_query_cannot_be_cancelled(logged_errors: list[dict[str, Any]]) -> None:
    class Stubborn(Asked):
        def query(self, query: bytes) -> object:
            def canceller(_: object) -> None:
                raise RuntimeError("not now")

            return Deferred(canceller)

    harness = ClientPortHarness(NodeHarness("a", ONE, application=Stubborn))
    client = harness.client()
    client.say(Read(1, b"q", True), Read(2, b"q", False))
    harness.node_harness.reactor.idle()
    client.disconnect()
    assert len(harness.node._reads) == 0
    harness.port.budget.check()
    assert len(logged_errors) == 2
    logged_errors.clear()


def test_a_command_of_a_forgotten_session(harness: ClientPortHarness) -> None:
    """The client is told a slot first, at which it can make a new one."""
    harness.node._applier.sessions = Sessions(sessions_max=1)
    harness.ask(submit(1, b"x"))
    harness.ask(submit(1, b"y", session=new_session(b"2" * 16, 0)))
    welcome, refused = harness.ask(submit(7, b"z", 2))
    assert welcome == Welcome("a", "a", "10.0.0.1:5000", 3, 0.25, takes_withdrawals=True)
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error) == (7, "SessionExpired")
    assert [payload for _, payload in harness.node.application.applied] == [b"x", b"y"]
    (answer,) = harness.ask(submit(8, b"z", 2, session=new_session(b"3" * 16, 3)))
    assert isinstance(answer, Answer)


def test_status(harness: ClientPortHarness) -> None:
    harness.ask(submit(1, b"x"))
    (answer,) = harness.ask(StatusRequest(5))
    assert isinstance(answer, StatusAnswer)
    status = json.loads(answer.status)
    assert (status["cluster"], status["node"], status["role"], status["leader"]) == ("test", "a", "leader", "a")
    assert (status["ballot"], status["promised"]) == ("1.a", "1.a")
    assert (status["applied_through"], status["chosen_through"], status["waiting"]) == (2, 2, 0)
    assert status["clients"] == 2
    assert status["counters"] == {}


def test_answers_come_as_they_are_ready(harness: ClientPortHarness) -> None:
    heard = harness.ask(*[submit(number, b"%d" % number, number) for number in range(100, 0, -1)], StatusRequest(0))
    numbers = [one.request for one in heard if isinstance(one, Answer | StatusAnswer)]
    assert numbers == [0, *range(100, 0, -1)]


@pytest.mark.parametrize(("command", "reason"), [(b"object", ""), (b"large", ""), (b"text", ""), (b"huge", "bytes")])
def test_a_result_that_cannot_be_sent(command: bytes, reason: str) -> None:
    harness = ClientPortHarness(NodeHarness("a", ONE, application=UnencodableResults))
    (refused,) = harness.ask(submit(7, command))
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error) == (7, "CommandFailed")
    assert refused.reason.startswith("applied, but its result cannot be kept: ")
    assert reason in refused.reason
    assert harness.node.application.applied == [(2, command)]


def test_a_result_of_many_kinds() -> None:
    harness = ClientPortHarness(NodeHarness("a", ONE, application=UnencodableResults))
    (answer,) = harness.ask(submit(7, b"fine"))
    assert isinstance(answer, Answer)
    assert msgspec.msgpack.decode(answer.results[0]) == {"total": [1, 2.5, None, "three", b"four"]}


def test_words_that_cannot_be_sent(logged_errors: list[dict[str, Any]]) -> None:
    harness = ClientPortHarness(NodeHarness("a", ONE, application=UnencodableResults))
    (refused,) = harness.ask(submit(7, b"words"))
    assert refused == Refused(7, "CommandFailed", r"ValueError: \ud800")
    assert [event["log_failure"].type for event in logged_errors] == [ValueError]  # only that of apply
    logged_errors.clear()


# -------------------------------------------------------------- bad clients


@pytest.mark.parametrize(
    "data",
    [
        framed(b""),
        framed(b"GET / HTTP/1.1\r\n\r\n"),
        framed(ClientCodec("other").encode(StatusRequest(1))),
        framed(CODEC.encode(Welcome("a", None, None))),
        framed(CODEC.encode(Answer(1, (b"",)))),
        (REQUEST_BYTES_MAX + 1).to_bytes(4, "big"),
    ],
)
def test_a_bad_request_ends_the_connection(harness: ClientPortHarness, data: bytes) -> None:
    client = harness.client()
    client.connection.dataReceived(data + framed(CODEC.encode(StatusRequest(1))))
    assert client.transport.disconnected
    assert client.heard() == []
    assert harness.node.counters == {BAD: 1}


@pytest.mark.fuzz
def test_random_requests(harness: ClientPortHarness) -> None:
    """No answer to what is no request, nothing raised, nothing kept, and the node goes on."""
    rng = Random(9)
    good = [CODEC.encode(one) for one in (submit(1, b"x"), Ask(2, "king", b"x"), StatusRequest(3))]
    with nothing_kept():
        for _ in range(INPUTS):
            client = harness.client()
            data = rng.choice((framed(rng.randbytes(rng.randint(0, 80))), framed(spoil(rng, rng.choice(good)))))
            if data not in map(framed, good):
                client.connection.dataReceived(data)
                assert client.heard() == []
                assert client.transport.disconnected
            client.disconnect()
    assert harness.node.counters[BAD] > 0.98 * INPUTS
    assert harness.node.application.applied == []
    assert len(harness.port.connections) == 0
    assert harness.ask(submit(1, b"x")) == [Answer(1, (msgspec.msgpack.encode("x@1"),))]


# --------------------------------------------------------------------- the end


def test_a_client_that_disconnects_asks_no_more_but_its_commands_go_on() -> None:
    node_harness = NodeHarness("b")
    harness = ClientPortHarness(node_harness)
    client = harness.client()
    client.say(submit(1, b"x"), Ask(2, "king", b"Arthur"))
    node_harness.reactor.spend(0.2)
    assert len(node_harness.node._reads) == 1  # It waits for a read index, and then for the registers to be sealed.
    client.disconnect()
    node_harness.forget()
    node_harness.hear("a", Heartbeat(Ballot(1, "a"), 0, 1))
    node_harness.reactor.spend(0.2)
    assert len(node_harness.node._reads) == 0
    assert "Forward>a" in node_harness.story()
    assert client.heard() == []
    assert len(harness.port.connections) == 0


def test_stop_disconnects_all_clients(harness: ClientPortHarness) -> None:
    clients = [harness.client() for _ in range(3)]
    harness.port.stop()
    assert all(client.transport.disconnected for client in clients)


def test_a_node_that_fails_says_that_it_stopped(harness: ClientPortHarness) -> None:
    client = harness.client()
    harness.node_harness.store.failing = True
    client.say(submit(1, b"x"), Ask(2, "king", b"Arthur"))
    harness.node_harness.reactor.idle()
    assert [(one.request, one.error) for one in client.heard() if isinstance(one, Refused)] == [
        (1, "NodeStopped"),
        (2, "NodeStopped"),
    ]
    assert harness.node_harness.failures[0].check(StoreError)


def test_a_client_port_of_a_node_that_has_not_started() -> None:
    reactor_bench = NodeHarness("a", THREE)
    node = node_of(Recorder(), reactor_bench.reactor, "b", THREE, RecordingStore())
    assert FakeClient(ClientPort(node)).heard() == [Welcome("b", None, None, 0, 0.25, takes_withdrawals=True)]


# -------------------------------------------------------------- real sockets


class Caller(Protocol):
    """A client on a real connection, that says something and then reads, or does not."""

    def __init__(self, data: bytes, reads: bool) -> None:
        self._data = data
        self._reads = reads
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)
        self.heard: list[FromClient | FromNode] = []
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        if not self._reads:
            self.transport.pauseProducing()  # type: ignore[union-attr]
        self.transport.write(self._data)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard += map(CODEC.decode, self._splitter.feed(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


async def call(harness: ClientPortHarness, data: bytes, messages: int | None = None, reads: bool = True) -> Caller:
    """Connect to the port and say ``data``; fires when the port closes the connection, or has said
    ``messages`` of them. A caller that does not read begins to when the port buffers as much as it may."""
    port = reactor.listenTCP(0, harness.port, interface="127.0.0.1")
    caller = Caller(data, reads)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), caller)

    def turn() -> None:
        harness.node_harness.reactor.idle()
        if not reads and harness.port.budget.buffered_bytes > BUFFERED_BYTES_MAX:
            caller.transport.resumeProducing()  # type: ignore[union-attr]
        if len(caller.heard) == messages:
            caller.transport.abortConnection()  # type: ignore[union-attr]

    turns = LoopingCall(turn)
    turns.start(0.001)
    try:
        await caller.lost.addTimeout(20.0, reactor)
    finally:
        turns.stop()
        await maybeDeferred(port.stopListening)
    return caller


async def test_a_client_on_a_real_connection(harness: ClientPortHarness) -> None:
    requests: list[FromClient] = [submit(1, b"x"), Ask(2, "king", bytes(2**20)), StatusRequest(3)]
    data = framed(*[CODEC.encode(request) for request in requests])
    caller = await call(harness, data, messages=5)
    assert {type(message) for message in caller.heard} == {Welcome, Members, Answer, AskAnswer, StatusAnswer}
    assert AskAnswer(2, bytes(2**20)) in caller.heard
    assert harness.node.counters == {}


async def test_a_stranger_on_a_real_connection(harness: ClientPortHarness) -> None:
    caller = await call(harness, b"GET / HTTP/1.1\r\n\r\n")
    members = tuple(Contact(node, str(one.client), "voter") for node, one in harness.node.cluster.members.items())
    assert caller.heard == [Welcome("a", "a", "10.0.0.1:5000", 1, 0.25, takes_withdrawals=True), Members(0, members)]
    assert harness.node.counters == {BAD: 1}


async def test_who_reads_late_on_a_real_connection(harness: ClientPortHarness) -> None:
    """More is asked for than is held, and all of it comes, whole, when the client begins to read."""
    questions = [CODEC.encode(Ask(number, "king", bytes(2**20))) for number in range(40)]
    caller = await call(harness, framed(*questions), messages=42, reads=False)
    assert sorted(one.request for one in caller.heard if isinstance(one, AskAnswer)) == list(range(40))
    assert harness.node.counters == {}
    assert (harness.port.budget.buffered_bytes, harness.port.budget.partial_bytes) == (0, 0)
