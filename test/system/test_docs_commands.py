"""The commands of the pages that have no test of their own, typed as they stand there, each where its page says it is.

Only addresses and folders are others, since those of the pages are taken, or are not on this machine.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from test.helpers.folders import cluster_of
from test.helpers.newcomer import SECONDS, Newcomer
from test.helpers.page_blocks import ROOT, all_blocks
from test.recovery.test_recover import disaster
from test.system.test_keys_page import on_other_ports
from txpaxos import cli
from txpaxos.cli.local_cluster import free_members
from txpaxos.cluster import Cluster

pytestmark = pytest.mark.timeout(180)

BLOCKS = [block for block in all_blocks() if block.language == "console"]
RUN_COMMANDS: list[str] = []
"""The commands that are run here."""


def commands(page: str, begins: str) -> list[str]:
    """The commands of the one block of a page that begins so. All are run here: none is left out below."""
    (text,) = (one.text for one in BLOCKS if one.page == f"{page}.rst" and one.text.startswith(f"$ {begins}"))
    found = [line.removeprefix("$ ") for line in text.splitlines()]
    RUN_COMMANDS.extend(found)
    return found


class Typist(Newcomer):
    """A newcomer whose commands may say something on standard error, too."""

    def do(self, *typed: str) -> list[str]:
        """Run commands to their ends. What each says on standard output."""
        return [self._do(command) for command in typed]

    def _do(self, command: str) -> str:
        done = self._run(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def wait_until_said(self, number: int, text: str) -> None:
        """Look at a terminal until ``text`` is there."""
        give_up_at = time.monotonic() + SECONDS
        while text not in self.read_terminals()[number]:
            assert time.monotonic() < give_up_at, self.read_terminals()
            with pytest.raises(subprocess.TimeoutExpired):
                self.nodes[number].wait(0.05)

    def watch(self, command: str, text: str) -> None:
        """Run a command that goes on until ``text`` is in a line of it, and type Ctrl-C."""
        with subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as watching:
            assert watching.stdout is not None
            assert any(text in line for line in watching.stdout), command
            watching.send_signal(signal.SIGINT)
            watching.stdout.read()
            watching.wait(SECONDS)

    def serve(self, command: str) -> None:
        """Start a node in a terminal, and wait for it."""
        self.open_terminal(command.replace("twistd ", "twistd -n --pidfile= ", 1))
        self.wait_for_leader()


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    """In a folder with the examples and their cluster file, for one node or for three."""
    made = Typist(tmp_path)
    shutil.copytree(ROOT / "examples", made.folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (made.folder / "cluster.toml").symlink_to("examples/cluster.toml")
    try:
        yield made
    finally:
        made.leave()


def in_process(*typed: str) -> list[str]:
    """Run commands of txpaxos here. What each says."""
    said = []
    for command in typed:
        program, *arguments = shlex.split(command)
        assert program == "txpaxos"
        done = CliRunner().invoke(cli.main, arguments, prog_name="txpaxos")
        assert done.exit_code == 0, f"{command}: {done.output}"
        said.append(done.output)
    return said


# --------------------------------------------------------------- three nodes

START = commands(
    "README", "twistd -n --pidfile= paxos --cluster examples/cluster.toml --node a --app examples/counter.py"
)
ASK = commands("README", "txpaxos submit")
WITH_STATUS, LIVE, EXPLAIN_TWO = commands(
    "README", "twistd -n --pidfile= paxos --cluster examples/cluster.toml --node a --status"
)
TOP = commands("monitoring", "txpaxos top")
EXPLAIN = commands("explaining", "txpaxos explain 6\n")
AS_JSON = commands("operations", "txpaxos submit +5 --json")
LEAD = commands("operations", "txpaxos lead")
STATUS = commands("operations", "txpaxos status --cluster cluster.toml\n")
CLOCK = commands("operations", "txpaxos clock")
MEMBERS = commands("operations", "txpaxos members --cluster")
(JOIN,) = commands("operations", "twistd -n paxos --join 10.0.0.1:5001 --node d")
BACKUP, CHECK = commands("operations", "txpaxos backup")
RESTORE = commands("operations", "txpaxos restore")


@pytest.fixture
def three(typist: Typist) -> Typist:
    """With the three nodes of the README, which the first one of the second block takes the place of."""
    examples = typist.folder / "examples" / "cluster.toml"
    examples.write_text(on_other_ports(examples.read_text()))
    with_status = WITH_STATUS.replace("127.0.0.1:9001", f"127.0.0.1:{free_members(1)[0].client.port}")
    assert START[0].startswith(with_status.partition(" --status")[0])
    typist.open_terminal(with_status + START[0].partition("--node a")[2])
    for command in START[1:]:
        typist.open_terminal(command)
    typist.wait_for_leader()
    return typist


def test_three_nodes_are_asked(three: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(three.folder)
    *said, counted, at_once = three.do(*ASK)
    assert said[:5] == ["5\n", "3\n", "3\n", "3\n", "red\n"]
    assert counted.splitlines() == ["+5 makes 8", "-2 makes 6", "+10 makes 16"]
    assert len(at_once.splitlines()) == 3
    told = json.loads(three.do(*AS_JSON)[0])
    assert 34 in told.values(), told
    three.do(*STATUS, *LEAD, *EXPLAIN, *CLOCK, EXPLAIN_TWO)
    for command in (*TOP, LIVE):
        three.watch(command, "3 of 3 nodes answer")
    three.do(BACKUP)
    (three.folder / "new.toml").write_text(
        re.sub("(?<=cluster = ).*", '"other"', on_other_ports(cluster_of("abc").dumps()))
    )
    in_process(CHECK, *(command.replace("/var/lib/counter/a", "restored") for command in RESTORE))
    three.interrupt_nodes()


def test_members_change(three: Typist) -> None:
    known = Cluster.load(three.folder / "cluster.toml")
    new, moved = free_members(2)
    join = JOIN.replace("10.0.0.1:5001", str(known.members["a"].client))
    join = join.replace("10.0.0.4:4001", str(new.address)).replace("10.0.0.4:5001", str(new.client))
    three.open_terminal(join.replace("-n paxos", "-n --pidfile= paxos") + " --app examples/counter.py:Counter")
    three.wait_until_said(3, "node d is a voter now")
    others = {
        "127.0.0.1:5001": str(known.members["a"].client),
        "127.0.0.1:4012": str(moved.address),
        "127.0.0.1:5012": str(moved.client),
    }
    for command in MEMBERS:
        three.do(re.sub(r"127\.0\.0\.1:\d+", lambda found: others[found[0]], command))


# ------------------------------------------------------------------- one node

(RECIPES,) = commands("recipes", "twistd paxos")
LOCK_SERVE, LOCK = commands(
    "README", "twistd -n --pidfile= paxos --cluster examples/cluster.toml --node a --app txpaxos.recipes"
)
SHELL = commands("recipes", "txpaxos lock")
(WITH_FOLDER,) = commands("operations", "twistd -n --pidfile= paxos --cluster cluster.toml --node a --data-dir")
DOCTOR = commands("operations", "txpaxos doctor")
UNIX = commands("operations", "twistd paxos --cluster cluster.toml --node a --client-endpoint")
(JSON_LOG,) = commands("logs", "twistd")
RECORD = commands("recording", "twistd")
REPLAY_UNTIL = commands("recording", "txpaxos replay")
EXPLAIN_RECORDED = commands("explaining", "txpaxos explain 6 --recording")
BANK = commands("typed-services", "twistd")
(ACCOUNTS,) = commands("service", "twistd")
WITH_KEYS = commands("deploying", "txpaxos status")
OF_OPERATOR = commands("operations", "txpaxos status --cluster cluster.toml --keys")
RELOAD = commands("keys", "txpaxos keys reload")


@pytest.fixture
def one(typist: Typist) -> Typist:
    """The cluster has one node, which a test starts."""
    for file in (typist.folder / "cluster.toml", typist.folder / "examples" / "cluster.toml"):
        file.unlink()
    (member,) = free_members(1)
    for file in (typist.folder / "cluster.toml", typist.folder / "examples" / "cluster.toml"):
        file.write_text(Cluster("counter", {"a": member}).dumps())
    return typist


def write_script(typist: Typist, name: str, text: str) -> None:
    (typist.folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (typist.folder / name).chmod(0o755)


def test_recipes_in_a_shell(one: Typist) -> None:
    write_script(one, "backup.sh", "echo $TXPAXOS_FENCE_TOKEN")
    write_script(one, "scheduler", "exec txpaxos elect scheduler")
    assert LOCK_SERVE.partition("--app")[2] == RECIPES.partition("--app")[2].partition(" --cluster")[0]
    one.serve(RECIPES)
    nightly, elect, leader, put, take, *maps, watch = SHELL
    host = one.do("hostname")[0].strip()
    tokens = one.do(LOCK, nightly)
    assert int(tokens[0]) < int(tokens[1])
    assert host in one.do(elect)[0]
    assert one._run(leader).stdout == ""
    assert one.do(put, take)[1] == "resize 5.png\n"
    written, read, listed = one.do(*maps)
    assert (json.loads(written).keys(), read, listed) == ({"version"}, "5\n", "limit\n")
    one.watch(watch, "limit")
    one.interrupt_nodes()


(AIO,) = (one.text for one in all_blocks() if one.page == "recipes.rst" and "txpaxos.aio" in one.text)
RUN_BLOCKS = [AIO]
PROGRAM = f"""
import asyncio, attrs
from txpaxos import Cluster

