"""Recordings of simulated clusters replay, call by call, and a core that does something else is found out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
from click.testing import CliRunner, Result

from txpaxos.cli import main
from txpaxos.core.catch_up import CatchUp
from txpaxos.core.election import Election
from txpaxos.core.log import Log
from txpaxos.core.messages import Slot
from txpaxos.core.ready import Ready
from txpaxos.core.replica import Replica
from txpaxos.errors import RecordingError
from txpaxos.recording import recorder, replaying
from txpaxos.recording.calls import METHODS, READS, Call
from txpaxos.recording.entries import (
    Application,
    Clocks,
    End,
    Entry,
    Head,
    Input,
    Records,
    Releases,
    Start,
    State,
    Values,
    pack,
    unpack,
)
from txpaxos.recording.events import (
    ClocksRead,
    CoreCalled,
    CoreMade,
    CoreState,
    ReadyReleased,
    RunEnded,
    SegmentBegun,
    SlotsApplied,
)
from txpaxos.recording.files import entries_of, pack_frame, pack_header
from txpaxos.recording.options import RecordingOptions
from txpaxos.recording.reading import read_recording, recorded_nodes
from txpaxos.recording.recorder import RecordedReplica
from txpaxos.recording.replaying import Difference, Replayer, Step
from txpaxos.testing.simulator.simulation import SimulationResult, simulate

SEEDS = 50


@pytest.fixture(scope="module", autouse=True)
def _small_segments() -> Iterator[None]:
    """Have a short run write several segments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "SEGMENTS", 2**28 // 30_000)
        yield


def record(folder: Path, seed: int, bytes_max: int = 2**28, redact: bool = False) -> SimulationResult:
    options = RecordingOptions(str(folder), bytes_max, redact)
    return simulate(seed, seconds=2, changes=seed % 3 == 1, timers=seed % 3 == 2, record=options)


def steps(folder: Path, node: str) -> tuple[Replayer, list[Step]]:
    replayer = Replayer()
    return replayer, list(replayer.steps(read_recording(str(folder), node)))


def first_difference(folder: Path) -> Difference | None:
    for node in recorded_nodes(str(folder)):
        for step in Replayer().steps(read_recording(str(folder), node)):
            if step.difference is not None:
                return step.difference
    return None


def replay(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["replay", str(folder), *options], prog_name="txpaxos")


