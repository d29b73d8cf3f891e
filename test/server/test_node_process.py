"""``twistd paxos`` as a process, in the foreground and as a daemon: it cannot start, gives up, or gets SIGHUP."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from txpaxos import __version__
from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.cluster import Cluster
from txpaxos.server.node_process import REMOVED
from txpaxos.storage.disk import Disk
from txpaxos.storage.quarantine import RemovedMarker
from txpaxos.storage.store import DiskStore

SECONDS = 60.0

APPLICATION = """\
import os
import resource
import signal
from twisted.internet import reactor
from txpaxos.protocol import PaxosProtocol

class BreaksItsDisk(PaxosProtocol):
    def leadership_acquired(self):
        self.submit(b"break").addErrback(lambda _: None)
    def apply(self, slot, command):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        reactor.callLater(0, lambda: self.submit(b"x").addErrback(lambda _: None))

class Leaves(PaxosProtocol):
    def leadership_acquired(self):
        self.submit(b"leave").addErrback(lambda _: None)
    def apply(self, slot, command):
        reactor.callLater(0, self.stop)

class Signalled(PaxosProtocol):
    "Gets signals in one turn of the reactor."
    def leadership_acquired(self):
        self.submit(b"signal").addErrback(lambda _: None)
    def apply(self, slot, command):
        reactor.callLater(0, self.signal)
    def signal(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)

class LeavesAndIsSignalled(Signalled):
    "Stops its node, and gets signals at every place between that and the end."
    def signal(self):
        self.stop()
        reactor.callLater(0, Signalled.signal, self)
        reactor.callLater(0, reactor.callLater, 0, Signalled.signal, self)
        reactor.addSystemEventTrigger("before", "shutdown", Signalled.signal, self)
        Signalled.signal(self)

class Hungry(PaxosProtocol):
    def apply(self, slot, command):
        pass
    def __init__(self, *args, **kwargs):
        raise MemoryError
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cluster = Cluster("test", {"a": free_members(1)[0]})
    (tmp_path / "cluster.toml").write_text(cluster.dumps())
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "file").write_text("")
    return tmp_path


def command(*options: str, twistd: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-c", TWISTD, *twistd, "paxos", *options]


def run(folder: Path, *options: str, twistd: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options, twistd=twistd),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.05)  # Until the log is written, which nothing else tells.


def logged(folder: Path, words: str, name: str = "a.log") -> bool:
    file = folder / name
    return file.exists() and words in file.read_text()


@contextlib.contextmanager
def port_taken(folder: Path) -> Iterator[str]:
    address = Cluster.load(folder / "cluster.toml").members["a"].client
    with socket.socket() as holder:
        holder.bind((address.host, address.port))
        holder.listen()
        yield str(address)


DAEMON = ("--pidfile=a.pid", "--logfile=a.log")
FOREGROUND = ("-n", "--pidfile=a.pid")


# ------------------------------------------------------------- cannot start


def test_the_pidfile_is_gone_before_the_start_is_said_to_have_failed(folder: Path) -> None:
    """twistd removes it only after that: here it never does."""
    unremoved = "from twisted.scripts._twistd_unix import UnixApplicationRunner as Runner; Runner.removePID = print; "
    program = [sys.executable, "-c", unremoved + TWISTD, *DAEMON, "paxos", "--data-dir", "file/x"]
    done = subprocess.run(
        program, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1
    assert "cannot create" in done.stderr
    assert not (folder / "a.pid").exists()


@pytest.mark.parametrize("twistd", [DAEMON, FOREGROUND, (*FOREGROUND, "--logfile=a.log")])
def test_a_folder_that_cannot_be_used(folder: Path, twistd: tuple[str, ...]) -> None:
    done = run(folder, "--data-dir", "file/x", twistd=twistd)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"twistd paxos: node a cannot start: cannot create {folder}/file/x: Not a directory")
    assert "Traceback" not in done.stdout
    assert not (folder / "a.pid").exists()
    if "--logfile=a.log" in twistd:
        assert logged(folder, "node a cannot start: cannot create ")


