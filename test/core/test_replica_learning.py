"""How one node keeps leadership or loses it, follows, learns what is chosen and asks for what it misses."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest

from test.core.test_replica import ONE, THREE, TWO, leader, make, told, vote
from test.helpers.core_cluster import CoreCluster, ManualNetwork
from test.helpers.core_node import campaign, elect, sent, settle
from txpaxos.core.config import Limits, Timing
from txpaxos.core.drops import Drop
from txpaxos.core.membership import Configuration
from txpaxos.core.messages import (
    LOWEST,
    NO_OP,
    Accepted,
    AcceptedSlot,
    AcceptSlot,
    Ballot,
    ChosenValues,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    LogMessage,
    Nack,
    NodeId,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
    Slot,
    Vote,
)
from txpaxos.core.ready import (
    Chosen,
    Envelope,
    LeadershipChanged,
    LeadershipLost,
    Learned,
)
from txpaxos.core.replica import Replica

LONGEST = Timing().liveness_window_seconds[1]


# ----------------------------------------------------------- leading, and not


class TestLosingLeadership:
    def test_refusals_of_a_quorum(self) -> None:
        replica = leader()
        nack = Nack(Ballot(1, "a"), THREE)
        assert replica.receive("b", nack, 1.1).leadership == ()
        ready = replica.receive("c", nack, 1.1)
        assert ready.leadership == (LeadershipLost(Ballot(1, "a")), LeadershipChanged("a", None))
        assert replica.status().open_slots == 0
        assert not replica.has_room
        assert sent(campaign(replica, 2.0), PrepareLog) == [PrepareLog(Ballot(4, "a"), 1)]

    def test_refusals_of_some_make_it_run_again_if_a_quorum_backs_it(self) -> None:
        replica = leader()
        replica.receive("c", Nack(Ballot(1, "a"), THREE), 1.05)
        ready = replica.tick(1.1)
        assert sent(ready, Heartbeat)
        (pre_vote,) = sent(ready, PreVote)
        assert replica.election.is_leader
        ready = replica.receive("b", PreVoteGranted(pre_vote.sequence), 1.1)
        assert sent(ready, PrepareLog) == [PrepareLog(Ballot(4, "a"), 1)]
        assert LeadershipLost(Ballot(1, "a")) in ready.leadership
        assert replica.status().open_slots == 0, "they come back with the promises"

    @pytest.mark.parametrize("message", [Heartbeat(TWO), AcceptSlot(TWO, 1, b"v")])
    def test_higher_leader(self, message: LogMessage) -> None:
        replica = leader()
        ready = replica.receive("b", message, 1.1)
        assert ready.leadership == (LeadershipLost(Ballot(1, "a")), LeadershipChanged("a", "b"))
        assert vote(replica, 1, "c").chosen == (), "late votes for what it proposed count no longer"

    def test_silence_of_a_quorum(self) -> None:
        replica = leader()
        replica.receive("b", HeartbeatAck(Ballot(1, "a"), 0, 0), 1.5)
        assert sent(replica.tick(1.5 + LONGEST), Heartbeat)
        ready = replica.tick(1.6 + LONGEST)
        assert LeadershipLost(Ballot(1, "a")) in ready.leadership

    def test_own_votes_are_no_sign_of_life(self) -> None:
        """Trap 8: the leader is in its quorum once, however often it votes."""
        replica = leader()
        settle(replica, replica.propose(b"v", 1.5), 1.5)
        replica.tick(1.5)
        assert LeadershipLost(Ballot(1, "a")) in replica.tick(1.1 + LONGEST).leadership

    def test_acknowledgement_of_another_ballot_is_none(self) -> None:
        replica = leader()
        replica.receive("b", HeartbeatAck(Ballot(0, "a"), 0, 1), 1.5)
        assert replica.dropped[Drop.ACKNOWLEDGEMENT_OF_ANOTHER_BALLOT] == 1
        assert LeadershipLost(Ballot(1, "a")) in replica.tick(1.1 + LONGEST).leadership

    def test_deposed_leader_says_of_nothing_that_it_is_chosen(self) -> None:
        """What a later ballot chose may reach a leader that is one no longer and does not know it. In its own ballot it
        must not say that this is chosen: others voted for something else there, in that very ballot."""
        network = stale_leader()
        network.tick("a")
        network.deliver(Heartbeat, "a", "b")
        assert network.chosen["b"] in ([], [NO_OP], [NO_OP, NO_OP])

    def test_deposed_leader_proposes_nothing_where_all_is_chosen(self) -> None:
        """The same again, with more chosen than it ever proposed itself."""
        network = stale_leader(b"x", b"y")
        replica = network.nodes["a"]
        if replica.has_room:  # it may also have noticed
            (accept,) = sent(network.propose("a", b"z"), AcceptSlot)
            assert accept.slot > replica.log.chosen_through

    @pytest.mark.parametrize("how", ["values", "snapshot"])
    def test_a_leader_that_learns_that_it_was_deposed_proposes_nothing_more(self, how: str) -> None:
        """It had more to propose again than its window holds, and is told that all of that is chosen. What it has left
        to propose is no business of its own any more, and lies where all is chosen."""
        votes = tuple(Vote(slot, Ballot(0, "c"), b"%d" % slot) for slot in range(1, 13))
        replica = leader(PromiseLog(LOWEST, 1, (), votes))
        if how == "values":
            ready = replica.receive("c", ChosenValues(1, tuple(vote.value for vote in votes), 12), 1.1)
        else:
            ready = replica.install(10, 1.1)
        assert LeadershipLost(ONE) in ready.leadership
        assert sent(ready, AcceptSlot) == []


def stale_leader(*more: bytes) -> ManualNetwork:
    """Five nodes. "a" leads and proposes v at slot 3 to itself and "b"; "c" leads above it, unheard of by both, and has
    w chosen there, and ``more`` above; then an answer to an old question brings all that to "a"."""
    network = ManualNetwork(5)
    network.lead("e", "c", "d", "e")
    network.choose("e", "c", "d", "e")
    network.deliver(Heartbeat, "e", "a")
    network.now += 0.1
    network.take("a", network.nodes["a"].tick(network.now))  # asks "e" for slot 1, and does not get through for long
    network.lead("a", "a", "b", "c")
    network.propose("a", b"v")
    network.deliver(AcceptSlot, "a", "a", "b")
    network.lead("c", "c", "d", "e")
    for value in (b"w", *more):
        network.propose("c", value)
    network.choose("c", "c", "d", "e")
    network.deliver(Heartbeat, "c", "e")
    network.deliver(Fetch, "a", "e")
    network.deliver(ChosenValues, "e", "a")
    assert network.ledger.chosen[3] == b"w"
    return network


class TestFollowing:
    def test_acknowledges_a_heartbeat_that_asks_for_it(self) -> None:
        replica = make(saved=(Learned(1, (b"x",)),))
        ready = replica.receive("a", Heartbeat(ONE, 1, 7), 0.0)
        assert ready.send == (Envelope(("a",), HeartbeatAck(ONE, 1, 7)),)
        assert replica.receive("a", Heartbeat(ONE, 1), 0.0).send == (), "a notice asks for none"

    def test_learns_by_heartbeat_or_by_the_next_accept(self) -> None:
        for message in (Heartbeat(ONE, 1), AcceptSlot(ONE, 2, b"w", 1)):
            replica = make()
            replica.receive("a", AcceptSlot(ONE, 1, b"v"), 0.0)
            ready = replica.receive("a", message, 0.0)
            assert told(ready) == [(1, b"v")]
            assert not [record for record in ready.save if isinstance(record, Learned)], "its vote says it already"

    def test_vote_of_another_ballot_is_not_taken_for_chosen(self) -> None:
        """Design rule 6: it asks instead."""
        replica = make()
        replica.receive("a", AcceptSlot(ONE, 1, b"never chosen"), 0.0)
        ready = replica.receive("c", Heartbeat(THREE, 1), 0.0)
        assert told(ready) == []
        assert ready.wake_at is not None
        assert replica.tick(ready.wake_at).send == (Envelope(("c",), Fetch(1)),)

    def test_vote_and_leader_of_the_same_ballot_but_a_gap_below(self) -> None:
        replica = make()
        replica.receive("a", AcceptSlot(ONE, 2, b"w"), 0.0)
        assert told(replica.receive("a", Heartbeat(ONE, 2), 0.0)) == []
        assert told(replica.receive("a", ChosenValues(1, (b"v",), 1), 0.0)) == [(1, b"v")]
        assert told(replica.receive("a", Heartbeat(ONE, 2), 0.0)) == [(2, b"w")]

    def test_repeated_prepare_buys_no_more_time(self) -> None:
        """Trap 20: a candidate that cannot hear asks for ever."""
        replica = make()
        due = replica.receive("c", PrepareLog(THREE, 1), 0.0).wake_at
        assert replica.receive("c", PrepareLog(THREE, 1), 0.1).wake_at == due


# ------------------------------------------------------------ reconciliation


def behind() -> tuple[Replica, float]:
    """Node "b", which its leader "a" told that three slots are chosen, and when it is about to ask for them."""
    replica = make()
    ready = replica.receive("a", Heartbeat(ONE, 3), 0.0)
    assert ready.send == (), "it may just have been overtaken by the heartbeat"
    assert ready.wake_at is not None
    return replica, ready.wake_at


class TestFetching:
    def test_asks_the_one_who_said_so(self) -> None:
        replica, due = behind()
        assert replica.tick(due).send == (Envelope(("a",), Fetch(1)),)
        ready = replica.receive("a", ChosenValues(1, (b"x", b"y", b"z"), 3), due)
        assert ready.save == (Learned(1, (b"x", b"y", b"z")),)
        assert told(ready) == [(1, b"x"), (2, b"y"), (3, b"z")]
        assert ready.send == ()
        assert ready.wake_at == replica.election.wake_at

    def test_asks_for_nothing_that_came_by_itself(self) -> None:
        replica, due = behind()
        for slot in (1, 2, 3):
            replica.receive("a", AcceptSlot(ONE, slot, b"%d" % slot), 0.0)
        replica.receive("a", Heartbeat(ONE, 3), 0.0)
        assert replica.tick(due).send == ()
        assert replica.log.chosen_through == 3

    def test_page_by_page(self) -> None:
        replica, due = behind()
        replica.tick(due)
        ready = replica.receive("a", ChosenValues(1, (b"x", b"y"), 3), due)
        assert ready.send == (Envelope(("a",), Fetch(3)),), "the next page at once"
        assert told(replica.receive("a", ChosenValues(3, (b"z",), 3), due)) == [(3, b"z")]

    def test_asks_another_node_when_none_answers(self) -> None:
        """With back-off; and not the same one for ever."""
        replica, now = behind()
        asked: list[NodeId] = []
        times: list[float] = []
        while len(asked) < 20:
            ready = replica.tick(now)
            asked += [envelope.to[0] for envelope in ready.send if isinstance(envelope.message, Fetch)]
            times.append(now)
            replica.receive("a", Heartbeat(ONE, 3), now)
            assert ready.wake_at is not None
            now = ready.wake_at
        assert set(asked) == {"a", "c"}
        assert asked[0] == "a"
        assert times[-1] - times[-2] <= Timing().retry_seconds_max * 1.25
        assert times[-1] > 5.0

    def test_values_partly_known_are_taken_from_where_they_are_new(self) -> None:
        replica = make(saved=(Learned(1, (b"x", b"y")),))
        ready = replica.receive("a", ChosenValues(1, (b"x", b"y", b"z"), 3), 0.0)
        assert ready.save == (Learned(3, (b"z",)),)
        assert told(ready) == [(3, b"z")]

    @pytest.mark.parametrize("first_slot", [1, 4])
    def test_values_known_or_above_a_gap_are_dropped(self, first_slot: Slot) -> None:
        replica = make(saved=(Learned(1, (b"x", b"y")),))
        ready = replica.receive("a", ChosenValues(first_slot, (b"x", b"y"), 9), 0.0)
        assert (ready.save, ready.chosen) == ((), ())
        assert replica.dropped[Drop.VALUES_KNOWN_OR_ABOVE_A_GAP] == 1

    def test_answers_within_limits(self) -> None:
        saved = (Learned(1, (b"aaaa", b"bbbb", b"cccc", b"dddd")),)
        for limits in (Limits(fetch_values=2), Limits(fetch_bytes=9)):
            replica = make(saved=saved, limits=limits)
            assert sent(replica.receive("c", Fetch(2), 0.0), ChosenValues) == [ChosenValues(2, (b"bbbb", b"cccc"), 4)]

    def test_what_is_not_here_is_not_answered(self) -> None:
        replica = make(saved=(Learned(1, (b"x",)),))
        assert replica.receive("c", Fetch(2), 0.0).send == ()
        assert replica.dropped[Drop.FETCH_OF_UNKNOWN_SLOTS] == 1


# ------------------------------------------------------------------- the rest


def test_after_a_hint_its_source_is_asked_and_not_often() -> None:
    """The sender may not be that node at all."""
    replica = make()
    ready = replica.receive_hint("c", 1.0)
    assert (ready.send, ready.save) == ((Envelope(("c",), Fetch(1)),), ())
    assert replica.receive_hint("c", 1.04).send == ()
    assert replica.receive_hint("a", 1.04).send == (Envelope(("a",), Fetch(1)),)
    assert replica.receive_hint("c", 1.06).send == (Envelope(("c",), Fetch(1)),)


def test_strangers_and_strange_messages_are_dropped_and_counted() -> None:
    """Trap 8."""
    replica = leader()
    before = attrs.asdict(replica.status())
    for message in (AcceptedSlot(Ballot(1, "a"), 1), PrepareLog(Ballot(9, "x"), 1), Heartbeat(Ballot(9, "x"), 5)):
        ready = replica.receive("x", message, 1.0)
        assert (ready.save, ready.send, ready.chosen, ready.leadership) == ((), (), (), ())
    ready = replica.receive("b", Accepted(Ballot(1, "a"), b"of a single decree"), 1.0)
    assert (ready.save, ready.send, ready.chosen) == ((), (), ())
    assert attrs.asdict(replica.status()) == before | {"dropped": {"not_from_a_member": 3, "not_about_the_log": 1}}


def test_a_node_that_is_no_member_learns_and_starts_nothing() -> None:
    replica = make("x")
    assert not replica.votes
    assert {type(envelope.message) for envelope in replica.tick(100.0).send} == {Fetch}
    ready = replica.receive("a", PrepareLog(Ballot(1, "a"), 1), 100.0)
    assert (ready.save, ready.send) == ((), ())
    assert replica.receive("a", ChosenValues(1, (b"x",), 1), 100.0).chosen == (Chosen(1, b"x"),)


def test_a_node_that_stands_for_no_election_and_hears_no_leader_asks_what_is_chosen() -> None:
    """The leader may have moved, or be another, by an entry that this node misses. It asks one node after the other,
    once in a liveness window, and none any more as soon as a leader is heard."""
    replica = make("x")
    asked, times, now = set(), [], 0.0
    while now < 10.0:
        now = replica.wake_at
        for envelope in replica.tick(now).send:
            assert envelope.message == Fetch(1)
            asked |= {*envelope.to}
            times.append(now)
    assert asked == {"a", "b", "c"}
    assert 20 <= len(times) <= 40
    for beat in range(1, 20):
        assert replica.receive("a", Heartbeat(Ballot(1, "a"), 0, beat), now + 0.1 * beat).send != ()
        assert replica.tick(now + 0.1 * beat).send == ()


def test_a_node_that_is_alone_and_never_leads_asks_no_node() -> None:
    alone = Configuration(0, ("a",), priorities=(("a", 0),))
    replica = Replica("a", "a", Random(1), 0.0, configurations=[alone])
    assert replica.tick(100.0).send == ()


def test_status() -> None:
    replica = make("a")
    status = replica.status()
    assert (status.node, status.role, status.leader, status.promised) == ("a", "follower", None, LOWEST)
    replica.tick(1.0)
    assert replica.status().role == "pre-candidate"
    campaign(replica, 1.0)
    assert replica.status().role == "candidate"
    elect(replica := make("a"), 1.0)
    vote(replica, 1, "b")
    settle(replica, replica.propose(b"v", 1.0), 1.0)
    replica.receive("c", HeartbeatAck(Ballot(1, "a"), 0, 0), 1.0)
    status = replica.status()
    assert (status.role, status.ballot, status.leader, status.promised) == ("leader", ONE, "a", ONE)
    assert (status.chosen_through, status.open_slots, status.lag_slots) == (1, 1, {"c": 1})
    replica.receive("b", Heartbeat(Ballot(2, "b"), 1), 1.0)
    assert replica.status().lag_slots == {}, "only a leader hears that"


def test_alone() -> None:
    """One node is a quorum: everything it says goes to itself."""
    cluster = CoreCluster(1, nodes=1)
    assert cluster.run(0.01, cluster.leader)
    assert cluster.propose(b"v")
    cluster.run(0.0)
    assert cluster.values("a") == [NO_OP, b"v"]
    cluster.stop("a")
    cluster.start("a")
    cluster.run(2.0)
    assert cluster.values("a")[:2] == [NO_OP, b"v"]
    assert cluster.leader() == "a", "and it does not depose itself"


def test_recovered_values_are_for_an_application_that_starts_anew() -> None:
    replica = make(saved=(Learned(1, (b"x", NO_OP)),))
    assert replica.recovered() == (Chosen(1, b"x"), Chosen(2, NO_OP))


def test_time_has_any_origin() -> None:
    """Trap 15, the core's part of it: only differences count, so the wall clock is of no consequence."""
    histories: list[Any] = []
    for origin in (-4096.0, 0.0, 2.0**20):
        cluster = CoreCluster(3, now=origin)
        for turn in range(20):
            cluster.run(0.25)
            cluster.propose(b"%d" % turn)
        histories.append((cluster.leader(), cluster.values("a")))
    assert histories[0] == histories[1] == histories[2]
    assert len(histories[0][1]) > 15
