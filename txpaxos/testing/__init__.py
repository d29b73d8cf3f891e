"""The test kit: a whole cluster in one process, on simulated time, network and disks, for your tests and ours.

A seed replays a run exactly. The nodes are real: your subclass of :class:`~txpaxos.protocol.PaxosProtocol`, the shipped
core, codec and journal. Only time, network and disks are simulated. These names can be imported from here:

* :func:`~txpaxos.testing.simulator.simulation.simulate` runs one seed and returns a
  :class:`~txpaxos.testing.simulator.simulation.SimulationResult`, which
  :func:`~txpaxos.testing.simulator.simulation.shrink` makes smaller.
* :class:`~txpaxos.testing.simulator.cluster.SimulatedCluster` is a cluster whose time passes when the test says so.
* :class:`~txpaxos.testing.simulator.schedule.Fault`, :func:`~txpaxos.testing.simulator.schedule.draw` and
  :func:`~txpaxos.testing.simulator.schedule.plan` make and apply schedules of faults.
* :class:`~txpaxos.testing.checkers.checker.Violation` is raised when a rule of
  :class:`~txpaxos.testing.checkers.checker.Checker` is broken.
* :class:`~txpaxos.testing.linearizability.history.HistoryRecorder` records what clients do, and
  :func:`~txpaxos.testing.linearizability.check.check` and :func:`~txpaxos.testing.linearizability.check.check_file`
  check it against a :class:`~txpaxos.testing.linearizability.models.Model`.
* :class:`~txpaxos.testing.services_harness.ServicesHarness` runs typed services on no node, with time that passes when
  the test says so.
* :func:`~txpaxos.testing.strict_services.strict_application_of` runs typed services with more checks than a node makes.
* :class:`~txpaxos.testing.store.contract.StoreContract` is the contract of a store, as tests to inherit.

Modules are imported when a name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txpaxos import lazy_names

if TYPE_CHECKING:
    from txpaxos.testing.checkers.checker import Checker, Violation
    from txpaxos.testing.linearizability.check import check, check_file
    from txpaxos.testing.linearizability.history import HistoryRecorder
    from txpaxos.testing.linearizability.models import Model
    from txpaxos.testing.services_harness import ServicesHarness
    from txpaxos.testing.simulator.cluster import SimulatedCluster
    from txpaxos.testing.simulator.schedule import Fault, draw, plan
    from txpaxos.testing.simulator.simulation import SimulationResult, shrink, simulate
    from txpaxos.testing.store.contract import StoreContract
    from txpaxos.testing.strict_services import strict_application_of

_MODULES = {
    "txpaxos.testing.checkers.checker": ("Checker", "Violation"),
    "txpaxos.testing.linearizability.check": ("check", "check_file"),
    "txpaxos.testing.linearizability.history": ("HistoryRecorder",),
    "txpaxos.testing.linearizability.models": ("Model",),
    "txpaxos.testing.services_harness": ("ServicesHarness",),
    "txpaxos.testing.simulator.cluster": ("SimulatedCluster",),
    "txpaxos.testing.simulator.schedule": ("Fault", "draw", "plan"),
    "txpaxos.testing.simulator.simulation": ("SimulationResult", "shrink", "simulate"),
    "txpaxos.testing.store.contract": ("StoreContract",),
    "txpaxos.testing.strict_services": ("strict_application_of",),
}

__all__ = [
    "Checker",
    "Fault",
    "HistoryRecorder",
    "Model",
    "ServicesHarness",
    "SimulatedCluster",
    "SimulationResult",
    "StoreContract",
    "Violation",
    "check",
    "check_file",
    "draw",
    "plan",
    "shrink",
    "simulate",
    "strict_application_of",
]

__getattr__, __dir__ = lazy_names(globals(), _MODULES)
