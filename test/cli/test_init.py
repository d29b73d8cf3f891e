"""``txpaxos init``: what it writes, what it refuses, and that a cluster runs from it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from test.helpers.command_lines import check_options_of_paxos
from test.helpers.newcomer import Newcomer, places
from test.system.test_readme import blocks, section
from txpaxos.cli import init_files, main
from txpaxos.cluster import Cluster
from txpaxos.keys import load_keys
from txpaxos.node.hand_over import ANSWER_SECONDS, HAND_OVER_SECONDS
from txpaxos.rights import ALL_RIGHTS, DEFAULT_RIGHTS
from txpaxos.server.node_process import REMOVED
from txpaxos.server.served_node import STOP_SECONDS
from txpaxos.server.service_manager import TICKS

FILES = ["cluster.toml", "environment", "systemd/txpaxos@.service", "README.rst"]
FOLDERS_OF_KEYS = ["keys/authority", "keys/a.keys", "keys/b.keys", "keys/c.keys", "keys/admin.keys"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of commands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments], prog_name="txpaxos")


def printed(*arguments: str) -> str:
    """What the command prints when it succeeds."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: str) -> str:
    """The one line of a command that fails, without the name of the program."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("txpaxos: ")


def files_in(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))


# ------------------------------------------------------------------ written


def test_what_is_said() -> None:
    assert printed("counter").splitlines() == [
        "Written:",
        *(f"  counter/{path}" for path in FILES),
        "Next:",
        "  cd counter",
        *(
            f"  twistd -n --pidfile= paxos --cluster cluster.toml --node {node} --data-dir {node}.data"
            " --app txpaxos.counter:Counter"
            for node in "abc"
        ),
        "  txpaxos status --cluster cluster.toml",
        "counter/README.rst has the rest.",
    ]


def test_json() -> None:
    said = json.loads(printed("counter", "--json", "--name", "ours"))
    assert said.keys() == {"folder", "cluster", "files", "next"}
    assert (said["folder"], said["cluster"], said["files"]) == ("counter", "ours", FILES)
    assert len(said["next"]) == 4
    assert json.loads(run("counter", "--json").stdout)["error"].startswith("counter/cluster.toml is there already")


def test_three_nodes_on_this_machine() -> None:
    printed("counter")
    cluster = Cluster.load("counter/cluster.toml")
    assert (cluster.name, [*cluster.members], cluster.rights) == ("counter", ["a", "b", "c"], DEFAULT_RIGHTS)
    assert [str(member.address) for member in cluster.members.values()] == [f"127.0.0.1:400{n}" for n in (1, 2, 3)]
    assert [str(member.client) for member in cluster.members.values()] == [f"127.0.0.1:500{n}" for n in (1, 2, 3)]


def test_nodes_are_named_together_or_one_by_one() -> None:
    printed("one", "--name", "ours", "--nodes", "x=10.0.0.1:4001,y=10.0.0.2:4001", "--node", "z=[fd00::3]:4001")
    printed(
        "two", "--name", "ours", *(f"--node={n}" for n in ("x=10.0.0.1:4001", "y=10.0.0.2:4001", "z=[fd00::3]:4001"))
    )
    assert Cluster.load("one/cluster.toml") == Cluster.load("two/cluster.toml")
    assert str(Cluster.load("one/cluster.toml").members["z"].client) == "[fd00::3]:5001"


def test_machines_get_the_keys_of_their_own_node_only() -> None:
    pytest.importorskip("OpenSSL")
    said = json.loads(printed("ours", "--json", "--keys", "--nodes", "x=10.0.0.1:4001,y=[fd00::3]:4001"))
    assert said["next"] == [
        "rsync -aR cluster.toml environment systemd/txpaxos@.service keys/x.keys 10.0.0.1:txpaxos/",
        "rsync -aR cluster.toml environment systemd/txpaxos@.service keys/y.keys '[fd00::3]:txpaxos/'",
    ]
    assert "In terminals" not in Path("ours/README.rst").read_text()


def test_keys() -> None:
    pytest.importorskip("OpenSSL")
    said = json.loads(printed("counter", "--json", "--keys"))
    assert said["files"] == [*FILES, *FOLDERS_OF_KEYS]
    assert {path.name for path in Path("counter/keys").iterdir()} == {Path(one).name for one in FOLDERS_OF_KEYS}
    assert [load_keys(f"counter/keys/{node}.keys", "node", node).name for node in "abc"] == ["a", "b", "c"]
    assert load_keys("counter/keys/admin.keys", "client").name == "admin"
    rights = Cluster.load("counter/cluster.toml").rights
    assert (rights.of("admin"), rights.of("another")) == (frozenset(ALL_RIGHTS), frozenset())
    assert all("--keys keys/" in one for one in said["next"])


def test_a_folder_in_which_there_are_other_files(folder: Path) -> None:
    (folder / "counter.py").write_text("")
    (folder / "systemd").mkdir()
    printed(".", "--app", "counter.py:Counter")
    assert f'TXPAXOS_APP="{folder}/counter.py:Counter"' in Path("environment").read_text()
    assert Cluster.load("cluster.toml").name == (folder.name if len(folder.name) <= 32 else "txpaxos")


def test_pages_and_texts_end_as_they_should() -> None:
    printed("counter")
    for path in FILES:
        text = (Path("counter") / path).read_text()
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert not re.search(" $", text, re.MULTILINE)


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize("there", [*FILES, "keys"])
def test_nothing_is_overwritten(folder: Path, there: str) -> None:
    """Not even what a broken link stands for. Nothing is written then."""
    pytest.importorskip("OpenSSL")
    (folder / "ours" / there).parent.mkdir(parents=True)
    (folder / "ours" / there).symlink_to("nowhere")
    before = files_in(folder)
    assert (
        refused("ours", "--keys") == f"ours/{there} is there already, and nothing is overwritten: name another folder"
    )
    assert files_in(folder) == before


def test_a_file_in_the_place_of_the_folder(folder: Path) -> None:
    (folder / "ours").write_text("mine")
    assert refused("ours").endswith("Not a directory: 'ours/systemd'")
    assert (folder / "ours").read_text() == "mine"


def test_all_is_removed_when_not_all_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("txpaxos.keys.authority_folder")

    def issue(*_: object) -> None:
        raise OSError(28, "No space left on device", "c.keys")

    monkeypatch.setattr(library.AuthorityFolder, "issue", issue)
    (folder / "other").write_text("")
    assert refused("deep/ours", "--keys") == "[Errno 28] No space left on device: 'c.keys'"
    assert files_in(folder) == ["other"]


def test_without_the_libraries_of_keys(folder: Path) -> None:
    program = "import sys; sys.modules['OpenSSL'] = None; from txpaxos.cli import main; main(prog_name='txpaxos')"
    command = [sys.executable, "-c", program, "init", "ours", "--keys"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("): pip install 'txpaxos[keys]'\n")
    assert files_in(folder) == []


def test_addresses_that_no_cluster_can_have(folder: Path) -> None:
    assert refused("ours", "--nodes", "a=10.0.0.1:4001,b=127.0.0.1:4001").startswith(
        "address of node b is 127.0.0.1:4001"
    )
    assert refused("ours", "--nodes", "a=10.0.0.1:4001,b=10.0.0.1:5001").startswith(
        "address of node b is 10.0.0.1:5001"
    )
    assert files_in(folder) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Missing argument 'DIR'"),
        (("ours", "--nodes", "a"), "'a': not host:port; write NAME=HOST:PORT"),
        (("ours", "--nodes", "a=10.0.0.1"), "'a=10.0.0.1': not host:port; write NAME=HOST:PORT"),
        (("ours", "--nodes", "a=10.0.0.1:65000"), "the port is 66000, and must be one of 1 to 65535"),
        (("ours", "--nodes", "a=0.0.0.0:4001"), "0.0.0.0 is where a node listens"),
        (("ours", "--nodes", "a b=10.0.0.1:4001"), "'a b' cannot be a node"),
        (("ours", "--nodes", "a=10.0.0.1:4001,"), "'' cannot be a node"),
        (("ours", "--nodes", "a=10.0.0.1:4001,a=10.0.0.2:4001"), "'a' is there twice"),
        (("ours", "--name", "our cluster"), "'our cluster' cannot be a name"),
        (("ours", "--client", "../x"), "'../x' cannot be a name"),
        (("ours", "--user", "ro ot"), "'ro ot' cannot be a user"),
        (("ours", "--user", "x\nExecStart=/bin/sh"), "cannot be a user"),
        (("ours", "--app", "counter"), "'counter' must be MODULE:CLASS or FILE.py:CLASS"),
        (("ours", "--app", "counter:a\nB"), "must be MODULE:CLASS or FILE.py:CLASS"),
    ],
)
def test_wrong_command_lines(folder: Path, arguments: tuple[str, ...], complaint: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr
    assert files_in(folder) == []


# ------------------------------------------------------------------ the unit


class Unit:
    """The unit that is written: ``unit["Service"]["User"]``."""

    def __init__(self, *arguments: str) -> None:
        printed("ours", *arguments)
        self.path = Path("ours/systemd/txpaxos@.service").resolve()
        self.parsed = RawConfigParser(strict=True)
        self.parsed.optionxform = str  # type: ignore[assignment, method-assign]
        self.parsed.read_string(self.path.read_text().replace("\\\n", " "))
        self.service = self.parsed["Service"]

    def options(self) -> list[str]:
        """The options of ``twistd paxos`` that it starts a node with."""
        words = shlex.split(self.service["ExecStart"])
        assert words[1:5] == ["-n", "--pidfile=", "--logfile=-", "paxos"]
        return words[5:]


@pytest.mark.parametrize("more", [(), ("--keys",)])
def test_the_unit_starts_a_node(more: tuple[str, ...]) -> None:
    pytest.importorskip("OpenSSL")
    unit = Unit("--user", "counter", *more)
    options = unit.options()
    check_options_of_paxos(options[:-1])
    assert options[-3:] == ["--app", "${TXPAXOS_APP}", "$TXPAXOS_OPTIONS"]
    assert ("--keys" in options) == bool(more)
    assert unit.service["User"] == "counter"
    assert shlex.split(unit.service["ExecStart"])[0] == str(Path(sys.executable).parent / "twistd")


def test_the_unit_stops_and_restarts_a_node_as_it_ends() -> None:
    service = Unit().service
    assert float(service["TimeoutStopSec"]) > HAND_OVER_SECONDS + ANSWER_SECONDS + STOP_SECONDS
    assert (service["KillSignal"], service["Restart"]) == ("SIGTERM", "on-failure")
    assert service["RestartPreventExitStatus"].split() == [str(REMOVED)]
    assert f"every {int(service['WatchdogSec']) // TICKS} s" in Path("ours/systemd/txpaxos@.service").read_text()


@pytest.mark.parametrize(
    ("paths", "home"),
    [
        (("m:C", "/opt/x/bin/twistd", "/usr/bin/python3.11"), "yes"),
        (("/home/me/app.py:App", "/opt/x/bin/twistd", "/usr/bin/python3.11"), "read-only"),
        (("m:C", "/home/me/env/bin/twistd", "/usr/bin/python3.11"), "read-only"),
        (("m:C", "/opt/x/bin/twistd", "/root/python/bin/python3"), "read-only"),
    ],
)
def test_a_program_in_a_home_is_seen(paths: tuple[str, str, str], home: str) -> None:
    application, twistd, python = paths
    plan = init_files.Plan(Cluster("x", {}), application, "u", "", twistd, python)
    assert f"\nProtectHome={home}\n" in init_files.unit(plan)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("more", [(), ("--keys", "--app", "/home/my apps/app.py:App")])
def test_systemd_finds_nothing_wrong_with_the_unit(more: tuple[str, ...]) -> None:
    pytest.importorskip("OpenSSL")
    command = ["systemd-analyze", "verify", str(Unit(*more).path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    )
    said = done.stdout + done.stderr
    if "txpaxos" not in said and done.returncode:
        pytest.skip(f"systemd-analyze cannot be used here: {said}")
    assert (done.returncode, said) == (0, "")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/usr/bin/twistd", "/usr/bin/twistd"),
        ("/opt/a b/twistd", '"/opt/a b/twistd"'),
        ("/opt/50%/$x/twistd", "/opt/50%%/$$x/twistd"),
    ],
)
def test_a_path_as_the_program_of_a_unit(path: str, written: str) -> None:
    plan = init_files.Plan(Cluster("x", {}), "m:C", "u", "", path)
    assert f"\nExecStart={written} -n " in init_files.unit(plan)


def test_an_application_with_strange_characters_in_its_path(folder: Path) -> None:
    """bash reads the file as systemd does."""
    path = folder / 'a "b" $c `d` \\e.py'
    printed("ours", "--app", f"{path}:App")
    command = ["bash", "-c", '. ours/environment; printf %s "$TXPAXOS_APP"']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{path}:App"


def test_the_commands_for_systemd() -> None:
    pytest.importorskip("OpenSSL")
    printed("ours", "--keys")
    page = Path("ours/README.rst").read_text()
    lines = [line for block in blocks(section(page, "With systemd"), "console") for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line.removeprefix("$ sudo "))
        assert shutil.which(words[0]) or words[0] in ("systemctl", "useradd"), line
        for word in words[1:]:
            if word.startswith(("cluster", "environment", "systemd/", "keys/")):
                assert list(Path("ours").glob(word)), line


# ------------------------------------------------------------------ running


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    made = Newcomer(tmp_path)
    try:
        yield made
    finally:
        made.leave()


@pytest.mark.parametrize("more", ["", " --keys"], ids=["without keys", "with keys"])
def test_three_nodes_run_from_it(newcomer: Newcomer, more: str) -> None:
    """As its README says, and as it says itself."""
    pytest.importorskip("OpenSSL")
    nodes = ",".join(f"{name}={place}" for name, place in zip("abc", places(3), strict=True))
    said = newcomer.type(f"txpaxos init ours --nodes {nodes}{more}")
    newcomer.change_folder("cd ours")
    page = (newcomer.folder / "README.rst").read_text()
    starts, asks = (
        [line.removeprefix("$ ") for block in blocks(section(page, title), "console") for line in block.splitlines()]
        for title in ("In terminals", "Ask them")
    )
    assert [f"  {one}" for one in (*starts, asks[0])] == said.splitlines()[-5:-1]
    for command in starts:
        newcomer.open_terminal(command)
    newcomer.wait_for_leader()
    status, total = map(newcomer.type, asks)
    assert "leads, 3 of 3 nodes answer" in status
    assert total == "5\n"
    newcomer.interrupt_nodes()
