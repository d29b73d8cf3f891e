"""The file that says which backup a folder was restored from."""

from __future__ import annotations

from pathlib import Path

import pytest

from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.restored_from import RestoredFrom


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert RestoredFrom(Disk(), str(tmp_path)).read() == ""
    RestoredFrom(Disk(), str(tmp_path)).write("5f9c")
    assert RestoredFrom(Disk(), str(tmp_path)).read() == "5f9c"


def test_damage_stops_the_start(tmp_path: Path) -> None:
    RestoredFrom(Disk(), str(tmp_path)).write("5f9c")
    (tmp_path / "restored").write_bytes((tmp_path / "restored").read_bytes()[:-1])
    with pytest.raises(StoreError, match="restored is damaged at offset"):
        RestoredFrom(Disk(), str(tmp_path)).read()
