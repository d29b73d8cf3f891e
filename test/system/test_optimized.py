"""``python -O`` leaves out what is asserted. Nothing that safety rests on may go with that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from test.system.test_imports import ROOT

CORE = ("test_log", "test_essential", "test_practical", "test_replica_beliefs")
FILES = (*(f"core/{name}" for name in CORE), "node/test_applier")


@pytest.mark.parametrize("name", FILES)
def test_what_must_never_be_is_refused_by_an_optimised_python_too(name: str) -> None:
    """pytest makes ordinary statements of the asserts in tests, so these do count."""
    command = [sys.executable, "-O", "-W", "ignore", "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"test/{name}.py", "-k", "not random_schedules and not crash_leaves and not whatever_happens"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_no_invariant_of_the_core_is_asserted() -> None:
    """An assert in there would be none for ``python -O``."""
    for file in sorted((ROOT / "txpaxos" / "core").glob("*.py")):
        lines = [line for line in file.read_text().splitlines() if line.strip().startswith("assert ")]
        assert not lines, (file.name, lines)
