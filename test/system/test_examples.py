"""Each example does what its docstring says, ends, and leaves nothing behind: no process, no file."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from test.helpers.fakes import free_ports
from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.cluster import Cluster

ROOT = Path(__file__).parents[2]
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

    def wait_for(self, *texts: str) -> None:
        """Read until a line holds one of ``texts``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if any(text in line for text in texts):
                return
        pytest.fail(f"the node ended without any of {texts}: {self.output}")


@contextmanager
def node_of(app: str, name: str, folder: Path, *options: str) -> Iterator[Node]:
    """One node of an example, ended at the end, or by force when it takes too long."""
    paxos = ["paxos", "--app", f"{EXAMPLES}/{app}", "--cluster", "cluster.toml", "--node", name, *options]
    with program("-c", TWISTD, "-n", "--pidfile=", *paxos, "--stop-at-eof", folder=folder) as node:
        yield node


@contextmanager
def program(*arguments: str | Path, folder: Path) -> Iterator[Node]:
    """A Python program that runs until it is ended, or has taken too long."""
    with subprocess.Popen(
        [sys.executable, *arguments],
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
        nodes = [stack.enter_context(node_of("counter.py:Counter", name, tmp_path)) for name in "abc"]
        for node in nodes:
            node.wait_for(" follows ", " leads with ")

        counted = run("counter_client.py", "cluster.toml", "+5", "-2", "+10", folder=tmp_path)
        assert (counted.returncode, counted.stderr) == (0, "")
        assert counted.stdout.splitlines() == ["+5 makes 5", "-2 makes 3", "+10 makes 13"]
        for node in nodes:
            node.wait_for("+10 makes 13")

        counted = run("asyncio_client.py", "cluster.toml", "+1", "+20", "-300", folder=tmp_path)
        assert (counted.returncode, counted.stderr) == (0, "")
        totals = dict(line.split(" makes ") for line in counted.stdout.splitlines())
        assert totals.keys() == {"+1", "+20", "-300"}
        assert str(13 + 1 + 20 - 300) in totals.values()

        for example in ("counter_client.py", "asyncio_client.py"):
            refused = run(example, "cluster.toml", "five", folder=tmp_path)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr == "CommandFailed: ValueError: invalid literal for int() with base 10: b'five'\n"

        for node in nodes:
            node.process.terminate()
        assert [node.process.wait(RUN_SECONDS_MAX) for node in nodes] == [-signal.SIGTERM] * 3


class Client:
    """``examples/kv_client.py`` in ``folder``, which has the cluster file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def says(self, *arguments: str) -> str:
        """What it prints. It must have gone well."""
        done = run("kv_client.py", "cluster.toml", *arguments, folder=self._folder)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        return done.stdout.removesuffix("\n")

    def is_told_no(self, *arguments: str) -> bool:
        """Whether there was nothing to print, and its status says so."""
        done = run("kv_client.py", "cluster.toml", *arguments, folder=self._folder)
        return (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("no: ")

    def watch_while(self, key: str, change: Callable[[], object]) -> str:
        """What a watcher of ``key`` prints in the end. It gets to watch at any time, so ``change`` is called again and
        again until it has seen one."""
        with subprocess.Popen(
            [sys.executable, EXAMPLES / "kv_client.py", "cluster.toml", "watch", key],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            text=True,
        ) as watcher:
            watchdog = threading.Timer(RUN_SECONDS_MAX, watcher.kill)
            watchdog.start()
            while watcher.poll() is None:
                change()
            watchdog.cancel()
            assert watcher.stdout is not None
            assert watcher.returncode == 0
            return watcher.stdout.read()


def test_key_value_store_and_its_client(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(Cluster("kv", {"a": free_members(1)[0]}).dumps())
    client = Client(tmp_path)
    with node_of("kv.py:KeyValue", "a", tmp_path, "--snapshot-log-bytes", "4096") as node:
        node.wait_for(" leads ")
        assert client.is_told_no("get", "k")
        assert client.is_told_no("delete", "k")
        assert client.says("put", "k", "one") == "revision 1"
        assert client.says("get", "k") == "one"
        assert client.is_told_no("cas", "k", "two", "three")
        assert client.says("cas", "k", "one", "two") == "set"
        assert client.says("get", "k") == "two"
        assert client.says("delete", "k") == "deleted"
        assert client.is_told_no("get", "k")

        values = map(str, itertools.count(1))
        put: list[str] = []

        def change() -> None:
            put.append(next(values))
            client.says("put", "watched", put[-1])

        assert client.watch_while("watched", change).removesuffix("\n") in put

        # Far more than 4,096 bytes, so a snapshot is begun at once.
        assert client.says("put", "big", "x" * 20_000).startswith("revision ")
        last = client.says("put", "k", "four")
        while not list(tmp_path.glob("paxos-data-a/snapshots/*.snapshot")):
            last = client.says("put", "k", "four")

    with node_of("kv.py:KeyValue", "a", tmp_path) as node:
        node.wait_for(" leads ")
        assert client.says("get", "big") == "x" * 20_000
        assert client.says("get", "k") == "four"
        assert client.says("get", "watched") == put[-1]
        revision = int(last.removeprefix("revision "))
        assert client.says("put", "k", "five") == f"revision {revision + 1}"
        node.process.terminate()
        assert node.process.wait(RUN_SECONDS_MAX) == -signal.SIGTERM


def test_a_typed_bank_and_its_client(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(Cluster("bank", {"a": free_members(1)[0]}).dumps())

    def call(*arguments: str) -> tuple[int, str, str]:
        done = run("bank.py", "cluster.toml", *arguments, folder=tmp_path)
        return done.returncode, done.stdout, done.stderr

    with node_of("bank.py:Bank", "a", tmp_path, "--snapshot-log-bytes", "4096") as node:
        node.wait_for(" leads ")
        assert call("deposit", "ann", "5") == (0, "5\n", "")
        assert call("transfer", "ann", "bob", "2") == (0, "3\n", "")
        assert call("transfer", "ann", "bob", "9") == (1, "", "no: 6 is missing in the account of ann\n")
        assert call("deposit", "a" * 5000, "1") == (0, "1\n", "")  # More than 4,096 bytes, so a snapshot is begun.
        while not list(tmp_path.glob("paxos-data-a/snapshots/*.snapshot")):
            assert call("deposit", "cy", "1")[0] == 0
    with node_of("bank.py:Bank", "a", tmp_path) as node:
        node.wait_for(" leads ")
        assert call("balance", "ann") == (0, "3\n", "")
        assert call("balance", "bob") == (0, "2\n", "")
        status, _, error = call("transfer", "ann", "bob", "-1")
        assert status == 1
        assert "TypeError: Bank.transfer(): amount: Expected `int` >= 0" in error
        assert "python examples/bank.py" in call("transfer", "ann")[2]


@pytest.mark.parametrize("arguments", [[], ["get"], ["get", "k", "l"], ["cas", "k", "old"], ["increment", "k"]])
def test_key_value_client_with_wrong_arguments_shows_how(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(Cluster("kv", {"a": free_members(1)[0]}).dumps())
    done = run("kv_client.py", "cluster.toml", *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    for shown in ("put KEY VALUE", "get KEY", "delete KEY", "cas KEY OLD NEW", "watch KEY"):
        assert f"python examples/kv_client.py cluster.toml {shown}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("example", "arguments"),
    [("counter_client.py", ["+5"]), ("asyncio_client.py", ["+5"]), ("kv_client.py", ["get", "k"])],
)
def test_client_without_a_cluster_is_one_line(example: str, arguments: list[str], tmp_path: Path) -> None:
    done = run(example, "cluster.toml", *arguments, folder=tmp_path)
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
    """Paxos, as told: a quorum voted for the chosen value in some ballot, and later no acceptor for another."""
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


# ------------------------------------------------ a node in a program of one's own


def one_node(folder: Path) -> Path:
    file = folder / "cluster.toml"
    file.write_text(Cluster("own", {"a": free_members(1)[0]}).dumps())
    return file


def test_a_node_in_an_asyncio_program(tmp_path: Path) -> None:
    file = one_node(tmp_path)
    for before in (0, 5):
        done = run("asyncio_node.py", str(file), "a", "+7", "-2", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [f"+7 makes {before + 7}", f"-2 makes {before + 5}"]


def test_an_asyncio_program_says_what_is_wrong(tmp_path: Path) -> None:
    file = one_node(tmp_path)
    done = run("asyncio_node.py", str(file), "z", "+7", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "ConfigError: there is no node z: its nodes are a\n")
    done = run("asyncio_node.py", str(file), "a", "seven", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("CommandFailed: ValueError: invalid literal")
    assert "python examples/asyncio_node.py" in run("asyncio_node.py", folder=tmp_path).stderr


def test_a_web_service_with_a_node_in_it(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    file = one_node(tmp_path)
    with ExitStack() as stack:
        program = [sys.executable, "-u", str(EXAMPLES / "web_counter.py"), str(file), "a", str(port)]
        process = subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "node a is ready\n"
        assert ask_web(port, "/", b"5") == (200, "5")
        assert ask_web(port, "/", b"+2") == (200, "7")
        assert ask_web(port, "/") == (200, "7")
        assert ask_web(port, "/local") == (200, "7")
        status, line = ask_web(port, "/", b"seven")
        assert status == 400
        assert line.startswith("CommandFailed: ValueError: invalid literal")
        assert ask_web(port, "/", b"1" * 101)[0] == 413
        process.terminate()
        assert process.wait(30) == 0


def test_an_asgi_application_with_a_node_in_it(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    one_node(tmp_path)
    program = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", str(port), "asgi_counter:app"]
    with ExitStack() as stack:
        environment = {**os.environ, "PAXOS_NODE": "a"}
        process = subprocess.Popen(program, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stderr is not None
        while "Uvicorn running" not in (line := process.stderr.readline()):
            assert line, "it has ended"
        assert ask_web(port, "/", b"5") == (200, "5")
        assert ask_web(port, "/", b"2") == (200, "7")
        assert ask_web(port, "/") == (200, "7")
        assert ask_web(port, "/", b"seven")[0] == 400
        assert ask_web(port, "/", b"9" * 18) == (400, "TooBig: the total has at most 18 digits")
        process.terminate()
        assert "Finished server process" in process.stderr.read()
        process.wait(30)


def ask_web(port: int, path: str, body: bytes | None = None, method: str | None = None, **head: str) -> tuple[int, str]:
    """The status and the line that the web server answers with."""
    headers = {name.replace("_", "-"): value for name, value in head.items()}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


def test_a_job_and_a_port_that_one_machine_has(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(Cluster("leaders", {"a": free_members(1)[0]}).dumps())
    with node_of("../txpaxos/recipes/coordinator.py:Coordinator", "a", tmp_path) as node, ExitStack() as stack:
        node.wait_for(" leads ")
        first = stack.enter_context(program(EXAMPLES / "leader_cron.py", "cluster.toml", "0.1", folder=tmp_path))
        first.wait_for("the report of term 1")
        second = stack.enter_context(program(EXAMPLES / "leader_cron.py", "cluster.toml", "0.1", folder=tmp_path))
        first.process.terminate()
        second.wait_for("the report of term 2")
        assert first.process.wait(RUN_SECONDS_MAX) == 0
        assert "the report" not in second.output.replace("the report of term 2", "")
        port = str(free_ports(1)[0])
        leads = stack.enter_context(
            program(EXAMPLES / "leader_port.py", "cluster.toml", "127.0.0.1", port, folder=tmp_path)
        )
        leads.wait_for(f"127.0.0.1:{port} leads")
        with socket.create_connection(("127.0.0.1", int(port)), timeout=RUN_SECONDS_MAX) as connection:
            connection.sendall(b"hello\r\n")
            assert connection.makefile("rb").readline() == b"term 3: hello\r\n"
    assert "python examples/leader_cron.py" in run("leader_cron.py", folder=tmp_path).stderr
    assert "python examples/leader_port.py" in run("leader_port.py", folder=tmp_path).stderr


def test_a_job_queue_and_a_web_service_with_a_map(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(Cluster("jobs", {"a": free_members(1)[0]}).dumps())
    with node_of("../txpaxos/recipes/coordinator.py:Coordinator", "a", tmp_path) as node, ExitStack() as stack:
        node.wait_for(" leads ")
        for job in (("long", "1000"), ("short", "0")):
            assert run("job_queue.py", "cluster.toml", "put", *job, folder=tmp_path).returncode == 0
        stuck = stack.enter_context(program(EXAMPLES / "job_queue.py", "cluster.toml", "work", folder=tmp_path))
        stuck.wait_for("begun: long, delivery 1")
        other = stack.enter_context(program(EXAMPLES / "job_queue.py", "cluster.toml", "work", folder=tmp_path))
        other.wait_for("done: short")
        stuck.process.kill()
        other.wait_for("begun: long, delivery 2")

        port = free_ports(1)[0]
        stack.enter_context(program(EXAMPLES / "web_map.py", "cluster.toml", str(port), folder=tmp_path))
        wait_for_port(port)
        assert ask_web(port, "/greeting") == (404, "there is none")
        assert ask_web(port, "/greeting", b"hello", "PUT") == (200, "1")
        refused = ask_web(port, "/greeting", b"hi", "PUT", if_match="0")
        assert refused == (412, "greeting in texts has version 1, and not version 0")
        assert ask_web(port, "/greeting", b"hi", "PUT", if_match="1") == (200, "2")
        assert ask_web(port, "/greeting") == (200, "hi")
        assert ask_web(port, "/", b"hi", "PUT")[0] == 400
    assert "python examples/job_queue.py" in run("job_queue.py", folder=tmp_path).stderr
    for example in ("job_queue.py", "web_map.py", "leader_cron.py"):
        assert len((EXAMPLES / example).read_text().splitlines()) < 60


def wait_for_port(port: int) -> None:
    """Try to connect until something listens."""
    give_up_at = time.monotonic() + RUN_SECONDS_MAX
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < give_up_at
