"""The torture's check of recordings: it passes what nodes told and recorded, and finds what they did not."""

from __future__ import annotations

from pathlib import Path
from random import Random

import attrs
import pytest

from test.helpers.chronicles import recorded_run
from test.torture.recordings import RecordingCheck, check_recordings
from txpaxos.core.messages import Ballot
from txpaxos.explaining.facts import ValueMark, What
from txpaxos.explaining.recollection import Recollection
from txpaxos.explaining.values import tell_value

pytestmark = pytest.mark.usefixtures("expected_errors")

SEED = 5
NODES = ("a", "b", "c")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Recollection]]:
    """The recordings of a cluster that lost its leader more than once, and what its nodes tell of twenty slots."""
    folder: Path = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as monkeypatch:
        cluster, chronicles = recorded_run(SEED, folder, monkeypatch)
    slots = Random(SEED).sample(sorted(cluster.checker.chosen), 20)
    told = []
    for node, chronicle in chronicles.of_nodes.items():
        for slot in slots:
            facts = chronicle.recall(slot)
            is_known = any(fact.what is What.APPLIED for fact in facts)
            value = tell_value(cluster.checker.chosen[slot]) if is_known else None
            told.append(Recollection(node, NODES, slot, facts, value))
    return folder, told


def check(ran: tuple[Path, list[Recollection]], told: Recollection | None = None) -> RecordingCheck:
    """Check what was told, with ``told`` in addition."""
    folder, all_told = ran
    return check_recordings(folder, [*all_told, *([told] if told else [])])


def test_what_was_told_is_as_recorded(ran: tuple[Path, list[Recollection]]) -> None:
    outcome = check(ran)
    assert outcome.found == []
    assert outcome.slots == outcome.explained == 20
    assert outcome.ballots > 1
    assert outcome.inputs > 200
    assert outcome.told_facts > 200


def test_a_fact_that_is_not_recorded_is_found(ran: tuple[Path, list[Recollection]]) -> None:
    told = next(one for one in ran[1] if any(fact.what is What.VOTED for fact in one.facts))
    vote = next(fact for fact in told.facts if fact.what is What.VOTED)
    for other in (
        attrs.evolve(vote, ballot=Ballot(99, "c")),
        attrs.evolve(vote, value=ValueMark.of(b"another")),
        attrs.evolve(vote, what=What.HEARD_VOTE, peer="c"),
    ):
        (found,) = check(ran, attrs.evolve(told, facts=(other,))).found
        assert f"node {told.node} told of slot {told.slot} what is not in its recording" in found


def test_a_value_that_is_not_the_recorded_one_is_found(ran: tuple[Path, list[Recollection]]) -> None:
    told = next(one for one in ran[1] if one.value is not None)
    (found,) = check(ran, attrs.evolve(told, value=tell_value(b""))).found
    assert f"node {told.node} told that slot {told.slot} holds" in found


def test_a_recording_that_cannot_be_replayed_is_found(ran: tuple[Path, list[Recollection]], tmp_path: Path) -> None:
    file = next((ran[0] / "b").glob("*.recording"))
    (tmp_path / "b").mkdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b" / file.name).write_bytes(data)
    (found,) = check_recordings(tmp_path, []).found
    assert found.startswith("the recording of b: ")
    assert file.name in found
