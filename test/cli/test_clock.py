"""``txpaxos clock accept`` with a real node."""

from __future__ import annotations

import json
import time
from pathlib import Path

from test.helpers.cli_nodes import running, txpaxos
from txpaxos.cli.clock import told


def test_it_is_accepted_by_the_leader(tmp_path: Path) -> None:
    with running(tmp_path, "a"):
        done = txpaxos("clock", "accept", "--json", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        accepted = json.loads(done.stdout)
        assert (accepted["cluster"], accepted["leader"], accepted["refused_seconds"]) == ("test", "a", 0)
        assert abs(accepted["utc_ms"] / 1000 - time.time()) < 60
        done = txpaxos("clock", "accept", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"the time in the log goes on from 2")


def test_what_it_says() -> None:
    line = told({"leader": "b", "utc_ms": 1_795_834_800_123, "refused_seconds": 9000.0})
    assert line == (
        "the time in the log goes on from 2026-11-28 03:00:00 UTC, by the clocks of b and the other voters (2.5 hours"
        " later than before)"
    )


def test_without_a_cluster_it_is_one_line(tmp_path: Path) -> None:
    done = txpaxos("clock", "accept", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1
