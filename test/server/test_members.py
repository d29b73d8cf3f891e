"""What a node tells its clients of the members, and the changes of members that clients ask for."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest
from twisted.internet.defer import Deferred

from test.helpers.client_port_harness import FakeClient
from test.helpers.fakes import ONE, THREE, NodeHarness
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import Ballot, Heartbeat
from txpaxos.errors import MembersRefused
from txpaxos.node.members import Members as KnownMembers
from txpaxos.server.client_port import ClientPort
from txpaxos.server.member_changes import PROGRESS_SECONDS, LeadLost, Tell
from txpaxos.server.members_report import Entry, NodeMembers
from txpaxos.wire.client_messages import (
    CONTACTS_MAX,
    ChangeAnswer,
    ChangeMembers,
    ChangeProgress,
    Contact,
    FromClient,
    Members,
    MembersAnswer,
    MembersRequest,
    Refused,
    Welcome,
)
from txpaxos.wire.members import MemberEntry, Role

PROMOTE = ChangeMembers(7, "promote", "d")


class ChangingMembers:
    """Members that the test changes."""

    def __init__(self, **entries: Entry) -> None:
        self.slot = 0
        self.entries = dict(entries)
        self.retired: list[str] = []
        self._watchers: list[Callable[[], None]] = []

    def watch(self, watcher: Callable[[], None]) -> None:
        self._watchers.append(watcher)

    def change(self, slot: int, **entries: Entry) -> None:
        self.slot, self.entries = slot, dict(entries)
        for watcher in self._watchers:
            watcher()


class ManualChanger:
    """A node whose changes the test makes."""

    def __init__(self) -> None:
        self.is_leader = True
        self.asked: list[tuple[ChangeMembers, Tell, Deferred[str]]] = []

    def change(self, request: ChangeMembers, tell: Tell) -> Deferred[str]:
        self.asked.append((request, tell, Deferred()))
        return self.asked[-1][2]


@attrs.define
class Port:
    """The client port of a node that leads alone."""

    node: NodeHarness = attrs.field(factory=lambda: NodeHarness("a", ONE))
    members: ChangingMembers = attrs.field(factory=lambda: ChangingMembers(a=entry(1)))
    changer: ManualChanger = attrs.field(factory=ManualChanger)
    port: ClientPort = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.port = ClientPort(self.node.node, self.members, self.changer)
        self.node.reactor.idle()

    def client(self, *messages: FromClient) -> FakeClient:
        client = FakeClient(self.port)
        client.heard()
        client.say(*messages)
        return client


def entry(number: int, role: Role = "voter") -> Entry:
    return MemberEntry(f"10.0.0.{number}:4000", f"10.0.0.{number}:5000", role)


def contact(node: str, number: int, role: str = "voter") -> Contact:
    return Contact(node, f"10.0.0.{number}:5000", role)


@pytest.fixture
def port() -> Port:
    return Port()


# ---------------------------------------------------------- who the members are


def test_each_client_is_told_at_once_and_once_when_they_change(port: Port) -> None:
    early, gone = FakeClient(port.port), FakeClient(port.port)
    gone.disconnect()
    port.members.change(9, a=entry(1), d=entry(4, "learner"))
    late = FakeClient(port.port)
    assert [type(one) for one in early.heard()] == [type(one) for one in late.heard()] == [Welcome]
    before = Members(0, (contact("a", 1),))
    after = Members(9, (contact("a", 1), contact("d", 4, "learner")))
    assert (early.members, late.members) == ([before, after], [after])
    gone.heard()
    assert gone.members == [before]


def test_a_client_that_does_not_read_is_told_the_newest_when_it_reads(port: Port) -> None:
    client = port.client()
    client.connection.pauseProducing()
    for slot in range(1, 1000):
        port.members.change(slot, a=entry(1))
    assert (client.heard(), client.members[1:]) == ([], [])
    client.connection.resumeProducing()
    assert (client.heard(), client.members[1:]) == ([], [Members(999, (contact("a", 1),))])


def test_a_node_with_a_cluster_file_tells_that_with_the_names_as_they_are_written() -> None:
    """A client looks the names up itself."""
    named = Member(Address("10.0.0.2", 4000, "b.example.org"), Address("10.0.0.2", 5000, "b.example.org"))
    cluster = Cluster("test", {**THREE.members, "b": named})
    members = NodeMembers(KnownMembers("a", cluster), cluster)
    assert members.entries["b"] == MemberEntry("b.example.org:4000", "b.example.org:5000")
    assert members.entries["a"] == MemberEntry("10.0.0.1:4000", "10.0.0.1:5000")
    client = FakeClient(ClientPort(NodeHarness("b").node))
    client.heard()
    assert client.members == [Members(0, (contact("a", 1), contact("b", 2), contact("c", 3)))]


def test_a_node_that_joins_does_not_take_itself_for_a_voter() -> None:
    """Until its log says who the members are, it tells what it was told when it joined."""
    joining = Member(Address("10.0.0.4", 4000), Address("10.0.0.4", 5000))
    cluster = Cluster("test", {**THREE.members, "d": joining}, THREE.members, 40, ("d",))
    known = KnownMembers("d", cluster)
    members = NodeMembers(known, cluster)
    roles = {"a": "voter", "b": "voter", "c": "voter", "d": "learner"}
    for slot in (0, 39):  # Its log begins before it was a member.
        known.slot = slot
        assert (members.slot, {node: one.role for node, one in members.entries.items()}) == (40, roles)
    known.slot = 40
    assert (members.slot, members.entries) == (40, known.entry.members)


def test_more_members_than_fit(port: Port) -> None:
    """Voters are told first."""
    learners = {f"l{number}": entry(number, "learner") for number in range(1, CONTACTS_MAX + 5)}
    port.members.change(9, **learners, a=entry(1))
    client = port.client()
    (told,) = client.members
    assert (len(told.members), told.members[0]) == (CONTACTS_MAX, contact("a", 1))


def test_a_leader_that_is_no_member_as_far_as_the_node_knows() -> None:
    """The node lags behind."""
    harness = NodeHarness("b")
    client = FakeClient(ClientPort(harness.node, ChangingMembers(b=entry(2), c=entry(3))))
    harness.reactor.idle()
    harness.hear("a", Heartbeat(Ballot(1, "a"), 0, 1))
    harness.reactor.idle()
    assert client.heard()[-1] == Welcome("b", "a", None, 0, 0.25, takes_withdrawals=True)


def test_report(port: Port) -> None:
    """Any node answers at once."""
    port.members.change(9, a=entry(1), d=MemberEntry("10.0.0.4:4000", "10.0.0.4:5000", "learner", 255, 3))
    port.members.retired.append("b")
    (answer,) = port.client(MembersRequest(5)).heard()
    assert isinstance(answer, MembersAnswer)
    assert (answer.request, json.loads(answer.members)) == (
        5,
        {
            "cluster": "test",
            "slot": 9,
            "leader": "a",
            "members": {
                "a": {
                    "address": "10.0.0.1:4000",
                    "client": "10.0.0.1:5000",
                    "role": "voter",
                    "incarnation": None,
                    "priority": 1,
                },
                "d": {
                    "address": "10.0.0.4:4000",
                    "client": "10.0.0.4:5000",
                    "role": "learner",
                    "incarnation": "00000000000000ff",
                    "priority": 3,
                },
            },
            "retired": ["b"],
        },
    )


# -------------------------------------------------------------- changes of them


def spend(port: Port, seconds: float) -> None:
    port.node.reactor.spend(seconds)


def test_a_change_and_its_progress(port: Port) -> None:
    """The last line is repeated, so that the client sees that the leader is at work."""
    client = port.client(PROMOTE)
    ((request, tell, done),) = port.changer.asked
    assert request == attrs.evolve(PROMOTE, request=0)
    assert client.heard() == []
    tell("d has 40 of 44 slots")
    assert client.heard() == [ChangeProgress(7, "d has 40 of 44 slots")]
    spend(port, 3.5 * PROGRESS_SECONDS)
    assert client.heard() == [ChangeProgress(7, "d has 40 of 44 slots")] * 3
    done.callback("d is a voter")
    assert client.heard() == [ChangeAnswer(7, "d is a voter")]
    spend(port, 10.0)
    assert client.heard() == []
    port.port.budget.check()


def test_a_change_that_is_refused(port: Port) -> None:
    client = port.client(PROMOTE)
    port.changer.asked[0][2].errback(MembersRefused("d is no learner"))
    assert client.heard() == [Refused(7, "MembersRefused", "d is no learner")]


def test_a_node_that_does_not_lead_waits_until_it_does(port: Port) -> None:
    port.changer.is_leader = False
    stays, goes = port.client(PROMOTE), port.client(ChangeMembers(8, "remove", "c"))
    goes.disconnect()
    spend(port, 60.0)
    assert (port.changer.asked, stays.heard()) == ([], [])
    port.changer.is_leader = True
    port.port._leader_changed()
    ((request, _, done),) = port.changer.asked
    assert request.action == "promote"
    done.errback(LeadLost())
    assert [one for one in stays.heard() if not isinstance(one, Welcome)] == []
    port.port._leader_changed()
    port.changer.asked[1][2].callback("d is a voter")
    assert stays.heard()[-1] == ChangeAnswer(7, "d is a voter")


def test_a_change_that_is_asked_for_twice_is_made_once(port: Port) -> None:
    """The client had lost its connection."""
    first = port.client(PROMOTE)
    first.disconnect()
    second, third = port.client(attrs.evolve(PROMOTE, request=1)), port.client(ChangeMembers(2, "promote", "e"))
    assert [request.node for request, _, _ in port.changer.asked] == ["d", "e"]
    port.changer.asked[0][1]("d has 40 of 44 slots")
    port.changer.asked[0][2].callback("d is a voter")
    assert second.heard() == [ChangeProgress(1, "d has 40 of 44 slots"), ChangeAnswer(1, "d is a voter")]
    assert third.heard() == []


@pytest.mark.parametrize("result", ["d is a voter", MembersRefused("no"), LeadLost()])
def test_a_change_whose_client_is_gone_goes_on(port: Port, result: str | Exception) -> None:
    client = port.client(PROMOTE)
    client.disconnect()
    _, tell, done = port.changer.asked[0]
    tell("d has 40 of 44 slots")
    done.callback(result)  # type: ignore[arg-type]  # An exception is made a Failure.
    port.client(PROMOTE)
    assert len(port.changer.asked) == 2


def test_nothing_is_told_after_the_port_has_stopped(port: Port) -> None:
    client = port.client(PROMOTE)
    port.changer.asked[0][1]("d has 40 of 44 slots")
    client.heard()
    port.port.stop()
    spend(port, 10.0)
    assert client.heard() == []
