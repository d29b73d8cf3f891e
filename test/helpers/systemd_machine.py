"""A systemd of its own: process 1 of new namespaces, on an overlay of this machine's files, which stay as they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
SECONDS_MAX = 60.0

BOOT = """
set -e
place=$1; shift
mount -t tmpfs tmpfs "$place"
mkdir "$place/up" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/up,workdir=$place/work" "$place/root"
cd "$place/root"
mount -t proc proc proc
mount --rbind /sys sys
umount -l sys/fs/cgroup
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/shm dev/pts
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
for folder; do mkdir -p "./$folder"; mount --bind "$folder" "./$folder"; done
exec chroot . env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --unit=basic.target --log-target=console
"""


class Machine:
    """A machine that systemd runs.

    :param systemd: the process id of its systemd.
    """

    def __init__(self, systemd: int) -> None:
        self._enter = ["nsenter", "-t", str(systemd), "-m", "-p", "-n", "-i", "-u", "-C", "-r", "-w"]

    def sh(self, script: str, check: bool = True) -> str:
        """Run a script as root. What it prints."""
        done = subprocess.run(
            [*self._enter, "/bin/bash", "-c", script], capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
        assert done.returncode == 0 or not check, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def shows(self, unit: str, *names: str) -> tuple[str, ...]:
        """What systemd says of a unit: its properties of these names."""
        said = self.sh(f"systemctl show {unit} -p {','.join(names)}")
        found = dict(line.split("=", 1) for line in said.splitlines())
        return tuple(found[name] for name in names)

    def wait_until(self, condition: Callable[[], object], unit: str) -> None:
        """Wait until ``condition`` is true; if it takes too long, fail with the log of ``unit``."""
        give_up_at = time.monotonic() + SECONDS_MAX
        while not condition():
            if time.monotonic() > give_up_at:
                log = self.sh(f"systemctl status {unit} --no-pager; journalctl -u {unit} -n 40 --no-pager", check=False)
                raise AssertionError(log)
            threading.Event().wait(0.1)  # Until systemd has done it, which it tells no other.


def missing() -> str:
    """What is missing on this machine; empty if nothing is known to be."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in ("unshare", "nsenter", "chroot", "mount", "ip") if shutil.which(name) is None]
    return f"there is no {absent[0]}" if absent else "" if SYSTEMD.exists() else f"there is no {SYSTEMD}"


@contextlib.contextmanager
def booted(place: Path, *folders: Path) -> Iterator[Machine | None]:
    """A machine that has booted; ``None`` if it cannot be booted here.

    :param folders: what it sees of this machine besides the file system of its root.
    """
    hierarchy = Path("/sys/fs/cgroup") / ("systemd" if Path("/sys/fs/cgroup/systemd").is_dir() else "")
    group = hierarchy / f"txpaxos-test-{os.getpid()}"
    group.mkdir()
    join = f'echo $$ > {group}/cgroup.procs; exec unshare --kill-child -m -p -f -C -n -i -u --mount-proc bash -c "$@"'
    arguments = ["bash", "-c", join, "bash", BOOT, "boot", str(place), *map(str, folders)]
    with (place.parent / "systemd.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield _machine(process)
    finally:
        process.kill()
        process.wait()
        _remove(group)


def _machine(process: subprocess.Popen[bytes]) -> Machine | None:
    """The machine whose systemd is a child of ``process``, once it runs."""
    give_up_at = time.monotonic() + SECONDS_MAX
    while process.poll() is None and time.monotonic() < give_up_at:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            machine = Machine(int(children[0]))
            if machine.sh("systemctl is-system-running", check=False).strip() in ("running", "degraded"):
                return machine
        threading.Event().wait(0.1)  # Until it has booted, which it tells no other.
    return None


def _remove(group: Path) -> None:
    """Remove a control group and those in it, as soon as their processes are gone."""
    give_up_at = time.monotonic() + SECONDS_MAX
    while group.exists() and time.monotonic() < give_up_at:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def visible() -> list[Path]:
    """The folders that a Python in that machine needs: those of this one, and of the project."""
    root = Path(__file__).parents[2]
    return [root, *{Path(sys.prefix), Path(sys.base_prefix)}]
