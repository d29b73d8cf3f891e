"""Recordings tell the same of each slot as the nodes themselves remember, over their restarts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from test.helpers.chronicles import recorded_run
from test.helpers.facts import without_time
from txpaxos.cli import main
from txpaxos.cli.explain import Subject, as_words
from txpaxos.core.messages import Ballot, NodeId, Slot
from txpaxos.explaining import Fact, What
from txpaxos.explaining.recorded import recollect_recorded, recollect_recorded_ballot, recovered_by
from txpaxos.explaining.story import story_of
from txpaxos.explaining.values import tell_value
from txpaxos.recording.entries import APPLICATION, CLOCKS, RELEASES, START, pack
from txpaxos.recording.files import entries_of, pack_frame, pack_header
from txpaxos.recording.options import RecordingOptions
from txpaxos.recording.reading import read_recording
from txpaxos.recording.replaying import Replayer
from txpaxos.testing.simulator.cluster import SimulatedCluster

pytestmark = pytest.mark.usefixtures("expected_errors")

SLOTS = 34


def kinds(facts: tuple[Fact, ...]) -> set[Fact]:
    return set(map(without_time, facts))


@pytest.mark.parametrize("seed", [1, 5, 6])
def test_of_random_slots_a_recording_tells_what_the_nodes_remember(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, chronicles = recorded_run(seed, tmp_path, monkeypatch)
    assert cluster.checker.ballots_won > 1
    known = sorted({slot for one in chronicles.of_nodes.values() for slot in one.slots})
    slots = Random(seed).sample(known, min(SLOTS, len(known)))
    for node, chronicle in chronicles.of_nodes.items():
        for slot, recorded in recollect_recorded(str(tmp_path), node, slots).items():
            assert kinds(recorded.facts) == kinds(chronicle.recall(slot)), (node, slot)
            if recorded.value is not None:
                assert recorded.value == tell_value(cluster.checker.chosen[slot])


def test_of_ballots_a_recording_tells_what_the_nodes_remember(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, chronicles = recorded_run(5, tmp_path, monkeypatch)
    for node, chronicle in chronicles.of_nodes.items():
        for ballot in (Ballot(1, "a"), Ballot(2, "a"), Ballot(1, "b"), Ballot(9, "c")):
            recorded = recollect_recorded_ballot(str(tmp_path), node, ballot)
            assert kinds(recorded.facts) == kinds(chronicle.recall_ballot(ballot)), (node, ballot)


def test_what_a_node_knew_when_it_started_is_told_without_its_earlier_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had been killed before it had recorded that the slots were chosen."""
    cluster, _ = recorded_run(6, tmp_path, monkeypatch)
    known: set[Slot] = set()
    for node in cluster.all_machines:
        files = sorted((tmp_path / node).glob("*.recording"))
        for file in files:
            if file.name.partition("-")[0] != files[-1].name.partition("-")[0]:
                file.unlink()
        made = next(step for step in Replayer().steps(read_recording(str(tmp_path), node)) if step.core is not None)
        slots = [one.slot for one in recovered_by(made)]
        known |= set(slots)
        for slot, told in recollect_recorded(str(tmp_path), node, slots).items():
            assert told.value == tell_value(cluster.checker.chosen[slot])
            assert What.APPLIED in {fact.what for fact in told.facts}
    assert known


# -------------------------------------------------------------------- the command


def explain(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["explain", "--recording", str(folder), *options], prog_name="txpaxos")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Slot]:
    """A recording without faults, and a slot in it that has a command."""
    folder: Path = tmp_path_factory.mktemp("recording")
    cluster = SimulatedCluster(3, record=RecordingOptions(str(folder)))
    cluster.run(1.0)
    cluster.end_recordings()
    return folder, max(slot for slot, value in cluster.checker.chosen.items() if tell_value(value).commands_total)


def test_the_command_tells_a_slot_and_finds_its_command(recording: tuple[Path, Slot]) -> None:
    folder, slot = recording
    told = json.loads(explain(folder, str(slot), "--json").output)
    assert told["slot"] == slot
    assert set(told["nodes"]) == {"a", "b", "c"}
    assert len(told["voters"]) >= 2
    sent = told["value"]["commands"][0]
    found = json.loads(explain(folder, "--command", f"{sent['session']}:{sent['sequence']}", "--json").output)
    assert found["slot"] == slot
    assert {fact["what"] for fact in told["facts"]} >= {What.PROPOSED, What.VOTED, What.HEARD_VOTE, What.APPLIED}
    leader = next(fact["node"] for fact in told["facts"] if fact["what"] == What.PROPOSED)
    alone = json.loads(explain(folder / leader, str(slot), "--json").output)
    assert set(alone["nodes"]) == {leader}


