"""Decisions by subject: the node that is asked runs a ballot; there is no leader."""

from __future__ import annotations

from random import Random

import pytest

from test.helpers.core_cluster import Cluster, Faults
from txpaxos.core.config import Timing
from txpaxos.core.drops import Drop
from txpaxos.core.messages import (
    LOWEST,
    AboutSubject,
    Accept,
    Accepted,
    Ballot,
    Decided,
    Finding,
    Inquiry,
    Nack,
    NodeId,
    Prepare,
    Promise,
    Proposal,
    SubjectMessage,
)
from txpaxos.core.ready import AskAnswered, DecreeState, Ready, SubjectChosen, SubjectState
from txpaxos.core.subjects import Subjects

ABC = ("a", "b", "c")


class SubjectCluster(Cluster[Subjects]):
    """Subjects on every node, all started.

    :ivar answers: the answer to each question that has one.
    """

    def __init__(self, seed: int, nodes: int = 3, faults: Faults | None = None) -> None:
        super().__init__(seed, nodes, faults)
        self.answers: dict[int, bytes | None] = {}
        self.chosen: dict[str, bytes] = {}
        self.asked = 0
        self.start()

    def make(self, node: NodeId, rng: Random) -> Subjects:
        subjects = Subjects(node, self.members, rng, self.last(node))
        self.check(subjects.decided())
        return subjects

    def last(self, node: NodeId) -> list[SubjectState]:
        """What the disk of ``node`` says of each subject: the last state saved."""
        return list({record.subject: record for record in self.disks[node]}.values())

    def saved(self, node: NodeId, record: SubjectState) -> None:
        earlier = [other for other in self.disks[node][:-1] if other.subject == record.subject]
        before = earlier[-1].state if earlier else DecreeState()
        assert record.state.promised >= before.promised, (node, record)
        assert before.chosen in (None, record.state.chosen), (node, record)

    def sending(self, node: NodeId, message: AboutSubject) -> None:
        """Traps 3 and 5: what is said rests on what is saved."""
        state = {record.subject: record.state for record in self.disks[node]}.get(message.subject, DecreeState())
        match message.message:
            case Prepare(ballot):
                assert state.promised >= ballot, message
            case Promise(ballot, accepted):
                assert state.promised >= ballot, message
                assert state.accepted == accepted, message
            case Accepted(ballot, value):
                assert state.accepted == Proposal(ballot, value), message
                assert state.promised >= ballot, message
            case Decided(value):
                assert state.chosen == value, message

    def check(self, chosen: tuple[SubjectChosen, ...]) -> None:
        for item in chosen:
            assert self.chosen.setdefault(item.subject, item.value) == item.value, item

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        for item in ready.chosen:
            assert isinstance(item, SubjectChosen)
            self.check((item,))
        for answer in ready.answers:
            assert isinstance(answer, AskAnswered)
            assert answer.question not in self.answers, answer
            self.answers[answer.question] = answer.value

    def ask(self, node: NodeId, subject: str, value: bytes | None) -> int:
        """Ask at ``node``; the number of the question."""
        self.asked += 1
        self.take(node, self.nodes[node].ask(self.asked, subject, value, self.now))
        return self.asked

    def answer(self, node: NodeId, subject: str, value: bytes | None) -> bytes | None:
        """Ask at ``node`` and wait."""
        question = self.ask(node, subject, value)
        assert self.run(30.0, lambda: question in self.answers), (node, subject, value)
        return self.answers[question]


# ---------------------------------------------------------------- asking


def test_first_one_wins() -> None:
    cluster = SubjectCluster(1)
    assert cluster.answer("a", "colour", b"red") == b"red"
    assert cluster.answer("b", "colour", b"blue") == b"red"
    assert cluster.answer("c", "shape", b"") == b"", "an empty value is a value, and another subject another decision"


def test_answer_known_here_needs_no_messages() -> None:
    cluster = SubjectCluster(1)
    cluster.answer("a", "colour", b"red")
    ready = cluster.nodes["a"].ask(99, "colour", b"blue", cluster.now)
    assert ready == Ready(answers=(AskAnswered(99, b"red"),))


def test_reading_does_not_decide() -> None:
    cluster = SubjectCluster(1)
    assert cluster.answer("a", "colour", None) is None
    assert cluster.chosen == {}
    assert cluster.answer("b", "colour", b"red") == b"red"
    assert cluster.answer("c", "colour", None) == b"red"


