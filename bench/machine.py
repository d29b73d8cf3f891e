"""What the system counts for us: CPU seconds of processes, datagrams, and what machine this is."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """What a process has taken so far, in all its threads, user and system.

    :raises OSError: if there is no such process.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def resident_bytes(pid: int) -> int:
    """The memory that a process has now.

    :raises OSError: if there is no such process.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def disk_bytes(folder: Path) -> int:
    """What the files in a folder take on disk; some may just go away."""
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(name) / file).stat().st_blocks * 512
    return total


def datagrams_sent() -> int:
    """UDP datagrams that all processes of this machine have sent so far."""
    head, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Udp:")
    return int(values[head.index("OutDatagrams")])


class Meter:
    """Counts from when it is made.

    :param pids: by what they are.
    """

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        self._pids = pids
        self._cpu_seconds = self._read()
        self._datagrams = datagrams_sent()

    def _read(self) -> dict[str, float]:
        return {role: sum(map(cpu_seconds, pids)) for role, pids in self._pids.items()}

    def cpu_seconds(self, operations: int) -> dict[str, float]:
        """CPU seconds for one of ``operations``, by what the processes are."""
        return {role: (now - self._cpu_seconds[role]) / operations for role, now in self._read().items()}

    def datagrams(self, operations: int) -> float:
        """Datagrams for one of ``operations``."""
        return (datagrams_sent() - self._datagrams) / operations


def in_memory(folder: str) -> bool:
    """Whether what is saved there never comes to a disk."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(place), kind) for place, kind in mounts if Path(folder).resolve().is_relative_to(place)]
    return max(above, default=(0, ""))[1] in ("tmpfs", "ramfs")


def about() -> dict[str, Any]:
    """What machine this is, and how busy."""
    models = {line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "cpu": ", ".join(sorted(models)),
        "load_average": os.getloadavg(),
    }


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
