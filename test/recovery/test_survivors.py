"""What folders of one cluster hold together: what is chosen, what is only voted for, and what contradicts what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from test.helpers.folders import NAMES, files, learned, promised, value, voted, write_folder
from txpaxos.core.messages import LOWEST, NO_OP, Ballot, Proposal
from txpaxos.core.ready import DecreeState, Record, SubjectState
from txpaxos.errors import StoreError
from txpaxos.recovery.survivors import Survivor, Union, check_survivors, read_survivor, unite


def united(tmp_path: Path, *records: Sequence[Record]) -> Union:
    """The union of the folders of a, b, ... with the given records."""
    folders = [write_folder(tmp_path / node, node, saved) for node, saved in zip(NAMES, records, strict=False)]
    before = [files(folder) for folder in folders]
    union = unite([read_survivor(str(folder)) for folder in folders])
    assert [files(folder) for folder in folders] == before
    return union


def test_a_folder_is_read_as_a_start_would(tmp_path: Path) -> None:
    records: list[Record] = [learned(6, 9), promised(4, "c"), voted(10, 4, "c", 10, 9), learned(12, 12)]
    one = read_survivor(str(write_folder(tmp_path / "a", "a", records, snapshot=(5, 15))))
    assert (one.node, one.cluster, one.voters, one.application) == ("a", "counter", NAMES, "txpaxos.counter:Counter")
    assert (one.chosen_through, one.snapshot_slot, one.promised) == (9, 5, Ballot(4, "c"))
    assert one.chosen == {slot: value(slot) for slot in (6, 7, 8, 9, 12)}
    assert one.votes == {10: Proposal(Ballot(4, "c"), value(10))}


def test_what_one_of_them_knows_is_chosen(tmp_path: Path) -> None:
    union = united(tmp_path, [learned(1, 3)], [learned(1, 7)])
    assert (union.chosen_through, union.through, union.guessed, union.empty) == (7, 7, (), ())
    assert union.values == {slot: value(slot) for slot in range(1, 8)}
    assert union.snapshot is None


def test_the_vote_with_the_highest_ballot_counts_as_chosen(tmp_path: Path) -> None:
    union = united(
        tmp_path,
        [learned(1, 3), voted(4, 2, "c", 40, 3), voted(5, 2, "c", 50, 3)],
        [learned(1, 2), voted(4, 3, "a", 41, 2), voted(5, 1, "e", 51, 2)],
    )
    assert (union.chosen_through, union.through, union.guessed) == (3, 5, (4, 5))
    assert (union.values[4], union.values[5]) == (value(41), value(50))
    assert union.promised == Ballot(3, "a")


def test_a_value_that_one_knows_is_stronger_than_any_vote(tmp_path: Path) -> None:
    union = united(tmp_path, [learned(1, 4)], [learned(1, 2), voted(3, 9, "d", 99, 2)])
    assert union.values[3] == value(3)
    assert union.guessed == ()


def test_a_chosen_value_above_a_gap_and_the_gap(tmp_path: Path) -> None:
    union = united(tmp_path, [learned(1, 2), learned(6, 6)], [learned(1, 3), voted(5, 2, "c", 50, 3)])
    assert (union.chosen_through, union.through, union.guessed, union.empty) == (3, 6, (5,), (4,))
    assert [union.values[slot] for slot in (4, 5, 6)] == [NO_OP, value(50), value(6)]
    assert [*union.values] == [1, 2, 3, 4, 5, 6]


def test_nothing_at_all(tmp_path: Path) -> None:
    union = united(tmp_path, [], [])
    assert (union.chosen_through, union.through, union.values, union.promised) == (0, 0, {}, LOWEST)


def test_the_newest_snapshot_is_taken_and_what_is_behind_it(tmp_path: Path) -> None:
    older = read_survivor(str(write_folder(tmp_path / "a", "a", [learned(3, 9)], snapshot=(2, 3))))
    newer = read_survivor(str(write_folder(tmp_path / "b", "b", [learned(6, 7)], snapshot=(5, 15))))
    union = unite([older, newer])
    assert union.snapshot == newer.snapshot
    assert (union.chosen_through, [*union.values]) == (9, [6, 7, 8, 9])
    alone = unite([read_survivor(str(write_folder(tmp_path / "c", "c", [], snapshot=(5, 15))))])
    assert (alone.chosen_through, alone.through, alone.values) == (5, 5, {})


def test_folders_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a and .*b have different values at slot 2: one of them is damaged"):
        united(tmp_path, [learned(1, 2)], [learned(1, 1), learned(3, 3), _other(2)])


def _other(slot: int) -> Record:
    return learned(slot, slot).__class__(slot, (value(99),))


def test_a_state_that_is_in_no_folder_is_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "a", "a", [learned(6, 9)], snapshot=(5, 15))
    (path / "snapshots").rename(path / "snapshots.discarded")
    other = read_survivor(str(write_folder(tmp_path / "b", "b", [learned(1, 2), learned(4, 4)])))
    with pytest.raises(StoreError, match=r"the slots 3, 5 are chosen, and no folder has what came of them"):
        unite([read_survivor(str(path)), other])
    with pytest.raises(StoreError, match=r"the slots 1 to 5 are chosen, and no folder has what came of them"):
        unite([read_survivor(str(path))])
    whole = read_survivor(str(write_folder(tmp_path / "c", "c", [learned(1, 5)])))
    assert unite([read_survivor(str(path)), whole]).chosen_through >= 5


def state(name: str, accepted: tuple[int, bytes] | None, chosen: bytes | None = None) -> SubjectState:
    vote = None if accepted is None else Proposal(Ballot(accepted[0], "c"), accepted[1])
    return SubjectState(name, DecreeState(Ballot(9, "c"), vote, chosen))


def test_registers(tmp_path: Path) -> None:
    union = united(
        tmp_path,
        [state("known", (1, b"x"), b"x"), state("voted", (1, b"low")), state("asked", None)],
        [state("known", (8, b"x")), state("voted", (2, b"high")), state("other", (3, b"y"))],
    )
    assert union.registers == {"known": b"x", "voted": b"high", "other": b"y"}
    assert union.guessed_registers == ("other", "voted")
    assert union.undecided_registers == ("asked",)
    with pytest.raises(StoreError, match="the register 'one' has two different chosen values"):
        united(tmp_path / "again", [state("one", None, b"x")], [state("one", None, b"y")])


# ------------------------------------------------------------------ refused


@pytest.fixture
def pair(tmp_path: Path) -> list[Survivor]:
    return [read_survivor(str(write_folder(tmp_path / node, node, [learned(1, 2)]))) for node in "ab"]


def test_folders_that_belong_together(pair: list[Survivor]) -> None:
    check_survivors(pair, NAMES)


def test_a_majority_is_not_lost(pair: list[Survivor]) -> None:
    with pytest.raises(StoreError, match="the folders of a, b are a majority of 3: start these nodes instead"):
        check_survivors([*(_with(one, voters=("a", "b", "c")) for one in pair)], ("a", "b", "c"))


def test_a_node_that_never_voted_makes_no_majority(pair: list[Survivor]) -> None:
    newcomers = [_with(one, voters=()) for one in pair]
    check_survivors(newcomers, ("a", "b", "c"))


def _with(one: Survivor, **changes: object) -> Survivor:
    return attrs.evolve(one, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "members", "line"),
    [
        ({"cluster": "other"}, NAMES, "is of cluster 'counter' and .* of 'other': give the folders of one cluster"),
        ({"node": "a"}, NAMES, "are both of node a"),
        ({}, "abcd", "votes among a, b, c, d, e, and --keep and --lose name a, b, c, d: name each of its nodes, once"),
        ({"node": "x", "voters": ()}, NAMES, "is of node x, which neither --keep nor --lose names"),
    ],
)
def test_folders_that_do_not_belong_together(
    pair: list[Survivor], changes: dict[str, object], members: Sequence[str], line: str
) -> None:
    with pytest.raises(StoreError, match=line):
        check_survivors([pair[0], _with(pair[1], **changes)], members)


def test_what_is_no_folder_of_a_node(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*nothing: No such file or directory"):
        read_survivor(str(tmp_path / "nothing"))
    with pytest.raises(StoreError, match=r"holds no data of a node: 'txpaxos doctor .*' says what is in it"):
        read_survivor(str(tmp_path))


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "a", "a", [learned(1, 2)])
    (path / "acknowledged").unlink()
    with pytest.raises(StoreError, match="the file is missing, which says how far this store has come"):
        read_survivor(str(path))
