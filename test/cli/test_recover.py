"""``txpaxos recover``: the dry run, the recovery, the new cluster file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from test.helpers.folders import cluster_of, files, learned, total_of, voted, write_folder
from test.recovery.test_recover import TOTAL, disaster
from txpaxos.cli import main
from txpaxos.cluster import Cluster
from txpaxos.core.messages import Ballot, Proposal
from txpaxos.core.ready import DecreeState, SubjectState
from txpaxos.recovery import recover as recovery_module
from txpaxos.recovery.recover import find_done
from txpaxos.storage.disk import Disk
from txpaxos.storage.replacement import replace_contents


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of a and b, the cluster file of all five."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recovery_module, "SEGMENT_BYTES", 8192)
    (tmp_path / "cluster.toml").write_text(cluster_of().dumps())
    disaster(tmp_path)
    return tmp_path


def recover(*options: str, directories: tuple[str, ...] = ("a", "b")) -> Result:
    return CliRunner().invoke(main, ["recover", *directories, "--keep", "a,b", "--lose", "c,d,e", *options])


def test_without_consent_it_only_says_what_would_be_lost(folder: Path) -> None:
    before = files(folder)
    result = recover()
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        "node",
        "folder",
        "promised",
        "chosen",
        "through",
        "votes",
        "above",
        "snapshot",
        "registers",
    ]
    assert lines[1].split()[-9:] == ["3.c", "8", "1,", "through", "10", "in", "3.c", "5", "1"]
    assert lines[2].split()[-9:] == ["2.d", "7", "2,", "through", "10", "in", "2.d", "2", "0"]
    assert "The new cluster would be counter~" in result.stdout
    assert "\n* Slots through 8 are chosen, without doubt.\n" in result.stdout
    assert "\n* Slot 10 is only voted for: the votes count as chosen now" in result.stdout
    assert "\n* Slot 9 is unknown to all folders: nothing is applied there.\n" in result.stdout
    assert "\n* Lost: all that c, d, e alone knew. What is behind slot 10 cannot be known" in result.stdout
    assert lines[-1] == "Nothing was changed. If you accept this loss, give the command again with --accept-loss."
    assert files(folder) == before


def test_registers_are_told(folder: Path) -> None:
    voted_on = [
        SubjectState(f"r{n:02}", DecreeState(Ballot(1, "c"), Proposal(Ballot(1, "c"), b"x"))) for n in range(14)
    ]
    asked = SubjectState("asked", DecreeState(Ballot(1, "c")))
    write_folder(folder / "other", "a", [learned(1, 2), *voted_on, asked])
    result = CliRunner().invoke(main, ["recover", "other", "--keep", "a", "--lose", "b,c,d,e"])
    assert "* Registers r00, r01, " in result.stdout
    assert ", r11 and 2 more are only voted on: the votes count as chosen now.\n" in result.stdout
    assert "* Register asked is left without a value.\n" in result.stdout
    assert "Slot " not in result.stdout


def test_a_recovery_and_the_same_command_again(folder: Path) -> None:
    result = recover("--accept-loss", "--write-cluster", "recovered.toml")
    assert (result.exit_code, result.stderr) == (0, "")
    cluster = Cluster.load("recovered.toml")
    assert f"The new cluster is {cluster.name}, with the nodes a, b.\n" in result.stdout
    assert f"are in their before-recovery.{cluster.name.partition('~')[2]}.\n" in result.stdout
    assert "recovered.toml is the new cluster file.\nStart a and b with it" in result.stdout
    assert total_of(folder / "b", "b", cluster) == TOTAL
    before = files(folder)
    result = recover("--accept-loss", "--write-cluster", "recovered.toml")
    assert result.stdout.startswith(f"The recovery was done before: the cluster is {cluster.name}.\n")
    result = recover("--accept-loss")
    assert f"The new cluster file:\n\n{cluster.dumps()}\n" in result.stdout
    result = recover("--accept-loss", "--json")
    assert json.loads(result.stdout) == {
        "is_done": True,
        "cluster": cluster.name,
        "cluster_file": cluster.dumps(),
    }
    assert files(folder) == before


def test_everything_as_json(folder: Path) -> None:
    report = json.loads(recover("--json").stdout)
    assert report["is_done"] is False
    assert report["folders"][0] == {
        "node": "a",
        "directory": str(folder / "a"),
        "promised": "3.c",
        "chosen_through": 8,
        "votes": {"10": "3.c"},
        "snapshot_slot": 5,
        "registers": 1,
    }
    assert (report["chosen_through"], report["through"]) == (8, 10)
    assert (report["guessed_slots"], report["empty_slots"]) == ([10], [9])
    report = json.loads(recover("--json", "--accept-loss").stdout)
    assert report["is_done"] is True
    cluster = Cluster.parse(report["cluster_file"])
    assert total_of(folder / "a", "a", cluster) == TOTAL


def test_an_interrupted_recovery_is_completed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_first(disk: Disk, directory: str) -> None:
        if directory.endswith("/b"):
            raise OSError(5, "Input/output error", directory)
        replace_contents(disk, directory)

    monkeypatch.setattr(recovery_module, "replace_contents", replace_first)
    result = recover("--accept-loss")
    assert (result.exit_code, result.stderr) == (1, f"txpaxos: [Errno 5] Input/output error: '{folder}/b'\n")
    monkeypatch.setattr(recovery_module, "replace_contents", replace_contents)
    result = recover("--accept-loss", "--write-cluster", "recovered.toml")
    assert result.exit_code == 0
    assert find_done(["a", "b"], ("a", "b"), cluster_of()) == Cluster.load("recovered.toml").name


def test_another_file_is_not_overwritten(folder: Path) -> None:
    before = files(folder)
    result = recover("--accept-loss", "--write-cluster", "cluster.toml")
    assert result.exit_code == 1
    assert result.stderr == (
        "txpaxos: cluster.toml exists already: name another file for the new cluster; nothing was changed\n"
    )
    assert files(folder) == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--keep", "a,b,c"], "--keep and --lose both name c."),
        (["--keep", "a,,a"], "a node is named twice."),
        (["--keep", ","], "it names no node."),
        (["--lose", "c;d"], "'c;d' is no name of a node: give names with commas between them, as a,b"),
    ],
)
def test_names_that_make_no_sense(options: list[str], line: str) -> None:
    result = recover(*options)
    assert result.exit_code == 2
    assert line in result.stderr


@pytest.mark.parametrize("options", [(), ("--accept-loss",)])
def test_a_majority_is_started_and_not_recovered(folder: Path, options: tuple[str, ...]) -> None:
    write_folder(folder / "c", "c", [learned(1, 9), voted(10, 3, "c", 100, 9)])
    before = files(folder)
    result = recover(*options, directories=("a", "b", "c"))
    assert result.exit_code == 1
    assert result.stderr == (
        "txpaxos: the folders of a, b, c are a majority of 5: start these nodes instead, and nothing is lost\n"
    )
    assert files(folder) == before


def test_a_folder_that_is_not_there(folder: Path) -> None:
    for options in ((), ("--accept-loss",)):
        result = recover(*options, directories=("a", "nothing"))
        assert result.exit_code == 1
        assert result.stderr.startswith(f"txpaxos: cannot read {folder}/nothing: No such file or directory")
    assert not (folder / "nothing").exists()