@pytest.mark.parametrize("twistd", [DAEMON, FOREGROUND])
def test_a_port_that_is_taken(folder: Path, twistd: tuple[str, ...]) -> None:
    with port_taken(folder) as address:
        done = run(folder, "-c", "cluster.toml", twistd=twistd)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"twistd paxos: node a cannot start: Couldn't listen on {address} (TCP): Address already in use"
    )
    assert not (folder / "a.pid").exists()
    assert run(folder, "--version", twistd=twistd).stdout == f"txpaxos {__version__}\n"


NOWHERE = "No such file or directory"
IN_A_FILE = "Not a directory"
UNUSABLE = [
    (("--logfile=nowhere/a.log",), f"--logfile nowhere/a.log cannot be written: {NOWHERE}"),
    (("--logfile=file/a.log",), f"--logfile file/a.log cannot be written: {IN_A_FILE}"),
    (("--logfile=.",), "--logfile . cannot be written: Is a directory"),
    (("--pidfile=nowhere/a.pid",), f"--pidfile nowhere/a.pid cannot be written: {NOWHERE}"),
    (("--pidfile=file/a.pid",), f"--pidfile file/a.pid cannot be written: {IN_A_FILE}"),
    (("--pidfile=.",), "--pidfile . cannot be written: Is a directory"),
    (("--rundir=nowhere",), f"--rundir nowhere cannot be used: {NOWHERE}"),
    (("--rundir=file",), f"--rundir file cannot be used: {IN_A_FILE}"),
    (("--chroot=nowhere",), f"--chroot nowhere cannot be used: {NOWHERE}"),
    (("--profile=nowhere/a.profile",), f"--profile ./nowhere/a.profile cannot be written: {NOWHERE}"),
    (("--uid=987654321",), "--uid 987654321: there is no such user"),
    (("--gid=987654321",), "--gid 987654321: there is no such group"),
    ((f"--uid={2**70}",), f"--uid {2**70}: there is no such user"),
]


@pytest.mark.parametrize(
    ("options", "words", "mode"),
    [(*case, mode) for case, mode in zip(UNUSABLE, itertools.cycle([DAEMON, FOREGROUND]))],
)
def test_an_option_of_twistds_own_that_cannot_be_done(
    folder: Path, options: tuple[str, ...], words: str, mode: tuple[str, ...]
) -> None:
    """Every other one as a daemon: what is looked at is the same, and where the line goes is tested above, too."""
    before = sorted(folder.iterdir())
    done = run(folder, "-c", "cluster.toml", twistd=(*mode, *options))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line == f"twistd paxos: {words} (twistd paxos --help lists the options)"
    assert sorted(folder.iterdir()) == before


