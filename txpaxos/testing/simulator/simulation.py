"""Run one seed: a cluster, a schedule of faults, a time without faults, and the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs

from txpaxos.counter import Counter
from txpaxos.drawing import SpaceTime, as_text
from txpaxos.protocol import PaxosProtocol
from txpaxos.recording.options import RecordingOptions
from txpaxos.testing.checkers.checker import Violation
from txpaxos.testing.simulator.cluster import SimulatedCluster, counter_workload
from txpaxos.testing.simulator.diagram import space_time
from txpaxos.testing.simulator.schedule import Fault, draw, plan

OLDER_CHANCE = 0.2
"""How often the nodes begin with data folders of an earlier release, and with registers in them."""

KEEPERS = 4
"""How many clients keep timers alive, if any do."""


@attrs.frozen
class SimulationResult:
    """The result of a run.

    :ivar violation: the rule that was broken, or ``None``.
    :ivar events: how many events were simulated.
    :ivar simulated_seconds: how much time passed in the cluster.
    :ivar real_seconds: how much real time the run took.
    :ivar answered: how many commands, reads and questions were answered.
    :ivar counts: how often each kind of fault, snapshot and refusal happened.
    :ivar diagram: the last events; ``None`` unless a rule was broken.
    """

    seed: int
    faults: Sequence[Fault]
    violation: Violation | None
    events: int
    simulated_seconds: float
    real_seconds: float
    answered: int
    counts: dict[str, int]
    diagram: SpaceTime | None = None

    def told(self) -> str:
        """The violation and the last events, as text; empty if no rule was broken."""
        return "" if self.diagram is None else f"seed {self.seed}: {self.violation}\n{as_text(self.diagram)}"


def simulate(
    seed: int,
    seconds: float = 10.0,
    nodes: int = 3,
    app: type[PaxosProtocol] = Counter,
    workload: Callable[[Random], bytes] = counter_workload,
    faults: Sequence[Fault] | None = None,
    query: Callable[[Random], bytes] | None = None,
    changes: bool = False,
    keys: bool = False,
    timers: bool = False,
    record: RecordingOptions | None = None,
) -> SimulationResult:
    """Run one seed.

    :param workload: makes the clients' commands.
    :param query: makes the readers' queries. The application must be able to answer all of them. Without it queries are
        empty, and an empty query that is refused counts as answered.
    :param seconds: simulated time with faults. A time without faults follows, in which the cluster must answer every
        client, become quiet, and survive the loss of its leader.
    :param changes: whether members change, too.
    :param keys: whether nodes have keys, which are replaced and stolen.
    :param timers: whether clients have kept-alive timers set, keep them alive and let them fire, too.
    :param record: where all that enters the cores of the nodes is recorded; nowhere unless given.
    :param faults: the schedule; drawn from the seed unless given.
    """
    begun = time.perf_counter()
    violation: Violation | None = None
    older_registers = Random(f"older registers {seed}").random() < OLDER_CHANCE
    options: dict[str, Any] = {"changes": changes, "keys": keys, "keepers": KEEPERS if timers else 0, "record": record}
    cluster = SimulatedCluster(seed, nodes, app, workload, query=query, older_registers=older_registers, **options)
    schedule = draw(seed, cluster.all_machines, seconds, changes, keys) if faults is None else list(faults)
    plan(cluster, schedule)
    try:
        _run(cluster, seconds, timers)
    except Violation as error:
        violation = error
    return SimulationResult(
        seed=seed,
        faults=schedule,
        violation=violation,
        events=cluster.time.events,
        simulated_seconds=cluster.time.now,
        real_seconds=time.perf_counter() - begun,
        answered=sum(client.answered for client in cluster.clients),
        counts=dict(cluster.counts),
        diagram=None if violation is None else space_time(cluster, str(violation)),
    )


def _run(cluster: SimulatedCluster, seconds: float, timers: bool) -> None:
    """Let ``seconds`` with faults pass, and then the time without faults."""
    try:
        cluster.run(seconds)
        cluster.heal()
        cluster.wait_until_converged()
        if timers:
            cluster.check_timers()
        cluster.check_quiescence()
        cluster.check_follower_catches_up()
        cluster.check_return_under_load()
        cluster.check_changes()
        cluster.fail_over()
    finally:
        cluster.end_recordings()


def shrink(
    result: SimulationResult, run: Callable[[Sequence[Fault]], SimulationResult], runs_max: int = 200
) -> SimulationResult:
    """Find a smaller schedule that breaks the same rule, by leaving out ever smaller parts (delta debugging).

    :param run: runs the seed of ``result`` with another schedule.
    """
    assert result.violation is not None
    best = result
    part = max(1, len(best.faults) // 2)
    runs = 0
    while runs < runs_max:
        smaller = None
        for start in range(0, len(best.faults), part):
            runs += 1
            tried = run([*best.faults[:start], *best.faults[start + part :]])
            if tried.violation is not None and tried.violation.rule == result.violation.rule:
                smaller = tried
                break
            if runs >= runs_max:
                break
        if smaller is not None:
            best = smaller
        elif part == 1:
            break
        else:
            part //= 2
        part = max(1, min(part, len(best.faults) // 2))
        if not best.faults:
            break
    return best
