"""Watches of clients of a simulated cluster, whose nodes die, are cut off, and start from snapshots."""

from __future__ import annotations

import gc
import os
from random import Random
from typing import Any

import pytest

from test.service.watcher import Watcher
from txpaxos import Client, Policy, Service, application_of, command, each_change, encode_call, query, state, watch
from txpaxos.testing import SimulatedCluster, strict_application_of

SEEDS = int(os.environ.get("TXPAXOS_WATCH_SEEDS", "1"))


class Votes(Service):
    """Counts by name."""

    counts: dict[str, int] = state(dict)

    @command
    def add(self, name: str) -> int:
        self.counts[name] = self.counts.get(name, 0) + 1
        self.changed(f"count {name}")
        return self.counts[name]

    @query(topic="count {name}", changes_kept=True)
    def count(self, name: str) -> int:
        return self.counts.get(name, 0)

    @query(changes_kept=True)
    def total(self) -> int:
        return sum(self.counts.values())


def some_command(rng: Random) -> bytes:
    return encode_call(Votes, Votes.add, rng.choice("abc"))


def made(seed: int, is_strict: bool = True, **options: Any) -> tuple[SimulatedCluster, Any]:
    app: Any = strict_application_of(Votes) if is_strict else application_of(Votes)
    return SimulatedCluster(seed=seed, app=app, workload=some_command, callers=0, askers=0, readers=0, **options), app


def applications(cluster: SimulatedCluster) -> list[Any]:
    """Those of the nodes that run."""
    return [host.node.application for host in cluster.live() if host.node is not None]


def test_a_watch_that_waits_makes_no_client_leave_its_node(logged_errors: list[dict[str, Any]]) -> None:
    cluster, _ = made(1, clients=0)
    client: Client = cluster.new_client("watcher")
    watcher = Watcher(watch(client.service(Votes).count, "a"))
    cluster.run(seconds=2)
    route: Any = client._dispatcher._route
    node, connection = route.current.node, route.current
    for _ in range(180):
        cluster.run(seconds=0.2)
        assert route.current is connection, f"the client has left {node}"
        assert not route._suspicion.is_suspect(connection)
    assert watcher.answers == [0]
    client.service(Votes).add("a")
    cluster.run(seconds=1)
    assert (watcher.answers, watcher.errors) == ([0, 1], [])
    watcher.watched.close()
    client.close()
    gc.collect()
    logged_errors.clear()


def test_watches_that_are_cancelled_leave_nothing_at_their_node(logged_errors: list[dict[str, Any]]) -> None:
    """At once, and not when their waits would end. Those that go on are told as before."""
    cluster, _ = made(1, clients=0)
    client: Client = cluster.new_client("watcher")
    votes = client.service(Votes)
    kept = Watcher(watch(votes.count, "a"))
    watchers = [Watcher(watch(votes.count, f"{number % 500}")) for number in range(900)]
    changes = [Watcher(each_change(votes.count, f"{number}")) for number in range(100)]
    cluster.run(seconds=2)
    assert sum(len(one._watches) for one in applications(cluster)) == 1001
    for number, one in enumerate([*watchers, *changes]):
        if number % 2:
            one.watched.close()
        else:
            one.waiting.cancel()
    cluster.run(seconds=0.2)
    assert [len(one._watches) for one in applications(cluster) if one._watches] == [1]
    assert [len(host.node._reads) for host in cluster.live() if host.node is not None and host.node._reads] == [1]
    assert not client._dispatcher._route._suspicion.is_suspect(client._dispatcher._route.current)  # type: ignore[arg-type]
    votes.add("a")
    cluster.run(seconds=1)
    assert (kept.answers, kept.errors) == ([0, 1], [])
    kept.watched.close()
    client.close()
    gc.collect()
    logged_errors.clear()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_newest_answer_comes_whatever_becomes_of_the_nodes(seed: int, logged_errors: list[dict[str, Any]]) -> None:
    cluster, app = made(seed, snapshot_policy=Policy(5_000), clients=1)
    rng = Random(seed)
    clients = [cluster.new_client(f"watcher {number}") for number in range(2)]
    watchers = {
        (number, name): Watcher(watch(client.service(Votes).count, name))
        for number, client in enumerate(clients)
        for name in "abc"
    }
    watchers |= {(number, ""): Watcher(watch(client.service(Votes).total)) for number, client in enumerate(clients)}
    cluster.run(seconds=1)
    for _ in range(4):
        machine = rng.choice(cluster.machines)
        if rng.random() < 0.5:
            cluster.hosts[machine].crash()
        else:
            others = [one for one in cluster.machines if one != machine]
            cluster.network.cut |= {pair for one in others for pair in ((one, machine), (machine, one))}
        cluster.run(seconds=rng.choice([0.3, 1.0, 3.0]))
        cluster.heal()
        cluster.run(seconds=rng.choice([0.1, 1.0]))
    cluster.wait_until_converged()
    cluster.run(seconds=5)
    counts = applications(cluster)[0].state_of(Votes).counts
    for (_, name), watcher in watchers.items():
        wanted = counts[name] if name else sum(counts.values())
        assert watcher.answers == sorted(set(watcher.answers)), "in order, each once"
        assert watcher.answers[-1] == wanted
        assert watcher.errors == []
        watcher.watched.close()
    cluster.run(seconds=40)
    waiting = [len(application._watches) for application in applications(cluster)]
    assert (waiting, app.faults) == ([0, 0, 0], [])
    for client in clients:
        client.close()
    gc.collect()
    logged_errors.clear()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_change_is_missed_whatever_becomes_of_the_nodes(seed: int, logged_errors: list[dict[str, Any]]) -> None:
    cluster, _ = made(seed, False, snapshot_policy=Policy(5_000), clients=1)
    rng = Random(seed)
    client: Any = cluster.new_client("watcher")
    watchers = {name: Watcher(each_change(client.service(Votes).count, name)) for name in "abc"}
    watchers |= {"": Watcher(each_change(client.service(Votes).total))}
    cluster.run(seconds=1)
    for _ in range(4):
        machine = rng.choice(cluster.machines)
        if rng.random() < 0.7:
            cluster.hosts[machine].crash()
        else:
            others = [one for one in cluster.machines if one != machine]
            cluster.network.cut |= {pair for one in others for pair in ((one, machine), (machine, one))}
        cluster.run(seconds=rng.choice([0.3, 1.0]))
        cluster.heal()
        cluster.run(seconds=rng.choice([0.1, 0.5]))
        name = rng.choice("abc")  # Another process goes on after what this one has seen.
        before, seen = watchers[name], watchers[name].watched.version
        before.watched.close()
        watchers[name] = Watcher(each_change(client.service(Votes).count, name).after(seen))
        watchers[name].got[:0] = before.answers
    cluster.wait_until_converged()
    cluster.run(seconds=5)
    nodes = applications(cluster)
    assert len({tuple(one._kept.chunks()) for one in nodes}) == 1
    counts = nodes[0].state_of(Votes).counts
    for name, watcher in watchers.items():
        answers = [change.answer for change in watcher.answers]
        last = counts[name] if name else sum(counts.values())
        assert answers == list(range(answers[0], last + 1)), "each, once, in order"
        assert watcher.errors == []
        assert len(answers) > 10
        watcher.watched.close()
    client.close()
    gc.collect()
    logged_errors.clear()
