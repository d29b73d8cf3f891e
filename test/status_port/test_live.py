"""The live page: what it shows, in words, and its stream, whose readers may be slow, or too many."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from test.helpers.fakes import ONE, THREE, NodeHarness
from txpaxos.core.messages import Ballot
from txpaxos.core.ready import Installed, LeadershipAcquired, LeadershipChanged, LeadershipLost, Ready
from txpaxos.metrics.meter import Meter
from txpaxos.node.events import ReadyReleased, SnapshotInstalled, SnapshotTaken, TimePassed
from txpaxos.status_port.live import LOOK_SECONDS, PAUSED_SECONDS_MAX, READERS_MAX, Live, file_pages
from txpaxos.status_port.recent import EVENTS_MAX, Recent
from txpaxos.status_port.view import headline, members_of, troubles, view_of


class Request:
    """A request for the stream, whose connection the test operates."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self.code = 200
        self.method = b"GET"
        self.producer: Any = None
        self.finished: Deferred[None] = Deferred()
        self.channel = self
        self.aborted = False

    def setHeader(self, name: bytes, value: bytes) -> None:
        self.headers[name] = value

    def setResponseCode(self, code: int) -> None:
        self.code = code

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def notifyFinish(self) -> Deferred[None]:
        return self.finished

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True
        self.finished.errback(ConnectionError())

    def views(self) -> list[dict[str, Any]]:
        return [json.loads(one.removeprefix(b"data: ")) for one in self.written]


@attrs.define
class Stream:
    """The stream, and what it shows."""

    clock: Any = attrs.field(factory=Clock)
    view: dict[str, Any] = attrs.field(factory=lambda: {"leader": "a", "headline": "Healthy."})
    counters: Any = attrs.field(factory=lambda: __import__("collections").Counter())
    live: Live = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.live = Live(self.clock, lambda: dict(self.view), self.counters)

    def read(self) -> Request:
        request = Request()
        assert self.live.page(None, request) is None  # type: ignore[arg-type]
        return request

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([LOOK_SECONDS] * round(seconds / LOOK_SECONDS))


def test_a_reader_gets_the_view_at_once_then_each_second_and_when_the_leader_changes() -> None:
    stream = Stream()
    reader = stream.read()
    assert reader.headers[b"content-type"] == b"text/event-stream"
    assert [view["leader"] for view in reader.views()] == ["a"]
    stream.pass_time(10.0)
    assert 10 <= len(reader.written) <= 12
    told = len(reader.written)
    stream.view["leader"] = "b"
    stream.pass_time(LOOK_SECONDS)
    assert [view["leader"] for view in reader.views()[told:]] == ["b"]


def test_a_reader_that_does_not_read_is_left_out_and_disconnected_at_last() -> None:
    stream = Stream()
    slow, other = stream.read(), stream.read()
    slow.producer.pauseProducing()
    stream.pass_time(5.0)
    assert len(slow.written) == 1
    slow.producer.resumeProducing()
    stream.pass_time(2.0)
    assert len(slow.written) > 1
    slow.producer.pauseProducing()
    told = len(slow.written)
    stream.pass_time(PAUSED_SECONDS_MAX + 2.0)
    assert (slow.aborted, len(slow.written)) == (True, told)
    assert (other.aborted, len(stream.live)) == (False, 1)


def test_too_many_readers_and_none() -> None:
    stream = Stream()
    readers = [stream.read() for _ in range(READERS_MAX)]
    refused = Request()
    body = stream.live.page(None, refused)  # type: ignore[arg-type]
    assert (refused.code, body) == (503, b"32 pages show this node already: close one\n")
    assert sum(stream.counters.values()) == 1
    for one in readers:
        one.finished.callback(None)
    stream.pass_time(2.0)
    assert not stream.clock.getDelayedCalls()
    stream.read()
    assert len(stream.clock.getDelayedCalls()) == 1
    stream.live.stop()
    stream.live.stop()
    assert not stream.clock.getDelayedCalls()