{AIO}

@attrs.frozen
class Job:
    name: str

async def do(job):
    print("did", job.name)

async def main(cluster):
    async with Client(cluster) as client:
        await recipes(client).queue("jobs", Job).put(Job("resize 5.png"))
    await work(cluster)

asyncio.run(main(Cluster.load("cluster.toml")))
"""


def test_recipes_in_a_program_with_asyncio(one: Typist) -> None:
    (one.folder / "program.py").write_text(PROGRAM)
    one.serve(RECIPES)
    assert one.do("python program.py") == ["did resize 5.png\n"]
    one.interrupt_nodes()


def test_a_node_with_a_folder_of_its_own(one: Typist) -> None:
    shutil.copy(one.folder / "examples" / "counter.py", one.folder)
    one.serve(WITH_FOLDER.replace("/var/lib/counter/a", "data"))
    one.interrupt_nodes()
    text, as_json = in_process(*(command.replace("/var/lib/counter/a", str(one.folder / "data")) for command in DOCTOR))
    assert "node" in text
    assert json.loads(as_json)


def test_a_node_at_a_unix_socket(one: Typist) -> None:
    serve, submit = (command.replace("/run/txpaxos", str(one.folder)) for command in UNIX)
    one.serve(serve)
    assert one.do(submit) == ["5\n"]
    one.interrupt_nodes()


def test_a_node_that_records_and_logs_json(one: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pages, one node."""
    monkeypatch.chdir(one.folder)
    record, replay = (command.replace("/var/lib/counter/recording", "recorded") for command in RECORD)
    options, logged = record.partition("paxos ")[2], JSON_LOG.replace("warn", "info")
    assert "--log-format json --log-level info" in logged
    one.open_terminal(f"{logged.replace('twistd ', 'twistd -n --pidfile= ')} --record {options.rpartition(' ')[2]}")
    while one._run("txpaxos submit +5").returncode != 0:
        assert one.nodes[0].poll() is None
    one.interrupt_nodes()
    lines = (one.folder / "a.log").read_text().splitlines()
    assert "leads" in [json.loads(line).get("event") for line in lines]
    (said,) = in_process(replay)
    assert said.startswith("a: same: ")


