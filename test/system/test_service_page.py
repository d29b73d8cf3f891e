"""The page *Your own service*: its programs are some, and its tests pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from test.system.test_imports import ROOT
from test.system.test_readme import blocks
from txpaxos.cli.local_cluster import free_members
from txpaxos.cluster import Cluster

BLOCKS = blocks((ROOT / "docs" / "service.rst").read_text(), "python")
RUN_BLOCKS = BLOCKS
PROGRAM = next(block for block in BLOCKS if "reactor.run()" in block)


def names() -> dict[str, Any]:
    """What all blocks but the program define."""
    defined: dict[str, Any] = {}
    for block in BLOCKS:
        if block is not PROGRAM:
            exec(block, defined)
    return defined


def test_there_are_tests_in_it() -> None:
    assert sum(name.startswith("test_") for name in names()) == 6


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("test_")])
def test_of_the_page(name: str, logged_errors: list[dict[str, Any]]) -> None:
    names()[name]()
    logged_errors.clear()  # Of machines that crash.


def test_the_program(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(Cluster("accounts", {"a": free_members(1)[0]}).dumps())
    end = "addCallback(print).addBoth(lambda _: reactor.stop())"
    program = BLOCKS[0] + "\n" + PROGRAM.replace("addCallback(print)", end)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("5\n", "")