def test_the_log_of_a_daemon_is_a_file_unless_it_is_told(folder: Path) -> None:
    (folder / "twistd.log").mkdir()
    done = run(folder, "-c", "cluster.toml", twistd=("--pidfile=a.pid",))
    assert done.returncode == 1
    assert done.stderr.startswith("twistd paxos: --logfile twistd.log cannot be written: Is a directory")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize(
    ("name", "mode", "options", "words"),
    [
        ("closed", 0o000, {"pidfile": "closed/a.pid"}, "--pidfile closed/a.pid cannot be written: Permission denied"),
        ("closed", 0o555, {"logfile": "closed/a.log"}, "--logfile closed/a.log cannot be written: Permission denied"),
        ("closed", 0o444, {"rundir": "closed"}, "--rundir closed cannot be used: Permission denied"),
        ("closed", 0o111, {"rundir": "closed"}, ""),
        ("closed", 0o555, {"rundir": "closed", "profile": "x"}, "--profile closed/x cannot be written: Permission"),
        ("open", 0o777, {"pidfile": "open/a.pid", "logfile": "open/a.log", "rundir": "open"}, ""),
        ("open", 0o777, {"uid": 0}, "--uid and --gid: only root may run a process as another user"),
        ("open", 0o777, {"gid": 0}, "--uid and --gid: only root may run a process as another user"),
        ("open", 0o777, {"uid": 65534, "gid": 65534}, ""),
    ],
)
def test_what_a_user_may_not_write(name: str, mode: int, options: dict[str, object], words: str) -> None:
    """In a process of a user that may not write everywhere."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        (Path(place) / name).mkdir()
        (Path(place) / name).chmod(mode)
        program = (
            "import os, sys\nos.setgid(65534)\nos.setuid(65534)\n"
            f"os.chdir({place!r})\n"
            "from txpaxos.server.twistd_options import ConfigError, check_options\n"
            f"try:\n    check_options({options!r}, False)\nexcept ConfigError as error:\n    print(error)\n"
        )
        program = "from txpaxos.server import twistd_options\n" + program
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS)
    assert done.stderr == ""
    assert done.stdout.strip().startswith(words) if words else done.stdout == ""


def test_not_enough_memory(folder: Path) -> None:
    done = run(folder, "-c", "cluster.toml", "--app", "application.py:Hungry", twistd=DAEMON)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "a.pid").exists()


@pytest.mark.parametrize("twistd", [DAEMON, FOREGROUND])
def test_a_wrong_option_is_one_line(folder: Path, twistd: tuple[str, ...]) -> None:
    done = run(folder, "--node", "z", twistd=twistd)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "twistd paxos: --node z is not in the cluster; its nodes are a (twistd paxos --help lists the options)\n"
    )


# ------------------------------------------------------------------- it runs


def test_a_daemon_starts_and_stops(folder: Path) -> None:
    done = run(folder, "-c", "cluster.toml", twistd=DAEMON)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int((folder / "a.pid").read_text())
    try:
        wait_until(lambda: logged(folder, "leads with ballot"))
        assert "Starting protocol" not in (folder / "a.log").read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (folder / "a.pid").exists())


def test_a_node_that_gives_up_ends_with_1_and_leaves_no_pidfile(folder: Path) -> None:
    options = ["-c", "cluster.toml", "--app", "application.py:BreaksItsDisk"]
    done = run(folder, *options, twistd=FOREGROUND)
    assert done.returncode == 1
    assert "node a gives up: cannot write " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (folder / "a.pid").exists()


def test_a_node_that_its_own_program_stops_ends_the_process(folder: Path) -> None:
    done = run(folder, "-c", "cluster.toml", "--app", "application.py:Leaves", twistd=("-n", "--pidfile="))
    assert done.returncode == 0
    assert "node a was stopped by its own program" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("app", "status"), [("Signalled", -signal.SIGTERM), ("LeavesAndIsSignalled", 0)])
def test_signals_in_one_turn_of_the_reactor_stop_it_once(folder: Path, app: str, status: int) -> None:
    options = ["-c", "cluster.toml", "--app", f"application.py:{app}"]
    done = run(folder, *options, twistd=("-n", "--pidfile="))
    assert "Server Shut Down" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == status


def test_a_daemon_opens_its_log_anew_when_it_is_hung_up_on(folder: Path) -> None:
    assert run(folder, "-c", "cluster.toml", twistd=DAEMON).returncode == 0
    pid = int((folder / "a.pid").read_text())
    try:
        wait_until(lambda: logged(folder, "leads with ballot"))
        (folder / "a.log").rename(folder / "a.log.1")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: logged(folder, "SIGHUP: the log file was reopened"))
        assert not logged(folder, "SIGHUP", "a.log.1")
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (folder / "a.pid").exists())
    wait_until(lambda: logged(folder, "Server Shut Down"))  # twistd removes the pidfile before it says so.


def test_a_log_of_json(folder: Path) -> None:
    options = ["-c", "cluster.toml", "--app", "application.py:BreaksItsDisk", "--log-format", "json"]
    done = run(folder, *options, twistd=("-n", "--pidfile="))
    events = {event.get("event"): event for event in map(json.loads, done.stdout.splitlines())}
    assert events["gives_up"]["node"] == "a"
    assert "cannot write" in events["gives_up"]["reason"]
    assert events["leads"]["ballot"].endswith(".a")


def test_the_log_of_json_of_a_daemon(folder: Path) -> None:
    options = ("-c", "cluster.toml", "--log-format", "json", "--log-level", "debug")
    assert run(folder, *options, twistd=DAEMON).returncode == 0
    pid = int((folder / "a.pid").read_text())
    try:
        wait_until(lambda: logged(folder, "leads with ballot"))
        (folder / "a.log").rename(folder / "a.log.1")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: logged(folder, "SIGHUP: the log file was reopened"))
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: logged(folder, "Server Shut Down"))
    lines = [*(folder / "a.log.1").read_text().splitlines(), *(folder / "a.log").read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    assert {"node_starts", "leads", "hung_up"} <= {event.get("event") for event in events}
    assert "debug" in {event["level"] for event in events}


def test_a_level_keeps_a_quiet_node_silent(folder: Path) -> None:
    options = ["-c", "cluster.toml", "--app", "application.py:Leaves", "--log-level", "warn"]
    done = run(folder, *options, twistd=("-n", "--pidfile="))
    assert (done.returncode, done.stdout) == (0, "")


def test_what_a_start_prints_tells_an_operator_something(folder: Path) -> None:
    done = run(folder, "-c", "cluster.toml", "--app", "application.py:Leaves", twistd=("-n", "--pidfile="))
    lines = done.stdout.splitlines()
    for nothing in ("reactor class", "starting on", "Closed)", "Main loop", "takes at most"):
        assert nothing not in done.stdout
    assert len(lines) <= 8, done.stdout


@contextlib.contextmanager
def in_foreground(folder: Path, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node without a terminal, as a service manager has it."""
    with (folder / "a.log").open("wb") as log:
        process = subprocess.Popen(
            [*before, *command("-c", "cluster.toml", twistd=("-n", "--pidfile="))],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: logged(folder, "leads with ballot"))
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_service_in_the_foreground_goes_on_when_it_is_hung_up_on(folder: Path) -> None:
    with in_foreground(folder) as process:
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: logged(folder, "SIGHUP: there is no log file to reopen"))
        assert process.poll() is None
        process.terminate()
        assert process.wait(SECONDS) == -signal.SIGTERM


