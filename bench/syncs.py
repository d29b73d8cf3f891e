"""Counts the syncs of a process: every fsync, fdatasync, msync it makes, as ``strace`` sees them.

Only these calls stop at the tracer (``--seccomp-bpf``), but each of them does: rates are lower than without.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

CALLS = "fsync,fdatasync,msync,sync_file_range,sync,syncfs"


def counting(file: Path, command: list[str]) -> list[str]:
    """``command``, run so that each sync adds a line to ``file``. It keeps its place as our own child (-D)."""
    return ["strace", "-D", "-f", "-q", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(file), *command]


def absent() -> str | None:
    """Why syncs cannot be counted here, or ``None``."""
    if shutil.which("strace") is None:
        return "no strace here: apt-get install strace"
    done = subprocess.run(counting(Path("/dev/null"), ["true"]), capture_output=True, text=True, timeout=30)
    if done.returncode or done.stderr:
        return f"strace cannot trace here: {' '.join(done.stderr.split())}"
    return None


def syncs_in(lines: Iterable[str]) -> int:
    """How many syncs began in what strace wrote."""
    return sum(any(f" {call}(" in line for call in CALLS.split(",")) for line in lines)


def syncs_seen(folder: Path) -> int:
    """How many there were so far, of all processes that write into a folder."""
    return sum(syncs_in(file.read_text(errors="replace").splitlines()) for file in folder.glob("*.syncs"))
