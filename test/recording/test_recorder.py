"""What a recorder has on disk: within its bound, private, and never in the way of its node."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, cast

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import provider

from test.helpers.core_node import elect
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.log import Log
from txpaxos.core.messages import AcceptedSlot
from txpaxos.core.ready import Ready
from txpaxos.core.replica import Replica
from txpaxos.recording import recorder as module
from txpaxos.recording import writer
from txpaxos.recording.events import ClocksRead, CoreCalled, ReadyReleased, RunEnded, SlotsApplied
from txpaxos.recording.options import RecordingOptions
from txpaxos.recording.reading import read_recording
from txpaxos.recording.recorder import Recorder
from txpaxos.recording.replaying import Replayer
from txpaxos.storage.disk import Disk
from txpaxos.testing.simulator.disk import SimulatedDisk

MEMBERS = ("a", "b", "c")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def utc(self) -> float:
        return self.now + 1e9


@pytest.fixture
def said() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_namespace"].startswith("txpaxos.recording"):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


class Load:
    """A leader that has values of a given size chosen, and forgets old ones."""

    def __init__(self, recorder: Recorder | None, keeps: int = 20) -> None:
        self.clock = Clock()
        self.keeps = keeps
        self.released: list[Ready] = []
        make: Callable[..., Replica] = Replica if recorder is None else recorder.make_core
        self.core = make("a", MEMBERS, Random(1), self.clock.now)
        release = self.released.append
        self.release = release if recorder is None else recorder.around(release)
        elect(self.core, self.clock.now)

    def choose(self, count: int, value: bytes = b"value") -> list[Ready]:
        returned = []
        for _ in range(count):
            self.clock.now += 0.01
            core, now = self.core, self.clock.now
            returned.append(core.propose(value, now))
            slot = core.log.chosen_through + 1
            vote = AcceptedSlot(core.election.own_ballot, slot)
            returned += [core.receive(voter, vote, now) for voter in ("a", "b")]
            if core.log.chosen_through > self.keeps:
                core.compact(core.log.chosen_through - self.keeps)
        for ready in returned:
            self.release(ready)
        return returned


def recorder_at(
    folder: Path | str, bytes_max: int = 2**20, disk: Disk | None = None, in_thread: bool = False, redact: bool = False
) -> Recorder:
    options = RecordingOptions(str(folder), bytes_max, redact)
    clock = Clock()
    return Recorder(options, "a", monotonic=clock, utc_seconds=clock.utc, disk=disk, in_thread=in_thread)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.recording"))


def replayed(folder: Path | str, disk: Disk | None = None) -> int:
    replayer = Replayer()
    for step in replayer.steps(read_recording(str(folder), "a", disk)):
        assert step.difference is None, step.difference
    return replayer.inputs


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_recorded_core_does_what_a_plain_one_does(tmp_path: Path, in_thread: bool) -> None:
    recorder = recorder_at(tmp_path, in_thread=in_thread)
    recorded, plain = Load(recorder), Load(None)
    assert recorded.choose(50) == plain.choose(50)
    assert recorded.core.status() == plain.core.status()
    recorder.close()
    assert replayed(tmp_path) > 150


@pytest.mark.parametrize("in_thread", [False, True])
def test_the_bound_is_kept_and_the_rest_replays(tmp_path: Path, in_thread: bool) -> None:
    recorder = recorder_at(tmp_path, 2**20, in_thread=in_thread)
    load = Load(recorder)
    for _ in range(40):
        load.choose(20, os.urandom(2000))
        assert in_thread or size_of(tmp_path) <= 2**20  # A thread may remove a file while its size is asked for.
    recorder.close()
    assert 2**19 < size_of(tmp_path) <= 2**20
    assert not (tmp_path / "a" / "00000001-00000001.recording").exists()
    assert replayed(tmp_path) > 100


def test_recordings_of_earlier_starts_go_first(tmp_path: Path) -> None:
    for _ in range(12):
        recorder = recorder_at(tmp_path, 2**20)
        Load(recorder).choose(60, os.urandom(2000))
        recorder.close()
        assert size_of(tmp_path) <= 2**20
    runs = sorted({int(path.name[:8]) for path in tmp_path.rglob("*.recording")})
    assert runs == list(range(runs[0], 13))
    assert runs[0] > 1
    assert replayed(tmp_path) > 100


def test_files_are_private(tmp_path: Path) -> None:
    recorder = recorder_at(tmp_path / "new")
    Load(recorder).choose(1)
    recorder.close()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*") if path.is_dir()} == {0o700}


def test_a_node_that_runs_can_be_replayed(tmp_path: Path) -> None:
    recorder = recorder_at(tmp_path, 2**24)
    load = Load(recorder)
    counts = []
    for _ in range(5):
        load.choose(50, b"x" * 1000)
        counts.append(replayed(tmp_path))
    assert counts == sorted(set(counts))
    recorder.close()
    assert replayed(tmp_path) > counts[-1]


def test_times_of_release_and_clocks_are_told(tmp_path: Path) -> None:
    recorder = recorder_at(tmp_path)
    load = Load(recorder)
    returned = load.choose(200)
    recorder.close()
    events = list(read_recording(str(tmp_path), "a"))
    assert isinstance(events[-1], RunEnded)
    calls = {event.number: event for event in events if isinstance(event, CoreCalled)}
    numbers = [event.number for event in events if isinstance(event, ReadyReleased)]
    assert len(numbers) == sum(not ready.is_empty for ready in returned)
    assert set(numbers) <= set(calls)
    applied = [event.slot for event in events if isinstance(event, SlotsApplied)]
    assert applied == sorted(applied)
    assert applied[-1] == load.core.log.chosen_through
    clocks = [event for event in events if isinstance(event, ClocksRead)]
    assert len(clocks) > 1
    assert all(event.utc_seconds - event.now == 1e9 for event in clocks)


def test_all_releases_before_a_kill_are_told(tmp_path: Path) -> None:
    recorder = recorder_at(tmp_path)
    load = Load(recorder)
    load.choose(3)
    load.release(load.core.propose(b"last", load.clock.now))
    recorder.abandon()
    events = list(read_recording(str(tmp_path), "a"))
    last = [event for event in events if isinstance(event, CoreCalled)][-1]
    assert isinstance(events[-1], ReadyReleased)
    assert events[-1].number == last.number


def test_a_difference_that_no_ready_shows_is_found_at_the_next_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorder_at(tmp_path)
    Load(recorder).choose(300, b"x" * 2000)
    recorder.close()
    compact = Log.compact
    monkeypatch.setattr(Log, "compact", lambda log, through: compact(log, max(through - 1, log.first_slot - 1)))
    *_, last = Replayer().steps(read_recording(str(tmp_path), "a"))
    assert last.difference is not None
    assert last.difference.call == "state"
    assert last.difference.returned.startswith("core.log.first_slot: ")


def test_a_broken_invariant_is_in_the_recording(tmp_path: Path) -> None:
    recorder = recorder_at(tmp_path)
    load = Load(recorder)
    load.choose(3)
    with pytest.raises(BrokenInvariant):
        load.core.compact(99)
    recorder.abandon()
    calls = [event for event in read_recording(str(tmp_path), "a") if isinstance(event, CoreCalled)]
    assert calls[-1].result == "BrokenInvariant"
    assert replayed(tmp_path) == len(calls)


@pytest.mark.parametrize("bytes_max", range(1000, 60_000, 3700))
def test_a_full_disk_ends_the_recording_and_nothing_else(said: list[LogEvent], bytes_max: int) -> None:
    disk = SimulatedDisk(Random(0))
    disk.make_directory("/recording")
    disk.bytes_max = bytes_max
    recorder = recorder_at("/recording", disk=disk)
    recorded, plain = Load(recorder), Load(None)
    assert recorded.choose(60, b"x" * 1000) == plain.choose(60, b"x" * 1000)
    (event,) = said
    assert "ends, and the node goes on" in event["log_format"]
    assert event["reason"] == os.strerror(errno.ENOSPC)
    recorder.close()
    assert len(said) == 1
    disk.bytes_max = None
    replayed("/recording", disk)


class FailingDisk(Disk):
    """A disk of which one system call fails."""

    def __init__(self, call: str) -> None:
        def fail(*_: Any) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        setattr(self, call, fail)


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("call", ["make_directory", "lock", "list_directory", "create", "write_at", "close"])
def test_a_failing_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, said: list[LogEvent], call: str, in_thread: bool
) -> None:
    recorder = recorder_at(tmp_path, disk=FailingDisk(call), in_thread=in_thread)
    recorded, plain = Load(recorder), Load(None)
    assert recorded.choose(60, b"x" * 2000) == plain.choose(60, b"x" * 2000)
    recorder.close()
    assert [event["reason"] for event in said] == [os.strerror(errno.EIO)]
    assert recorded.released == plain.released


def test_two_nodes_of_one_name_do_not_record_into_one_folder(tmp_path: Path, said: list[LogEvent]) -> None:
    first = recorder_at(tmp_path)
    Load(first).choose(3)
    second = recorder_at(tmp_path)
    Load(second).choose(3)
    assert [event["reason"] for event in said] == [f"another process records to {tmp_path}/a"]
    first.close()
    third = recorder_at(tmp_path)
    Load(third).choose(3)
    third.close()
    assert len(said) == 1
    assert {path.name[:8] for path in tmp_path.rglob("*.recording")} == {"00000001", "00000002"}


def test_a_state_that_is_too_big_ends_the_recording(tmp_path: Path, said: list[LogEvent]) -> None:
    recorder = recorder_at(tmp_path, 2**20)
    recorded, plain = Load(recorder, keeps=1000), Load(None, keeps=1000)
    assert recorded.choose(500, b"x" * 1000) == plain.choose(500, b"x" * 1000)
    (event,) = said
    assert re.fullmatch(
        r"the state of the core has more than \d+ bytes: allow more than 1048576 in all", event["reason"]
    )
    replayed(tmp_path)


def test_a_fault_of_the_recorder_ends_the_recording(
    tmp_path: Path, said: list[LogEvent], expected_errors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorder_at(tmp_path)
    recorded, plain = Load(recorder), Load(None)
    assert recorded.choose(5) == plain.choose(5)
    monkeypatch.setattr(module, "digest", lambda *_: 1 // 0)
    assert recorded.choose(5) == plain.choose(5)
    assert len(said) == 1
    assert said[0]["log_level"].name == "critical"


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_fault_where_a_state_is_packed_ends_the_recording(
    tmp_path: Path, said: list[LogEvent], monkeypatch: pytest.MonkeyPatch, in_thread: bool
) -> None:
    def broken(*_: object) -> Iterator[bytes]:
        raise KeyError("it is broken")
        yield b""

    monkeypatch.setattr(module, "_packed", broken)
    recorder = recorder_at(tmp_path, in_thread=in_thread)
    recorded, plain = Load(recorder), Load(None)
    assert recorded.choose(5) == plain.choose(5)
    recorder.close()
    assert [event["reason"] for event in said] == ["KeyError: 'it is broken'"]


class HungDisk(Disk):
    """A disk whose writes wait."""

    def __init__(self) -> None:
        self.goes_on = Event()
        self.is_hung = False

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """Write when it goes on."""
        if self.is_hung:
            self.goes_on.wait(30)
        return super().write_at(handle, data, offset)


def test_a_hung_disk_holds_up_no_call(tmp_path: Path, said: list[LogEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING_BYTES_MAX", 10_000)
    disk = HungDisk()
    disk.is_hung = True
    recorder = recorder_at(tmp_path, disk=disk, in_thread=True)
    thread = cast(Any, recorder)._writer._thread
    recorded, plain = Load(recorder), Load(None)
    assert recorded.choose(60, b"x" * 1000) == plain.choose(60, b"x" * 1000)
    assert [event["reason"] for event in said] == ["more than 10000 bytes wait for it"]
    recorder.close()
    disk.goes_on.set()
    thread.join(30)
    assert not thread.is_alive()


def test_nothing_is_written_if_no_core_is_made(tmp_path: Path, said: list[LogEvent]) -> None:
    for in_thread in (False, True):
        recorder = recorder_at(tmp_path, in_thread=in_thread)
        recorder.close()
    assert not list(tmp_path.rglob("*.recording"))
    assert not said


def test_redacted_values_keep_their_length_and_equality(tmp_path: Path) -> None:
    recorder = recorder_at(tmp_path, redact=True)
    load = Load(recorder)
    for value in (b"secret one", b"secret two", b"secret one", b"x" * 5000):
        load.choose(1, value)
    recorder.close()
    told = [event for event in read_recording(str(tmp_path), "a") if isinstance(event, CoreCalled)]
    values = [event.arguments[0] for event in told if event.call.method == "propose"]
    assert [len(value) for value in values] == [10, 10, 10, 5000]
    assert values[0] == values[2] != values[1]
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*.recording"))
    assert replayed(tmp_path) == len(told)
