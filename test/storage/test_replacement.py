"""The contents of a data folder are replaced as a whole, whatever system call is the last one before a crash."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from test.storage.test_disk import Crash, FaultyDisk, VolatileDisk, crash_after, crash_before, crash_within, failing
from txpaxos.core.ready import Record
from txpaxos.errors import StoreError
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import execute_now
from txpaxos.storage.replacement import (
    MARKER,
    PREPARED,
    SET_ASIDE,
    finish_replacement,
    note_ready,
    prepared_path,
    ready_nonce,
    replace_contents,
)
from txpaxos.storage.store import DiskStore
from txpaxos.testing.store.harness import voted

FOLDER = "/data"
NONCE = "5f"
OLD: list[Record] = [voted(1, b"old"), voted(2, b"old")]
NEW: list[Record] = [voted(7, b"new")]
SEEDS = range(2)


def open_store(disk: Disk, folder: str, cluster: str) -> DiskStore:
    return DiskStore(folder, cluster, "a", disk=disk, execute=execute_now, segment_bytes=2048)


def save(disk: Disk, folder: str, cluster: str, records: list[Record], snapshot: bool = False) -> None:
    store = open_store(disk, folder, cluster)
    store.load()
    store.save(records)
    if snapshot:
        writer = store.write_snapshot(1)
        writer.write(b"state")
        writer.finish()
        store.last_application.write("old:Application")
    store.close()


def load(disk: Disk, folder: str, cluster: str) -> list[Record]:
    store = open_store(disk, folder, cluster)
    try:
        return store.load()
    finally:
        store.close()


def two_contents(seed: int = 0) -> VolatileDisk:
    """A folder with its old contents, the new ones ready beside them. Only the old ones have a snapshot."""
    disk = copy.deepcopy(_two_contents())
    disk.rng = random.Random(seed)
    return disk


@cache
def _two_contents() -> VolatileDisk:
    disk = VolatileDisk(random.Random(1))
    save(disk, FOLDER, "old", OLD, snapshot=True)
    disk.make_directory(f"{FOLDER}/snapshots.discarded.1")
    disk.make_directory(f"{FOLDER}/lost+found")
    save(disk, prepared_path(FOLDER), "new", NEW)
    note_ready(disk, FOLDER, NONCE)
    for path in [path for path, file in disk.names.items() if file is None]:
        disk.sync_directory(path)
    return disk


def assert_replaced(disk: VolatileDisk) -> None:
    assert load(disk, FOLDER, "new") == NEW
    assert PREPARED not in disk.list_directory(FOLDER)
    assert MARKER not in disk.list_directory(FOLDER)
    assert "snapshots" not in disk.list_directory(FOLDER)
    assert "application" not in disk.list_directory(FOLDER)
    assert "lost+found" in disk.list_directory(FOLDER)
    aside = f"{FOLDER}/{SET_ASIDE}.{NONCE}"
    names = {name.replace("replaced", "discarded") for name in disk.list_directory(aside)}  # A start has renamed it.
    assert {"identity", "journal", "snapshots", "snapshots.discarded.1"} <= names
    assert load(disk, aside, "old")[-1] == OLD[-1]


def test_the_contents_are_replaced_and_the_old_ones_kept() -> None:
    disk = two_contents()
    assert ready_nonce(disk, FOLDER) == NONCE
    replace_contents(disk, FOLDER)
    assert_replaced(disk)
    assert not finish_replacement(disk, FOLDER)
    assert ready_nonce(disk, FOLDER) == ""


@pytest.mark.parametrize("is_complete", [False, True])
def test_contents_that_are_not_complete_take_no_place(is_complete: bool) -> None:
    disk = VolatileDisk(random.Random(1))
    save(disk, FOLDER, "old", OLD)
    if is_complete:
        save(disk, prepared_path(FOLDER), "new", NEW)
    with pytest.raises(StoreError, match="/data/recovery is not complete: nothing was changed"):
        replace_contents(disk, FOLDER)
    assert load(disk, FOLDER, "old") == OLD


def test_a_damaged_marker_stops_a_start() -> None:
    disk = two_contents()
    AtomicFile(disk, f"{FOLDER}/{MARKER}").write(b"\xc1")
    with pytest.raises(StoreError, match="recovering is damaged at offset 0: this is no marker of a recovery"):
        load(disk, FOLDER, "old")


@pytest.mark.parametrize("fault", [crash_before, crash_after, crash_within, failing(5)])
def test_after_a_crash_at_any_call_the_folder_is_old_or_new(fault: Callable[..., Any]) -> None:
    outcomes: set[str] = set()
    for at in range(200):
        for seed in SEEDS:
            inner = two_contents(seed)
            disk = FaultyDisk(inner, at, fault)
            with contextlib.suppress(Crash, StoreError):
                replace_contents(disk, FOLDER)
            if not disk.struck:
                assert outcomes == {"old", "new"}
                return
            disk.kill()
            inner.lose_power()
            outcomes.add(outcome := assert_old_or_new(inner))
            if outcome == "old":
                replace_contents(inner, FOLDER)
            assert_replaced(inner)
    raise AssertionError("it takes too many system calls")


def assert_old_or_new(disk: VolatileDisk) -> str:
    """Which contents a start finds."""
    try:
        found = load(disk, FOLDER, "new")
    except StoreError as error:
        line = str(error)
    else:
        assert found == NEW
        return "new"
    assert "belongs to node 'a' of cluster 'old'" in line
    assert load(disk, FOLDER, "old")[-1] == OLD[-1]
    return "old"


def test_after_two_crashes() -> None:
    for first in range(200):
        inner = two_contents(first)
        disk = FaultyDisk(inner, first, crash_before)
        with contextlib.suppress(Crash):
            replace_contents(disk, FOLDER)
        if not disk.struck:
            return
        disk.kill()
        inner.lose_power()
        second = FaultyDisk(inner, inner.rng.randrange(30), crash_before)
        with contextlib.suppress(Crash):
            finish_replacement(second, FOLDER)
        second.kill()
        inner.lose_power()
        if assert_old_or_new(inner) == "old":
            replace_contents(inner, FOLDER)
        assert_replaced(inner)
    raise AssertionError("it takes too many system calls")
