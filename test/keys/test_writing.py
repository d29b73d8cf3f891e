"""Keys are written whole or not at all, for their owner only, and never over what is there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from txpaxos.errors import ConfigError
from txpaxos.keys.writing import replace_folder, write_file, write_folder


@pytest.fixture(autouse=True)
def no_umask() -> object:
    """What is written is for its owner only, also if the user's mask allows all."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(path: Path) -> set[int]:
    return {stat.S_IMODE(one.stat().st_mode) for one in path.iterdir()}


def test_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {"one": b"1", "two": b"2" * 100_000})
    assert {one.name: one.stat().st_size for one in (tmp_path / "a").iterdir()} == {"one": 1, "two": 100_000}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert modes(tmp_path / "a") == {0o600}


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o777)
    write_folder(tmp_path / "a", {"one": b"1"})
    assert modes(tmp_path) == {0o700}


@pytest.mark.parametrize("there", ["file", "folder", "link", "dangling"])
def test_nothing_is_written_over_what_is_there(tmp_path: Path, there: str) -> None:
    target = tmp_path / "a"
    match there:
        case "file":
            target.write_text("x")
        case "folder":
            target.mkdir()
            (target / "node.key").write_text("x")
        case "link":
            target.symlink_to(tmp_path)
        case _:
            target.symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="a is there already"):
        write_folder(target, {"node.key": b"other"})
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_above_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder .*nowhere is missing: make it first"):
        write_folder(tmp_path / "nowhere" / "a", {})


def test_a_folder_that_cannot_be_written_whole_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_folder(tmp_path / "a", {"one": b"1", "no/such": b"2"})
    assert list(tmp_path.iterdir()) == []


def test_file(tmp_path: Path) -> None:
    write_file(tmp_path / "one", b"1")
    write_file(tmp_path / "one", b"2")
    with pytest.raises(ConfigError, match="one is there already, and is never overwritten"):
        write_file(tmp_path / "one", b"3", replace=False)
    write_file(tmp_path / "two", b"4", replace=False)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"one": b"2", "two": b"4"}
    assert modes(tmp_path) == {0o600}


def test_a_folder_is_replaced_and_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {"one": b"1"})
    assert replace_folder(tmp_path / "a", {"one": b"2"}) == tmp_path / "a.before"
    with pytest.raises(ConfigError, match="before is there already: remove it when"):
        replace_folder(tmp_path / "a", {"one": b"3"})
    contents = {one.relative_to(tmp_path).as_posix(): one.read_bytes() for one in tmp_path.rglob("one")}
    assert contents == {"a/one": b"2", "a.before/one": b"1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_what_root_writes_for_another_user_belongs_to_that_user(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {"one": b"1"})
    os.chown(tmp_path / "a", 12345, 54321)
    write_file(tmp_path / "a" / "two", b"2")
    owner = (tmp_path / "a" / "two").stat()
    assert (owner.st_uid, owner.st_gid) == (12345, 54321)
    replace_folder(tmp_path / "a", {"one": b"2", "two": b"3"})
    owners = {(one.stat().st_uid, one.stat().st_gid) for one in (tmp_path / "a", *(tmp_path / "a").iterdir())}
    assert owners == {(12345, 54321)}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, write = os.open("/dev/full", os.O_WRONLY), os.write
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda _, data: write(full, data))
            with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/a/one'"):
                write_folder(tmp_path / "a", {"one": b"1"})
    finally:
        os.close(full)
    assert list(tmp_path.iterdir()) == []