@pytest.fixture(autouse=True)
def _errors(logged_errors: list[dict[str, Any]]) -> Iterator[None]:
    """What applications and nodes of a simulation log is expected. That a recording ends is not."""
    yield
    assert not [event for event in logged_errors if "recording" in str(event.get("log_format"))]
    logged_errors.clear()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of several segments and starts."""
    folder: Path = tmp_path_factory.mktemp("recording")
    record(folder, 0)
    return folder


# ----------------------------------------------------------------------- the same


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_recording_of_a_simulated_cluster_replays(tmp_path: Path, seed: int) -> None:
    record(tmp_path, seed, redact=seed % 5 == 0)
    nodes = recorded_nodes(str(tmp_path))
    assert nodes
    for node in nodes:
        replayer, told = steps(tmp_path, node)
        assert told[-1].difference is None
        assert replayer.inputs == sum(isinstance(step.event, CoreCalled) for step in told)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_gives_the_same_run_when_it_is_recorded(tmp_path: Path, seed: int) -> None:
    recorded = record(tmp_path, seed)
    plain = simulate(seed, seconds=2, changes=seed % 3 == 1, timers=seed % 3 == 2)
    assert attrs.evolve(recorded, real_seconds=0.0) == attrs.evolve(plain, real_seconds=0.0)


def test_a_recording_of_a_seed_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        record(tmp_path / name, 7)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), path


@pytest.mark.parametrize("redact", [False, True])
def test_each_later_segment_can_be_the_first(tmp_path: Path, redact: bool) -> None:
    record(tmp_path, 0, redact=redact)
    node = max(recorded_nodes(str(tmp_path)), key=lambda one: len(list((tmp_path / one).glob("*.recording"))))
    files = sorted((tmp_path / node).glob("*.recording"))
    assert len(files) > 3
    for file in files[:-1]:
        file.unlink()
        replayer, told = steps(tmp_path, node)
        assert told[-1].difference is None
        assert replayer.inputs


def test_the_events_tell_when_what_was_saved_was_released(recording: Path) -> None:
    for node in recorded_nodes(str(recording)):
        _, told = steps(recording, node)
        called: dict[int, Step] = {}
        released: set[int] = set()
        for step in told:
            match step.event:
                case SegmentBegun(segment=1):
                    called, released = {}, set()
                case CoreCalled():
                    called[step.event.number] = step
                case ReadyReleased():
                    event = called[step.event.number].event
                    assert isinstance(event, CoreCalled)
                    assert event.now <= step.event.now
                    assert step.event.number not in released
                    released.add(step.event.number)
        kinds = {type(step.event) for step in told}
        assert kinds >= {SegmentBegun, CoreMade, CoreCalled, ClocksRead}
        assert kinds <= {*kinds, CoreState, ReadyReleased, SlotsApplied, RunEnded}


def test_the_events_tell_when_slots_were_applied(recording: Path) -> None:
    for node in recorded_nodes(str(recording)):
        _, told = steps(recording, node)
        applied = 0
        for step in told:
            if isinstance(step.event, SegmentBegun) and step.event.segment == 1:
                applied = 0
            if isinstance(step.event, SlotsApplied):
                assert step.core is not None
                assert applied <= step.event.slot <= step.core.log.chosen_through
                applied = step.event.slot


def test_redacted_recordings_hold_no_command(tmp_path: Path) -> None:
    plain, redacted = tmp_path / "plain", tmp_path / "redacted"
    record(plain, 3)
    record(redacted, 3, redact=True)
    secret = b"asker-"  # What the askers of a simulation propose for their registers.
    assert any(secret in path.read_bytes() for path in plain.rglob("*.recording"))
    assert not any(secret in path.read_bytes() for path in redacted.rglob("*.recording"))


# ----------------------------------------------------------------------- something else


def changed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: replacement(original, *given, **named))


def no_vote(accept: Callable[..., Any], *given: Any) -> None:
    accept(*given)


def later(wait: Callable[..., float], *given: Any) -> float:
    return wait(*given) + 0.001


def always(_: Callable[..., bool], *given: Any) -> bool:
    return True


def failing(_: Callable[..., Any], *given: Any) -> None:
    raise LookupError("it is broken")


def forgetful(compact: Callable[..., None], log: Log, through: Slot) -> None:
    compact(log, max(through - 1, log.first_slot - 1))


@pytest.mark.parametrize(
    ("owner", "name", "replacement", "calls"),
    [
        (Log, "accept", no_vote, {"receive"}),
        (Election, "_liveness_window", later, {"make"}),
        (Election, "grants_pre_vote", always, {"receive"}),
        (CatchUp, "note_missing", failing, {"receive", "make"}),
        (Log, "promise", failing, {"receive", "tick", "make"}),
        (Log, "compact", forgetful, {"state", "receive", "checkpoint"}),
    ],
)
def test_a_changed_core_stops_at_the_first_difference(
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    replacement: Callable[..., Any],
    calls: set[str],
) -> None:
    changed(monkeypatch, owner, name, replacement)
    difference = first_difference(recording)
    assert difference is not None
    assert difference.call in calls
    result = replay(recording)
    assert result.exit_code == 1
    assert "differs" in result.output or "another core is made" in result.output
    assert "returned" in result.output
    assert "recorded" in result.output


def test_a_core_that_draws_less_chance_is_found_out(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Election, "_liveness_window", lambda self: 0.3)
    difference = first_difference(recording)
    assert difference is not None
    assert difference.returned == "Unexpected: it asks for less than when it was recorded"


def test_a_core_that_draws_more_chance_is_found_out(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawing(tick: Callable[..., Ready], replica: Replica, now: float) -> Ready:
        replica._rng.random()
        return tick(replica, now)

    changed(monkeypatch, Replica, "tick", drawing)
    difference = first_difference(recording)
    assert difference is not None
    assert (difference.call, difference.returned) == (
        "tick",
        "it asks for a random number, and did not when it was recorded",
    )


def test_another_release_is_named(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "this_release", lambda: "0.0.9")
    result = replay(recording)
    assert result.exit_code == 1
    assert "was recorded by release 0.1.0, and this is 0.0.9: replay it with that one" in result.output


# ----------------------------------------------------------------------- the command


def test_the_command_says_that_all_is_the_same(recording: Path) -> None:
    result = replay(recording)
    assert result.exit_code == 0, result.output
    nodes = recorded_nodes(str(recording))
    lines = result.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == nodes
    assert all(": same: " in line and " inputs, " in line and " Readys equal" in line for line in lines)


def test_one_node_as_json(recording: Path) -> None:
    result = replay(recording, "--node", "b", "--json")
    (found,) = json.loads(result.output)
    replayer, _ = steps(recording, "b")
    assert found["same"] is True
    assert (found["node"], found["inputs"], found["readys"]) == ("b", replayer.inputs, replayer.readys)
    assert found["segments"] == len(list((recording / "b").glob("*.recording")))
    assert json.loads(replay(recording / "b", "--json").output) == [found]


def test_it_stops_at_the_slot_that_is_asked_for(recording: Path) -> None:
    result = replay(recording, "--node", "b", "--until", "5")
    assert result.exit_code == 0
    assert "hands out" in result.output
    (found,) = json.loads(replay(recording, "--node", "b", "--until", "5", "--json").output)
    assert found["chosen_through"] >= 5
    assert found["stopped_at"]["call"] in {call.method for call in Call}
    assert found["inputs"] < steps(recording, "b")[0].inputs


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("absent", "cannot read {folder}: No such file or directory"),
        ("file", "cannot read {folder}: Not a directory"),
        ("empty", "{folder} has no recording: name the folder that was given with --record"),
    ],
)
def test_another_folder_is_one_line(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    result = replay(tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr == f"txpaxos: {complaint.format(folder=tmp_path / name)}\n"


def test_another_node_is_one_line(recording: Path) -> None:
    result = replay(recording, "--node", "z")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "has no recording of node z; it has a, b, c" in result.stderr


def test_another_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "00000001-00000001.recording").write_text("a long text that is no recording")
    result = replay(tmp_path)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "is no file of a recording" in result.output


def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    record(tmp_path, 0)
    node = max(recorded_nodes(str(tmp_path)), key=lambda one: len(list((tmp_path / one).glob("*.recording"))))
    last = max((tmp_path / node).glob("*-00000003.recording"))
    missing = last.with_name(last.name.replace("-00000003", "-00000002"))
    missing.unlink()
    result = replay(tmp_path, "--node", node)
    assert result.exit_code == 1
    assert f"{missing} is missing" in result.output


# ----------------------------------------------------------------------- torn, damaged, hostile


def test_a_torn_tail_is_cut_off(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = sorted((recording / "b").glob("*.recording"))
    for file in files[:-1]:
        (tmp_path / "b" / file.name).write_bytes(file.read_bytes())
    data = files[-1].read_bytes()
    inputs = []
    for size in range(0, len(data), max(1, len(data) // 40)):
        (tmp_path / "b" / files[-1].name).write_bytes(data[:size])
        replayer, told = steps(tmp_path, "b")
        assert told[-1].difference is None
        inputs.append(replayer.inputs)
    assert inputs == sorted(inputs)


def test_a_damaged_byte_is_named_where_it_is(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    file = min((recording / "b").glob("*.recording"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b" / file.name).write_bytes(data)
    result = replay(tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path / 'b' / file.name} is damaged at offset" in result.output


def mutated(rng: Random, data: Any) -> Any:
    """The same plain data, with something else somewhere."""
    others: list[Any] = [
        None,
        True,
        -1,
        2**63,
        0.5,
        "",
        "a",
        b"",
        b"\0",
        [],
        ["l"],
        ["t", 1],
        ["r", 0],
        ["o", "Replica"],
        {},
    ]
    if isinstance(data, list) and data and rng.random() < 0.8:
        index = rng.randrange(len(data))
        return [*data[:index], mutated(rng, data[index]), *data[index + 1 :]]
    return rng.choice(others)


def hostile(rng: Random, entries: list[bytes]) -> list[bytes]:
    index = rng.randrange(len(entries))
    choice = rng.random()
    if choice < 0.1:
        return [*entries[:index], rng.randbytes(rng.randrange(20)), *entries[index + 1 :]]
    if choice < 0.2:
        return [*entries[:index], *entries[index + 1 :]]
    entry = pack(mutated(rng, msgspec.msgpack.decode(entries[index])))
    return [*entries[:index], entry, *entries[index + 1 :]]


@pytest.mark.parametrize("seed", range(40))
def test_hostile_entries_raise_one_error_or_differ(recording: Path, tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    (tmp_path / "b").mkdir()
    files = sorted((recording / "b").glob("*.recording"))
    file = rng.choice(files)
    entries = [*entries_of(file.read_bytes(), "", may_be_torn=True)][:60]
    for _ in range(10):
        data = b"".join((pack_header(), *pack_frame(hostile(rng, entries))))
        (tmp_path / "b" / file.name).write_bytes(data)
        with contextlib.suppress(RecordingError):
            steps(tmp_path, "b")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """To open a pipe waits for one that writes."""
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "00000001-00000001.recording")
    (tmp_path / "b" / "00000001-00000001.recording").mkdir(parents=True)
    told = replay(tmp_path)
    assert told.exit_code == 1
    for node in "ab":
        assert f"{node}/00000001-00000001.recording is no file of a recording" in told.stdout


# ----------------------------------------------------------------------- nothing is left out


def public_methods(cls: type) -> Iterator[str]:
    return (name for name, found in vars(cls).items() if callable(found) and not name.startswith("_"))


def test_each_method_of_the_core_is_recorded_or_changes_nothing() -> None:
    assert {call.method for call in Call} | READS == set(public_methods(Replica))
    assert {call.method for call in Call} == set(public_methods(RecordedReplica))
    assert set(METHODS) == set(Call)


def test_each_entry_comes_back() -> None:
    for entry in _entries():
        assert unpack(pack(entry)) == entry


def _entries() -> list[Entry]:
    return [
        Head("a", 1, 2, "0.1.0", False, 17),
        Start(0.5, ["d"], [0.25, 7], 99),
        State(["o", "Replica"]),
        Input(3, 1.5, [], [0.5, True, None], 12345, [1, 2.5]),
        Input(3, 1.5, [], [], "BrokenInvariant", []),
        *(Releases([4, 2.0]), Application(9, 2.5), Clocks(2.5, 1e9), End(), Values(1, [b"x"]), Records(b"r")),
    ]
