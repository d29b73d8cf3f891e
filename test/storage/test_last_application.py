"""The file that tells which application a data folder was last started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from test.storage.test_disk import FaultyDisk
from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.last_application import LastApplication


def test_there_is_none_at_first_and_then_the_last(tmp_path: Path) -> None:
    last = LastApplication(Disk(), str(tmp_path))
    assert last.read() == ""
    for name in ("counter:Counter", "kv:Store"):
        last.write(name)
        assert last.read() == LastApplication(Disk(), str(tmp_path)).read() == name
    assert [path.name for path in tmp_path.iterdir()] == ["application"]


@pytest.mark.parametrize("rubbish", [b"", b"counter:Counter", bytes(100)])
def test_one_that_is_damaged_counts_as_none_and_is_written_anew(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "application").write_bytes(rubbish)
    last = LastApplication(Disk(), str(tmp_path))
    assert last.read() == ""
    last.write("counter:Counter")
    assert last.read() == "counter:Counter"


def test_a_name_that_is_no_text_harms_nothing(tmp_path: Path) -> None:
    last = LastApplication(Disk(), str(tmp_path))
    last.write("app\udcff:Class")
    assert last.read() == "app?:Class"


def test_one_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    last = LastApplication(FaultyDisk(Disk()), str(tmp_path / "nowhere"))
    assert last.read() == ""
    with pytest.raises(StoreError, match="application"):
        last.write("counter:Counter")
