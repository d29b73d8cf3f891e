"""Members come and go: what makes a quorum slot by slot, and agreement through any series of changes."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from test.helpers.changing_cluster import ALPHA, ChangingCluster, change_of, value_of
from test.helpers.core_cluster import Faults
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.membership import Change, Configuration, Membership
from txpaxos.core.messages import MEMBERS_BYTE, NO_OP, Ballot, ChosenValues, Fetch, Heartbeat, HeartbeatAck
from txpaxos.core.read_index import ReadIndexServer
from txpaxos.core.replica import Replica

THREE = Configuration(0, ("a", "b", "c"))
FAULTS = Faults(loss=0.1, doubled=0.1, delay_seconds=(0.001, 0.05))


class TestMembership:
    def test_a_configuration_governs_from_alpha_slots_on(self) -> None:
        membership = Membership("a", [THREE], ALPHA, 20)
        four = membership.note(21, Change(0, ("a", "b", "c", "d")))
        assert four is not None
        assert [membership.governing(slot) for slot in (22, 28, 29, 40)] == [THREE, THREE, four, four]

    def test_a_quorum_holds_a_majority_of_both_until_the_newer_governs_alone(self) -> None:
        membership = Membership("a", [THREE], ALPHA, 20)
        membership.note(21, Change(0, ("a", "d", "e")))
        assert not membership.is_quorum({"a", "b"})
        assert not membership.is_quorum({"a", "d"})
        assert not membership.is_quorum({"a", "d", "e"}), "of all five, but not of the older three"
        assert membership.is_quorum({"a", "b", "d"})
        membership.advance(27)
        assert membership.is_changing
        membership.advance(28)
        assert not membership.is_changing
        assert membership.is_quorum({"a", "d"})
        assert membership.others == ("d", "e")

    def test_learners_are_sent_to_and_never_counted(self) -> None:
        membership = Membership("a", [Configuration(0, ("a", "b", "c"), ("d", "e"))], ALPHA)
        assert membership.others == ("b", "c", "d", "e")
        assert not membership.is_quorum({"a", "d", "e"})
        assert not Membership("d", [Configuration(0, ("a",), ("d",))], ALPHA).is_voter

    @pytest.mark.parametrize(
        ("slot", "change"),
        [
            (30, Change(0, ("a", "b"))),  # Made for the founders; another was chosen since.
            (24, Change(20, ("a", "b"))),  # Too soon.
            (30, Change(20, ())),
        ],
    )
    def test_a_change_that_does_not_count_changes_nothing(self, slot: int, change: Change) -> None:
        membership = Membership("a", [Configuration(20, ("a", "b", "c"))], ALPHA, 22)
        assert membership.note(slot, change) is None
        assert membership.configurations == [Configuration(20, ("a", "b", "c"))]

    def test_a_snapshot_without_members_is_a_broken_invariant(self) -> None:
        membership = Membership("a", [THREE], ALPHA)
        with pytest.raises(BrokenInvariant):
            membership.replace([], 5)
        assert membership.newest is THREE

    def test_a_voter_that_never_campaigns(self) -> None:
        membership = Membership("a", [Configuration(0, ("a", "b"), (), (("a", 0),))], ALPHA)
        assert membership.is_voter
        assert not membership.may_lead

    def test_whether_the_others_are_a_quorum_without_this_node(self) -> None:
        assert not Membership("a", [THREE], ALPHA).needs_own_vote
        assert Membership("a", [Configuration(0, ("a", "b"))], ALPHA).needs_own_vote


class TestReadsDuringAChange:
    """Leader a takes a request at slot 10. Then {a, b, d} is chosen at slot 11, and everything up to slot 18."""

    def setup_method(self) -> None:
        self.membership = Membership("a", [Configuration(0, ("a", "b", "c"), ("d",))], ALPHA, 10)
        self.reads = ReadIndexServer(self.membership)
        assert self.reads.request("x", 1, 10, last_sequence=3)
        assert self.membership.note(11, Change(0, ("a", "b", "d")))

    def test_both_configurations_confirm(self) -> None:
        assert not self.reads.observe_answer("d", 4, 4)[0]
        assert not self.reads.observe_answer("c", 3, 4)[0]
        (confirmed,), _ = self.reads.observe_answer("b", 4, 4)
        assert confirmed.read_index == 10

    def test_the_newer_one_alone_does_not_confirm_what_was_asked_before(self) -> None:
        """Another leader, which b and c promised, may have answered for slots up to 18 before a was asked."""
        self.membership.advance(18)
        assert not self.reads.observe_answer("d", 4, 4)[0]
        assert self.reads.request("x", 1, 18, last_sequence=4), "the client asks again"
        (confirmed,), _ = self.reads.observe_answer("d", 5, 5)
        assert confirmed.read_index == 18


def run_until(cluster: ChangingCluster, what: str, seconds: float = 10.0) -> None:
    """Run until ``what`` holds, an expression over the cluster; fail if it does not."""
    done = cluster.run(seconds, lambda: eval(what, {"cluster": cluster}))
    assert done, (what, [replica.status() for replica in cluster.nodes.values()])


def change(cluster: ChangingCluster, voters: str, learners: str = "") -> None:
    """Have the members changed, and wait until the change is complete."""
    for _ in range(100):
        if cluster.newest().voters == tuple(voters) and cluster.newest().learners == tuple(learners):
            break
        cluster.change(voters, learners)
        cluster.run(0.1)
    slot = cluster.newest().slot
    assert cluster.newest().voters == tuple(voters)
    assert cluster.run(5.0, lambda: slot in cluster.completed), [one.status() for one in cluster.nodes.values()]


def choose(cluster: ChangingCluster, value: bytes) -> None:
    """Have ``value`` chosen."""
    for _ in range(100):
        if value in cluster.ledger.chosen.values():
            return
        cluster.propose(value)
        cluster.run(0.1)
    raise AssertionError([one.status() for one in cluster.nodes.values()])


def test_three_become_five_and_three_others() -> None:
    """All founders are destroyed as soon as the changes without them are complete; nothing is lost."""
    cluster = ChangingCluster(1)
    choose(cluster, b"first")
    change(cluster, "abc", "de")
    change(cluster, "abcd", "e")
    change(cluster, "abcde", "f")
    choose(cluster, b"of five")
    change(cluster, "bcde", "f")
    cluster.destroy("a")
    change(cluster, "cdef")
    cluster.destroy("b")
    change(cluster, "def")
    cluster.destroy("c")
    choose(cluster, b"of others")
    run_until(cluster, "all(len(cluster.chosen[node]) == len(cluster.ledger.chosen) for node in 'def')")
    for node in "def":
        values = [value for value in cluster.values(node) if value != NO_OP and value[:1] != MEMBERS_BYTE]
        assert list(dict.fromkeys(values)) == [b"first", b"of five", b"of others"]


def test_a_leader_that_is_removed_steps_down_and_another_leads() -> None:
    for seed in range(20):
        cluster = ChangingCluster(seed)
        choose(cluster, b"first")
        leader = cluster.leader()
        assert leader is not None
        rest = [node for node in "abc" if node != leader]
        change(cluster, "".join(rest))
        assert cluster.run(5.0, lambda: cluster.leader() in rest)  # noqa: B023
        assert not cluster.nodes[leader].is_leader
        ballot = max(cluster.nodes[node].log.promised for node in rest)
        cluster.run(5.0)
        assert max(cluster.nodes[node].log.promised for node in rest) == ballot, "the removed node disturbs no other"


def test_a_leader_that_leads_again_says_again_that_the_change_is_complete() -> None:
    """The rest of its node has forgotten that it was said, for another leader may have changed the members since."""
    cluster = ChangingCluster(1)
    choose(cluster, b"first")
    change(cluster, "a", "b")
    slot = cluster.newest().slot
    cluster.completed.clear()
    cluster.take("a", cluster.nodes["a"].suspend(cluster.now))
    cluster.take("a", cluster.nodes["a"].resume(cluster.now))
    assert cluster.leader() is None
    assert cluster.run(5.0, lambda: slot in cluster.completed)


def test_a_change_that_was_made_for_earlier_members_changes_none() -> None:
    """It is chosen as any value, and every node passes over it."""
    cluster = ChangingCluster(2)
    choose(cluster, b"first")
    change(cluster, "abd")
    slot = cluster.newest().slot
    assert cluster.propose(value_of(0, "abe"), cluster.leader())
    choose(cluster, b"last")
    assert value_of(0, "abe") in cluster.ledger.chosen.values()
    assert cluster.newest().slot == slot
    assert {node.membership.newest.voters for node in cluster.nodes.values() if node.log.chosen_through > slot} == {
        ("a", "b", "d")
    }


def test_one_alone_becomes_three_and_one_again() -> None:
    cluster = ChangingCluster(3)
    choose(cluster, b"first")
    change(cluster, "ab")
    change(cluster, "a")
    choose(cluster, b"alone")
    cluster.destroy("b")
    cluster.destroy("c")
    choose(cluster, b"still")
    change(cluster, "ad")
    change(cluster, "ade")
    choose(cluster, b"three")


@pytest.mark.no_cover  # Under coverage it would take three times as long.
@pytest.mark.parametrize("crash", [0.0, 0.01])
def test_changes_under_loss_partitions_and_crashes(crash: float) -> None:
    """Random changes one after the other while values are proposed. A member that was removed is destroyed, with its
    disk, once the change is complete. What the ledger holds all along: no slot has two values."""
    for seed in range(40):
        cluster = ChangingCluster(seed, Faults(0.1, 0.1, (0.001, 0.05), crash, (0.0, 0.01)))
        run_changes(cluster)
        cluster.heal()
        members = cluster.newest().voters
        assert cluster.run(20.0, lambda: cluster.leader() in members), seed  # noqa: B023
        choose(cluster, b"at the end")
        assert cluster.run(
            20.0,
            lambda: all(len(cluster.chosen[node]) == len(cluster.ledger.chosen) for node in cluster.newest().voters),  # noqa: B023
        ), (seed, [one.status() for one in cluster.nodes.values()])
        histories = {tuple(cluster.configured[node]) for node in cluster.newest().voters}
        assert len(histories) == 1, "all members know the same history of configurations"


def run_changes(cluster: ChangingCluster) -> None:
    """Six seconds of proposals, cuts and changes of members."""
    rng = cluster.rng
    for turn in range(60):
        cluster.run(0.1)
        for node in cluster.members:
            cluster.propose(f"{node}{turn}".encode(), node)
        newest = cluster.newest()
        if rng.random() < 0.1:
            cluster.cut.clear()
            if rng.random() < 0.5:
                cluster.cut_off(rng.choice(newest.voters))
        if newest.slot in cluster.completed:
            for node in cluster.retired() - cluster.destroyed:
                if rng.random() < 0.2:
                    cluster.destroy(node)
        fresh = [node for node in cluster.members if node not in cluster.retired()]
        if rng.random() < 0.3 and (not newest.slot or newest.slot in cluster.completed):
            voters = set(newest.voters)
            others = [node for node in fresh if node not in voters]
            if others and (len(voters) < 4 or rng.random() < 0.3):
                voters.add(rng.choice(others))
            if len(voters) > 3 or (len(voters) > 2 and rng.random() < 0.3):
                voters.discard(rng.choice(sorted(voters)))
            if voters != set(newest.voters):
                cluster.change(sorted(voters), [node for node in fresh if node not in voters][:2])


@pytest.mark.no_cover  # Under coverage it would take three times as long.
def test_no_slot_beyond_alpha_is_proposed_or_reproposed() -> None:
    """A leader proposes no slot before it knows that all up to alpha below are chosen, whatever was reported to it."""
    for seed in range(20):
        cluster = ChangingCluster(seed, FAULTS)
        sent: list[int] = []
        sending = cluster.sending

        def check(node: str, message: object, sending=sending, sent=sent) -> None:  # type: ignore[no-untyped-def]
            sending(node, message)
            slot = getattr(message, "slot", None)
            through = getattr(message, "chosen_through", None)
            if slot is not None and through is not None:
                sent.append(slot - through)

        cluster.sending = check  # type: ignore[method-assign]
        run_changes(cluster)
        assert sent
        assert max(sent) <= ALPHA


def test_a_member_that_was_away_during_several_changes_finds_those_that_lead_now() -> None:
    """Of the members that it knows only a follower is left, which sends nothing by itself."""
    cluster = ChangingCluster(5)
    choose(cluster, b"first")
    away = next(node for node in "abc" if node != cluster.leader())
    cluster.stop(away)
    gone, stays = [node for node in "abc" if node != away]
    change(cluster, f"{stays}{away}{gone}d")
    change(cluster, f"{stays}{away}de")
    while cluster.leader() == stays:
        cluster.cut_off(stays)
        cluster.run(2.0)
        cluster.cut.clear()
        cluster.run(1.0)
    cluster.destroy(gone)
    known, cluster.members = cluster.members, tuple("abc")  # It has heard of no other node.
    cluster.start(away)
    cluster.members = known
    choose(cluster, b"later")
    assert cluster.run(10.0, lambda: b"later" in cluster.values(away))


def test_a_pre_candidate_that_is_no_voter_any_more_waits_for_a_leader() -> None:
    replica = Replica("c", "abc", Random(1), 0.0, change_of=change_of)
    replica.membership.admit_contacts("d")
    replica.tick(1.0)
    assert replica.status().role == "pre-candidate"
    values = (value_of(0, "ab"), *[NO_OP] * ALPHA)
    replica.receive("a", ChosenValues(1, values, len(values)), 1.0)
    assert not replica.votes
    ready = replica.tick(replica.wake_at)
    assert [type(envelope.message) for envelope in ready.send] == [Fetch]
    assert replica.wake_at > 1.0
    assert replica.tick(replica.wake_at - 0.001).send == ()


def test_a_node_that_joins_acknowledges_heartbeats_before_it_knows_that_it_is_a_member() -> None:
    """Otherwise a leader does not hear it while it takes a snapshot. Nothing of it is counted."""
    replica = Replica("d", "abc", Random(1), 0.0, votes=False, change_of=change_of)
    replica.membership.admit_contacts("abc")
    ready = replica.receive("a", Heartbeat(Ballot(3, "a"), 50, 7), 1.0)
    assert ready.send[-1].message == HeartbeatAck(Ballot(3, "a"), 0, 7)
    newcomer = Replica("c", "abc", Random(1), 0.0, votes=False)
    assert newcomer.receive("a", Heartbeat(Ballot(3, "a"), 0, 7), 1.0).send == ()


def test_a_learner_asks_the_members_of_its_file_when_those_of_its_log_are_gone() -> None:
    replica = Replica("f", "abc", Random(1), 0.0, votes=False, change_of=change_of)
    replica.membership.admit_contacts("cfg", 130)
    asked: set[str] = set()
    for _ in range(40):
        ready = replica.tick(replica.wake_at)
        asked.update(*(envelope.to for envelope in ready.send if isinstance(envelope.message, Fetch)))
    assert asked == set("abcg")


def test_members_that_others_told_of_count_until_this_node_knows_as_much() -> None:
    membership = Membership("f", [Configuration(0, tuple("abc"))], ALPHA)
    membership.admit_contacts("cfg", 14)
    assert (membership.sources, membership.senders) == (tuple("abcg"), frozenset("abcfg"))
    membership.note(5, Change(0, tuple("abd")))
    membership.advance(5 + ALPHA)
    assert membership.sources == tuple("abdcg")
    membership.note(14, Change(5, tuple("adf")))
    membership.advance(14 + ALPHA)
    assert (membership.sources, membership.senders) == (tuple("ad"), frozenset("adf"))


def test_how_many_voters_may_be_lost() -> None:
    """Checked against each choice of those that are lost."""

    def by_choice(membership: Membership, nodes: str) -> int:
        newest = membership.newest

        def goes_on(left: set[str]) -> bool:
            return membership.is_quorum(left) and any(one in newest.voters and newest.priority(one) for one in left)

        lost = (
            n for n in range(len(nodes) + 1) if not all(goes_on({*nodes} - {*one}) for one in combinations(nodes, n))
        )
        return next(lost) - 1

    alone = Configuration(0, tuple("abcde"), tuple("fg"))
    never_lead = Configuration(0, tuple("abc"), priorities=(("b", 0), ("c", 0)))
    later = Configuration(3, tuple("cde"), tuple("ab"))
    for configurations in ([alone], [never_lead], [alone, later], [never_lead, later]):
        membership = Membership("a", configurations, ALPHA)
        for size in range(8):
            for nodes in combinations("abcdefg", size):
                told = membership.spare_voters(set(nodes))
                voters = {one for configuration in configurations for one in configuration.voters}
                assert told == by_choice(membership, "".join(one for one in nodes if one in voters)), nodes
