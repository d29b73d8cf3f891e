"""What a leader does while members change, one replica driven by hand: the founders are a, b and c, and b leads."""

from __future__ import annotations

from random import Random

import pytest

from test.helpers.changing_cluster import change_of, value_of
from test.helpers.core_node import elect, sent, settle
from txpaxos.core.config import Limits
from txpaxos.core.drops import Drop
from txpaxos.core.membership import Change, Configuration, Membership
from txpaxos.core.messages import (
    LOWEST,
    NO_OP,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    HeartbeatAck,
    NodeId,
    PrepareLog,
    PromiseLog,
    ReadIndexRequest,
    Slot,
    Vote,
)
from txpaxos.core.read_index import ReadIndexServer
from txpaxos.core.ready import ChangeCompleted, Chosen, Configured, Learned, LearnedThrough, Ready
from txpaxos.core.replica import Replica

ALPHA = Limits().window_slots
EARLIER = Ballot(1, "a")
NOW = 1.0


def leader_after(report: PromiseLog) -> tuple[Replica, list[Ready]]:
    """b, which leads because a has promised with that ``report``, and its Readys since then."""
    replica = Replica("b", "abc", Random(1), 0.0, change_of=change_of)
    readys = elect(replica, NOW, report)
    return replica, readys


def vote_for(replica: Replica, voter: NodeId, *slots: Slot) -> list[Ready]:
    """Let ``voter`` accept what ``replica`` has proposed at ``slots``."""
    readys = []
    for slot in slots:
        vote = AcceptedSlot(replica.election.own_ballot, slot)
        readys += settle(replica, replica.receive(voter, vote, NOW), NOW)
    return readys


def hear(replica: Replica, node: NodeId, chosen_through: Slot) -> Ready:
    """Let ``node`` answer a heartbeat of ``replica``."""
    return replica.receive(node, HeartbeatAck(replica.election.own_ballot, chosen_through, 0), NOW)


def proposed(readys: list[Ready]) -> dict[Slot, bytes]:
    """What the Readys propose, by slot."""
    return {message.slot: message.value for ready in readys for message in sent(ready, AcceptSlot)}


def asked(readys: list[Ready]) -> set[NodeId]:
    """The nodes that the Readys ask for promises."""
    return {
        node
        for ready in readys
        for envelope in ready.send
        if isinstance(envelope.message, PrepareLog)
        for node in envelope.to
    }


class TestNewMembersHaveToPromise:
    """An earlier leader changed the members to b, d and e, and no node but a knows that. Then it had a value chosen
    with d, at a slot that b, d and e govern. b learns of the change when it has it chosen again; of the value only from
    d or e."""

    def begin(self) -> tuple[Replica, list[Ready]]:
        replica, _ = leader_after(PromiseLog(LOWEST, 1, (), (Vote(1, EARLIER, value_of(0, "bde")),)))
        return replica, vote_for(replica, "a", 1)

    def test_no_slot_that_they_govern_is_open_before(self) -> None:
        replica, readys = self.begin()
        assert [type(one) for ready in readys for one in ready.chosen if isinstance(one, Configured)] == [Configured]
        assert asked(readys) == {"d", "e"}
        assert max(proposed(readys)) == ALPHA
        assert not proposed(vote_for(replica, "a", *range(2, ALPHA + 1)))
        assert replica.log.chosen_through == ALPHA
        assert not replica.has_room

    def test_they_are_asked_again(self) -> None:
        replica, _ = self.begin()
        vote_for(replica, "a", *range(2, ALPHA + 1))
        hear(replica, "d", 1)
        now = replica.election.wake_at
        assert asked([replica.tick(now)]) == {"d", "e"}

    def test_what_they_accepted_is_proposed_again(self) -> None:
        replica, _ = self.begin()
        vote_for(replica, "a", *range(2, ALPHA + 1))
        assert proposed(self.promise(replica)) == {ALPHA + 1: b"acknowledged", ALPHA + 2: NO_OP}

    def test_no_read_is_served_before(self) -> None:
        replica, _ = self.begin()
        vote_for(replica, "a", *range(2, ALPHA + 1))
        replica.receive("d", ReadIndexRequest(1), NOW)
        assert replica.dropped[Drop.READ_INDEX_REQUEST_TOO_EARLY] == 1
        self.promise(replica)
        replica.receive("d", ReadIndexRequest(1), NOW)
        assert replica.dropped[Drop.READ_INDEX_REQUEST_TOO_EARLY] == 2, "what d accepted may be acknowledged"
        vote_for(replica, "d", ALPHA + 1, ALPHA + 2)
        replica.receive("d", ReadIndexRequest(1), NOW)
        assert replica.dropped[Drop.READ_INDEX_REQUEST_TOO_EARLY] == 2

    def test_one_of_too_few_opens_nothing(self) -> None:
        replica, _ = leader_after(PromiseLog(LOWEST, 1, (), (Vote(1, EARLIER, value_of(0, "bdefg")),)))
        vote_for(replica, "a", *range(1, ALPHA + 1))
        assert not proposed(self.promise(replica))
        promise = PromiseLog(replica.election.own_ballot, ALPHA + 1)
        assert proposed(settle(replica, replica.receive("e", promise, NOW), NOW))

    def test_a_promise_that_shows_another_leader_s_value_counts_for_nothing(self) -> None:
        replica, _ = self.begin()
        vote_for(replica, "a", *range(2, ALPHA + 1))
        promise = PromiseLog(replica.election.own_ballot, ALPHA + 1, (b"chosen by d and e",))
        assert not proposed(settle(replica, replica.receive("d", promise, NOW), NOW))
        assert not replica.is_leader
        assert replica.log.chosen_through == ALPHA + 1
        assert replica.level_nodes(NOW) == set()

    def promise(self, replica: Replica) -> list[Ready]:
        """Let d promise, and tell what it has accepted."""
        votes = (Vote(ALPHA + 1, EARLIER, b"acknowledged"),)
        promise = PromiseLog(replica.election.own_ballot, ALPHA + 1, (), votes)
        return settle(replica, replica.receive("d", promise, NOW), NOW)