def test_a_node_stops_when_its_terminal_is_closed(folder: Path) -> None:
    """In order: its pidfile goes, and the status says why."""
    options = ("-n", "--pidfile=a.pid", "--logfile=a.log")
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.chdir(folder)
        os.execv(sys.executable, command("-c", "cluster.toml", twistd=options))
    try:
        wait_until(lambda: logged(folder, "leads with ballot"))
    finally:
        os.close(terminal)  # The system sends SIGHUP.
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert logged(folder, "SIGHUP: the terminal was closed, so this node stops")
    assert not (folder / "a.pid").exists()


def test_a_node_under_nohup_is_not_hung_up_on(folder: Path) -> None:
    with in_foreground(folder, "nohup") as process:
        process.send_signal(signal.SIGHUP)
        process.terminate()
        assert process.wait(SECONDS) == -signal.SIGTERM
    assert not logged(folder, "SIGHUP")


@pytest.mark.parametrize(("error", "status"), [("RemovedFromCluster", 6), ("StoreError", 1)])
def test_a_removed_node_ends_with_a_status_of_its_own(error: str, status: int) -> None:
    """A service manager that restarts nodes must not restart this one."""
    program = (
        "from twisted.internet import reactor; from twisted.python.failure import Failure;"
        f"from txpaxos.errors import {error}; from txpaxos.server.node_process import NodeProcess;"
        f"NodeProcess(reactor, {{}}).gave_up(Failure({error}('x'))); reactor.run()"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=SECONDS).returncode == status


@pytest.mark.parametrize("twistd", [DAEMON, FOREGROUND])
def test_each_later_start_of_a_removed_node_ends_with_the_same_status(folder: Path, twistd: tuple[str, ...]) -> None:
    DiskStore(str(folder / "data"), "test", "a").close()
    RemovedMarker(Disk(), str(folder / "data")).write("node a was removed from the cluster at slot 9, as b says")
    done = run(folder, "-c", "cluster.toml", "--data-dir", "data", twistd=twistd)
    assert done.returncode == REMOVED
    (line,) = done.stderr.splitlines()
    said = f"{folder}/data/removed says: node a was removed from the cluster at slot 9, as b says"
    assert line.startswith(f"twistd paxos: node a cannot start: {said}; this folder is not needed any more")
    assert not (folder / "a.pid").exists()
