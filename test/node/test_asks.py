"""Ask and forget at nodes: decided once, linearizable, nothing saved by reads, kept in snapshots, forgotten once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from test.core.test_forged import forge
from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import (
    ONE,
    SESSION,
    NodeHarness,
    Reactor,
    Recorder,
    RecordingStore,
    RecordingTransport,
    alone,
    error_of,
    node_of,
    outcome_of,
    restarted,
    submit,
)
from txpaxos.core.messages import Ballot, Proposal
from txpaxos.core.ready import DecreeState, SubjectState, Voter
from txpaxos.errors import NoQuorum, OutcomeUnknown, Overloaded, ValueTooLarge
from txpaxos.node.counts import Count, Labelled
from txpaxos.node.snapshots.taking import Policy
from txpaxos.protocol import PaxosProtocol
from txpaxos.testing.older_registers import voted_state
from txpaxos.wire.commands import COMMAND_BYTES_MAX
from txpaxos.wire.peer_messages import REGISTER_VOTES_BYTES, CollectRegisters, RegisterVote, RegisterVotes

OFTEN = Policy(300)
LOW = Ballot(1, "a")


class Watcher(PaxosProtocol):
    """An application without ``apply``, which only looks at registers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []

    def value_chosen(self, subject: str, value: bytes) -> None:
        self.told.append((subject, value))


def ask(harness: NodeHarness, subject: str, value: bytes | None = None) -> Any:
    answer = outcome_of(harness.node.ask(subject, value))
    harness.reactor.spend(0.2)
    (result,) = answer
    return result


def forget(harness: NodeHarness, subject: str, *session: Any) -> Any:
    answer = outcome_of(harness.node.forget(subject, None, *session))
    harness.reactor.spend(0.2)
    (result,) = answer
    return result


def saves(harness: NodeHarness) -> int:
    return [name for name, _ in harness.events].count("save")


class TestAtOneNode:
    def test_reading_saves_nothing(self) -> None:
        harness = alone()
        assert [ask(harness, "king"), ask(harness, "king", b"Arthur")] == [None, b"Arthur"]
        before = saves(harness)
        assert [ask(harness, "king"), ask(harness, "king", b"Mordred"), ask(harness, "queen")] == [
            b"Arthur",
            b"Arthur",
            None,
        ]
        assert saves(harness) == before

    def test_what_is_forgotten_is_decided_anew(self) -> None:
        harness = alone()
        assert forget(harness, "king") is None
        ask(harness, "king", b"Arthur")
        assert forget(harness, "king") == b"Arthur"
        assert [ask(harness, "king"), ask(harness, "king", b"Mordred")] == [None, b"Mordred"]
        assert harness.application.told.count(("chosen", "king", b"Arthur")) == 1
        assert harness.application.told.count(("chosen", "king", b"Mordred")) == 1

    def test_a_call_that_is_sent_again_forgets_once(self) -> None:
        harness = alone()
        ask(harness, "king", b"Arthur")
        assert forget(harness, "king", SESSION, 1) == b"Arthur"
        ask(harness, "king", b"Mordred")
        assert forget(harness, "king", SESSION, 1) == b"Arthur"
        assert ask(harness, "king") == b"Mordred"
        assert forget(harness, "king", SESSION, 2) == b"Mordred"

    def test_the_application_applies_no_command_of_the_registers(self) -> None:
        harness = alone()
        ask(harness, "king", b"Arthur")
        assert submit(harness, b"x") == ["x@1"]

    @pytest.mark.parametrize("size", [COMMAND_BYTES_MAX, 1, 0])
    def test_the_longest_value(self, size: int) -> None:
        harness = alone()
        assert ask(harness, "k" * 512, bytes(size)) == bytes(size)
        again = restarted(harness)
        again.reactor.idle()
        assert again.node._applier.registers.get("k" * 512) == bytes(size)

    @pytest.mark.parametrize("subject", ["", "k" * 513, "ö" * 257])
    def test_a_name_that_is_too_short_or_too_long(self, subject: str) -> None:
        harness = alone()
        for answer in (harness.node.ask(subject), harness.node.ask(subject, b"x"), harness.node.forget(subject)):
            assert isinstance(error_of(answer), ValueTooLarge)

    def test_calls_before_the_start_wait_for_it(self) -> None:
        harness = NodeHarness("b")
        harness.node.stop()
        assert error_of(harness.node.ask("king", b"x")).args
        assert error_of(harness.node.forget("king")).args

    def test_too_many_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("txpaxos.node.reads.WAITING_MAX", 1)
        harness = NodeHarness("b")
        harness.node.ask("king").addErrback(lambda _: None)
        assert isinstance(error_of(harness.node.ask("queen")), Overloaded)

    def test_no_quorum_answers_in_time(self) -> None:
        harness = NodeHarness("b")
        asked = [
            harness.node.ask("king", None, 0.5),
            harness.node.ask("king", b"x", 0.5),
            harness.node.forget("king", 0.5),
        ]
        harness.reactor.spend(1.0)
        assert [type(error_of(one)) for one in asked] == [NoQuorum, OutcomeUnknown, OutcomeUnknown]

    def test_a_session_that_is_forgotten_does_not_matter(self) -> None:
        """Each session forgets the one before, the session of the node's own commands among them."""
        harness = alone(sessions_max=1)
        for number in range(3):
            outcome_of(harness.node.submit(b"x"))
            harness.reactor.idle()
            assert ask(harness, f"king {number}", b"Arthur") == b"Arthur"


