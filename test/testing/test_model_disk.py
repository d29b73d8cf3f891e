"""The model of one node's disk finds nothing in the store, finds every fault that is put into it, and behaves as a
disk.

``make model`` exhausts the instances whose first states are visited here (:mod:`test.testing.test_model`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
import pytest

from txpaxos.core.log import Log
from txpaxos.core.messages import Slot
from txpaxos.core.ready import LogRecord, Voted
from txpaxos.storage.acknowledged import NOTHING, Acknowledged
from txpaxos.storage.disk import Disk
from txpaxos.testing.model.counterexample import format_counterexample
from txpaxos.testing.model.instances import cluster_aside_space, cluster_loss_space, disk_space
from txpaxos.testing.model.platter import Platter, PlatterDisk
from txpaxos.testing.model.search import Found, StateSearch
from txpaxos.testing.model.stored_model import FaultBudget
from txpaxos.testing.simulator.disk import SimulatedDisk

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.

STATES_MAX = int(os.environ.get("TXPAXOS_MODEL_STATES", "1500"))


def one_slot(**changes: Any) -> Any:
    return disk_space(**{"slots": 1, "stale": (1,), "budget": FaultBudget(2, 1, 1), "promises": True, **changes})


def two_slots(snapshots: int, discards: int, losses: int) -> Callable[[], Any]:
    return lambda: disk_space(slots=2, stale=(1,), budget=FaultBudget(snapshots, discards, losses))


def test_a_small_one_is_exhausted() -> None:
    found: Found[Any] = StateSearch(one_slot(budget=FaultBudget(1, 1, 1)), 10_000).run()
    assert (found.exhausted, found.states, found.violation) == (True, 9717, "")


# --------------------------------------------------------------------- faults

shipped_checkpoint = Log.checkpoint


def believe_all_votes(self: Log, after: Slot, through: Slot) -> Slot:
    for slot in range(after + 1, through + 1):
        if slot not in self._learned and slot in self._votes:
            self._learned[slot] = self._votes[slot].value
    return max(after, through)


def lack_no_checkpoint(self: Log, base: Slot) -> bool:
    return False


def leave_out_votes(self: Log, slot: Slot) -> list[LogRecord]:
    return [record for record in shipped_checkpoint(self, slot) if not isinstance(record, Voted)]


def read_nothing(self: Acknowledged) -> Any:
    return NOTHING


def sync_nothing(self: PlatterDisk, which: Any) -> None:
    """A store that does not sync a folder or a file, imitated by a disk whose sync does nothing."""


@attrs.frozen
class Fault:
    """An attribute of a class is replaced for each of ``what``. ``says`` is a part of the violation that is found in
    ``space``. The shortest trace has ``steps`` steps."""

    what: Sequence[tuple[type[Any], str, Any]]
    space: Callable[[], Any]
    says: str
    steps: int


PROMISES_ANYTHING = ((Log, "lost_through", property(lambda self: 0)),)
BELIEVES_ITS_VOTES = ((Log, "_adopt_votes", believe_all_votes), (Log, "lacks_checkpoint", lack_no_checkpoint))

FAULTS = {
    "promises for lost slots": Fault(PROMISES_ANYTHING, two_slots(2, 1, 0), " says nothing of Vote(slot=1, ", 8),
    "promises for lost slots, and a cluster": Fault(
        PROMISES_ANYTHING, cluster_aside_space, "two values chosen at slot 2: b'A' and b''", 7
    ),
    "stale votes taken for chosen": Fault(
        BELIEVES_ITS_VOTES, two_slots(2, 0, 1), "taken for chosen at slot 1: b'stale'", 8
    ),
    "stale votes taken for chosen, and a cluster": Fault(
        BELIEVES_ITS_VOTES, cluster_loss_space, "taken for chosen: b'C' at slot 2", 7
    ),
    "a checkpoint without votes": Fault(
        ((Log, "checkpoint", leave_out_votes),), two_slots(2, 0, 0), "it told of Vote(slot=2, ", 5
    ),
    "the mark is not looked at": Fault(
        ((Acknowledged, "read", read_nothing),), one_slot, "it promised 3.a and starts with 1.a", 6
    ),
    "folders are not synced": Fault(
        ((PlatterDisk, "sync_directory", sync_nothing),),
        one_slot,
        "nothing was lost, and cannot read /data/snapshots",
        1,
    ),
    "files are not synced": Fault(
        ((PlatterDisk, "sync_data", sync_nothing),), one_slot, "nothing was lost, and /data/identity is damaged", 2
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    for where, what, by in fault.what:
        monkeypatch.setattr(where, what, by)
    found: Found[Any] = StateSearch(fault.space(), 30_000).run()
    story = format_counterexample(found.trace, found.violation)
    assert (fault.says in found.violation, len(found.trace)) == (True, fault.steps), story


# ------------------------------------------------------ what keeps it small


@pytest.mark.parametrize("slow", [0, 1])
def test_states_that_stand_for_others_leave_nothing_out(slow: int) -> None:
    """The reachable contents of a node are the same if every state is visited, whatever was spent on the way there. On
    a slow disk no snapshot is discarded unless 100,000 states are asked for."""
    discards = int(not slow or STATES_MAX >= 100_000)

    def holds(dominate: bool) -> tuple[int, set[object]]:
        space = one_slot(budget=FaultBudget(1, discards, 1), owed_max=slow, dominate=dominate)
        search: StateSearch[Any] = StateSearch(space, 100_000)
        found = search.run()
        assert (found.exhausted, found.violation) == (True, "")
        return found.states, {space._states.of(state)[0] for state in search.states}

    few, found = holds(True)
    all_of_them, expected = holds(False)
    assert few < all_of_them
    assert len(found) == len(expected)


# ------------------------------------------------------------------ the disk

NAMES = ("/x", "/y", "/in/x", "/in/y")


def test_a_loss_of_power_leaves_what_the_simulated_disk_may_keep() -> None:
    """The same calls on both disks. What the simulated disk keeps is among the outcomes that the other one lists."""
    for seed in range(300):
        rng = Random(seed)
        simulated, platter = SimulatedDisk(rng), PlatterDisk()
        calls = Calls(rng, (simulated, platter))
        for _ in range(rng.randrange(1, 12)):
            calls.one()
        assert content(simulated) == platter.seen(), seed
        simulated.crash()
        assert content(simulated) in platter.platters(), seed


class Calls:
    """Random calls, the same on several disks.

    As in the store, a file has its size before it is written to. A write has two bytes, so that it can be torn in one
    way only. A file is synced before it is written again, since the model loses only the last write.
    """

    def __init__(self, rng: Random, disks: Sequence[Disk]) -> None:
        self._rng = rng
        self._disks = disks
        self._written: set[str] = set()
        self._all(lambda disk: disk.make_directory("/in"))
        self._all(lambda disk: disk.sync_directory("/"))

    def one(self) -> None:
        path, other = self._rng.choice(NAMES), self._rng.choice("xy")
        data = self._rng.randbytes(2)
        calls: Sequence[Callable[[Disk], Any]] = (
            lambda disk: self._create(disk, path),
            lambda disk: self._write(disk, path, data),
            lambda disk: self._sync(disk, path),
            lambda disk: disk.replace(path, f"{path[:-1]}{other}"),
            lambda disk: disk.unlink(path),
            lambda disk: disk.sync_directory(path[:-2] or "/"),
        )
        self._all(self._rng.choice(calls))

    def _all(self, call: Callable[[Disk], Any]) -> None:
        outcomes = []
        for disk in self._disks:
            try:
                call(disk)
                outcomes.append(0)
            except OSError as error:
                outcomes.append(error.errno or -1)
        assert len(set(outcomes)) == 1, outcomes
        assert outcomes[0] in (0, errno.ENOENT), outcomes

    def _create(self, disk: Disk, path: str) -> None:
        handle = disk.create(path)
        disk.allocate(handle, 2)
        disk.sync(handle)
        disk.close(handle)

    def _write(self, disk: Disk, path: str, data: bytes) -> None:
        handle = disk.open(path)
        disk.sync_data(handle)
        disk.write_at(handle, data, 0)
        disk.close(handle)

    def _sync(self, disk: Disk, path: str) -> None:
        handle = disk.open(path)
        disk.sync_data(handle)
        disk.close(handle)


def content(disk: Any) -> Platter:
    """Every folder and file of a simulated disk, as a platter has them."""
    folders = ["/", "/in"]
    found: list[tuple[str, bytes | None]] = []
    for folder in folders:
        found.append((folder, None))
        for name in disk.list_directory(folder):
            path = f"{folder.rstrip('/')}/{name}"
            if path not in folders:
                found.append((path, disk.read(path)))
    return tuple(found)
