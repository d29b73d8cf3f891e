"""``txpaxos doctor``: the report on a data folder, as text and as JSON, and its exit status."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from test.storage.test_inspection import flip, open_store, segments, snapshots
from txpaxos.cli import main
from txpaxos.cli.progress import Progress, size_text
from txpaxos.core.ready import Checkpoint, PeerMet, Voter
from txpaxos.node.snapshots.taking import HEAD, SnapshotHead, _encode
from txpaxos.storage.discarded import REPLACED
from txpaxos.storage.disk import Disk
from txpaxos.storage.snapshot_file import SnapshotPacker
from txpaxos.testing.older_registers import add_registers, voted_state
from txpaxos.testing.store.harness import voted

HEALTHY, ATTENTION = 0, 1


def doctor(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["doctor", str(folder), *options])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a snapshot whose head says what it is of."""
    store = open_store(tmp_path / "data")
    store.load()
    store.save([Voter(("a", "b", "c"))])
    store.save([voted(1), voted(2)])
    for slot in (1, 2):
        writer = store.write_snapshot(slot)
        writer.write(HEAD + _encode(SnapshotHead("counter", ("a", "b", "c"), slot, b"hash")))
        writer.finish()
    store.save([Checkpoint(2), PeerMet("b", 7), *(voted(slot) for slot in range(3, 20))])
    store.last_application.write("counter:Counter")
    store.close()
    add_registers(Disk(), str(tmp_path / "data"), [voted_state("s", 1)])
    return tmp_path / "data"


def test_a_healthy_folder(folder: Path) -> None:
    result = doctor(folder)
    assert result.exit_code == HEALTHY
    incarnation = json.loads(doctor(folder, "--json").stdout)["identity"]["incarnation"]
    sizes = [size_text(path.stat().st_size) for path in snapshots(folder)]
    assert result.stdout == (
        f"{folder}\n"
        "  node          a of cluster counter, votes among a, b, c\n"
        f"  incarnation   {incarnation}\n"
        "  application   counter:Counter\n"
        "  journal       1 segment, 2 saves with 21 records\n"
        "  acknowledged  2 saves\n"
        f"  snapshot      at slot 1, {sizes[0]}, sound, members a, b, c\n"
        f"  snapshot      at slot 2, {sizes[1]}, sound, members a, b, c\n"
        "  promised      7.node-1\n"
        "  chosen        through slot 18; votes above: 19 in 7.node-1\n"
        "  registers     1, 0 of them with a known value\n"
        "  has met       b\n"
        "\n"
        "healthy: a node starts with this folder as it is\n"
    )


def test_everything_as_json(folder: Path) -> None:
    report = json.loads(doctor(folder, "--json").stdout)
    assert (report["verdict"], report["advice"]) == ("healthy", [])
    assert report["identity"]["votes_among"] == ["a", "b", "c"]
    assert report["snapshots"][1]["head"] == {
        "cluster": "counter",
        "members": ["a", "b", "c"],
        "slot": 2,
        "log_hash": b"hash".hex(),
        "intervals": 0,
        "chosen_members": [],
    }
    assert report["log"] == {
        "promised": "7.node-1",
        "chosen_through": 18,
        "votes": {"19": "7.node-1"},
        "lost_through": 0,
    }
    assert report["registers"] == {"files": 1, "chosen": 0}
    assert report["met"] == {"b": "7"}
    assert report["refusal"] is None


def test_damage_is_told_with_file_and_offset(folder: Path) -> None:
    flip(segments(folder)[0], 560)
    result = doctor(folder)
    assert result.exit_code == ATTENTION
    verdict, advice = result.stdout.splitlines()[-2:]
    assert verdict.startswith(f"damaged: {segments(folder)[0]} is damaged at offset 512: frame 0 cannot be read")
    assert advice.startswith("  * do not start the node with this folder; replace the node")
    report = json.loads(doctor(folder, "--json").stdout)
    assert (report["refusal"]["path"], report["refusal"]["offset"]) == (str(segments(folder)[0]), 512)


def test_a_damaged_snapshot(folder: Path) -> None:
    flip(snapshots(folder)[1], 40)
    result = doctor(folder)
    assert result.exit_code == ATTENTION
    assert ", damaged (000000000002.snapshot, offset 24)" in result.stdout
    assert f"  * move {snapshots(folder)[1]} away, then start the node" in result.stdout


def test_more_than_one_thing_is_wrong(folder: Path) -> None:
    flip(snapshots(folder)[0], 40)
    flip(folder / "identity", 40)
    result = doctor(folder)
    assert result.exit_code == ATTENTION
    assert "  identity     none that can be read\n" in result.stdout
    assert f"\n  {snapshots(folder)[0]} is damaged" in result.stdout
    assert json.loads(doctor(folder, "--json").stdout)["identity"] is None


def test_a_folder_in_the_middle_of_things(folder: Path) -> None:
    """A part of a snapshot, snapshots that were moved away, a torn save, a node that does not vote yet, many votes."""
    other = folder.parent / "other"
    store = open_store(other)
    store.load()
    store.save([voted(slot) for slot in range(5, 30)])
    store.close()
    (other / "snapshots").mkdir(mode=0o700)
    (other / f"{REPLACED}.1").mkdir(mode=0o700)
    (other / "snapshots.discarded").mkdir(mode=0o700)
    (other / "snapshots" / "000000000020.snapshot.part").write_bytes(SnapshotPacker(20).header)
    lines = doctor(other).stdout
    assert "  node          a of cluster counter, does not vote yet\n" in lines
    assert "  snapshot      at slot 20, 24 bytes of which 24 bytes are sound: a part of another node's\n" in lines
    assert "; votes above: 5 in 7.node-1, 6 in 7.node-1" in lines
    assert "12 in 7.node-1, and 17 more\n" in lines
    assert "  moved away    snapshots.discarded: the node does not have its state again yet\n" in lines
    assert "  moved away    snapshots.replaced.1: not needed any more, may be removed\n" in lines


def test_a_folder_in_use(folder: Path) -> None:
    store = open_store(folder)
    try:
        lines = doctor(folder).stdout
    finally:
        store.close()
    assert "  in use        by " in lines
    assert "  * do not remove, edit or copy anything" in lines


def test_a_folder_without_anything(folder: Path) -> None:
    shutil.rmtree(folder / "journal")
    (folder / "identity").unlink()
    result = doctor(folder)
    assert result.exit_code == ATTENTION
    assert "  journal      no segment\n" in result.stdout
    result = doctor(folder / "nothing")
    assert result.exit_code == ATTENTION
    assert result.stdout.startswith(f"{folder}/nothing\n\nno data: there is no such folder\n")


# ------------------------------------------------------------------ progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_that_goes_in_the_end() -> None:
    now, terminal = [0.0], Terminal()
    progress = Progress("reading x", terminal, lambda: now[0])
    progress.add(10)
    now[0] = 2.0
    progress.add(3 * 2**20 - 10, 6 * 2**20)
    progress.add(10)
    now[0] = 4.0
    progress.add(2**20 - 10)
    progress.end()
    progress.end()
    first, second = "reading x: 3.0 MiB of 6.0 MiB, 1.5 MiB/s", "reading x: 4.0 MiB, 1.0 MiB/s"
    assert terminal.getvalue() == f"\r{first}\r{second.ljust(len(first))}\r{' ' * len(second)}\r"


def test_there_is_no_progress_without_a_terminal() -> None:
    file = io.StringIO()
    progress = Progress("reading x", file, iter(range(100)).__next__)
    progress.add(10)
    progress.end()
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (3 * 2**50, "3072.0 TiB")],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text
