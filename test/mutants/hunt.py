"""Puts one mutant to the test: a tree of its own, the simulator, then test files, until something catches it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from test.mutants.patches import Mutant, apply
from test.mutants.seeds import KEYS_FROM

ROOT = Path(__file__).parent.parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "docs", "dropin.cache")

KINDS = {
    "model": (
        "core/test_agreement",
        "core/test_agreement_snapshots",
        "core/test_refinement",
        "node/test_sealing.py::test_what_was_decided_stays_decided",
    ),
    "fault": (
        "node/snapshots/test_coordinator",
        "node/test_disk_hangs",
        "storage/test_disk_use",
        "storage/test_diverged",
        "node/test_forged_messages",
        "node/test_founding",
        "storage/test_lost_memory",
        "node/test_newcomers",
        "node/test_protocol_trouble",
        "storage/test_access",
        "storage/test_acknowledged",
        "storage/test_damage",
        "storage/test_disk",
        "storage/test_faults",
        "storage/test_snapshot_faults",
        "storage/test_snapshots",
        "node/snapshots/test_transfer",
    ),
    "forger": (
        "server/test_client_port_limits",
        "core/test_forged",
        "node/test_hostile",
        "test_log_lines",
        "server/test_open_files",
        "node/test_peer_streams",
        "wire/test_items",
        "node/test_candidate_addresses",
    ),
    "process": (
        "system/test_processes",
        "system/test_save_before_send_strace",
        "node/test_moving_nodes",
        "server/test_node_process",
    ),
    "statistics": ("core/test_elections",),
}
"""What kind of test a file holds. The others hold unit tests."""

TRIES = {
    "txpaxos/core/": (
        "core/test_elections",
        "core/test_agreement",
        "core/test_refinement",
        "core/test_replica",
        "core/test_replica_learning",
        "core/test_practical",
    ),
    "txpaxos/storage/": (
        "storage/test_faults",
        "storage/test_damage",
        "storage/test_disk",
        "storage/test_store",
        "storage/test_atomic_file",
    ),
    "txpaxos/": (
        "node/test_protocol_together",
        "node/test_protocol_trouble",
        "node/test_protocol",
        "node/test_performer",
        "node/test_submissions",
        "client/test_client",
        "node/test_peers",
    ),
}
"""Which test files are to find a fault in which folder, if its patch does not say."""

TEST_SECONDS_MAX = 60
FILE_SECONDS_MAX = 300.0


@attrs.frozen
class Catch:
    """What caught a mutant.

    :ivar kind: ``simulator``, one of :data:`KINDS`, ``unit``; empty if nothing did.
    :ivar what: the rule that was broken, or the test that failed.
    :ivar seed: the simulator's.
    :ivar seconds: how long that took, from the beginning of the hunt.
    :ivar again: whether it is what caught the mutant last, so that nothing else had to be tried.
    """

    mutant: str
    kind: str
    what: str
    seed: int | None
    seconds: float
    again: bool = False


Find: TypeAlias = tuple[str, str, int | None]
"""The kind, the rule or test, and the seed of a :class:`Catch`."""


@contextmanager
def copy_of(source: Path, mutant: Mutant | None = None) -> Iterator[Path]:
    """A copy of the tree at ``source``, with the fault of ``mutant`` in it."""
    with tempfile.TemporaryDirectory(prefix="txpaxos-mutant-") as folder:
        place = Path(folder) / "tree"
        shutil.copytree(source, place, ignore=NOT_SOURCE)
        if mutant is not None:
            apply(mutant, place)
        yield place


@attrs.frozen
class Hunter:
    """Hunts mutants of one tree.

    :ivar clean: the tree, without any fault. Nothing counts that goes wrong there, too.
    :ivar cpu_seconds: of the simulator, for each mutant. Processor time: a busy machine tries as many seeds as others.
    :ivar tests: whether test files are tried after it.
    """

    clean: Path
    cpu_seconds: float = 60.0
    tests: bool = True
    _well: set[int | str] = attrs.field(factory=set, init=False)
    """The seeds and tests that go well in the clean tree, as far as that is known: many mutants share one."""

    def hunt(self, mutant: Mutant, last: Catch | None = None) -> Catch:
        """Look for what catches ``mutant``.

        :param last: what caught the mutant in an earlier run. It is tried first: one seed, or one test, takes seconds
            where a hunt takes minutes.
        """
        began = time.monotonic()
        with copy_of(self.clean, mutant) as place:
            again = None if last is None else self._try_again(place, last)
            kind, what, seed = again or self._search(place, mutant) or ("", "", None)
        return Catch(mutant.name, kind, what, seed, time.monotonic() - began, again is not None)

    def _try_again(self, place: Path, last: Catch) -> Find | None:
        """What goes wrong at ``place`` with the seed of ``last``, or with its test."""
        if last.seed is not None:
            return self._simulate(place, 0.0, last.seed)
        return self._test(place, last.what) if last.what else None

    def _search(self, place: Path, mutant: Mutant) -> Find | None:
        """What goes wrong at ``place``, with any seed or in any test."""
        first_seed = KEYS_FROM if mutant.with_keys else 0
        found = self._simulate(place, self.cpu_seconds, first_seed) if mutant.simulated else None
        files = self._files(mutant) if found is None and self.tests else []
        return found or next(filter(None, (self._test(place, file) for file in files)), None)

    def _files(self, mutant: Mutant) -> list[str]:
        """The test files to try, in order."""
        folder = next(folder for folder in TRIES if any(name.startswith(folder) for name in mutant.hunks))
        tries = mutant.tries or tuple(f"test/{name}.py" for name in TRIES[folder])
        return [name for name in tries if (self.clean / name.partition("::")[0]).exists()]

    def _simulate(self, place: Path, cpu_seconds: float, seed: int = 0) -> Find | None:
        """The first seed from ``seed`` on that goes wrong at ``place`` and well in the clean tree."""
        while True:
            found = simulate(place, cpu_seconds, seed)
            if found["rule"] is None:
                return None
            if self._goes_well(found["seed"]):
                return "simulator", found["rule"], found["seed"]
            print(f"seed {found['seed']} goes wrong without any fault, too", file=sys.stderr)
            seed = found["seed"] + 1
            cpu_seconds /= 2

    def _test(self, place: Path, what: str) -> Find | None:
        """The first test of ``what`` (a file, or one test) that fails at ``place`` and passes in the clean tree."""
        broken: list[str] = []
        while True:
            failed = first_failure(place, what, broken)
            if failed is None or failed in broken:
                return None
            if self._goes_well(failed):
                return kind_of(failed), failed, None
            print(f"{failed} fails without any fault, too", file=sys.stderr)
            broken.append(failed)

    def _goes_well(self, what: int | str) -> bool:
        """Whether that seed, or that test, goes well in the clean tree."""
        if what not in self._well:
            if isinstance(what, int):
                failed = simulate(self.clean, 0.0, what)["rule"]
            else:
                failed = first_failure(self.clean, what, ())
            if failed is not None:
                return False
            self._well.add(what)
        return True


def kind_of(failed: str) -> str:
    """What kind of test ``failed`` is: a file, or a test in it."""
    name = failed.removeprefix("test/")
    return next((kind for kind, known in KINDS.items() if name.startswith(known)), "unit")


def simulate(place: Path, cpu_seconds: float, first_seed: int = 0) -> dict[str, Any]:
    """Run the simulator of the tree at ``place``, one seed at least. For what comes back, see
    :func:`test.mutants.simulated.search`."""
    module = ("test.mutants.simulated", "--first-seed", f"{first_seed}", "--cpu-seconds", f"{cpu_seconds}")
    done = _python(place, *module, seconds_max=FILE_SECONDS_MAX + 10 * cpu_seconds)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last_line = (done.stderr.strip().splitlines() or ["nothing printed"])[-1]
        return {"seed": first_seed, "rule": f"the simulator dies of {last_line}", "detail": done.stderr}
    return found


def first_failure(place: Path, what: str, deselected: Sequence[str]) -> str | None:
    """The first test of ``what`` (a file, or one test) that fails in the tree at ``place``, all but ``deselected``."""
    options = [
        "-q",
        "-x",
        "-rfE",
        "-p",
        "no:cacheprovider",
        f"--timeout={TEST_SECONDS_MAX}",
        "-o",
        "timeout_method=signal",
    ]
    skipped = [option for test in deselected for option in ("--deselect", test)]
    done = _python(place, "pytest", *options, *skipped, what)
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    return found[1] if found else None


def _python(
    place: Path, *module_and_arguments: str, seconds_max: float = FILE_SECONDS_MAX
) -> subprocess.CompletedProcess[str]:
    """Run a module in the tree at ``place``, with no other tree's modules in reach."""
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", *module_and_arguments]
    try:
        return subprocess.run(
            command,
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds_max,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "out of time")
