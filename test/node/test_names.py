"""Every name is the application's: what the machinery is made of uses none of them."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.fakes import alone
from txpaxos.application import Application
from txpaxos.counter import Counter
from txpaxos.protocol import PaxosProtocol
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.schedule import draw, plan

HOOKS = {name for name in vars(Application) if not name.startswith("_")}
OURS = HOOKS | {"_node", "total"}
"""What this application means by a name, and the one name that is the node's."""

ONCE_USED = (
    *("reactor", "node", "cluster", "failed", "counters", "log", "noisy", "transport", "checkpoint", "compact", "send"),
    *("install", "heard_through", "give_up", "submit_run", "listen_also", "disk_hangs", "is_forgotten", "_store"),
    *("_replica", "_session", "_timing", "_made", "_started", "_stopping", "_tick", "_receive", "_add", "_release"),
)
"""Names of the node from when it was the application."""


def names_of_the_machinery() -> set[str]:
    """Every attribute and method of a node, its parts, and of what the application inherits."""
    node = alone().node
    parts: list[Any] = [node, *vars(node).values(), PaxosProtocol()]
    names = {name for part in parts for name in (*dir(part), *getattr(part, "__dict__", ()))}
    return {name for name in names | {*ONCE_USED} if not name.startswith("__")} - OURS


NAMES = names_of_the_machinery()


class Greedy(Counter):
    """Sets every name that the machinery has, at the beginning and again with each command."""

    def __init__(self) -> None:
        super().__init__()
        vars(self).update(dict.fromkeys(NAMES, "mine"))

    def apply(self, slot: int, command: bytes) -> int:
        vars(self).update(dict.fromkeys(NAMES, slot))
        return super().apply(slot, command)


def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
    """What takes the place of every method."""
    raise AssertionError("the machinery called a method of the application that is not a hook")


Overriding: Any = type("Overriding", (Counter,), dict.fromkeys(NAMES, refuse))


def test_there_are_many_names() -> None:
    assert {"submit", "leader", "transport", "numPorts", "_performer", "start", "_queue"} <= NAMES
    assert len(NAMES) > 200


@pytest.mark.no_cover  # Under coverage it would take three times as long.
@pytest.mark.parametrize("app", [Greedy, Overriding], ids=["attributes", "methods"])
@pytest.mark.parametrize("seed", [1, 2])
def test_an_application_may_use_every_name(app: type[PaxosProtocol], seed: int) -> None:
    cluster = SimulatedCluster(seed, app=app, workload=lambda rng: b"%d" % rng.randrange(9))
    plan(cluster, draw(seed=seed, names=cluster.names, seconds=3.0))
    cluster.run(3.0)
    cluster.heal()
    cluster.run(3.0)  # The faults may have let few commands through.
    cluster.wait_until_converged()
    assert sum(client.answered for client in cluster.clients) > 20
