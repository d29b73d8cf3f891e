"""Real nodes on a simulated network found a cluster, take in others, and do not believe an empty folder.

Every rule of the simulator's checker is on, so a node that votes and may not breaks the test by itself.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import permutations
from random import Random
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, formatEvent

from test.helpers.fakes import logged
from txpaxos.client import Client
from txpaxos.cluster import Address, Member
from txpaxos.core.essential import quorum_size
from txpaxos.core.membership import Configuration
from txpaxos.errors import StoreError
from txpaxos.node.founding import Founding
from txpaxos.testing.checkers.checker import Checker
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.disk import Crash
from txpaxos.testing.simulator.environment import CLIENT_PORT, PEER_PORT
from txpaxos.testing.simulator.host import Host
from txpaxos.testing.simulator.network import SimulatedReactor


@pytest.fixture(autouse=True)
def crashes(logged_errors: list[dict[str, Any]]) -> Iterator[None]:
    """A process that is made to die leaves more in the log than it would in the real time."""
    yield
    gc.collect()
    logged_errors[:] = [event for event in logged_errors if not event["log_failure"].check(Crash)]


def stay_off(self: Host) -> None:
    """Do not start a node."""


class FoundingCluster(SimulatedCluster):
    """Machines of which none runs yet; only the test submits anything."""

    def __init__(self, nodes: int = 3, seed: int = 1, members: str = "") -> None:
        start, Host.start = Host.start, stay_off  # type: ignore[method-assign]
        try:
            super().__init__(seed, nodes, clients=0, askers=0, callers=0, readers=0)
        finally:
            Host.start = start  # type: ignore[method-assign]
        if members:  # The rules for that many members.
            nodes_checked = self.checker.nodes
            self.checker = Checker(members, self.snapshot_policy, self.sessions_max)
            self.checker.nodes = nodes_checked
            self.count_all_nodes(len(members))

    def count_all_nodes(self, members: int) -> None:
        """Have the rules count every node, with the quorum of this number of ``members``: cluster files replace one
        node by another."""
        founders = Configuration(0, tuple(self.names))
        object.__setattr__(founders, "quorum", quorum_size(members))
        self.checker.members._configurations[0] = founders

    def start(self, *names: str, members: str = "") -> None:
        """Start nodes, with the cluster file they had or one with other ``members``."""
        for name in names:
            if members:
                self.hosts[name].configuration = attrs.evolve(self.configuration, members=members_of(members))
            self.hosts[name].start()

    def kill(self, *names: str) -> None:
        for name in names:
            self.hosts[name].crash()

    def on(self, name: str, call: Callable[..., object], *arguments: object) -> None:
        """Call something in the process of a node."""
        reactor = self.hosts[name].reactor
        assert reactor is not None, name
        reactor.run(call, *arguments)

    def submit(self, name: str, number: int, seconds: float = 5.0) -> Any:
        """The total that comes of adding ``number`` at a node; ``None`` if no answer comes."""
        answers: list[Any] = []

        def submit() -> None:
            answer: Deferred[Any] = self.node(name).submit(b"%d" % number)
            answer.addCallback(answers.append)
            answer.addErrback(lambda _: None)

        self.on(name, submit)
        until = self.time.now + seconds
        while not answers and self.time.now < until:
            self.run(0.01)
        return answers[0] if answers else None

    def node(self, name: str) -> Any:
        protocol = self.hosts[name].node
        assert protocol is not None, name
        return protocol

    @property
    def voters(self) -> str:
        return "".join(name for name in self.names if self.checker.nodes[name].voter is not None)

    def roles(self) -> dict[str, str]:
        return {name: host.node.status().replica.role for name, host in self.hosts.items() if host.node}

    def refused_by(self, name: str) -> set[str]:
        return set(self.node(name).status().refused_by)


def members_of(names: str) -> dict[str, Member]:
    return {name: Member(Address(name, PEER_PORT), Address(name, CLIENT_PORT)) for name in names}


# ------------------------------------------------------------------ founding


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5])
def test_all_vote_and_one_leads_soon(nodes: int) -> None:
    cluster = FoundingCluster(nodes)
    cluster.start(*cluster.names)
    cluster.run(0.2)
    assert cluster.voters == "abcde"[:nodes]
    cluster.run(0.3)
    assert sorted(cluster.roles().values()).count("leader") == 1
    assert cluster.submit("a", 5, 0.5) == 5


@pytest.mark.parametrize("order", [*map("".join, permutations("abc"))])
def test_nodes_may_be_started_in_any_order(order: str) -> None:
    cluster = FoundingCluster()
    for name in order:
        cluster.start(name)
        cluster.run(3.0)
    cluster.run(1.0)
    assert cluster.voters == "abc"
    assert cluster.submit(order[0], 7) == 7


def test_the_founders_are_enough() -> None:
    cluster = FoundingCluster()
    cluster.start("a", "b")
    assert cluster.submit("b", 3, 1.0) == 3
    cluster.start("c")
    cluster.run(1.0)
    assert cluster.voters == "abc"


@pytest.mark.parametrize(("nodes", "some"), [(3, "bc"), (3, "ac"), (5, "abde"), (5, "bcde"), (4, "acd"), (2, "b")])
def test_without_a_founder_no_node_votes_until_it_comes(nodes: int, some: str) -> None:
    cluster = FoundingCluster(nodes)
    cluster.start(*some)
    assert cluster.submit(some[0], 1, 5.0) is None
    assert cluster.voters == ""
    assert set(cluster.roles().values()) == {"newcomer"}
    cluster.start(*(set(cluster.names) - set(some)))
    cluster.run(1.5)
    assert cluster.voters == "".join(cluster.names)
    assert cluster.submit(some[0], 1) == 2


@pytest.mark.parametrize("name", "abc")
@pytest.mark.parametrize("at", range(1, 60, 3))
def test_a_crash_at_any_step_of_the_founding(name: str, at: int) -> None:
    """All come back in the end, and the founding is brought to its end."""
    cluster = FoundingCluster(seed=at)
    cluster.hosts[name].crash_in = at
    cluster.start("a", "b", "c")
    cluster.run(1.0)
    cluster.hosts[name].crash_in = None
    if not cluster.hosts[name].alive:
        cluster.start(name)
    cluster.run(2.0)
    assert cluster.voters == "abc"
    assert cluster.submit("c", 4) == 4


@pytest.mark.parametrize("seed", range(6))
def test_all_crash_in_the_founding_and_restart_in_any_order(seed: int) -> None:
    cluster, rng = FoundingCluster(5, seed), Random(seed)
    for _ in range(8):
        for name in cluster.names:
            if not cluster.hosts[name].alive:
                cluster.start(name)
            cluster.hosts[name].crash_in = rng.choice((None, rng.randrange(1, 80)))
        cluster.run(0.2)
    cluster.heal()
    cluster.run(3.0)
    assert cluster.voters == "abcde"
    assert cluster.submit("e", 4) == 4


def test_a_voter_is_one_after_every_restart() -> None:
    cluster = FoundingCluster()
    cluster.start("a", "b", "c")
    assert cluster.submit("a", 4) == 4
    cluster.kill("a", "b", "c")
    cluster.start("b", "c")
    assert cluster.roles()["c"] == "follower"
    assert cluster.submit("c", 4) == 8


def test_a_founder_that_dies_with_the_founding_is_not_missed_long() -> None:
    """The founders' word is enough for the third: it need not wait for a leader."""
    cluster = FoundingCluster()
    cluster.start("a", "b", "c")
    while cluster.voters != "abc":
        cluster.run(0.001)
    assert cluster.time.now < 0.15
    cluster.kill("a")
    assert cluster.submit("c", 6) == 6