def test_the_files_are_there() -> None:
    request = Request()
    bodies = {path: page(None, request) for path, page in file_pages().items()}  # type: ignore[arg-type]
    assert set(bodies) == {b"/", b"/status.css", b"/status.js"}
    assert all(bodies.values())
    assert b"script-src 'self'" in request.headers[b"content-security-policy"]


def test_what_has_happened_in_words() -> None:
    now = [100.0]
    recent = Recent(lambda: now[0])
    ballot = Ballot(3, "a")
    recent(TimePassed(1.0))
    facts = (LeadershipChanged("b", None), LeadershipAcquired(ballot), LeadershipChanged(None, "a"))
    recent(ReadyReleased(Ready(leadership=facts), 1))
    assert recent.leader_since == 100.0
    now[0] = 200.0
    recent(ReadyReleased(Ready(leadership=(LeadershipLost(ballot), LeadershipChanged("a", "c"))), 1))
    recent(SnapshotTaken(7, b""))
    recent(SnapshotInstalled(Installed(9)))
    assert recent.leader_since == 200.0
    assert [one.text for one in recent.happenings] == [
        "hears its leader b no more",
        "leads with ballot 3.a",
        "a leads",
        "leads no more (ballot 3.a)",
        "c leads, and a no more",
        "took a snapshot at slot 7",
        "went on from a snapshot of another node, at slot 9",
    ]
    for slot in range(2 * EVENTS_MAX):
        recent(SnapshotTaken(slot, b""))
    assert len(recent.happenings) == EVENTS_MAX


def test_the_view_of_a_node_alone_can_be_sent() -> None:
    node = NodeHarness("a", ONE).node
    view = json.loads(json.dumps(view_of(node, Meter(), Recent(), 2)))
    assert (view["node"], view["clients"], view["leader"]) == ("a", 2, None)
    assert view["headline"] == "Not ready: this node knows no leader."
    assert [one["node"] for one in view["members"]] == ["a"]


def test_what_is_known_of_members_without_a_leader() -> None:
    node = NodeHarness("b", THREE).node
    told = attrs.evolve(node.status(), heard={"a": None, "c": 0.1})
    assert [(one["node"], one["state"]) for one in members_of(node, told)] == [
        ("a", "not heard"),
        ("b", "follower"),
        ("c", "heard"),
    ]


@pytest.mark.parametrize(
    ("left", "says"),
    [
        (None, "Node b is ready, and follows a, which knows how many more nodes may fail."),
        (0, "a leads. No other voter may fail: the cluster would stop."),
        (1, "Healthy. a leads. 1 more voter may fail."),
        (2, "Healthy. a leads. 2 more voters may fail."),
    ],
)
def test_the_headline(left: int | None, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.status_port.view.why_not_ready", lambda node: "")
    node = NodeHarness("b", THREE).node
    status = node.status()
    told = attrs.evolve(status, failure_tolerance=left, replica=attrs.evolve(status.replica, leader="a"))
    assert headline(node, told) == says


def test_what_is_wrong_and_what_to_do() -> None:
    node = NodeHarness("b", THREE).node
    status = node.status()
    lags = attrs.evolve(status.replica, lag_slots={"a": 5000, "c": 3})
    told = attrs.evolve(
        status,
        replica=lags,
        unheard=["c"],
        refuses={"a": "it came back with another data folder"},
        refused_by={"c": "unknown"},
        clock_offsets_seconds={"a": -7.0, "c": 0.1},
        keys_expire_in_seconds=86_400.0 * 3,
    )
    assert troubles(node, told) == [
        "b does not hear c: look at that machine and at the network",
        "b refuses a: it came back with another data folder",
        "c refuses b: unknown",
        "a is 5000 slots behind",
        "the clock of a is 7.0 s behind: set it",
        "the certificate of b expires in 3 days: issue a new one",
    ]
    assert troubles(node, status) == []
