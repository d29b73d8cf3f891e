"""Chronicles of all nodes of a simulated cluster, and of one that records, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from txpaxos.core.messages import NodeId, Slot
from txpaxos.explaining import Chronicle, Story, story_of
from txpaxos.node.events import Event
from txpaxos.recording.options import RecordingOptions
from txpaxos.storage.store import Store
from txpaxos.testing.simulator import host
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.environment import Environment
from txpaxos.testing.simulator.observed import CheckingObserver, ObservedHost
from txpaxos.testing.simulator.schedule import draw, plan


class Chronicles:
    """The chronicles of all nodes of a simulated cluster, over their restarts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chronicles: dict[NodeId, Chronicle] = {}
        self.of_nodes = chronicles

        class Observer(CheckingObserver):
            def __init__(self, environment: Environment, host: ObservedHost, store: Store) -> None:
                super().__init__(environment, host, store)
                time = environment.time
                new = Chronicle(host.name, lambda: time.now, lambda: time.now, slots_max=10**6)
                self.chronicle = chronicles.setdefault(host.name, new)

            def __call__(self, event: Event) -> None:
                super().__call__(event)
                self.chronicle(event)

        monkeypatch.setattr(host, "CheckingObserver", Observer)

    def story(self, slot: Slot, names: tuple[str, ...]) -> Story:
        facts = [fact for one in self.of_nodes.values() for fact in one.recall(slot)]
        return story_of(slot, facts, names, len(names) // 2 + 1)


def recorded_run(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SimulatedCluster, Chronicles]:
    """A cluster that records into ``folder``, with faults in which leaders are lost."""
    chronicles = Chronicles(monkeypatch)
    cluster = SimulatedCluster(seed, record=RecordingOptions(str(folder)))
    plan(cluster, draw(seed, cluster.all_machines, 2.0, False, False))
    cluster.run(2.0)
    cluster.heal()
    cluster.wait_until_converged()
    cluster.end_recordings()
    return cluster, chronicles