def test_reading_finishes_what_may_have_been_chosen() -> None:
    """One vote is on a disk: whether there is a second one a reader cannot know, so it brings the matter to its end."""
    cluster = SubjectCluster(1)
    cluster.faults = Faults(loss=1.0)
    vote = AboutSubject("colour", Accept(Ballot(1, "c"), b"red"))
    cluster.take("b", cluster.nodes["b"].receive("c", vote, cluster.now))
    cluster.stop("c")
    cluster.faults = Faults()
    assert cluster.answer("a", "colour", None) == b"red"


def test_reader_and_writer_of_one_node_share_the_answer() -> None:
    cluster = SubjectCluster(1)
    reader = cluster.ask("a", "colour", None)
    writer = cluster.ask("a", "colour", b"red")
    second = cluster.ask("a", "colour", b"blue")
    cluster.run(1.0)
    assert [cluster.answers[question] for question in (reader, writer, second)] == [b"red"] * 3


def test_asked_everywhere_at_once() -> None:
    """Trap 20: all three refuse each other at first, and none for ever."""
    for seed in range(30):
        cluster = SubjectCluster(seed)
        questions = [cluster.ask(node, "colour", node.encode()) for node in ABC]
        assert cluster.run(5.0, lambda: set(questions) <= set(cluster.answers)), seed  # noqa: B023
        assert {cluster.answers[question] for question in questions} == set(cluster.chosen.values())


def test_majority_is_enough_and_less_is_not() -> None:
    cluster = SubjectCluster(1)
    cluster.stop("c")
    assert cluster.answer("a", "colour", b"red") == b"red"
    cluster.stop("b")
    cluster.ask("a", "shape", b"round")
    assert not cluster.run(30.0, lambda: "shape" in cluster.chosen)
    cluster.start("b")
    assert cluster.run(5.0, lambda: "shape" in cluster.chosen)


def test_alone() -> None:
    cluster = SubjectCluster(1, nodes=1)
    assert cluster.answer("a", "colour", None) is None
    assert cluster.answer("a", "colour", b"red") == b"red"


@pytest.mark.parametrize("nodes", [3, 5])
def test_one_value_whatever_happens(nodes: int) -> None:
    """50 seeds: loss, doubling, reordering, slow saves, crashes between save and send, several subjects."""
    crashes, answers = 0, 0
    for seed in range(50):
        faults = Faults(0.2, 0.1, (0.001, 0.1), crash=0.03, save_seconds=(0.0, 0.02))
        cluster = SubjectCluster(seed, nodes, faults)
        for turn in range(20):
            for node in list(cluster.nodes):
                if node in cluster.nodes:  # asking may have stopped it
                    value = None if cluster.rng.random() < 0.3 else f"{node}{turn}".encode()
                    cluster.ask(node, f"subject {turn // 4}", value)
            cluster.run(0.2)
        cluster.heal()
        for subject in (f"subject {number}" for number in range(5)):
            assert cluster.answer("a", subject, b"last") == cluster.answer("b", subject, None) is not None
        crashes += cluster.crashes
        answers += len(cluster.answers)
    assert crashes > 50
    assert answers > 50 * 20


# ---------------------------------------------------------------- one node


def about(message: SubjectMessage) -> AboutSubject:
    return AboutSubject("colour", message)


def make(node: NodeId = "a", saved: tuple[SubjectState, ...] = ()) -> Subjects:
    return Subjects(node, ABC, Random(1), saved)


def inquiry(ready: Ready) -> int:
    """The number of the inquiry that is sent."""
    (message,) = messages(ready)
    assert isinstance(message, Inquiry)
    return message.number


def messages(ready: Ready) -> list[object]:
    return [envelope.message.message for envelope in ready.send if isinstance(envelope.message, AboutSubject)]


