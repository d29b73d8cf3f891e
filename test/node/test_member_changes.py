"""Members join, leave and move while their nodes run: what the nodes, their streams and their stores do about it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import RecordingStore, error_of, outcome_of, unpack
from test.node.snapshots.test_coordinator import POLICY, Ledger, fill
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.config import Limits
from txpaxos.core.messages import NodeId
from txpaxos.core.ready import Voter
from txpaxos.errors import MembersRefused, NodeStopped, NotTheLeader, RemovedFromCluster
from txpaxos.wire.members import AddMember, MoveMember, PromoteMember, RemoveMember, ReplaceMember, SetPriority
from txpaxos.wire.peer_messages import Removed

FIVE = Cluster(
    "test",
    {
        node: Member(Address(f"127.0.0.{number}", 4001), Address(f"127.0.0.{number}", 5001))
        for number, node in enumerate("abcde", 1)
    },
)


FIVE = attrs.evolve(FIVE, founding={node: FIVE.members[node] for node in "abc"})


class ChangingNodes(ConnectedNodes):
    """Nodes a, b and c, which found the cluster, and d and e, which may join it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(FIVE, absent="de", **options)

    def _known(self, node: NodeId, votes: bool) -> list[Any]:
        return [Voter(("a", "b", "c"))] if node in "abc" else []

    def cluster_of(self, node: NodeId) -> Cluster:
        nodes = [*"abc", *([node] if node in "de" else [])]
        return attrs.evolve(FIVE, members={one: FIVE.members[one] for one in nodes})

    def leader_now(self) -> Any:
        """The node that leads now, after any election."""
        assert self.reactor.spend(10.0, lambda: any(node._replica.is_leader for node in self.nodes.values()))
        return next(node for node in self.nodes.values() if node._replica.is_leader)

    def add(self, node: NodeId, **fields: Any) -> Deferred[Any]:
        """Start ``node`` with an empty store, and ask the leader to add it."""
        self.start(node)
        one = FIVE.members[node]
        request = AddMember(node, str(one.address), str(one.client), self.stores[node].incarnation, **fields)
        answer: Deferred[Any] = self.leader_now().change_members(request)
        return answer

    def agreed(self, *nodes: NodeId, seconds: float = 10.0) -> bool:
        """Whether all running ``nodes`` come to know the same members."""
        running = [self.nodes[node] for node in nodes]
        return self.reactor.spend(seconds, lambda: len({repr(node.members.entry) for node in running}) == 1)


@pytest.fixture
def nodes() -> ChangingNodes:
    nodes = ChangingNodes()
    nodes.lead()
    return nodes


def submit(nodes: ChangingNodes, command: bytes) -> None:
    """Have ``command`` applied, by whatever node leads."""
    nodes.wait(nodes.leader_now().submit(command))


def test_a_node_joins_and_is_made_a_voter_when_it_has_caught_up(nodes: ChangingNodes) -> None:
    submit(nodes, b"before")
    slot, entry = nodes.wait(nodes.add("d"))
    assert slot
    assert entry.members["d"].role == "joining"
    assert nodes.reactor.spend(10.0, lambda: nodes.nodes["d"].members.entry.voters == ("a", "b", "c", "d"))
    assert nodes.agreed("a", "b", "c", "d")
    assert nodes.reactor.spend(10.0, lambda: nodes.nodes["d"]._replica.votes)
    submit(nodes, b"after")
    assert nodes.reactor.spend(10.0, lambda: len(nodes.nodes["d"].application.applied) == 2)
    assert nodes.nodes["d"].application.applied == nodes.nodes["a"].application.applied


def test_its_vote_counts(nodes: ChangingNodes) -> None:
    nodes.add("d")
    assert nodes.reactor.spend(10.0, lambda: nodes.nodes["d"]._replica.votes)
    leader = nodes.leader_now().name
    gone = next(node for node in "abc" if node != leader)
    nodes.kill(gone)
    submit(nodes, b"three of four")
    nodes.kill(leader)
    assert not nodes.reactor.spend(3.0, lambda: any(node._replica.is_leader for node in nodes.nodes.values()))