def test_wrong_folders_are_one_line(recording: tuple[Path, Slot], tmp_path: Path) -> None:
    folder, slot = recording
    assert_one_line(explain(tmp_path / "missing", "1"), "missing")
    assert_one_line(explain(folder, "--recording", str(folder / "a"), str(slot)), "both have a recording of node a")
    assert explain(folder, "999999").exit_code == 1
    file = next((folder / "a").glob("*.recording"))
    damaged = tmp_path / "damaged" / "a"
    damaged.mkdir(parents=True)
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    (damaged / file.name).write_bytes(bytes(data))
    assert_one_line(explain(tmp_path / "damaged", "1"), file.name)


def assert_one_line(result: Result, says: str) -> None:
    assert result.exit_code == 1
    assert says in result.output
    assert result.output.count("\n") == 1, result.output


def test_a_node_that_was_not_recorded_is_not_told_of(recording: tuple[Path, Slot]) -> None:
    folder, slot = recording
    nodes: list[NodeId] = list(json.loads(explain(folder / "b", str(slot), "--json").output)["nodes"])
    assert nodes == ["b"]


def with_entries(file: Path, target: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Write what is in ``file`` to ``target``, changed, as sound frames."""
    entries = [msgspec.msgpack.decode(one) for one in entries_of(file.read_bytes(), "", may_be_torn=True)]
    frames = b"".join(pack_frame([pack(one) for one in change(entries)]))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(pack_header() + frames)


@pytest.mark.parametrize(
    ("more", "is_read"),
    [
        ((APPLICATION, 2**63, 1.0), True),  # All of these slots were gone through, one by one.
        ((APPLICATION, -(2**63), 1.0), True),
        ((RELEASES, [float("inf"), 1.0]), False),
        ((RELEASES, [float("nan"), 1.0]), False),
        ((CLOCKS, 1.0, 1e308), True),
        ((CLOCKS, 1.0, float("nan")), True),
    ],
)
def test_hostile_entries_are_told_or_one_line(
    recording: tuple[Path, Slot], tmp_path: Path, more: tuple[Any, ...], is_read: bool
) -> None:
    folder, slot = recording
    file = next((folder / "b").glob("*.recording"))
    with_entries(file, tmp_path / "b" / file.name, lambda entries: [*entries[:-1], list(more), entries[-1]])
    told = explain(tmp_path, str(slot), "--svg", str(tmp_path / "drawn.svg"))
    if is_read:
        assert told.exit_code == 0, told
        assert f"Slot {slot} holds" in told.output
    else:
        assert_one_line(told, "is damaged")


def test_a_core_of_hostile_names_is_one_line(recording: tuple[Path, Slot], tmp_path: Path) -> None:
    def with_number_as_name(entries: list[Any]) -> list[Any]:
        start = next(one for one in entries if one[0] == START)
        start[2][start[2].index("members") + 1] = ["t", "a", 2, ["t"]]
        return entries

    folder, slot = recording
    file = next((folder / "b").glob("*.recording"))
    with_entries(file, tmp_path / "b" / file.name, with_number_as_name)
    assert_one_line(explain(tmp_path, str(slot)), "does something else now than was recorded")


def test_a_recording_of_another_node_is_one_line(recording: tuple[Path, Slot], tmp_path: Path) -> None:
    """What b did would be told of a."""
    folder, slot = recording
    shutil.copytree(folder / "b", tmp_path / "a")
    assert_one_line(explain(tmp_path, str(slot)), "it is of node 'b', and lies in the folder of node 'a'")


def test_recordings_of_two_clusters_are_told_apart(recording: tuple[Path, Slot], tmp_path: Path) -> None:
    folder, slot = recording
    cluster = SimulatedCluster(4, record=RecordingOptions(str(tmp_path / "other")))
    cluster.run(1.0)
    cluster.end_recordings()
    of_both = next(one for one, value in cluster.checker.chosen.items() if tell_value(value).commands_total)
    assert of_both < slot
    told = explain(folder / "a", str(of_both), "--recording", str(tmp_path / "other" / "b")).output
    assert "Nodes hold different values at this slot: they are of several clusters, or have diverged." in told
    assert "hold different values" not in explain(folder, str(of_both)).output


def test_control_characters_of_a_recording_stay_out_of_the_terminal() -> None:
    fact = Fact("a\x1b[31m", What.PROMISED, 1e300, 0, Ballot(1, "a\x1b[31m"))
    story = story_of(0, [fact], ["a\x1b[31m"], 1)
    told = as_words(Subject(ballot="1.a"), story, None)
    assert "a\\x1b[31m promised ballot" in told
    assert all(line.isprintable() for line in told.split("\n"))