def test_restart_keeps_promise_vote_and_decision() -> None:
    voted = DecreeState(Ballot(3, "b"), Proposal(Ballot(2, "c"), b"red"))
    node = make(saved=(SubjectState("colour", voted), SubjectState("shape", DecreeState(chosen=b"round"))))
    assert node.decided() == (SubjectChosen("shape", b"round"),)
    assert messages(node.receive("c", about(Prepare(Ballot(2, "c"))), 0.0)) == [Nack(Ballot(2, "c"), Ballot(3, "b"))]
    assert messages(node.receive("c", about(Prepare(Ballot(4, "c"))), 0.0)) == [
        Promise(Ballot(4, "c"), Proposal(Ballot(2, "c"), b"red"))
    ]
    assert node.ask(1, "shape", b"square", 0.0).answers == (AskAnswered(1, b"round"),)
    assert messages(node.ask(2, "colour", b"blue", 0.0)) == [Prepare(Ballot(5, "a"))]


def test_a_promise_to_a_node_that_was_replaced_is_told_so_that_it_is_believed() -> None:
    node = make(saved=(SubjectState("colour", DecreeState(Ballot(3, "x"), Proposal(Ballot(2, "c"), b"red"))),))
    for message in (Prepare(Ballot(2, "c")), Accept(Ballot(2, "c"), b"red")):
        assert messages(node.receive("c", about(message), 0.0)) == [Nack(Ballot(2, "c"), Ballot(4, "a"))]


def test_every_subject_saves_its_own_state() -> None:
    node = make()
    ready = node.ask(1, "colour", b"red", 0.0)
    assert ready.save == (SubjectState("colour", DecreeState(Ballot(1, "a"))),)
    ready = node.ask(2, "shape", b"round", 0.0)
    assert ready.save == (SubjectState("shape", DecreeState(Ballot(1, "a"))),)


def test_unanswered_messages_are_sent_again_with_back_off() -> None:
    """Trap 20."""
    node, timing = make(), Timing()
    ready = node.ask(1, "colour", b"red", 100.0)
    now, waits = 100.0, []
    for _ in range(8):
        assert ready.wake_at is not None
        waits.append(ready.wake_at - now)
        assert messages(node.tick(ready.wake_at - 0.001)) == []
        now = ready.wake_at
        ready = node.tick(now)
        assert messages(ready) == [Prepare(Ballot(1, "a"))]
    assert waits[0] <= timing.retry_seconds * 1.25
    assert waits[-1] >= timing.retry_seconds_max * 0.75
    assert max(waits) <= timing.retry_seconds_max * 1.25


def test_refused_ballot_is_tried_higher_after_a_random_wait() -> None:
    waits = set()
    for seed in range(20):
        node = Subjects("a", ABC, Random(seed))
        node.ask(1, "colour", b"red", 100.0)
        ready = node.receive("c", about(Nack(Ballot(1, "a"), Ballot(5, "c"))), 100.0)
        assert messages(ready) == []
        assert ready.wake_at is not None
        waits.add(ready.wake_at)
        assert messages(node.tick(ready.wake_at)) == [Prepare(Ballot(6, "a"))]
    assert len(waits) == 20


def test_refusal_of_an_older_ballot_changes_nothing() -> None:
    node = make()
    due = node.ask(1, "colour", b"red", 100.0).wake_at
    ready = node.receive("c", about(Nack(Ballot(0, "a"), Ballot(5, "c"))), 100.0)
    assert ready.wake_at == due
    assert due is not None
    assert messages(node.tick(due)) == [Prepare(Ballot(1, "a"))]


def test_forgotten_question_is_not_answered_nor_tried_again() -> None:
    node = make()
    node.ask(1, "colour", b"red", 100.0)
    node.ask(2, "colour", None, 100.0)
    node.forget(3)
    node.forget(1)
    ready = node.tick(200.0)
    assert messages(ready) == [Prepare(Ballot(1, "a"))], "the other one still waits"
    node.forget(2)
    assert node.tick(300.0) == Ready()
    ready = node.receive("b", about(Decided(b"red")), 300.0)
    assert ready.answers == ()
    assert ready.chosen == (SubjectChosen("colour", b"red"),), "but what is decided is still worth knowing"


def test_asking_again_after_forgetting_starts_a_ballot() -> None:
    node = make()
    node.ask(1, "colour", b"red", 100.0)
    node.forget(1)
    assert messages(node.ask(2, "colour", b"blue", 200.0)) == [Prepare(Ballot(2, "a"))]


