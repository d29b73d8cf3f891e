"""Steps of the wall clock of one running process at a time: by ``wall_clock.c``, preloaded.

A time namespace would not do, since it moves the monotonic clocks only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")
COMPILERS = ("cc", "gcc", "clang")
OFFSET_VARIABLE = "WALL_CLOCK_OFFSET"
TRIAL_SECONDS = -1_000_000.0


class WallClock:
    """The clocks of processes.

    :param folder: where the library and the offsets are written.
    :ivar missing: why no clock can be moved here; empty if it can.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = folder / "wall_clock.so"
        self.missing = self._build() or self._try()

    def environment(self, name: str) -> list[str]:
        """The environment that process ``name`` needs so that its clock can be moved, as ``VARIABLE=value``."""
        if self.missing:
            return []
        if not self._offset(name).exists():
            self.move(name, 0.0)
        return [f"LD_PRELOAD={self._library}", f"{OFFSET_VARIABLE}={self._offset(name)}"]

    def move(self, name: str, seconds: float) -> None:
        """Set the clock of ``name`` to ``seconds`` after the true time, at once."""
        offset = round(seconds * 1e9).to_bytes(8, sys.byteorder, signed=True)
        file = os.open(self._offset(name), os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(file, offset, 0)
        os.close(file)

    def _offset(self, name: str) -> Path:
        return self._folder / f"{name}.wall_clock"

    def _build(self) -> str:
        compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
        if compiler is None:
            return f"no C compiler ({', '.join(COMPILERS)}) is installed"
        if not SOURCE.exists():
            return f"{SOURCE.name} is not here"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return f"{SOURCE.name} cannot be compiled: {done.stderr.strip()}" if done.returncode else ""

    def _try(self) -> str:
        """Read the time in a process whose clock was moved."""
        self.missing = ""
        self.move("trial", TRIAL_SECONDS)
        ask = [sys.executable, "-c", "import time; print(time.time())"]
        done = subprocess.run(
            ["env", *self.environment("trial"), *ask], capture_output=True, text=True, check=True, timeout=60
        )
        moved = float(done.stdout) - time.time()
        return "" if abs(moved - TRIAL_SECONDS) < 100 else f"the preloaded {SOURCE.name} has no effect here"
