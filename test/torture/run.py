"""The run of one cluster: build it, inject faults, wait for rest, and check it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import CancelledError

from test.torture.checker import FinalStates, RunCheck, check_run
from test.torture.commands import Item
from test.torture.faults import FaultInjector
from test.torture.network_namespace import NetworkNamespaces
from test.torture.nodes import NamespacedCluster, node_names
from test.torture.plan import Kind, kinds_for, rounds
from test.torture.recordings import Asked, RecordingCheck, check_recordings
from test.torture.report import Report
from test.torture.roster import PLACES
from test.torture.wall_clock import WallClock
from test.torture.workload import USERS, Decision, Workload
from txpaxos.cli.running import CommandError
from txpaxos.testing.linearizability.check import check
from txpaxos.testing.linearizability.history import Operation
from txpaxos.testing.linearizability.models import KeyValue

PREFIX = "txpaxos-torture-"
OWNED = re.compile(rf"{PREFIX}(\d+)-")
PAUSE_SECONDS_MIN = 0.01
START_SECONDS_MAX = 60.0
FOUND_MAX = 20
"""How many mistakes in what was applied are reported. One mistake shifts all revisions after it."""


@attrs.frozen
class Options:
    """The options of a run.

    :ivar seconds: how long faults are begun.
    :ivar faults_max: how many faults at most.
    :ivar operations_max: roughly how many operations on the store at most. It decides how long the pauses are.
    :ivar changes_members: whether members come and go.
    :ivar records: whether nodes record what enters their cores.
    """

    nodes: int
    seed: int
    seconds: float
    faults_max: int
    operations_max: int
    keep: bool = False
    changes_members: bool = True
    records: bool = True

    @property
    def pause_seconds(self) -> float:
        """The pause of each user after each operation."""
        return max(PAUSE_SECONDS_MIN, USERS * self.seconds / self.operations_max)


def work_folder() -> Path:
    """A new folder for one cluster. Folders of runs that were killed are removed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = OWNED.match(folder.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


async def torture(reactor: Any, options: Options, say: Callable[[str], None]) -> Report:
    """Torture one cluster. Afterwards only what is kept is left: everything, if anything is wrong.

    :param say: called with progress messages.
    """
    folder = work_folder()
    places = PLACES if options.changes_members else options.nodes
    namespaces = NetworkNamespaces(reactor, node_names(options.nodes), places)
    try:
        namespaces.build()
        run = _Run(reactor, options, namespaces, folder, say)
        try:
            report = await run.play()
        finally:
            await run.end()
        if report.violations or options.keep:
            run.nodes.keep()
            kept = folder.with_name(f"{PREFIX}kept-{folder.name.removeprefix(PREFIX)}")
            report = attrs.evolve(report, kept=str(folder.rename(kept)))
        return report
    finally:
        namespaces.demolish()
        shutil.rmtree(folder, ignore_errors=True)


class _Run:
    def __init__(
        self, reactor: Any, options: Options, namespaces: NetworkNamespaces, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._say = say
        self._rng = Random(f"{options.seed} with {options.nodes}")
        self._clock = WallClock(folder)
        self._namespaces = namespaces
        self._folder = folder
        names, rng = node_names(options.nodes), Random(self._rng.random())
        self.nodes = NamespacedCluster(reactor, namespaces, names, folder, rng, self._clock, options.records)
        self._asked = Asked(self.nodes, Random(f"{options.seed} asks"))
        self._workload: Workload | None = None

    async def play(self) -> Report:
        """The whole run, in order. Errors are in the report."""
        violations: list[str] = []
        told: dict[str, dict[str, Item]] = {}
        pause, rng = self._options.pause_seconds, Random(self._rng.random())
        workload = self._workload = Workload(
            self._reactor, self.nodes.founding, lambda: self.nodes.cluster, self._folder, rng, pause
        )
        injector = FaultInjector(self._reactor, self._namespaces, self.nodes, self._clock, workload)
        begin = self._reactor.seconds()
        try:
            await self.nodes.start_all(START_SECONDS_MAX)
            await self._inject_faults(injector)
            await workload.stop()
            told = await self.nodes.tell_all()
        except CancelledError:
            raise
        except Exception as error:
            violations.append(self._words(error))
        end = self._reactor.seconds()
        await self.end()
        violations += await self.nodes.check_left()
        return self._check(workload, injector, told, violations, (begin, end))

    async def end(self) -> None:
        """Stop clients and nodes, in any state."""
        if self._workload is not None:
            self._workload.close()
        for node in self.nodes.processes:
            self.nodes.resume(node)
        await self.nodes.stop()

    async def _inject_faults(self, injector: FaultInjector) -> None:
        without = {Kind.STEP_CLOCK} if self._clock.missing else set()
        plan = rounds(self._rng, node_names(self._options.nodes), self._kinds(without))
        end = self._reactor.seconds() + self._options.seconds
        for planned in plan:
            if self._reactor.seconds() >= end or len(injector.faults) >= self._options.faults_max:
                return
            kinds = " and ".join(map(str, planned.faults))
            self._say(f"{len(self.nodes.cluster.members)} nodes, {len(injector.faults)} faults so far; now: {kinds}")
            await injector.play(planned)
            if self._options.records:
                await self._asked.ask()

    def _kinds(self, without: set[Kind]) -> list[Kind]:
        return kinds_for(self._options.nodes, without, changes_members=self._options.changes_members)

    def _check(
        self,
        workload: Workload,
        injector: FaultInjector,
        told: dict[str, dict[str, Item]],
        violations: list[str],
        times: tuple[float, float],
    ) -> Report:
        """Compare what the clients were told with what is on the disks, and check it for linearizability."""
        self._say("judging")
        violations += [f"late: {one}" for one in injector.stabilities if not (one.is_in_time or one.is_void)]
        violations += self.nodes.complaints()
        histories = self.nodes.histories()
        violations += [
            f"the members since slot {slot} are {' or '.join(sorted(texts))}, as different nodes say"
            for slot, texts in sorted(histories.items())
            if len(texts) > 1
        ]
        operations, asks = workload.history.operations(), workload.asks.operations()
        outcome = self._check_applied(workload, operations, told)
        violations += outcome.found[:FOUND_MAX]
        if len(outcome.found) > FOUND_MAX:
            violations.append(f"and {len(outcome.found) - FOUND_MAX} more of that kind")
        recordings = self._check_recordings()
        violations += recordings.found[:FOUND_MAX]
        checks = [check(operations, KeyValue()), check(asks, Decision())]
        violations += [one.report() for one in checks if not one.linearizable]
        return Report(
            seed=self._options.seed,
            nodes=self._options.nodes,
            seconds=times[1] - times[0],
            operations=len(operations),
            unknown=sum(one.outcome == "unknown" for one in operations),
            answers=workload.answers,
            asks=len(asks),
            snapshots=outcome.snapshots,
            transfers=self.nodes.transfers(),
            faults=Counter(injector.faults),
            silences=injector.silences,
            stabilities=injector.stabilities,
            verdict=str(outcome),
            recordings=str(recordings) if self._options.records else "",
            linearizable=[one.report() for one in checks],
            violations=violations,
            lag_seconds=workload.lag_seconds(*times),
            hash_seeds=len(self.nodes.hash_seeds),
            configurations=len(histories),
            change_counts=injector.changer.counts,
            without=[f"{Kind.STEP_CLOCK.value}: {self._clock.missing}"] if self._clock.missing else [],
        )

    def _check_applied(
        self, workload: Workload, operations: list[Operation], told: dict[str, dict[str, Item]]
    ) -> RunCheck:
        """Check what became of the commands."""
        try:
            # Without rest there is no final state.
            ends = FinalStates(told, self.nodes.read_disks() if told else {}, tuple(self.nodes.cluster.members))
            return check_run(self.nodes.apply_logs, operations, workload.observed_reads, workload.acknowledged, ends)
        except Exception as error:  # A disk may hold anything now.
            return RunCheck(found=[f"what is on the disks cannot be: {self._words(error)}"])

    def _check_recordings(self) -> RecordingCheck:
        """Replay what the nodes have recorded, and compare it with what they told."""
        if self.nodes.recordings is None:
            return RecordingCheck()
        try:
            return check_recordings(self.nodes.recordings, self._asked.told)
        except Exception as error:  # A disk may hold anything now.
            return RecordingCheck(found=[f"the recordings cannot be read: {self._words(error)}"])

    def _words(self, error: Exception) -> str:
        if isinstance(error, CommandError):
            return error.message
        self._say(traceback.format_exc())
        return f"{type(error).__name__}: {error}"