def test_reading_does_not_bring_back_a_forgotten_value() -> None:
    """Who asked with it has gone. A read that finds nothing accepted must leave it so."""
    node = make()
    node.ask(1, "colour", b"red", 100.0)
    node.forget(1)
    number = inquiry(node.ask(2, "colour", None, 200.0))
    found = about(Finding(number, Proposal(Ballot(1, "b"), b"blue")))
    assert messages(node.receive("c", found, 200.0)) == [Prepare(Ballot(2, "a"))]
    node.receive("a", about(Promise(Ballot(2, "a"), None)), 200.0)
    ready = node.receive("b", about(Promise(Ballot(2, "a"), None)), 200.0)
    assert messages(ready) == []
    assert ready.answers == (AskAnswered(2, None),)


def test_late_promise_does_not_answer_twice() -> None:
    node = make()
    number = inquiry(node.ask(1, "colour", None, 0.0))
    node.receive("a", about(Finding(number, Proposal(Ballot(1, "b"), b"blue"))), 0.0)
    answers = [node.receive(sender, about(Promise(Ballot(1, "a"), None)), 0.0).answers for sender in ABC]
    assert answers == [(), (AskAnswered(1, None),), ()]


def test_no_ask_under_way_means_no_timer() -> None:
    node = make()
    assert node.tick(0.0).wake_at is None
    assert node.ask(1, "colour", None, 0.0).wake_at is not None
    assert node.receive("b", about(Decided(b"red")), 0.0).wake_at is None


def test_strangers_are_not_heard() -> None:
    """Trap 8."""
    node = make()
    node.ask(1, "colour", None, 0.0)
    for stranger in ("x", "y"):
        ready = node.receive(stranger, about(Promise(Ballot(1, "a"), None)), 0.0)
        assert (ready.save, ready.send, ready.answers) == ((), (), ())


# ---------------------------------------------------------------- reading


def test_reading_what_no_node_has_accepted_leaves_nothing_behind() -> None:
    cluster = SubjectCluster(1)
    for number in range(20):
        assert cluster.answer("b", f"subject {number}", None) is None
    assert all(disk == [] for disk in cluster.disks.values())
    assert all(not node._subjects and not node._asking for node in cluster.nodes.values())


def test_a_read_takes_the_outcome_from_a_node_that_knows_it() -> None:
    node = make()
    number = inquiry(node.ask(1, "colour", None, 0.0))
    node.receive("b", about(Finding(number)), 0.0)
    ready = node.receive("c", about(Decided(b"red")), 0.0)
    assert ready.answers == (AskAnswered(1, b"red"),)
    assert messages(node.receive("b", about(Inquiry(9)), 0.0)) == [Decided(b"red")]


def test_a_read_counts_only_answers_to_itself() -> None:
    """Of whom asked before it, each answer may be older than it is."""
    node = make()
    first = inquiry(node.ask(1, "colour", None, 0.0))
    node.receive("a", about(Finding(first)), 0.0)
    node.ask(2, "colour", None, 0.0)
    ready = node.receive("b", about(Finding(first)), 0.0)
    assert ready.answers == (AskAnswered(1, None),)
    second = inquiry(ready)
    assert second != first
    for sender in ("a", "a"):
        assert node.receive(sender, about(Finding(second)), 0.0).answers == ()
    assert node.receive("c", about(Finding(first)), 0.0).answers == ()
    assert node.dropped[Drop.FINDING_NOT_AWAITED] == 1
    assert node.receive("c", about(Finding(second)), 0.0).answers == (AskAnswered(2, None),)
    assert node.receive("b", about(Finding(second)), 0.0).answers == ()


def test_a_read_beside_a_ballot_looks_again_if_that_finds_nothing() -> None:
    node = make()
    number = inquiry(node.ask(1, "colour", None, 0.0))
    node.receive("c", about(Finding(number, Proposal(Ballot(1, "b"), b"blue"))), 0.0)
    node.receive("a", about(Promise(Ballot(1, "a"), None)), 0.0)
    node.ask(2, "colour", None, 0.0)
    ready = node.receive("b", about(Promise(Ballot(1, "a"), None)), 0.0)
    assert ready.answers == (AskAnswered(1, None),)
    inquiry(ready)


def test_an_unanswered_inquiry_is_sent_again_and_given_up_with_its_question() -> None:
    node = make()
    ready = node.ask(1, "colour", None, 0.0)
    number = inquiry(ready)
    node.receive("b", about(Finding(number)), 0.0)
    assert ready.wake_at is not None
    ready = node.tick(ready.wake_at)
    assert [(envelope.to, envelope.message) for envelope in ready.send] == [(("a", "c"), about(Inquiry(number)))]
    node.ask(2, "colour", None, 1.0)
    node.forget(1)
    node.forget(2)
    assert node.tick(9.0) == Ready()
    assert node._subjects == {}