class TestAfterARestart:
    def test_decided_registers_come_from_the_log(self) -> None:
        harness = alone()
        ask(harness, "king", b"Arthur")
        ask(harness, "queen", b"Guinevere")
        forget(harness, "queen")
        again = restarted(harness)
        again.reactor.idle()
        assert again.application.told.count(("chosen", "king", b"Arthur")) == 1
        assert [ask(again, "king", b"Mordred"), ask(again, "queen")] == [b"Arthur", None]

    def test_decided_registers_come_from_a_snapshot(self) -> None:
        harness = alone(application=Watcher, snapshot_policy=OFTEN)
        ask(harness, "king", b"Arthur")
        ask(harness, "queen", b"Guinevere")
        forget(harness, "queen")
        for number in range(20):
            ask(harness, f"knight {number}", b"x" * 50)
        assert harness.store.snapshot is not None
        store = RecordingStore(saved=harness.store.saved, files=harness.store.files)
        watcher, reactor = Watcher(), Reactor()
        node = node_of(watcher, reactor, "a", ONE, store, rng=Random(2), snapshot_policy=OFTEN)
        assert watcher.told[0] == ("king", b"Arthur")
        assert "queen" not in dict(watcher.told)
        assert len(watcher.told) == len(set(watcher.told)) >= 10
        node.start(RecordingTransport())
        asked = [outcome_of(node.ask("king", b"Mordred")), outcome_of(node.ask("queen"))]
        reactor.spend(1.0)
        assert asked == [[b"Arthur"], [None]]


class TestTogether:
    def test_all_nodes_give_the_same_answer(self) -> None:
        cluster = ConnectedNodes()
        cluster.lead()
        asked: list[list[Any]] = [outcome_of(node.ask("king", name.encode())) for name, node in cluster.nodes.items()]
        cluster.reactor.spend(2.0)
        (king,) = {one[0] for one in asked}
        assert {cluster.wait(node.ask("king")) for node in cluster.nodes.values()} == {king}
        for node in cluster.nodes.values():
            assert [fact for fact in node.application.told if fact[0] == "chosen"] == [("chosen", "king", king)]

    def test_a_follower_that_is_cut_off_tells_nothing_old(self) -> None:
        """It knows the register as decided, and cannot know that it was forgotten."""
        cluster = ConnectedNodes()
        leader = cluster.lead()
        away, other = cluster.followers()
        cluster.wait(away.ask("king", b"Arthur"))
        cluster.cut_off(away.name)
        assert cluster.wait(leader.forget("king")) == b"Arthur"
        assert cluster.wait(other.ask("king", b"Mordred")) == b"Mordred"
        asked = [outcome_of(away.ask("king", value)) for value in (None, b"Uther")]
        cluster.reactor.spend(2.0)
        assert asked == [[], []]

    def test_a_decision_outlives_the_leader(self) -> None:
        cluster = ConnectedNodes()
        leader = cluster.lead()
        cluster.wait(leader.ask("king", b"Arthur"))
        cluster.kill(leader.name)
        assert cluster.wait(cluster.lead_of_the_rest(leader).ask("king", b"Mordred")) == b"Arthur"


