"""The store when everything goes wrong: every system call of a script fails, or is the last one before a crash.

Afterwards a store opened on what is left must hold a prefix of the saves, and in it every save that had fired.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from test.storage.test_disk import (
    Crash,
    FaultyDisk,
    UnsyncedDisk,
    VolatileDisk,
    crash_after,
    crash_before,
    crash_within,
    failing,
    short_write,
)
from txpaxos.core.messages import Ballot
from txpaxos.core.ready import PeerMet, Promised, Record, Voter
from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.records import divide
from txpaxos.storage.store import DiskStore
from txpaxos.testing.store.harness import voted

VOTER = Voter(("node-1", "node-2"), (PeerMet("node-2", 5),))
SAVES: list[list[Record]] = [
    [PeerMet("node-2", 5)],
    [VOTER],
    [Promised(Ballot(1, "node-1"))],
    [voted(1, b"x" * 100)],
    [voted(2), voted(3, bytes(600))],
    [],
    [voted(4, b"long" * 350)],  # begins a new segment
    [voted(slot) for slot in range(5, 9)],
    [voted(9, b"longer" * 600)],  # and one of its own size
    [voted(10)],
]
SEGMENT_BYTES = 2048
Fault = Callable[..., Any]


def open_store(disk: Disk, folder: str) -> DiskStore:
    return DiskStore(
        folder,
        "cluster",
        "node-1",
        disk=disk,
        sync_in_thread=False,
        segment_bytes=SEGMENT_BYTES,
        random_bytes=random.Random(1).randbytes,
    )


def load(disk: Disk, folder: str) -> list[Record]:
    """What a store opened now loads."""
    store = open_store(disk, folder)
    try:
        return store.load()
    finally:
        store.close()


@attrs.define
class Progress:
    """How far the script came: ``fired`` saves are done, ``tried`` were begun."""

    fired: int = 0
    tried: int = 0


def run(disk: Disk, folder: str) -> Progress:
    """Do the script until it is done or the process crashes. After a save that failed, none may work."""
    progress = Progress()
    try:
        store = open_store(disk, folder)
        store.load()
        for records in SAVES:
            outcomes: list[object] = []
            sound = progress.tried == progress.fired
            progress.tried += sound
            store.save(records).addCallbacks(outcomes.append, outcomes.append)
            (outcome,) = outcomes
            assert sound or outcome is not None, "a save worked after one that failed"
            progress.fired += outcome is None
        store.close().addErrback(lambda failure: failure.trap(StoreError))
    except (Crash, StoreError):
        pass
    return progress


def check(loaded: Sequence[Record], progress: Progress) -> None:
    """That ``loaded`` is what the script had saved at some moment between its last fired save and its end."""
    log, voter = divide(loaded)
    possible = [
        divide(itertools.chain.from_iterable(SAVES[:done])) for done in range(progress.fired, progress.tried + 1)
    ]
    assert log in [some_log for some_log, _ in possible]
    assert voter in [some_voter for _, some_voter in possible]
    assert voter is not None or not any(isinstance(record, Promised) for record in log)


def check_it_goes_on(disk: Disk, folder: str, loaded: list[Record]) -> None:
    """That what was loaded once stays, and that the store takes more and keeps it."""
    store = open_store(disk, folder)
    assert store.load() == loaded
    outcomes: list[None] = []
    store.save([voted(99)]).addCallback(outcomes.append)
    assert outcomes == [None]
    store.close()
    if isinstance(disk, VolatileDisk):
        disk.lose_power()
    log, voter = divide([*loaded, voted(99)])
    voters = [] if voter is None else [voter]
    assert load(disk, folder) == [*log, *voters]


def calls_of_the_script() -> int:
    """How many system calls the script makes."""
    disk = FaultyDisk(VolatileDisk(random.Random(0)))
    assert run(disk, "/data") == Progress(len(SAVES), len(SAVES))
    return len(disk.calls)


CALLS = calls_of_the_script()


def test_the_script_is_worth_it() -> None:
    disk = VolatileDisk(random.Random(0))
    run(disk, "/data")
    check(load(disk, "/data"), Progress(len(SAVES), len(SAVES)))
    assert sum(name.endswith(".segment") for name in disk.names) >= 4
    assert CALLS > 100


# ------------------------------------------------------- the process crashes


@pytest.mark.parametrize("fault", [crash_before, crash_after, crash_within])
def test_a_crash_at_every_call(tmp_path: Path, fault: Fault) -> None:
    for at in range(CALLS):
        folder = f"{tmp_path}/{at}"
        os.mkdir(folder)
        disk = FaultyDisk(UnsyncedDisk(), at, fault)
        progress = run(disk, f"{folder}/data")
        assert disk.crashed
        disk.kill()
        loaded = load(UnsyncedDisk(), f"{folder}/data")
        check(loaded, progress)
        check_it_goes_on(UnsyncedDisk(), f"{folder}/data", loaded)


@pytest.mark.parametrize("fault", [failing(errno.EIO), failing(errno.ENOSPC)], ids=["EIO", "ENOSPC"])
def test_an_error_at_every_call(tmp_path: Path, fault: Fault) -> None:
    for at in range(CALLS):
        folder = f"{tmp_path}/{at}"
        os.mkdir(folder)
        disk = FaultyDisk(UnsyncedDisk(), at, fault)
        progress = run(disk, f"{folder}/data")
        assert disk.struck
        disk.kill()
        loaded = load(UnsyncedDisk(), f"{folder}/data")
        check(loaded, progress)
        check_it_goes_on(UnsyncedDisk(), f"{folder}/data", loaded)


def test_a_short_write_at_every_call_is_completed(tmp_path: Path) -> None:
    for at in range(CALLS):
        folder = f"{tmp_path}/{at}"
        os.mkdir(folder)
        disk = FaultyDisk(UnsyncedDisk(), at, short_write)
        assert run(disk, f"{folder}/data").fired == len(SAVES)
        disk.kill()
        check(load(UnsyncedDisk(), f"{folder}/data"), Progress(len(SAVES), len(SAVES)))


# ------------------------------------------------------------- the power goes


def volatile(seed: int) -> Iterator[tuple[VolatileDisk, Progress]]:
    """The disk after a crash of the process at every call of the script, in every way."""
    for at, fault in itertools.product(range(CALLS), (crash_before, crash_after, crash_within)):
        disk = VolatileDisk(random.Random(f"{seed} {at} {fault.__name__}"))
        faulty = FaultyDisk(disk, at, fault)
        progress = run(faulty, "/data")
        faulty.kill()
        yield disk, progress


@pytest.mark.parametrize("seed", range(8))
def test_the_power_goes_at_every_call(seed: int) -> None:
    for disk, progress in volatile(seed):
        disk.lose_power()
        loaded = load(disk, "/data")
        check(loaded, progress)
        disk.lose_power()
        check_it_goes_on(disk, "/data", loaded)


@pytest.mark.parametrize("seed", range(8))
def test_what_was_loaded_after_a_crash_survives_the_loss_of_power(seed: int) -> None:
    """A node acts on what it loaded; so it must be on disk, though no save followed."""
    for disk, progress in volatile(seed):
        loaded = load(disk, "/data")
        check(loaded, progress)
        disk.lose_power()
        check_it_goes_on(disk, "/data", loaded)


@pytest.mark.parametrize("seed", range(8))
def test_what_was_saved_after_a_crash_survives_the_loss_of_power(seed: int) -> None:
    """What the crashed process had begun, down to the folders, is finished before anything rests on it."""
    for disk, progress in volatile(seed):
        loaded = load(disk, "/data")
        check(loaded, progress)
        check_it_goes_on(disk, "/data", loaded)


@pytest.mark.parametrize("seed", range(8))
def test_the_power_goes_again_while_the_store_is_opened(seed: int) -> None:
    rng = random.Random(seed)
    for disk, progress in volatile(seed):
        disk.lose_power()
        for _ in range(2):
            faulty = FaultyDisk(disk, rng.randrange(30), rng.choice([crash_before, crash_after, crash_within]))
            try:
                check(load(faulty, "/data"), progress)
            except Crash:
                faulty.kill()
                disk.lose_power()
        loaded = load(disk, "/data")
        check(loaded, progress)
        disk.lose_power()
        check_it_goes_on(disk, "/data", loaded)


# ------------------------------------------------------------ a sync that lies


@pytest.mark.parametrize("seed", range(8))
def test_after_a_failed_sync_what_is_loaded_is_on_disk(seed: int) -> None:
    """A failed sync drops bytes that programs still see, and no later sync writes them: they must be written anew."""

    def failed_sync(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        if name not in ("sync", "sync_data"):
            return call(*arguments)
        disk.drop_dirty(*arguments)
        raise OSError(errno.EIO, "sync")

    struck = 0
    for at in range(CALLS):
        disk = VolatileDisk(random.Random(f"{seed} {at}"))
        faulty = FaultyDisk(disk, at, failed_sync)
        progress = run(faulty, "/data")
        struck += progress.fired < progress.tried
        faulty.kill()
        loaded = load(disk, "/data")
        check(loaded, progress)
        disk.lose_power()
        check_it_goes_on(disk, "/data", loaded)
    assert struck >= len(SAVES) - 1