def test_an_ask_with_a_value_beside_a_read_starts_a_ballot() -> None:
    node = make()
    number = inquiry(node.ask(1, "colour", None, 0.0))
    node.ask(2, "colour", None, 0.0)
    assert messages(node.ask(3, "colour", b"red", 0.0)) == [Prepare(Ballot(1, "a"))]
    node.receive("b", about(Finding(number)), 0.0)
    answers = [node.receive(sender, about(Accepted(Ballot(1, "a"), b"red")), 0.0).answers for sender in "ab"]
    assert set(answers[1]) == {AskAnswered(question, b"red") for question in (1, 2, 3)}


def test_what_is_accepted_is_found() -> None:
    node = make("b", (SubjectState("colour", DecreeState(Ballot(3, "c"), Proposal(Ballot(2, "c"), b"red"))),))
    assert messages(node.receive("a", about(Inquiry(7)), 0.0)) == [Finding(7, Proposal(Ballot(2, "c"), b"red"))]


# ---------------------------------------------------------------- what is not believed


def test_a_ballot_is_its_senders_and_not_beyond_reason() -> None:
    node = make()
    other, beyond = Drop.BALLOT_OF_ANOTHER_NODE, Drop.BALLOT_BEYOND_REASON
    blue = Proposal(Ballot(9, "b"), b"blue")
    requests: tuple[tuple[Drop, SubjectMessage], ...] = (
        (other, Prepare(Ballot(1, "c"))),
        (other, Accept(Ballot(1, "x"), b"red")),
        (other, Accepted(Ballot(1, "x"), b"red")),
        (beyond, Prepare(Ballot(2**32 + 1, "b"))),
        (beyond, Accept(Ballot(2**63, "b"), b"red")),
        (beyond, Accepted(Ballot(2**64 - 1, "c"), b"red")),
    )
    for name, message in requests:
        before = node.dropped[name]
        ready = node.receive("b", about(message), 0.0)
        assert (ready.save, ready.send, node.dropped[name]) == ((), (), before + 1), message
    assert node._subjects == {}
    node.ask(1, "colour", b"red", 0.0)
    answers: tuple[tuple[Drop, SubjectMessage], ...] = (
        (other, Promise(Ballot(1, "c"), None)),
        (other, Promise(Ballot(1, "a"), blue)),
        (other, Nack(Ballot(1, "c"), Ballot(2, "b"))),
        (other, Nack(Ballot(1, "a"), Ballot(1, "a"))),
        (other, Nack(Ballot(1, "a"), Ballot(2, "x"))),
        (beyond, Nack(Ballot(1, "a"), Ballot(2**64 - 1, "b"))),
    )
    for name, message in answers:
        before = node.dropped[name]
        ready = node.receive("b", about(message), 0.0)
        assert (ready.save, ready.send, node.dropped[name]) == ((), (), before + 1), message
    assert node._subjects["colour"].decree.proposer.highest_seen == LOWEST


def test_a_decision_that_was_not_asked_for_changes_nothing() -> None:
    node = make()
    ready = node.receive("b", about(Decided(b"red")), 0.0)
    assert (ready, node._subjects) == (Ready(), {})
    node.receive("b", about(Accept(Ballot(1, "b"), b"blue")), 0.0)
    assert node.receive("c", about(Decided(b"red")), 0.0) == Ready()
    assert node.dropped[Drop.DECISION_NOT_AWAITED] == 2
    assert node.receive("c", about(Decided(b"blue")), 0.0).chosen == (SubjectChosen("colour", b"blue"),)
    assert node.receive("c", about(Decided(b"red")), 0.0) == Ready()
    assert node.dropped[Drop.CONTRADICTING_DECISION] == 1
    assert node.receive("c", about(Decided(b"blue")), 0.0) == Ready()


def test_an_answer_to_nothing_is_none() -> None:
    node = make()
    for message in (Promise(Ballot(1, "a"), None), Nack(Ballot(1, "a"), Ballot(2, "b"))):
        assert node.receive("b", about(message), 0.0) == Ready()
    assert node._subjects == {}
