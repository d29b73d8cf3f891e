"""A client notices a node that says nothing, or cannot answer, goes to one that can, and asks nothing twice in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from test.helpers.fake_nodes import PERIOD_MS, AutomaticNodes, ManualNodes
from test.helpers.fakes import cluster_of, framed, outcome_of
from txpaxos.client import Client
from txpaxos.client.keep_alives import PATIENCE
from txpaxos.client.route import PROBE_KEPT_TICKS
from txpaxos.client.suspicion import BACKOFF_MAX, BACKOFF_TICKS, LEAVE_TICKS, LIVENESS_SECONDS, TICKS
from txpaxos.errors import NoQuorum, NotChosen
from txpaxos.service.watches import encode_watch
from txpaxos.wire.client_messages import Ask, ClientCodec, KeepTimers, Ping, Read, Submit, Welcome
from txpaxos.wire.codec import Codec
from txpaxos.wire.peer_messages import Hello

Kind = Callable[[Client], "Deferred[Any]"]

GAP_SECONDS = 0.6
"""From the moment in which a leader stops sending to the next answer, if another is elected meanwhile."""

ELECTED_SECONDS = 0.35
TICK_SECONDS = LIVENESS_SECONDS / TICKS

KINDS: dict[str, Kind] = {
    "command": lambda client: client.submit(b"x"),
    "linearizable read": lambda client: client.read(b"q"),
    "local read": lambda client: client.read(b"q", "local"),
    "question": lambda client: client.ask("king", b"Arthur"),
}


def settled(nodes: list[str] | None = None, seed: int = 1, **options: Any) -> AutomaticNodes:
    """Nodes whose client has had an answer, so that it has found the node that it wants."""
    auto_nodes = AutomaticNodes(nodes, seed, **options)
    auto_nodes.gap(auto_nodes.client.submit(b"first"))
    auto_nodes.spend(0.01)
    auto_nodes.heard.clear()
    return auto_nodes


def silence(auto_nodes: AutomaticNodes, how: str, node: str) -> None:
    getattr(auto_nodes, how).add(node)


@pytest.fixture(params=["frozen", "unplugged"])
def how(request: pytest.FixtureRequest) -> str:
    """How a leader stops sending."""
    return str(request.param)


# ------------------------------------------------------------------ a leader that stops sending


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_a_leader_stops_sending(kind: str, how: str, seed: int) -> None:
    auto_nodes = settled(seed=seed)
    silence(auto_nodes, how, "a")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    waiting = KINDS[kind](auto_nodes.client)
    assert auto_nodes.gap(waiting) < GAP_SECONDS
    auto_nodes.heard.clear()
    assert auto_nodes.gap(KINDS[kind](auto_nodes.client)) < 0.05
    assert {node for _, node, _ in auto_nodes.heard} <= {"b"} if kind == "command" else {"b", "c"}


@pytest.mark.parametrize("seed", range(6))
def test_thousands_are_under_way(how: str, seed: int) -> None:
    """None is lost, and each is sent again once, to the node that leads then."""
    auto_nodes = settled(seed=seed)
    waiting = [auto_nodes.client.submit(b"x") for _ in range(3000)]
    auto_nodes.reactor.turn()
    silence(auto_nodes, how, "a")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    assert auto_nodes.gap(*waiting) < GAP_SECONDS
    sent = [
        (node, sequence) for _, node, one in auto_nodes.heard if isinstance(one, Submit) for sequence in one_by_one(one)
    ]
    assert len(sent) == len(set(sent))
    assert {node for node, _ in sent if node != "a"} == {"b"}


def one_by_one(run: Submit) -> range:
    return range(run.sequence, run.sequence + len(run.commands))


@pytest.mark.parametrize("seed", range(6))
def test_one_that_connects_just_then(how: str, seed: int) -> None:
    auto_nodes = AutomaticNodes(seed=seed)
    silence(auto_nodes, how, "a")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < GAP_SECONDS


@pytest.mark.parametrize("seed", range(6))
def test_one_that_was_idle(how: str, seed: int) -> None:
    """The leader has been silent for long; the others have another. No node has told the client, which was idle."""
    auto_nodes = settled(seed=seed)
    silence(auto_nodes, how, "a")
    auto_nodes.leader = "b"
    auto_nodes.spend(60.0)
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < GAP_SECONDS


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_two_nodes_are_silent(kind: str, how: str, seed: int) -> None:
    auto_nodes = settled(seed=seed, cluster=cluster_of("abcde"))
    silence(auto_nodes, how, "a")
    silence(auto_nodes, how, "c")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    assert auto_nodes.gap(KINDS[kind](auto_nodes.client)) < GAP_SECONDS


@pytest.mark.parametrize("seed", range(6))
def test_two_leaders_in_a_row_stop_sending(how: str, seed: int) -> None:
    auto_nodes = settled(seed=seed, cluster=cluster_of("abcde"))
    for leader, following in ("ab", "bc"):
        silence(auto_nodes, how, leader)
        auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, following)
        assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < GAP_SECONDS


@pytest.mark.parametrize("seed", range(6))
def test_the_second_leader_is_silent_when_it_is_named(how: str, seed: int) -> None:
    """The client hears of it, but gets no Welcome from it. The others elect a third."""
    auto_nodes = settled(seed=seed, cluster=cluster_of("abcde"))
    silence(auto_nodes, how, "a")

    def elect_one_that_stops_sending() -> None:
        silence(auto_nodes, how, "b")
        auto_nodes.elect("b")

    auto_nodes.reactor.callLater(0.3, elect_one_that_stops_sending)
    auto_nodes.reactor.callLater(0.3 + ELECTED_SECONDS, auto_nodes.elect, "d")
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < 0.3 + GAP_SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_other_answers_still_come(kind: str) -> None:
    """The leader is cut off from the other nodes, and does not know: it answers every client, except where a
    quorum is needed."""
    auto_nodes = settled()
    auto_nodes.isolated.add("a")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    began = auto_nodes.now
    waiting = KINDS[kind](auto_nodes.client)
    local = [auto_nodes.client.read(b"q", "local") for _ in range(3)]
    gap = auto_nodes.gap(waiting, *local)
    assert gap < (GAP_SECONDS if kind != "local read" else 0.05)
    assert auto_nodes.now - began < GAP_SECONDS


@pytest.mark.parametrize("kind", ["command", "linearizable read", "question"])
def test_an_isolated_node_that_knows_it_has_no_leader(kind: str) -> None:
    """A client that keeps to the nodes it was told, and not to the leader, leaves it all the same."""
    auto_nodes = settled(["b", "c"])
    first = auto_nodes.calls[-1]
    auto_nodes.isolated.add(first)
    auto_nodes.step_down(first)
    assert auto_nodes.gap(KINDS[kind](auto_nodes.client)) < GAP_SECONDS


@pytest.mark.parametrize("kind", ["command", "linearizable read", "question"])
def test_a_leader_that_the_others_do_not_hear(kind: str) -> None:
    """It hears that another is elected, and says so, and answers nothing. However long its timeouts have become, a
    client that keeps to the nodes it was told leaves it."""
    auto_nodes = settled(["a", "b"])
    if auto_nodes.calls[-1] != "a":
        auto_nodes = settled(["a", "b"], seed=2)
    assert auto_nodes.calls[-1] == "a"
    auto_nodes.client._dispatcher._route._suspicion.backoff = BACKOFF_MAX
    auto_nodes.isolated.add("a")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.step_down, "a", "b")
    assert auto_nodes.gap(KINDS[kind](auto_nodes.client)) < GAP_SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_follower_stops_sending(kind: str, how: str) -> None:
    """To clients that keep to it unless there is a reason not to."""
    auto_nodes = settled(["b", "c"])
    silence(auto_nodes, how, auto_nodes.calls[-1])
    assert auto_nodes.gap(KINDS[kind](auto_nodes.client)) < GAP_SECONDS


def test_a_client_that_knows_one_address(how: str) -> None:
    """There is nowhere to go. When the node is back, the client is answered: at once if the connection still stands."""
    auto_nodes = settled(["a"])
    silence(auto_nodes, how, "a")
    waiting = auto_nodes.client.submit(b"x")
    auto_nodes.spend(3.0)
    assert set(auto_nodes.calls) == {"a"}
    auto_nodes.frozen.clear()
    auto_nodes.unplugged.clear()
    assert auto_nodes.gap(waiting) < 2.5


def test_the_silent_node_answers_after_all(how: str) -> None:
    """Its answer counts as any other."""
    auto_nodes = settled()
    silence(auto_nodes, how, "a")
    waiting = [auto_nodes.client.submit(b"x"), auto_nodes.client.read(b"q", "local")]
    auto_nodes.spend(0.27)
    auto_nodes.unplugged.clear()
    auto_nodes.frozen.clear()
    assert auto_nodes.gap(*waiting) < 0.1


# ------------------------------------------------------------------ a watch waits


def watching(nodes: list[str] | None = None, count: int = 1, **options: Any) -> AutomaticNodes:
    """Nodes at which watches of a client wait, and nothing else."""
    auto_nodes = settled(nodes, **options)
    auto_nodes.answer_seconds = 3600.0
    for number in range(count):
        auto_nodes.client.read(encode_watch(b"", b"%d" % number, 5), "local").addErrback(lambda _: None)
    auto_nodes.spend(2 * LIVENESS_SECONDS)
    auto_nodes.heard.clear()
    return auto_nodes


@pytest.mark.parametrize("count", [1, 100])
def test_a_watch_that_waits_costs_a_ping_in_a_liveness_window_at_most(count: int) -> None:
    auto_nodes = watching(count=count)
    auto_nodes.spend(30.0)
    assert 60 < auto_nodes.sent(Ping) <= 30.0 / LIVENESS_SECONDS
    assert len(auto_nodes.heard) == auto_nodes.sent(Ping)
    assert len(auto_nodes.lines) <= 2, "a node was suspected"


@pytest.mark.parametrize("phase", range(24))
def test_a_node_that_stops_sending_under_a_watch_is_left_within_the_longest_liveness_window(
    how: str, phase: int
) -> None:
    """Nodes take a leader for dead after one to two of the shortest windows."""
    auto_nodes = watching()
    node = auto_nodes.client._dispatcher._route.current.node  # type: ignore[union-attr]
    auto_nodes.spend(phase * LIVENESS_SECONDS / 20)
    silence(auto_nodes, how, node)
    began = auto_nodes.now
    assert auto_nodes.spend(5.0, lambda: auto_nodes.sent(Read, *set("abc") - {node}))
    assert auto_nodes.now - began <= 2 * LIVENESS_SECONDS + AutomaticNodes.STEP_SECONDS


@pytest.mark.parametrize("phase", range(24))
def test_a_request_beside_a_watch_is_as_urgent_as_ever(how: str, phase: int) -> None:
    auto_nodes = watching()
    auto_nodes.spend(phase * LIVENESS_SECONDS / 20)
    silence(auto_nodes, how, "a")
    auto_nodes.answer_seconds = 0.001
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < GAP_SECONDS


@pytest.mark.parametrize("phase", range(24))
def test_a_request_beside_a_watch_raises_no_suspicion(phase: int) -> None:
    """The node has said nothing for longer than a node may that is asked for something."""
    auto_nodes = watching(["a", "b", "c"])
    lines = len(auto_nodes.lines)
    auto_nodes.spend(phase * LIVENESS_SECONDS / 20)
    auto_nodes.answer_seconds = 0.15
    auto_nodes.gap(auto_nodes.client.submit(b"x"), auto_nodes.client.read(b"q", "local"))
    auto_nodes.answer_seconds = 3600.0
    auto_nodes.spend(2.0)
    assert len(auto_nodes.lines) == lines


# ------------------------------------------------------------------ a node that lets keep-alives wait for each other


def keeping(seed: int = 1) -> AutomaticNodes:
    """Nodes that have told the client the period of its timer, and take a while to answer the next keep-alive."""
    auto_nodes = settled(seed=seed)
    auto_nodes.gap(auto_nodes.client.keep_alive(["timer"]))
    auto_nodes.spend(1.0)
    auto_nodes.heard.clear()
    auto_nodes.answer_seconds = 0.95 * PATIENCE * PERIOD_MS / 1000
    return auto_nodes


@pytest.mark.parametrize("seed", range(6))
def test_a_client_waits_patiently_for_a_keep_alive(seed: int) -> None:
    auto_nodes = keeping(seed)
    lines = len(auto_nodes.lines)
    for _ in range(5):
        auto_nodes.gap(auto_nodes.client.keep_alive(["timer"]))
        auto_nodes.spend(0.017 * seed)
    assert (auto_nodes.sent(Ping), auto_nodes.sent(KeepTimers), len(auto_nodes.lines)) == (0, 5, lines)


def test_a_watch_beside_a_keep_alive_raises_no_suspicion() -> None:
    auto_nodes = keeping()
    auto_nodes.client.read(b"q", "local")
    auto_nodes.spend(2.0)
    lines = len(auto_nodes.lines)
    auto_nodes.answer_seconds = 3600.0
    auto_nodes.client.read(encode_watch(b"", b"1", 5), "local").addErrback(lambda _: None)
    auto_nodes.spend(1.0)
    auto_nodes.answer_seconds = 0.95
    auto_nodes.gap(auto_nodes.client.keep_alive(["timer"]))
    assert len(auto_nodes.lines) == lines


@pytest.mark.parametrize("seed", range(6))
def test_a_node_that_is_silent_under_a_keep_alive_is_left_in_time(how: str, seed: int) -> None:
    """It takes the time that the nodes may take to answer longer than under a request that is urgent."""
    auto_nodes = keeping(seed)
    silence(auto_nodes, how, "a")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    auto_nodes.answer_seconds = 0.01
    assert auto_nodes.gap(auto_nodes.client.keep_alive(["timer"])) < GAP_SECONDS + PATIENCE * PERIOD_MS / 1000


@pytest.mark.parametrize("phase", range(24))
def test_a_request_beside_a_keep_alive_is_as_urgent_as_ever(how: str, phase: int) -> None:
    auto_nodes = keeping()
    auto_nodes.client.keep_alive(["timer"])
    auto_nodes.spend(phase * LIVENESS_SECONDS / 20)
    silence(auto_nodes, how, "a")
    auto_nodes.answer_seconds = 0.001
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < GAP_SECONDS


@pytest.mark.parametrize("phase", range(24))
def test_a_request_beside_a_keep_alive_raises_no_suspicion(phase: int) -> None:
    auto_nodes = keeping()
    lines = len(auto_nodes.lines)
    auto_nodes.client.keep_alive(["timer"])
    auto_nodes.spend(phase * LIVENESS_SECONDS / 10)
    auto_nodes.answer_seconds = 0.15
    auto_nodes.gap(auto_nodes.client.submit(b"x"))
    assert len(auto_nodes.lines) == lines


# ------------------------------------------------------------------ nothing is asked twice in vain


def test_no_ping_while_answers_flow() -> None:
    auto_nodes = settled()
    for _ in range(400):
        auto_nodes.client.submit(b"x")
        auto_nodes.spend(0.01)
    assert auto_nodes.sent(Ping) == 0
    assert len(auto_nodes.calls) == len(set(auto_nodes.calls)) <= 2


def test_no_node_is_asked_for_nothing() -> None:
    auto_nodes = settled()
    auto_nodes.spend(60.0)
    assert auto_nodes.heard == []
    assert auto_nodes.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("answer_seconds", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("outstanding", [1, 100])
def test_a_cluster_that_answers_late(answer_seconds: float, outstanding: int) -> None:
    """It is overloaded, and well. Nothing is sent again, and one more connection stands, no more."""
    auto_nodes = settled()
    auto_nodes.answer_seconds = answer_seconds
    for _ in range(20):
        auto_nodes.gap(*(auto_nodes.client.submit(b"x") for _ in range(outstanding)))
    sent = sum(len(one.commands) for _, _, one in auto_nodes.heard if isinstance(one, Submit))
    assert sent == 20 * outstanding
    assert len(auto_nodes.calls) <= 3
    assert auto_nodes.sent(Ping) <= 20 * answer_seconds / TICK_SECONDS


def test_nodes_whose_every_word_is_late() -> None:
    """Even a Pong: they have no time to read. The client waits longer each time, so what it sends is bounded."""
    auto_nodes = settled()
    for _ in range(10):
        auto_nodes.frozen = set("abc")
        waiting = auto_nodes.client.submit(b"x"), auto_nodes.client.ask("king", b"Arthur")
        auto_nodes.spend(0.9)
        auto_nodes.frozen = set()
        auto_nodes.gap(*waiting)
    assert auto_nodes.sent(Submit) + auto_nodes.sent(Ask) <= 20 + 2 * 4
    assert len(auto_nodes.calls) <= 3 + 10


def test_the_backoff_grows_and_is_forgotten() -> None:
    auto_nodes = settled(["b", "c"])
    route = auto_nodes.client._dispatcher._route
    gaps = []
    for _ in range(6):
        current = route.current
        assert current is not None
        auto_nodes.frozen = {current.node}
        gaps.append(auto_nodes.gap(auto_nodes.client.read(b"q", "local"), seconds=60.0))
        auto_nodes.frozen = set()
        auto_nodes.gap(auto_nodes.client.submit(b"x"))
    assert gaps[1] < gaps[2] < gaps[3]
    assert gaps[-1] > LEAVE_TICKS * TICK_SECONDS * BACKOFF_MAX
    assert gaps[0] < GAP_SECONDS
    auto_nodes.heard.clear()
    end = auto_nodes.now + 5 * (BACKOFF_TICKS + 10) * TICK_SECONDS
    while auto_nodes.now < end:
        auto_nodes.client.submit(b"x")
        auto_nodes.spend(0.05)
    assert route._suspicion.backoff == 1
    current = route.current
    assert current is not None
    auto_nodes.frozen = {current.node}
    assert auto_nodes.gap(auto_nodes.client.read(b"q", "local")) < GAP_SECONDS


# --------------------------------------------- a client whose nodes are gone for the most part


NINE = cluster_of("abcdefghi")


def mostly_gone(seed: int, alive: str) -> AutomaticNodes:
    """A client that talks to the nodes of its cluster file only, of which most were removed meanwhile."""
    auto_nodes = AutomaticNodes(list(NINE.members), seed, NINE)
    auto_nodes.gone.update(set(NINE.members) - set(alive))
    auto_nodes.leader = alive[0]
    return auto_nodes


@pytest.mark.parametrize("seed", range(20))
def test_a_client_finds_the_nodes_that_are_left(seed: int) -> None:
    """It does not wait ever longer before it has tried all."""
    auto_nodes = mostly_gone(seed, "h")
    assert auto_nodes.gap(auto_nodes.client.ask("king", b"Arthur")) < GAP_SECONDS


@pytest.mark.parametrize("seed", range(20))
def test_a_client_whose_node_is_cut_off_finds_the_nodes_that_are_left(seed: int) -> None:
    """It asks each once, one soon after the other, and none of those that are gone again and again."""
    auto_nodes = mostly_gone(seed, "f")
    auto_nodes.gap(auto_nodes.client.submit(b"first"))
    auto_nodes.elect(None)
    waiting = auto_nodes.client.submit(b"x")
    auto_nodes.spend(3.0)
    auto_nodes.elect("f")
    auto_nodes.gap(waiting)
    auto_nodes.gone -= {"g", "h"}
    auto_nodes.isolated.add("f")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "g")
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < 2 * GAP_SECONDS


@pytest.mark.parametrize("seed", range(20))
def test_the_node_that_was_left_is_asked_when_the_others_are_gone(seed: int) -> None:
    auto_nodes = mostly_gone(seed, "fg")
    auto_nodes.gap(auto_nodes.client.submit(b"first"))
    auto_nodes.client._dispatcher._route._unreachable = "g"
    auto_nodes.isolated.add("f")
    auto_nodes.step_down("f")
    auto_nodes.leader = "g"
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < 2 * GAP_SECONDS


@pytest.mark.parametrize("seed", range(8))
def test_a_node_that_was_left_is_asked_last(seed: int) -> None:
    """There are others, of which more is to be hoped."""
    auto_nodes = settled(["a", "b", "c", "d"], seed, cluster=cluster_of("abcd"))
    first = auto_nodes.calls[-1]
    left = next(node for node in "abcd" if node != first)
    auto_nodes.client._dispatcher._route._unreachable = left
    auto_nodes.isolated.add(first)
    before = len(auto_nodes.calls)
    auto_nodes.gap(auto_nodes.client.ask("king", b"Arthur"))
    assert left not in auto_nodes.calls[before:]


def test_a_node_with_a_late_handshake_is_not_far_away_for_ever() -> None:
    """It stood still when the client came. Its answer to a Ping shows how long the way to it takes."""
    auto_nodes = AutomaticNodes(["a", "b"])
    auto_nodes.frozen = set("ab")
    waiting = auto_nodes.client.submit(b"x")
    auto_nodes.spend(0.5)
    auto_nodes.frozen = set()
    auto_nodes.gap(waiting)
    current = auto_nodes.client._dispatcher._route.current
    assert current is not None
    assert current.round_trip_ticks > 2
    auto_nodes.answer_seconds = 0.3
    auto_nodes.gap(auto_nodes.client.submit(b"x"))
    assert auto_nodes.sent(Ping) > 0
    assert current.round_trip_ticks <= 1


def test_a_node_that_is_far_away_stays_so() -> None:
    """Many a Ping is on its way at a time; each Pong belongs to the oldest."""
    connection = settled().client._dispatcher._route.current
    assert connection is not None
    connection.round_trip_ticks = 20
    for age in range(60):
        connection.age = age
        connection.ping()
        if age >= 20:
            connection.ponged()
    assert connection.round_trip_ticks == 20


def test_a_second_connection_is_closed_when_there_is_no_reason_for_it() -> None:
    auto_nodes = settled()
    auto_nodes.answer_seconds = 0.5
    auto_nodes.gap(auto_nodes.client.submit(b"x"))
    assert sum(line.transport.connected and not line.transport.disconnecting for line in auto_nodes.lines) == 2
    auto_nodes.spend((PROBE_KEPT_TICKS + 10) * TICK_SECONDS)
    assert sum(line.transport.connected and not line.transport.disconnecting for line in auto_nodes.lines) == 1
    assert auto_nodes.reactor.getDelayedCalls() == []


def test_a_client_that_stood_still_itself_blames_no_node() -> None:
    """Its timers are late together; what came meanwhile waits to be read."""
    auto_nodes = settled()
    waiting = auto_nodes.client.submit(b"x")
    auto_nodes.spend(0.02)
    calls = len(auto_nodes.calls)
    waiting = auto_nodes.client.submit(b"y")
    auto_nodes.reactor.turn()
    auto_nodes.reactor.rightNow += 30.0
    auto_nodes.reactor.turn()
    assert len(auto_nodes.calls) == calls == len(auto_nodes.reactor.tcpClients)
    auto_nodes.gap(waiting)


def test_nodes_of_an_older_release_are_sent_no_ping(how: str) -> None:
    auto_nodes = AutomaticNodes()
    auto_nodes.knows_ping = False
    auto_nodes.gap(auto_nodes.client.submit(b"x"))
    silence(auto_nodes, how, "a")
    auto_nodes.reactor.callLater(ELECTED_SECONDS, auto_nodes.elect, "b")
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < GAP_SECONDS
    auto_nodes.answer_seconds = 0.9
    auto_nodes.gap(auto_nodes.client.submit(b"x"))
    assert auto_nodes.sent(Ping) == 0


def test_a_big_command_is_given_its_time() -> None:
    auto_nodes = settled()
    auto_nodes.answer_seconds = 0.5
    calls = len(auto_nodes.calls)
    auto_nodes.gap(auto_nodes.client.submit(bytes(12 * 2**20)))
    assert len(auto_nodes.calls) == calls


def test_without_a_leader_all_nodes_are_listened_to() -> None:
    """None is better than another, so nothing is sent again; the node that hears of a leader first tells the client."""
    auto_nodes = settled()
    auto_nodes.elect(None)
    waiting = auto_nodes.client.submit(b"x")
    auto_nodes.spend(2.0)
    assert auto_nodes.sent(Submit) == 1
    auto_nodes.elect("c")
    assert auto_nodes.gap(waiting) < 0.05
    assert auto_nodes.sent(Submit) == 2


def test_what_needs_no_quorum_stays_without_a_leader() -> None:
    auto_nodes = settled()
    auto_nodes.elect(None)
    calls = len(auto_nodes.calls)
    assert auto_nodes.gap(auto_nodes.client.read(b"q", "local")) < 0.05
    assert len(auto_nodes.calls) == calls
    assert auto_nodes.sent(Read) == 1


def test_all_nodes_are_silent() -> None:
    """They are looked for ever more seldom."""
    auto_nodes = settled()
    auto_nodes.frozen = set("abc")
    auto_nodes.client.submit(b"x")
    auto_nodes.spend(5.0)
    calls = len(auto_nodes.calls)
    auto_nodes.spend(60.0)
    assert len(auto_nodes.calls) - calls <= 200


# ------------------------------------------------------------------ what it found


def test_what_each_node_was_found_to_be_like() -> None:
    auto_nodes = AutomaticNodes()
    auto_nodes.gone.add("a")
    auto_nodes.frozen.add("b")
    auto_nodes.leader = None
    waiting = auto_nodes.client.submit(b"x", deadline_seconds=2.0)
    with_error: list[Any] = []
    waiting.addErrback(with_error.append)
    auto_nodes.spend(3.0)
    (failure,) = with_error
    said = str(failure.value)
    for part in ("a at 10.0.0.1:5000 refuses connections", "b at 10.0.0.2:5000 does not answer", "knows no leader"):
        assert part in said
    assert "send it again" not in said
    assert auto_nodes.client.findings() in said


def test_a_node_that_was_not_asked() -> None:
    auto_nodes = AutomaticNodes(["b"])
    waiting = auto_nodes.client.read(b"q", deadline_seconds=0.001)
    error: list[Any] = []
    waiting.addErrback(error.append)
    auto_nodes.spend(0.1)
    assert error[0].check(NoQuorum)
    assert AutomaticNodes(["c"]).client.findings() == "c at 10.0.0.3:5000 was not asked"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (framed(ClientCodec("other").encode(Welcome("a", None, None))), "message of another cluster: compare"),
        (framed(Codec("test", "a").encode(Hello())), "no message for this port"),
        (framed(b"HTTP/1.1 400"), "are no message"),
    ],
)
def test_another_service_at_the_port(data: bytes, says: str) -> None:
    """To send the command again will not help; the line says what is wrong."""
    fake_nodes = ManualNodes(["a"])
    error: list[Any] = []
    fake_nodes.client.submit(b"x", deadline_seconds=1.0).addErrback(error.append)
    line = fake_nodes.pick_up()
    line.connection.dataReceived(data)
    line.break_off()
    fake_nodes.reactor.spend(2.0)
    assert error[0].check(NotChosen)
    assert "a at 10.0.0.1:5000 does not speak as a node of this cluster (" in str(error[0].value)
    assert says in str(error[0].value)
    assert "again" not in str(error[0].value)


# ------------------------------------------------------------------ a node that fetches a snapshot

MOVED_SECONDS = 6 * TICK_SECONDS
"""From the moment in which a node has said that it is behind to an answer of another one: two looks, and a probe."""


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "local read"])
def test_a_node_falls_behind_while_requests_wait(kind: str, seed: int) -> None:
    auto_nodes = settled(["b", "c"], seed=seed)
    behind = auto_nodes.calls[-1]
    auto_nodes.fall_behind(behind)
    assert auto_nodes.gap(KINDS[kind](auto_nodes.client)) < MOVED_SECONDS
    assert auto_nodes.gap(KINDS[kind](auto_nodes.client)) < 0.05


@pytest.mark.parametrize("seed", range(6))
def test_a_client_comes_to_a_node_that_may_be_behind(seed: int) -> None:
    auto_nodes = AutomaticNodes(["b", "c"], seed)
    auto_nodes.behind.add("b")
    assert auto_nodes.gap(auto_nodes.client.submit(b"x")) < MOVED_SECONDS


def test_a_node_that_is_behind_answers_a_local_read() -> None:
    auto_nodes = settled(["b", "c"])
    behind, calls = auto_nodes.calls[-1], len(auto_nodes.calls)
    auto_nodes.fall_behind(behind)
    assert auto_nodes.gap(auto_nodes.client.read(b"q", "local")) < 0.05
    assert len(auto_nodes.calls) == calls


@pytest.mark.parametrize("seed", range(6))
def test_all_nodes_of_a_client_are_behind(seed: int) -> None:
    """The client has no better node. It goes to and fro between them no more than once a second."""
    auto_nodes = settled(["b", "c"], seed=seed)
    calls = len(auto_nodes.calls)
    for node in "bc":
        auto_nodes.fall_behind(node)
    waiting = outcome_of(auto_nodes.client.submit(b"x"))
    auto_nodes.spend(10.0)
    assert not waiting
    assert len(auto_nodes.calls) <= calls + 10
    auto_nodes.catch_up("b")
    assert auto_nodes.spend(MOVED_SECONDS, lambda: waiting)


def test_a_client_that_left_a_node_behind_is_as_quick_to_leave_a_silent_one(how: str) -> None:
    """It has not been slow by mistake, as when it leaves a node for its silence."""
    auto_nodes = settled(["b", "c"])
    behind = auto_nodes.calls[-1]
    auto_nodes.fall_behind(behind)
    auto_nodes.gap(auto_nodes.client.submit(b"x"))
    auto_nodes.catch_up(behind)
    silence(auto_nodes, how, "c" if behind == "b" else "b")
    assert auto_nodes.gap(auto_nodes.client.read(b"q", "local")) < GAP_SECONDS


def test_all_nodes_of_a_client_send_it_away() -> None:
    """As when all are stopped at one time, or their disks hang. It goes to each once, and stays at the last one."""
    nodes = ManualNodes()
    nodes.client.submit(b"x")
    seen = []
    for _ in "abc":
        seen.append(connection := nodes.pick_up())
        connection.say(Welcome(connection.node, None, None, 0, LIVENESS_SECONDS, leaving=True))
    assert sorted(one.node for one in seen) == ["a", "b", "c"]
    for _ in range(3):
        for one in seen:
            one.say(Welcome(one.node, None, None, 0, LIVENESS_SECONDS, leaving=True))
    assert len(nodes.calls) == 3
    assert any(isinstance(message, Submit) for message in seen[-1].said())


@pytest.mark.parametrize("seed", range(4))
def test_a_client_does_not_go_to_and_fro_between_nodes_that_send_it_away(seed: int) -> None:
    nodes = ManualNodes(["a", "b"], seed)
    nodes.client.submit(b"x")
    for _ in range(40):
        if len(nodes.calls) > nodes._answered:
            connection = nodes.pick_up()
        connection.say(Welcome(connection.node, None, None, 0, LIVENESS_SECONDS, leaving=True))
        nodes.reactor.spend(0.1)
    assert len(nodes.calls) <= 8