def test_a_learner_never_votes(nodes: ChangingNodes) -> None:
    nodes.wait(nodes.add("d", role="learner"))
    assert not nodes.reactor.spend(3.0, lambda: nodes.nodes["d"]._replica.votes)
    nodes.wait(nodes.leader_now().change_members(PromoteMember("d")))
    assert nodes.reactor.spend(3.0, lambda: nodes.nodes["d"]._replica.votes)


def test_a_removed_node_stops_and_is_not_started_again(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    gone = next(node for node in "abc" if node != leader.name)
    node = nodes.nodes[gone]
    failed = outcome_of(node.failed)
    nodes.wait(leader.change_members(RemoveMember(gone)))
    assert nodes.reactor.spend(10.0, lambda: failed)
    with pytest.raises(RemovedFromCluster, match=f"node {gone} was removed from the cluster at slot"):
        unpack(failed)
    store = nodes.stores[gone]
    with pytest.raises(RemovedFromCluster, match="this folder is not needed any more"):
        RecordingStore(saved=store.saved, files=store.files).load()


def test_a_node_that_was_down_when_it_was_removed_learns_it_when_it_comes_back(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    gone = next(node for node in "abc" if node != leader.name)
    nodes.kill(gone)
    nodes.wait(leader.change_members(RemoveMember(gone)))
    ballot = leader._replica.log.promised
    nodes.stores[gone] = RecordingStore(saved=nodes.stores[gone].saved, files=nodes.stores[gone].files)
    nodes.start(gone)
    failed = outcome_of(nodes.nodes[gone].failed)
    assert nodes.reactor.spend(10.0, lambda: failed)
    with pytest.raises(RemovedFromCluster):
        unpack(failed)
    assert nodes.leader_now() is leader
    assert leader._replica.log.promised == ballot


def test_a_former_member_is_sent_away_only_by_a_node_that_knows_that_the_change_is_complete(
    nodes: ChangingNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the former member may be the only node but one that has what was chosen last."""
    leader = nodes.leader_now()
    gone, follower = nodes.followers()
    nodes.kill(gone.name)
    nodes.wait(leader.change_members(RemoveMember(gone.name)))
    assert nodes.reactor.spend(5.0, lambda: not follower._replica.membership.is_changing)
    sent: list[tuple[NodeId, object]] = []
    for node in (leader, follower):
        former = node._former_members
        monkeypatch.setattr(former, "_send", lambda to, message, node=node: sent.append((node.name, message)))
        assert former.turns_away(gone.name, nodes.reactor.seconds())
    assert sent == [(leader.name, Removed(leader.members.slot))]
    for number in range(follower.settings.limits.ahead_slots):
        submit(nodes, b"%d" % number)
    former = follower._former_members
    assert nodes.reactor.spend(5.0, lambda: former.turns_away(gone.name, nodes.reactor.seconds()) and len(sent) > 1)
    assert sent[1][0] == follower.name


def test_a_member_that_moves_keeps_its_role(nodes: ChangingNodes) -> None:
    leader, follower = nodes.leader_now(), nodes.followers()[0]
    before = leader.members.entry.members[follower.name]
    nodes.wait(leader.change_members(MoveMember(follower.name, "127.0.0.9:4001", "127.0.0.9:5001")))
    moved = attrs.evolve(before, address="127.0.0.9:4001", client="127.0.0.9:5001")
    assert leader.members.entry.members[follower.name] == moved


def test_a_dead_node_is_replaced_in_one_step(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    gone = next(node for node in "abc" if node != leader.name)
    nodes.kill(gone)
    nodes.add("d", replaces=gone)
    voters = tuple(sorted({*"abcd"} - {gone}))
    assert nodes.reactor.spend(10.0, lambda: nodes.nodes["d"].members.entry.voters == voters)
    assert leader.members.entry.retired == (gone,)
    submit(nodes, b"after")


def test_members_survive_a_restart_and_the_cluster_file_does_not_matter_any_more(nodes: ChangingNodes) -> None:
    nodes.add("d")
    assert nodes.reactor.spend(10.0, lambda: nodes.nodes["d"]._replica.votes)
    assert nodes.agreed("a", "b", "c", "d")
    for node in "abcd":
        nodes.restart(node)
    submit(nodes, b"after")
    assert nodes.agreed("a", "b", "c", "d")
    assert nodes.leader_now().members.entry.voters == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (RemoveMember("x"), "there is no member 'x'"),
        (PromoteMember("a"), None),
        (ReplaceMember("a", "b"), "b is a voter already"),
        (SetPriority("x", 3), "there is no member"),
        (MoveMember("a", "127.0.0.2:4001", "127.0.0.9:1"), "is an address of b"),
        (AddMember("a", "127.0.0.9:1", "127.0.0.9:2", 99), "a is a member, with another data folder"),
        (AddMember("x y", "127.0.0.9:1", "127.0.0.9:2", 99), "no name of a node"),
        (AddMember("x", "nowhere", "127.0.0.9:2", 99), "is no address"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(nodes: ChangingNodes, request_: Any, reason: str | None) -> None:
    leader = nodes.leader_now()
    answer = leader.change_members(request_)
    if reason is None:
        nodes.wait(answer)
    else:
        error = error_of(answer)
        assert isinstance(error, MembersRefused)
        assert reason in str(error)
    nodes.reactor.spend(1.0)
    assert [node._applier.registers.sealed_at for node in nodes.nodes.values()] == [0] * 3, "nothing else is done"


def test_a_change_waits_until_the_registers_are_in_the_log(nodes: ChangingNodes) -> None:
    """The majorities of the new members need have no node in common with those that decided registers."""
    leader = nodes.leader_now()
    others = [node for node in nodes.followers() if node is not leader]
    for node in others:
        node._sealing.is_voter = False  # So that neither tells what it has voted for.
    asked = [
        outcome_of(leader.change_members(SetPriority(others[0].name, 3))),
        outcome_of(leader.change_members(SetPriority(others[1].name, 4))),
    ]
    nodes.reactor.spend(2.0)
    assert asked == [[], []]
    assert leader.members.slot == 0
    others[0]._sealing.is_voter = True
    assert nodes.reactor.spend(5.0, lambda: all(asked))
    assert 0 < leader._applier.registers.sealed_at < leader.members.slot
    assert [leader.members.entry.members[node.name].priority for node in others] == [3, 4]


def test_a_change_that_waits_for_the_registers_ends_with_the_node(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    for node in nodes.followers():
        node._sealing.is_voter = False
    answer = outcome_of(leader.change_members(SetPriority(leader.name, 3)))
    nodes.reactor.spend(0.1)
    leader.stop()
    with pytest.raises(NodeStopped):
        unpack(answer)


def test_a_change_that_would_cost_the_quorum_is_refused(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    dead, alive = [node for node in "abc" if node != leader.name]
    nodes.kill(dead)
    nodes.reactor.spend(2.0)
    with pytest.raises(MembersRefused, match="no majority would be up and level"):
        nodes.wait(leader.change_members(RemoveMember(alive)))
    assert leader._applier.registers.sealed_at == 0, "nothing else is done"
    nodes.wait(leader.change_members(RemoveMember(dead)))


def test_only_the_leader_changes_members(nodes: ChangingNodes) -> None:
    follower = nodes.followers()[0]
    assert "does not lead" in str(error_of(follower.change_members(RemoveMember("a"))))


@pytest.mark.parametrize("change", [RemoveMember, lambda node: SetPriority(node, 0)])
def test_a_leader_that_may_not_lead_then_hands_over_first(nodes: ChangingNodes, change: Any) -> None:
    submit(nodes, b"before")
    leader = nodes.leader_now()
    leader.failed.addErrback(lambda _: None)
    request = change(leader.name)
    with pytest.raises(NotTheLeader, match="has handed over the lead to"):
        nodes.wait(leader.change_members(request))
    assert nodes.leader_now() is not leader
    nodes.wait(nodes.leader_now().change_members(request))
    submit(nodes, b"after")
    assert nodes.leader_now() is not leader


def test_a_leader_that_leads_again_knows_that_its_last_change_is_complete(nodes: ChangingNodes) -> None:
    first = nodes.leader_now()
    nodes.wait(first.change_members(SetPriority("a", 5)))
    other = next(node for node in "abc" if node != first.name)
    nodes.wait(first.hand_over(other))
    nodes.wait(nodes.nodes[other].hand_over(first.name))
    nodes.wait(first.change_members(SetPriority("a", 1)))


def test_a_leader_that_no_other_can_follow_is_not_removed(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    for node in leader.members.others:
        nodes.wait(leader.change_members(SetPriority(node, 0)))
    with pytest.raises(MembersRefused, match="no voter would be left that may lead"):
        nodes.wait(leader.change_members(RemoveMember(leader.name)))


def test_a_mistyped_address_costs_no_quorum(nodes: ChangingNodes) -> None:
    """The node is never heard, so it stays what it is: a member that learns."""
    leader = nodes.leader_now()
    nodes.wait(leader.change_members(AddMember("x", "127.0.0.99:1", "127.0.0.99:2", 5)))
    nodes.reactor.spend(5.0)
    assert leader.members.entry.members["x"].role == "joining"
    submit(nodes, b"two of three")
    nodes.wait(leader.change_members(RemoveMember("x")))


def test_the_first_change_names_the_folders_of_the_founders_that_vote(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    down = next(node for node in "abc" if node != leader.name)
    nodes.reactor.spend(1.0)
    nodes.kill(down)
    nodes.reactor.spend(2.0)
    _, entry = nodes.wait(leader.change_members(SetPriority(leader.name, 5)))
    known = {node: one.incarnation for node, one in entry.members.items()}
    assert known.pop(down) == 0
    assert set(known.values()) == {nodes.stores["a"].incarnation}


def test_a_change_is_answered_when_the_members_that_leave_are_not_needed_any_more(nodes: ChangingNodes) -> None:
    """A majority of those that stay has on disk by then all that was chosen before they alone govern."""
    leader = nodes.leader_now()
    gone = next(node for node in "abc" if node != leader.name)
    nodes.nodes[gone].failed.addErrback(lambda _: None)
    learned: list[int] = []

    def look(answer: Any) -> Any:
        learned.extend(nodes.nodes[node]._replica.log.learned_through for node in "abc" if node != gone)
        return answer

    slot, _ = nodes.wait(leader.change_members(RemoveMember(gone)).addCallback(look))
    assert min(learned) >= slot + Limits().window_slots - 1


def test_a_node_that_joins_by_a_snapshot_knows_the_members_that_are_in_it() -> None:
    nodes = ChangingNodes(application=Ledger, snapshot_policy=POLICY)
    nodes.lead()
    nodes.add("d")
    assert nodes.reactor.spend(10.0, lambda: nodes.nodes["d"]._replica.votes)
    fill(nodes, 50, nodes.leader_now)
    assert nodes.leader_now()._replica.log.first_slot > nodes.leader_now().members.slot
    nodes.add("e")
    assert nodes.reactor.spend(20.0, lambda: nodes.nodes["e"]._replica.votes)
    application = nodes.nodes["e"].application
    assert len(application.lines) == 50
    assert len(application.applied) < 25, "the rest is from the snapshot"
    assert nodes.agreed("a", "b", "c", "d", "e")
    assert nodes.leader_now().members.entry.voters == ("a", "b", "c", "d", "e")


def test_a_node_that_has_not_caught_up_is_made_no_voter(nodes: ChangingNodes) -> None:
    nodes.wait(nodes.add("d", role="learner"))
    nodes.kill("d")
    nodes.reactor.spend(2.0)
    with pytest.raises(MembersRefused, match="d has not caught up yet, or is not heard"):
        nodes.wait(nodes.leader_now().change_members(PromoteMember("d")))


def test_a_member_that_is_said_to_be_removed_and_knows_better_goes_on(nodes: ChangingNodes) -> None:
    leader = nodes.leader_now()
    slot, _ = nodes.wait(leader.change_members(SetPriority(leader.name, 5)))
    assert nodes.agreed("a", "b", "c")
    node = nodes.followers()[0]
    node._receive(leader.name, Removed(slot))
    assert node.status().counters["removal_of_a_member"] == 1
    submit(nodes, b"after")
