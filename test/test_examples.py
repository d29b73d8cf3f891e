"""Each example does what its docstring says, ends, and leaves nothing behind: no process, no file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.cluster import Cluster

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
RUN_SECONDS_MAX = 60.0

pytestmark = pytest.mark.timeout(180)


def run(example: str, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an example to its end, in ``folder``. Fails if it leaves a process, or anything in the temporary folder."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, EXAMPLES / example, *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=RUN_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"{example} does not end: {process.communicate()}")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert list(temporary.iterdir()) == []
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


class Node:
    """A running ``twistd paxos`` whose output can be waited for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""

    def wait_for(self, text: str) -> None:
        """Read until a line holds ``text``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        pytest.fail(f"the node ended without {text!r}: {self.output}")


@contextmanager
def node_of_the_counter(name: str, folder: Path) -> Iterator[Node]:
    """One node of ``examples/counter.py``, ended at the end, or by force when it takes too long."""
    paxos = ["paxos", "--app", f"{EXAMPLES}/counter.py:Counter", "--cluster", "cluster.toml", "--node", name]
    with subprocess.Popen(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", *paxos, "--stop-at-eof"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watchdog = threading.Timer(RUN_SECONDS_MAX, process.kill)
        watchdog.start()
        try:
            yield Node(process)
        finally:
            watchdog.cancel()
            process.kill()


def test_counter_and_its_client(tmp_path: Path) -> None:
    cluster = Cluster("counter", dict(zip("abc", free_members(3), strict=True)))
    (tmp_path / "cluster.toml").write_text(cluster.dumps())
    with ExitStack() as stack:
        nodes = [stack.enter_context(node_of_the_counter(name, tmp_path)) for name in "abc"]
        for node in nodes:
            node.wait_for(" follows ")

        counted = run("counter_client.py", "cluster.toml", "+5", "-2", "+10", folder=tmp_path)
        assert (counted.returncode, counted.stderr) == (0, "")
        assert counted.stdout.splitlines() == ["+5 makes 5", "-2 makes 3", "+10 makes 13"]
        for node in nodes:
            node.wait_for("+10 makes 13")

        refused = run("counter_client.py", "cluster.toml", "five", folder=tmp_path)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == "CommandFailed: ValueError: invalid literal for int() with base 10: b'five'\n"

        for node in nodes:
            node.process.terminate()
        assert [node.process.wait(RUN_SECONDS_MAX) for node in nodes] == [-signal.SIGTERM] * 3


def test_counter_client_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    done = run("counter_client.py", "cluster.toml", "+5", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ConfigError: cannot read cluster file cluster.toml: No such file or directory\n"


def test_one_value(tmp_path: Path) -> None:
    done = run("one_value.py", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    offered = set(re.findall(r"\(offers (\w+)\)", done.stdout))
    told = re.findall(r"^(\w+) is told by node [abc]: (.*)$", done.stdout, re.MULTILINE)
    assert told[0] == ("Zoe", "nothing is decided")
    assert {who for who, _ in told} == {"Ann", "Bob", "Cay", "Dan", "Eve", "Flo", "Zoe"}
    assert len(told) == 8
    (decided,) = {answer for _, answer in told[1:]}
    assert decided in offered - {"sushi"}  # offered after the decision
    assert done.stdout.endswith(f"All 7 were told the same: {decided}\n")


def test_essential_roles(tmp_path: Path) -> None:
    done = run("essential_roles.py", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = [re.fullmatch(r" *\d+ ms  (\w+ \w) +(.*)", line) for line in done.stdout.splitlines()[:-2]]
    assert all(said)
    assert {line[1] for line in said if line} == {
        *("proposer p", "proposer q", "acceptor a", "acceptor b", "acceptor c", "learner l")
    }
    assert done.stdout.count("(lost on its way from") >= 1
    (chosen,) = re.findall(r": (\w+) is CHOSEN$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(f"\nBoth proposers were told the same: {chosen}\n")
    check_votes(done.stdout, chosen)


def check_votes(story: str, chosen: str) -> None:
    """Paxos, as told: a quorum voted for the chosen value in some ballot, and from there on nobody for another."""
    votes: dict[tuple[int, str], set[str]] = {}
    values: dict[tuple[int, str], str] = {}
    for voter, number, node, value in re.findall(
        r"acceptor (\w) .*: Accepted (\d+)\.(\w) = (\w+)$", story, re.MULTILINE
    ):
        ballot = int(number), node
        assert values.setdefault(ballot, value) == value
        votes.setdefault(ballot, set()).add(voter)
    first = min(ballot for ballot, voters in votes.items() if len(voters) >= 2)
    assert {value for ballot, value in values.items() if ballot >= first} == {chosen}