class TestOlderRegisters:
    def cluster(self, **states: Any) -> ConnectedNodes:
        class WithOlderRegisters(ConnectedNodes):
            def _known(self, node: str, votes: bool) -> Any:
                return [*super()._known(node, votes), *states.get(node, [])]

        return WithOlderRegisters(application=Watcher, snapshot_policy=Policy(2000))

    def test_they_are_in_the_log_before_any_call_is_answered(self) -> None:
        state = voted_state("king", 5)
        cluster = self.cluster(a=[state], b=[state])
        cluster.lead()
        assert cluster.wait(cluster.nodes["c"].ask("king", b"Mordred")) == b"5"
        assert cluster.wait(cluster.nodes["c"].ask("king")) == b"5"
        assert {len(node._applier.registers) for node in cluster.nodes.values()} == {1}

    def test_a_read_waits_for_them(self) -> None:
        cluster = self.cluster(a=[voted_state("king", 5)], b=[voted_state("king", 7)])
        cluster.lead()
        assert cluster.wait(cluster.nodes["c"].ask("king")) in (b"5", b"7")

    def test_a_majority_must_tell_what_it_has(self) -> None:
        cluster = self.cluster(a=[voted_state("king", 5)])
        leader = cluster.lead()
        rest = [name for name in "abc" if name != leader.name]
        cluster.cut |= {(leader.name, rest[0]), (rest[0], leader.name)}
        cluster.kill(rest[1])
        answer = outcome_of(leader.ask("king"))
        cluster.reactor.spend(1.0)
        assert answer == []

    def test_votes_go_to_no_datagram_that_asks_for_them(self) -> None:
        """Forty bytes must not make half a megabyte, wherever it goes."""
        value = bytes(REGISTER_VOTES_BYTES // 4)
        states = [SubjectState(f"{number}", DecreeState(LOW, Proposal(LOW, value), None)) for number in range(5)]
        cluster = self.cluster(a=states, b=states)
        cluster.lead()
        cluster.reactor.spend(1.0)
        cluster.sent.clear()
        before = sum(cluster.streamed.values())
        forge(cluster, "a", "b", *[CollectRegisters(1)] * 100)
        cluster.reactor.spend(1.0)
        assert [message for _, _, message in cluster.sent if isinstance(message, RegisterVotes)] == []
        assert sum(cluster.streamed.values()) - before < 2**16
        assert cluster.nodes["a"].counters[Labelled(Count.POSSIBLY_FORGED, "CollectRegisters")] == 100
        assert cluster.wait(cluster.nodes["b"].ask("4")) == value

    def test_votes_of_a_datagram_do_not_count(self) -> None:
        """Not even if the forger knows the number that they answer."""
        cluster = self.cluster(a=[voted_state("king", 5)], b=[voted_state("king", 5)])
        cluster.lead()
        cluster.reactor.spend(1.0)
        cluster.cut |= {("a", "c"), ("b", "c")}
        asked = outcome_of(cluster.nodes["c"]._sealing.seal())
        number = cluster.nodes["c"]._sealing._number
        lie = RegisterVotes(number, "", (RegisterVote("king", Ballot(9, "a"), b"Mordred", True),), is_last=True)
        cluster.reactor.spend(0.1)
        for sender in "ab":
            forge(cluster, "c", sender, lie)
        assert cluster.nodes["c"].counters[Labelled(Count.POSSIBLY_FORGED, "RegisterVotes")] == 2
        assert cluster.nodes["c"]._sealing._complete == {"c"}
        cluster.cut.clear()
        assert cluster.wait(cluster.nodes["c"].ask("king")) == b"5"
        assert asked == [None]

    def test_the_store_forgets_them_once_they_are_in_a_snapshot(self) -> None:
        state = voted_state("king", 5)
        cluster = self.cluster(a=[state], b=[state], c=[state])
        leader = cluster.lead()
        for number in range(10):
            cluster.wait(leader.submit(b"%d" % number + bytes(300)))
        assert all(store.snapshot is not None for store in cluster.stores.values())
        assert all(state in store.saved for store in cluster.stores.values())
        cluster.wait(leader.ask("king"))
        cluster.reactor.spend(0.2)
        assert all(state in store.saved for store in cluster.stores.values())
        for number in range(20):
            cluster.wait(leader.submit(b"%d" % number + bytes(300)))
        assert all(state not in store.saved for store in cluster.stores.values())
        assert cluster.wait(cluster.restart("c").ask("king", b"Mordred")) == b"5"

    def test_nothing_is_asked_once_the_table_is_sealed(self) -> None:
        cluster = self.cluster()
        leader = cluster.lead()
        for subject in ("king", "queen"):
            cluster.wait(leader.ask(subject, b"x"))
        asked = [message for _, _, message in cluster.sent if isinstance(message, CollectRegisters)]
        assert len(asked) == 2


def test_a_cluster_that_is_never_asked_seals_nothing() -> None:
    harness = alone()
    submit(harness, b"x")
    assert harness.node._applier.registers.sealed_at == 0
    assert Voter(("a",)) in harness.store.saved
    assert isinstance(harness.application, Recorder)