def test_a_leader_that_learns_of_a_change_and_that_it_was_deposed_asks_for_no_promises() -> None:
    replica, _ = leader_after(PromiseLog(LOWEST, 1))
    ready = replica.receive("a", ChosenValues(1, (NO_OP, value_of(0, "bde")), 2), NOW)
    assert not replica.is_leader
    assert not asked([ready])


def test_a_vote_counts_only_where_its_voter_governs() -> None:
    """d and e are voters of the next configuration. They are sent no proposal before it governs; so such a vote is a
    lie."""
    replica, _ = leader_after(PromiseLog(LOWEST, 1, (), (Vote(1, EARLIER, value_of(0, "bde")),)))
    vote_for(replica, "a", 1)
    vote_for(replica, "d", 2)
    vote_for(replica, "e", 2)
    assert replica.log.chosen_through == 1
    vote_for(replica, "c", 2)
    assert replica.log.chosen_through == 2


class TestAChangeThatAnEarlierLeaderBegan:
    """The change is chosen at slot 1: members are a, b and d then."""

    def begin(self) -> tuple[Replica, list[Ready]]:
        return leader_after(PromiseLog(LOWEST, 1, (value_of(0, "abd"),)))

    def test_comes_into_force_though_no_command_comes(self) -> None:
        _, readys = self.begin()
        assert proposed(readys) == dict.fromkeys(range(2, 2 + ALPHA), NO_OP)

    def test_is_complete_when_a_majority_of_the_new_voters_has_learned_what_was_before(self) -> None:
        replica, _ = self.begin()
        readys = vote_for(replica, "a", *range(2, ALPHA + 1))
        assert [record for ready in readys for record in ready.save if isinstance(record, LearnedThrough)] == [
            LearnedThrough(ALPHA)
        ]
        assert not replica.membership.is_changing
        for node, slot in (("c", ALPHA), ("d", ALPHA - 1), ("a", ALPHA - 1)):
            readys.append(hear(replica, node, slot))
        assert not any(ready.answers for ready in readys)
        assert hear(replica, "d", ALPHA).answers == (ChangeCompleted(1),)
        assert hear(replica, "a", ALPHA).answers == (), "that is said once"


def test_a_node_goes_by_the_members_of_a_snapshot_that_it_installs() -> None:
    replica = Replica("d", "abc", Random(1), 0.0, change_of=change_of)
    assert not replica.votes
    replica.install(50, NOW, (Configuration(30, ("a", "b", "d")),))
    assert replica.membership.newest.slot == 30
    assert replica.votes


@pytest.mark.parametrize(("first", "second"), [("a", "d"), ("d", "a")])
def test_a_read_is_confirmed_by_a_majority_of_both_configurations(first: NodeId, second: NodeId) -> None:
    membership = Membership("b", [Configuration(0, ("a", "b", "c"))], ALPHA, 20)
    membership.note(21, Change(0, ("b", "d", "e")))
    server = ReadIndexServer(membership)
    assert server.request("a", 7, 20, last_sequence=0)
    assert server.observe_answer(first, 1, last_sequence=1) == ([], False)
    settled, _ = server.observe_answer(second, 1, last_sequence=1)
    assert [(one.client, one.number) for one in settled] == [("a", 7)]


def test_a_restart_recovers_the_configurations_that_were_chosen() -> None:
    """Each is told right before the value that made it. One that came too late makes none."""
    entry, late = value_of(0, "abd"), value_of(0, "abe")
    saved = (Learned(1, (b"v", entry, late, b"w")),)
    replica = Replica("b", "abc", Random(1), 0.0, saved, change_of=change_of)
    configuration = Configuration(2, ("a", "b", "d"))
    assert replica.recovered() == (
        Chosen(1, b"v"),
        Configured(configuration, entry),
        Chosen(2, entry),
        Chosen(3, late),
        Chosen(4, b"w"),
    )
    assert replica.membership.newest == configuration
    assert replica.membership.governing(1 + ALPHA).voters == ("a", "b", "c")
    assert replica.membership.governing(2 + ALPHA).voters == ("a", "b", "d")
