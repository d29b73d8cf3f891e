"""The rules for simulated clusters: what they forbid, and what they must allow."""

from __future__ import annotations

import pytest

from txpaxos.core.messages import AcceptSlot, Ballot, Message, NodeId
from txpaxos.core.ready import ChangeCompleted, Envelope, LearnedThrough, Promised, Ready, Record, Voted, Voter
from txpaxos.testing.checkers.checker import Checker, Violation
from txpaxos.testing.checkers.registers import ObservedRegisters
from txpaxos.wire.commands import Run
from txpaxos.wire.members import MemberEntry, MembersEntry, encode_members
from txpaxos.wire.registers import ForgetRegister, ImportRegisters, RegisterCommand, SealRegisters, encode_command

NAMES = ("a", "b", "c", "d", "e")
LOWER, HIGHER = Ballot(1, "a"), Ballot(2, "b")


class Cluster:
    """Five voters, as their checker sees them."""

    def __init__(self) -> None:
        self.checker = Checker(NAMES)
        for name in NAMES:
            self.checker.saved(name, [Voter(NAMES)])

    def save(self, names: str, *records: Record) -> None:
        """The nodes ``names`` save ``records``."""
        for name in names:
            self.checker.saved(name, records)

    def send(self, node: NodeId, message: Message) -> None:
        """``node`` sends ``message`` to all."""
        self.checker.performed(node, Ready(send=(Envelope(NAMES, message),)))


class TestProposalAgainstWhatMayBeChosen:
    """One of five nodes has voted in the lower ballot. A proposal against that vote needs three nodes with higher
    promises."""

    RULE = "no proposal against what may be chosen"

    @pytest.fixture
    def cluster(self) -> Cluster:
        cluster = Cluster()
        cluster.save("abcde", Promised(LOWER))
        cluster.send("a", AcceptSlot(LOWER, 1, b"red"))
        cluster.save("a", Voted(LOWER, 1, b"red", 0))
        cluster.save("b", Promised(HIGHER))
        return cluster

    def test_is_one_if_a_quorum_may_still_vote(self, cluster: Cluster) -> None:
        cluster.save("c", Promised(HIGHER))
        with pytest.raises(Violation, match=self.RULE):
            cluster.send("b", AcceptSlot(HIGHER, 1, b"blue"))

    def test_is_none_if_a_quorum_has_promised_not_to(self, cluster: Cluster) -> None:
        cluster.save("cd", Promised(HIGHER))
        cluster.send("b", AcceptSlot(HIGHER, 1, b"blue"))

    def test_promise_stands_when_the_folder_with_it_is_lost(self, cluster: Cluster) -> None:
        """A node that lost its folder never votes again, so it keeps its promise."""
        cluster.save("cd", Promised(HIGHER))
        cluster.checker.folder_lost("d")
        cluster.checker.folder_lost("d")
        cluster.send("b", AcceptSlot(HIGHER, 1, b"blue"))

    def test_vote_stands_when_the_folder_with_it_is_lost(self, cluster: Cluster) -> None:
        """The vote may still be on its way to the node that counts it."""
        cluster.save("d", Voted(LOWER, 1, b"red", 0))
        cluster.save("c", Promised(HIGHER))
        cluster.checker.folder_lost("d")
        with pytest.raises(Violation, match=self.RULE):
            cluster.send("b", AcceptSlot(HIGHER, 1, b"blue"))

    def test_folder_that_promised_nothing_counts_for_nothing(self, cluster: Cluster) -> None:
        cluster.save("c", Promised(HIGHER))
        cluster.checker.folder_lost("d")
        with pytest.raises(Violation, match=self.RULE):
            cluster.send("b", AcceptSlot(HIGHER, 1, b"blue"))


class TestPromises:
    """The fifth voter was replaced by a sixth node, at slot 1."""

    RULE = "only voters are promised"

    @pytest.fixture
    def cluster(self) -> Cluster:
        cluster = Cluster()
        members = {name: MemberEntry(f"{name}:1", f"{name}:2") for name in "abcdf"}
        cluster.checker.members.choose(1, encode_members(MembersEntry(0, members, ("e",))))
        return cluster

    @pytest.mark.parametrize("chosen_through", [0, 100])
    def test_one_to_a_voter_is_allowed_though_its_giver_is_behind(self, cluster: Cluster, chosen_through: int) -> None:
        cluster.checker.nodes["a"].chosen_through = chosen_through
        cluster.save("a", Promised(Ballot(1, "f")))

    def test_one_to_a_former_voter_is_allowed_while_its_giver_is_behind(self, cluster: Cluster) -> None:
        cluster.save("a", Promised(Ballot(1, "e")))
        cluster.checker.nodes["b"].chosen_through = 100
        with pytest.raises(Violation, match=self.RULE):
            cluster.save("b", Promised(Ballot(1, "e")))

    def test_one_to_a_node_that_never_was_a_voter_is_forbidden(self, cluster: Cluster) -> None:
        with pytest.raises(Violation, match=self.RULE):
            cluster.save("a", Promised(Ballot(1, "g")))


class TestCompleteChanges:
    """A change was chosen at slot 1. All before it governs must be on the disks of a majority of five."""

    THROUGH = Checker(NAMES).members.alpha

    @pytest.fixture
    def cluster(self) -> Cluster:
        cluster = Cluster()
        members = {name: MemberEntry(f"{name}:1", f"{name}:2") for name in "abcde"}
        cluster.checker.members.choose(1, encode_members(MembersEntry(0, members)))
        cluster.save("ab", LearnedThrough(self.THROUGH))
        return cluster

    def complete(self, cluster: Cluster) -> None:
        cluster.checker.performed("a", Ready(answers=(ChangeCompleted(1),)))

    def test_two_are_no_majority(self, cluster: Cluster) -> None:
        with pytest.raises(Violation, match="complete is on the disks of a majority"):
            self.complete(cluster)

    def test_a_disk_that_was_lost_after_its_node_had_told_counts(self, cluster: Cluster) -> None:
        """The leader cannot know of the loss."""
        cluster.save("c", LearnedThrough(self.THROUGH))
        cluster.checker.folder_lost("c")
        self.complete(cluster)


class TestRegistersOfAnEarlierRelease:
    """One of them is decided."""

    @pytest.fixture
    def registers(self) -> ObservedRegisters:
        registers = ObservedRegisters()
        registers.begin_with({"king": b"Arthur"}, {"king": [b"Arthur"]})
        return registers

    def choose(self, registers: ObservedRegisters, *commands: RegisterCommand) -> str:
        """The rule that ``commands`` break, each of another node, if they are applied one after the other."""
        runs = [Run(b"%d" % node, 1, 0, (encode_command(command),)) for node, command in enumerate(commands)]
        return "".join(registers.choose(slot, run, [1]) for slot, run in enumerate(runs, 1))

    def test_what_was_decided_stays_decided(self, registers: ObservedRegisters) -> None:
        assert self.choose(registers, SealRegisters()) == "what was decided stays decided"

    def test_it_may_be_forgotten_before_another_node_seals_them_too(self, registers: ObservedRegisters) -> None:
        commands = (ImportRegisters((("king", b"Arthur"),)), SealRegisters(), ForgetRegister("king"), SealRegisters())
        assert self.choose(registers, *commands) == ""