def test_founders_that_others_do_not_agree_on() -> None:
    cluster = FoundingCluster()
    cluster.start("a", members="abc")
    cluster.start("b", members="bca")
    lines = [formatEvent(event) for event in logged(lambda: cluster.run(2.0))]
    assert sorted(lines) == [
        "node a would found the cluster with a, b, node b with b, c: list the nodes in the same order in all cluster"
        " files",
        "node b would found the cluster with b, c, node a with a, b: list the nodes in the same order in all cluster"
        " files",
    ]
    assert cluster.voters == ""
    cluster.kill("b")
    cluster.start("b", members="abc")
    cluster.run(1.0)
    assert cluster.voters == "ab"


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The backup that each node was restored from, as the test says."""
    backups: dict[str, str] = {}

    def founding(name: str, *arguments: Any) -> Founding:
        made: Any = Founding
        return made(name, *arguments[:-1], backups.get(name, ""))  # type: ignore[no-any-return]

    monkeypatch.setattr("txpaxos.node.node.Founding", founding)
    return backups


@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_founders_that_were_restored_from_one_backup_found_the_cluster(restored: dict[str, str], nodes: int) -> None:
    names = "abcde"[:nodes]
    restored.update(dict.fromkeys(names[: nodes // 2 + 1], "5f9c"))
    cluster = FoundingCluster(nodes)
    cluster.start(*names)
    assert cluster.submit("a", 1) == 1
    assert cluster.voters == names


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("other", ["", "another"])
def test_founders_with_different_states_found_no_cluster(restored: dict[str, str], nodes: int, other: str) -> None:
    """It would be left to chance which of the states the cluster has."""
    names = "abcde"[:nodes]
    restored.update(dict.fromkeys(names[: nodes // 2 + 1], "5f9c"))
    restored["b"] = other
    cluster = FoundingCluster(nodes)
    cluster.start(*names)
    lines = [formatEvent(event) for event in logged(lambda: cluster.run(3.0))]
    assert cluster.voters == ""
    ours = "a, b, backup 5f9c" if nodes < 5 else "a, b, backup 5f9c, c"
    theirs = ours.replace("backup 5f9c", f"backup {other}") if other else ours.replace(", backup 5f9c", "")
    assert (
        f"node b would found the cluster with {theirs}, node a with {ours}: restore all founders from the same backup,"
        " or none"
    ) in lines
    cluster.kill("b")
    restored["b"] = "5f9c"
    cluster.start("b")
    assert cluster.submit("a", 1) == 1


def test_the_order_of_the_nodes_does_not_matter_later() -> None:
    cluster = FoundingCluster()
    cluster.start("a", "b", "c")
    assert cluster.submit("a", 1) == 1
    cluster.kill("a", "c")
    cluster.start("a", members="cba")
    assert cluster.submit("a", 1) == 2
    cluster.start("c", members="bca")
    assert cluster.submit("c", 1) == 3


# -------------------------------------------------------------- a lost folder


@pytest.mark.parametrize("order", [*map("".join, permutations("bc"))])
def test_an_empty_folder_and_one_that_was_never_there_make_no_history(order: str) -> None:
    """c was never up. What a and b acknowledged must not be forgotten by b and c."""
    cluster = FoundingCluster()
    cluster.start("a", "b")
    assert cluster.submit("a", 10) == 10
    cluster.kill("a", "b")
    cluster.hosts["b"].lose_folder()
    cluster.start(*order)
    assert cluster.submit("b", 1000, 10.0) is None
    assert cluster.voters == "a"
    cluster.start("a")
    cluster.run(1.0)
    assert cluster.voters == "a"  # It alone has met c, which is not enough.
    assert cluster.submit("c", 1, 10.0) is None
    assert cluster.refused_by("b") == {"a"}
    assert set(cluster.node("b").status().waits_for) == {"a", "c"}


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("index", range(5))
def test_a_lost_folder_never_votes_and_is_told_so(nodes: int, index: int) -> None:
    if index >= nodes:
        pytest.skip("there is no such node")
    cluster = FoundingCluster(nodes)
    name = cluster.names[index]
    others = [other for other in cluster.names if other != name]
    cluster.start(*cluster.names)
    assert cluster.submit(name, 10) == 10
    cluster.hosts[name].lose_folder()
    cluster.start(name)
    cluster.run(6.0)
    assert cluster.submit(others[0], 1) == 11
    assert cluster.roles()[name] == "newcomer"
    assert cluster.refused_by(name) == set(others)
    reasons = {other: cluster.node(other).status().refuses for other in others}
    assert all(name in reason for reason in reasons.values()), reasons


@pytest.mark.parametrize(("seconds", "wait_seconds"), [(0.0, 1.0), (1.0, 0.1), (6.0, 0.1), (60.0, 0.1)])
@pytest.mark.parametrize("stays", [True, False])
def test_a_client_does_not_wait_at_a_node_with_a_lost_folder(seconds: float, wait_seconds: float, stays: bool) -> None:
    """No peer answers that node, so it sends its clients to the others. A client whose timeouts have grown in the
    trouble before would wait there for seconds."""
    cluster = FoundingCluster()
    cluster.start("a", "b", "c")
    assert cluster.submit("c", 10) == 10
    reactor = SimulatedReactor(cluster.network, "client")
    client = Client(reactor, cluster.configuration, ["c", "a", "b"], Random(1))
    answers: list[Any] = []

    def ask(subject: str) -> None:
        cluster.checker.asking(subject, b"red")
        reactor.run(lambda: client.ask(subject, b"red").addBoth(answers.append))

    ask("first")
    cluster.run(1.0)
    cluster.hosts["c"].lose_folder()
    cluster.start("c")
    if not stays:
        client = Client(reactor, cluster.configuration, ["c", "a", "b"], Random(1))
    cluster.run(seconds)
    ask("second")
    cluster.run(wait_seconds)
    assert answers == [b"red", b"red"]


@pytest.mark.parametrize("lost", ["ab", "ac", "bc"])
@pytest.mark.parametrize("kept_first", [True, False])
def test_the_loss_of_two_of_three_makes_no_history_beside_the_third(lost: str, kept_first: bool) -> None:
    """Unless all founders are gone, and no node is there that remembers."""
    (kept,) = set("abc") - set(lost)
    cluster = FoundingCluster()
    cluster.start("a", "b", "c")
    assert cluster.submit("a", 10) == 10
    cluster.kill("a", "b", "c")
    for name in lost:
        cluster.hosts[name].lose_folder()
    cluster.start(*([kept, *lost] if kept_first or lost == "ab" else [*lost, kept]))
    assert cluster.submit(lost[0], 1000, 10.0) is None
    assert cluster.voters == kept


# --------------------------------------------------------- cluster files differ


@pytest.mark.parametrize("order", ["abcde", "cdeab", "edcba", "bcade", "dcbea"])
def test_nodes_with_different_files_do_not_serve_twice(order: str) -> None:
    """a and b have a file with three nodes, c, d and e one with five."""
    cluster = FoundingCluster(5, members="abc")

    def start() -> None:
        for name in order:
            cluster.start(name, members="abc" if name in "ab" else "abcde")
            cluster.run(0.3)
        cluster.run(3.0)

    warnings = [formatEvent(event) for event in logged(start, LogLevel.warn)]
    assert cluster.voters == "ab"
    assert cluster.submit("a", 5) == 5
    assert cluster.submit("c", 1000, 5.0) is None
    told = [line for line in warnings if line.startswith("node a ") and "other nodes in its cluster file" in line]
    assert len(told) == len(set(told)) > 0
    assert any("node 'c' there" in line for line in told)


@pytest.mark.parametrize("grown", [*map("".join, permutations("cde"))])
def test_a_running_cluster_is_not_grown_by_another_file(grown: str) -> None:
    cluster = FoundingCluster(5, members="abc")
    cluster.start("a", "b", "c", members="abc")
    assert cluster.submit("c", 10) == 10
    cluster.kill("c")
    for name in grown:
        cluster.start(name, members="abcde")
    cluster.run(3.0)
    assert not cluster.hosts["c"].alive  # It refuses: its folder knows of three.
    assert cluster.submit("a", 200) == 210
    assert cluster.submit("d", 10000, 5.0) is None


def test_a_running_cluster_is_not_shrunk_by_another_file() -> None:
    cluster = FoundingCluster(5)
    cluster.start(*"abcde")
    assert cluster.submit("a", 10) == 10
    cluster.kill("a", "b")
    with pytest.raises(StoreError, match=r"node a has voted among 5 nodes .*, and the cluster file has 3"):
        start_alone(cluster, "a", "abc")
    assert cluster.submit("c", 1) == 11


def start_alone(cluster: FoundingCluster, name: str, members: str) -> None:
    """Start a node as its host does, and see why it refuses."""
    host = cluster.hosts[name]
    host.configuration = attrs.evolve(cluster.configuration, members=members_of(members))
    original = host._start_node
    errors: list[StoreError] = []

    def boot(reactor: Any) -> None:
        try:
            original(reactor)
        except StoreError as error:
            errors.append(error)
            raise

    own: Any = host
    own._start_node = boot
    host.start()
    raise errors[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_node_is_replaced(seed: int) -> None:
    """d comes in the place of c. It votes when it has what a and b know, and then it is enough beside one of them."""
    cluster = FoundingCluster(4, seed, members="abc")
    cluster.start("a", "b", "c", members="abc")
    assert cluster.submit("c", 10) == 10
    cluster.kill("c")
    assert cluster.submit("a", 1) == 11
    cluster.kill("a", "b")
    cluster.start("d", members="abd")
    cluster.run(2.0)
    assert "d" not in cluster.voters
    cluster.start("a", "b", members="abd")
    cluster.run(2.0)
    assert "d" in cluster.voters
    cluster.kill("a")
    assert cluster.submit("d", 1) == 12


@pytest.mark.parametrize("seed", range(4))
def test_of_two_nodes_one_is_replaced(seed: int) -> None:
    """Whichever of the two led: what the other one voted for names that one."""
    cluster = FoundingCluster(3, seed, members="ab")
    cluster.start("a", "b", members="ab")
    assert cluster.submit("a", 10) == 10
    cluster.kill("a", "b")
    cluster.start("a", "c", members="ac")
    cluster.run(1.0)
    assert "c" in cluster.voters
    assert cluster.submit("c", 1) == 11


@pytest.mark.parametrize("seed", range(4))
def test_a_register_outlives_a_node_that_helped_to_decide_it(seed: int) -> None:
    cluster = FoundingCluster(4, seed, members="abc")
    cluster.start("a", "b", "c", members="abc")
    cluster.run(1.0)
    assert _ask(cluster, "c", b"red") == [b"red"]
    cluster.kill("c", "a", "b")
    cluster.start("a", "b", "d", members="abd")
    cluster.run(2.0)
    assert _ask(cluster, "d", b"blue") == [b"red"]


def _ask(cluster: FoundingCluster, name: str, value: bytes) -> list[Any]:
    """The answer of a node about one register."""
    cluster.checker.asking("colour", value)
    answers: list[Any] = []
    reactor = cluster.hosts[name].reactor
    assert reactor is not None
    reactor.run(lambda: cluster.node(name).ask("colour", value).addCallback(answers.append))
    cluster.run(2.0)
    return answers