def test_the_bank(one: Typist) -> None:
    serve, transfer = BANK
    one.serve(serve)
    one.do(transfer.replace("transfer ann bob", "deposit ann"))
    assert one.do(transfer) == ["0\n"]
    one.interrupt_nodes()


def write_accounts(folder: Path) -> None:
    """Write the service of the page into the file that it speaks of."""
    parts = [one.text for one in all_blocks() if (one.page, one.language) == ("service.rst", "python")]
    (folder / "accounts.py").write_text("\n".join(part for part in parts if "reactor.run()" not in part))


def test_a_service_of_one_s_own(one: Typist) -> None:
    write_accounts(one.folder)
    one.serve(ACCOUNTS.replace("/var/lib/accounts", "data"))
    assert one.do("txpaxos submit 'ann +5'") == ["5\n"]
    one.interrupt_nodes()


def test_clients_with_keys(one: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(one.folder)
    clients = ["txpaxos keys client alice", "txpaxos keys client operator"]
    admin = "txpaxos keys client admin --folder keys/admin.keys"
    (one.folder / "keys").mkdir()
    in_process("txpaxos keys init", "txpaxos keys node a", *clients, admin)
    one.serve("twistd paxos --cluster cluster.toml --node a --keys a.keys")
    status, submitted, *_, reloaded = one.do(*WITH_KEYS, *OF_OPERATOR, *RELOAD)
    assert "1 of 1 nodes answer" in status
    assert submitted == "5\n"
    assert reloaded.startswith("a: certificate ")
    one.interrupt_nodes()


# -------------------------------------------------------------------- no node

TOKEN = commands("keys", "txpaxos keys client batch")
RENEW = commands("keys", "txpaxos keys renew a.keys b.keys")
REVOKE = commands("keys", "txpaxos keys renew a.keys\n")
ROTATE = commands("keys", "txpaxos keys rotate")
RECOVER = commands("operations", "txpaxos recover")
SCHEMA = commands("typed-services", "txpaxos service-schema")
SIMULATE = [
    *commands("README", "txpaxos simulate --seeds"),
    *commands("README", "txpaxos simulate --app"),
    *commands("CONTRIBUTING", "txpaxos simulate"),
    *commands("service", "txpaxos simulate"),
]
SIMULATE_AND_RECORD = commands("recording", "txpaxos simulate")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, but for the examples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_keys_are_changed(empty: Path) -> None:
    in_process("txpaxos keys init", "txpaxos keys node a b c", "txpaxos keys client alice")
    in_process(*TOKEN)
    for renewed in (RENEW, REVOKE, ROTATE):
        in_process(*renewed)
        for old in empty.glob("*.before"):
            shutil.rmtree(old)
    (shown,) = in_process("txpaxos keys show")
    assert "batch" in shown


def test_what_is_left_is_recovered(empty: Path) -> None:
    (empty / "cluster.toml").write_text(cluster_of().dumps())
    disaster(empty)
    for node in "ab":
        (empty / node).rename(empty / f"{node}-data")
    dry, _ = in_process(*RECOVER)
    assert "Nothing was changed." in dry
    assert [*Cluster.load(empty / "new.toml").members] == ["a", "b"]


def test_a_service_is_compared(empty: Path) -> None:
    schema, check = SCHEMA
    (empty / "bank.json").write_text(in_process(schema)[0])
    in_process(check)


def test_simulations(empty: Path, expected_errors: None) -> None:
    """Each for one seed and a second, where the page says longer."""
    write_accounts(empty)
    for command in SIMULATE:
        (said,) = in_process(f"{command} --seconds 1" + (" --seeds 1" if "--seeds" in command else ""))
        assert "1 seed without a violation" in said


def test_recordings(empty: Path, expected_errors: None) -> None:
    simulate, replay = SIMULATE_AND_RECORD
    in_process(f"{simulate} --seconds 1", replay)
    (said,) = in_process(*(command.replace("/var/lib/counter/recording", "recording") for command in REPLAY_UNTIL))
    assert said.startswith("a: ")
    for node in "ab":
        (empty / f"recording-of-{node}").mkdir()
        (empty / "recording" / node).rename(empty / f"recording-of-{node}" / node)
    (told,) = in_process(*EXPLAIN_RECORDED)
    assert told.startswith("Slot 6 holds ")
