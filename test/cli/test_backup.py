"""``txpaxos backup`` and ``txpaxos restore``: what is fetched and written, what they print, and what they refuse."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred, fail, maybeDeferred

from test.helpers.folders import cluster_of, files, learned, start_node, total_of, write_folder
from test.recovery.test_backup_file import make_backup
from txpaxos.cli import main
from txpaxos.cli.backup import _fetch, best_node
from txpaxos.cli.progress import Progress
from txpaxos.cli.running import CommandError
from txpaxos.errors import BackupOutdated
from txpaxos.node import backups
from txpaxos.node.node import Node
from txpaxos.recovery import restore as restore_module
from txpaxos.recovery.backup_file import Backup, read_backup, values_of

MEMBERS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(restore_module, "SEGMENT_BYTES", 8192)
    (tmp_path / "new.toml").write_text(cluster_of(MEMBERS, "other").dumps())
    return tmp_path


class Answers:
    """A client whose requests a node answers at once. ``change`` may put another answer in place of one."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asked: list[tuple[int, int]] = []

    def change(self, body: bytes, snapshot_slot: int, position: int) -> bytes:
        return body

    def backup_part(self, snapshot_slot: int, position: int, deadline_seconds: float) -> Deferred[bytes]:
        self.asked.append((snapshot_slot, position))
        part = maybeDeferred(self.node.backup_part, snapshot_slot, position)
        return part.addCallback(lambda part: self.change(part.body, snapshot_slot, position))


@pytest.fixture
def answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setattr(backups, "PART_BYTES", 100)
    write_folder(folder / "a", "a", [learned(6, 12)], members=MEMBERS, snapshot=(5, 15))
    return Answers(start_node(folder / "a", "a", cluster_of(MEMBERS)))


def fetched(answers: Any) -> Any:
    """The backup that is fetched; or the error."""
    progress = Progress("fetching", io.StringIO())
    results: list[Any] = []
    Deferred.fromCoroutine(_fetch(answers, "counter.backup", 1.0, progress)).addBoth(results.append)
    (result,) = results
    if not isinstance(result, Backup):
        result.raiseException()
    return result


def test_all_parts_are_fetched_the_values_first(answers: Answers) -> None:
    backup = fetched(answers)
    assert read_backup("counter.backup").digest == backup.digest
    assert (backup.head.snapshot_slot, backup.head.through) == (5, 12)
    assert len([value for values in values_of(backup) for value in values]) == 7
    assert answers.asked[0] == (0, 0)
    assert [slot for slot, _ in answers.asked] == sorted(slot for slot, _ in answers.asked)
    assert len(answers.asked) > 6
    answers.node.stop()


def test_commands_that_come_meanwhile_are_not_in_it(answers: Answers) -> None:
    """The head says through which slot it goes; the node knows more by the time it is asked."""
    change = answers.change

    def earlier(body: bytes, snapshot_slot: int, position: int) -> bytes:
        if snapshot_slot or position:
            return change(body, snapshot_slot, position)
        head = msgspec.msgpack.decode(body)
        return msgspec.msgpack.encode({**head, "through": 9})

    answers.change = earlier  # type: ignore[method-assign]
    assert fetched(answers).head.through == 9
    answers.node.stop()


def test_a_node_that_has_less_than_it_says(answers: Answers) -> None:
    values = msgspec.msgpack.encode([])

    def no_values(body: bytes, snapshot_slot: int, position: int) -> bytes:
        return values if not snapshot_slot and position > 6 else body

    def no_snapshot(body: bytes, snapshot_slot: int, position: int) -> bytes:
        return b"" if snapshot_slot and position else body

    answers.change = no_values  # type: ignore[method-assign]
    with pytest.raises(CommandError, match=r"the node has no value at slot \d+, though it has applied it"):
        fetched(answers)
    answers.change = no_snapshot  # type: ignore[method-assign]
    with pytest.raises(CommandError, match="the snapshot of the node ends at 100 of"):
        fetched(answers)
    assert not [*Path().glob("counter.backup*")]
    answers.node.stop()


def test_an_outdated_backup_leaves_nothing(answers: Answers) -> None:
    class Outdated(Answers):
        def backup_part(self, snapshot_slot: int, position: int, deadline_seconds: float) -> Deferred[bytes]:
            if snapshot_slot:
                return fail(BackupOutdated("gone"))
            return super().backup_part(snapshot_slot, position, deadline_seconds)

    with pytest.raises(BackupOutdated):
        fetched(Outdated(answers.node))
    assert not [*Path().glob("counter.backup*")]
    answers.node.stop()


def test_the_node_to_ask() -> None:
    statuses = {
        "a": {"applied_through": 9, "role": "leader"},
        "b": {"applied_through": 9, "role": "follower"},
        "c": {"applied_through": 7, "role": "follower"},
        "d": None,
    }
    assert best_node(statuses) == "b"
    assert best_node({"d": None}) is None


# ------------------------------------------------------------------ the commands


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_a_backup_is_checked(folder: Path) -> None:
    backup = make_backup(folder)
    result = invoke("backup", "counter.backup", "--check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "  cluster      counter, the state after slot 8, from node a\n" in result.stdout
    assert "  members      a (127.0.0.1:4000, clients 127.0.0.1:5000)\n" in result.stdout
    assert f"  checksum     {backup.digest}\n" in result.stdout
    report = json.loads(invoke("backup", "counter.backup", "--check", "--json").stdout)
    assert (report["checksum"], report["through"], report["snapshot_slot"]) == (backup.digest, 8, 5)
    Path("counter.backup").write_bytes(Path("counter.backup").read_bytes()[:-1])
    result = invoke("backup", "counter.backup", "--check")
    assert result.exit_code == 1
    assert result.stderr.startswith("txpaxos: counter.backup is damaged at offset ")
    assert result.stderr.count("\n") == 1


def test_a_node_that_is_not_there(folder: Path) -> None:
    result = invoke("backup", "counter.backup", "--node", "q", "--cluster", "new.toml")
    assert result.exit_code == 2
    assert "cluster other has no node 'q': a, b, c." in result.stderr


def restore(*options: str) -> Result:
    return invoke("restore", "counter.backup", "--cluster", "new.toml", "--node", "a", "--data-dir", "data", *options)


def test_a_dry_run_and_a_restore(folder: Path) -> None:
    make_backup(folder)
    before = files(folder)
    result = restore("--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("It can be restored to data for node a of cluster other. Nothing was changed.\n")
    assert files(folder) == before
    result = restore()
    assert result.stdout.endswith("data is restored for node a of cluster other.\n")
    assert total_of(folder / "data", "a", cluster_of(MEMBERS, "other")) == 36
    result = restore()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("txpaxos: data is not empty")


def test_a_restore_as_json(folder: Path) -> None:
    make_backup(folder)
    report = json.loads(restore("--dry-run", "--json").stdout)
    assert (report["is_done"], report["node"], report["through"]) == (False, "a", 8)
    assert json.loads(restore("--json").stdout)["is_done"] is True


def test_the_cluster_that_was_backed_up_is_refused(folder: Path) -> None:
    backup = make_backup(folder)
    (folder / "new.toml").write_text(cluster_of(MEMBERS).dumps())
    result = restore()
    assert result.exit_code == 1
    assert result.stderr.endswith(
        "so nodes of that cluster would be heard: give it another name, for instance cluster ="
        f' "counter~{backup.digest[:16]}"\n'
    )
