"""``twistd paxos``: what it is told, and one clear line for everything that does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError

from test.helpers.fakes import THREE, Reactor, cluster_of
from test.storage.test_membership import JOINED
from txpaxos.application import name_of
from txpaxos.cluster import ALONE, Address, Member
from txpaxos.core.config import Timing
from txpaxos.counter import Counter
from txpaxos.errors import ConfigError
from txpaxos.protocol import PaxosProtocol
from txpaxos.recording.options import RecordingOptions
from txpaxos.server.joining import Wish
from txpaxos.server.membership import cluster_of as cluster_of_folder
from txpaxos.server.service import PaxosService
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import Joining, MembershipFile
from txpaxos.tap import Options, load_application, makeService

APPLICATION = """\
from __future__ import annotations
import dataclasses
from txpaxos.protocol import PaxosProtocol

@dataclasses.dataclass
class Thing:
    number: int

class Service(PaxosProtocol):
    def apply(self, slot, command):
        return Thing(1).number

class Other:
    pass
"""
FILES = {
    "three.toml": THREE.dumps(),
    "one.toml": cluster_of("z").dumps(),
    "bad.toml": "cluster = 1",
    "good.py": APPLICATION,
    "syntax.py": "class Service(:\n",
    "raises.py": "raise RuntimeError('two\\nlines')",
    "leaves.py": "raise SystemExit(0)",
    "broken.py": "raise KeyboardInterrupt",
    "odd.py": (
        "class Odd(BaseException):\n    def __str__(self):\n        raise RuntimeError('no words')\nraise Odd('x')\n"
    ),
    "lazy.py": "def __getattr__(name):\n    raise RuntimeError('not now')\n",
    "idle.py": "from txpaxos.protocol import PaxosProtocol\nclass Idle(PaxosProtocol):\n    pass\n",
    "neighbour.py": "import txpaxos\nimport missing_module\n",
    "through.py": "from helps import help\nhelp()\n",
    "helps.py": "def help():\n    raise RuntimeError('deep')\n",
    "apps/beside.py": APPLICATION + "\nfrom next_to_it import Helper\n",
    "apps/next_to_it.py": "class Helper:\n    pass\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


# ----------------------------------------------------------------------- good


def test_without_options_a_counter_alone(folder: Path) -> None:
    options = parse()
    assert options.cluster == ALONE
    assert options.node == "a"
    assert options.application is Counter
    assert options.data_directory == str(folder / "paxos-data")
    assert options.timing == Timing()


def test_all_options(folder: Path) -> None:
    options = parse(
        *["--cluster", "three.toml", "--node", "b", "--data-dir", "d", "--app", "good.py:Service"],
        *["--heartbeat", "0.5", "--liveness-window", "1,2.5"],
    )
    assert options.cluster == THREE
    assert options.node == "b"
    assert options.data_directory == str(folder / "d")
    assert issubclass(options.application, PaxosProtocol)
    assert options.application.__name__ == "Service"
    assert options.timing == Timing(heartbeat_seconds=0.5, liveness_window_seconds=(1.0, 2.5))


def test_what_is_recorded(folder: Path) -> None:
    assert parse().recording is None
    assert parse("--record", "r").recording == RecordingOptions(str(folder / "r"), 2**30, redact=False)
    given = parse("--record", "/r", "--record-bytes-max", "2000000", "--record-redact")
    assert given.recording == RecordingOptions("/r", 2_000_000, redact=True)


def test_each_node_has_a_folder_of_its_own(folder: Path) -> None:
    assert parse("-c", "three.toml", "-i", "b").data_directory == str(folder / "paxos-data-b")


def test_the_only_node_need_not_be_named(folder: Path) -> None:
    assert parse("-c", "one.toml").node == "z"


def test_an_application_of_a_module() -> None:
    assert load_application("txpaxos.counter:Counter") is Counter
    assert load_application("txpaxos.protocol:PaxosProtocol") is PaxosProtocol
    bank = load_application("test.service.services:Bank")
    assert issubclass(bank, PaxosProtocol)
    assert name_of(bank) == "test.service.services:Bank"


def test_an_application_of_a_file_hides_no_module(folder: Path) -> None:
    (folder / "apps" / "json.py").write_text(APPLICATION)
    assert load_application("apps/json.py:Service").__name__ == "Service"
    assert sys.modules["json"] is json


def test_an_application_finds_its_neighbours_as_a_program_does(folder: Path) -> None:
    assert load_application("apps/beside.py:Service").__name__ == "Service"
    assert sys.path[0] == str(folder / "apps")


def test_the_log_calls_an_application_by_its_own_name(folder: Path) -> None:
    assert load_application("good.py:Service").__module__ == "good"


def test_the_service(folder: Path) -> None:
    service = makeService(parse(), Reactor())
    assert isinstance(service, PaxosService)
    assert not service.running
    assert not (folder / "paxos-data").exists()  # nothing is touched before the start


def test_twistd_knows_it() -> None:
    assert "paxos" in {plugin.tapname for plugin in getPlugins(IServiceMaker)}


# ------------------------------------------------------------------------ bad

BAD = [
    ("--node d", "--node d is not in the cluster; its nodes are a"),
    ("-c three.toml", "--node is missing; its nodes are a, b, c"),
    ("-c three.toml -i d", "--node d is not in the cluster; its nodes are a, b, c"),
    ("-c nothing.toml", "cannot read cluster file nothing.toml: No such file or directory"),
    ("-c bad.toml", "cluster file bad.toml: needs cluster = "),
    ("--app Service", "--app Service: must be MODULE:"),
    ("--app :Service", "--app :Service: must be MODULE:"),
    ("--app good.py:", "--app good.py:: must be MODULE:"),
    ("--app no.such:Service", "no.such cannot be imported: ModuleNotFoundError: No module named 'no'"),
    ("--app .relative:Service", ".relative cannot be imported: "),
    ("--app nothing.py:Service", "nothing.py cannot be imported: FileNotFoundError: "),
    ("--app syntax.py:Service", "syntax.py cannot be imported: SyntaxError: "),
    ("--app raises.py:Service", "raises.py cannot be imported: RuntimeError: two lines (/"),
    ("--app raises.py:Service", "/raises.py, line 1)"),
    (
        "--app neighbour.py:Service",
        "neighbour.py cannot be imported: ModuleNotFoundError: No module named 'missing_module' (/",
    ),
    ("--app neighbour.py:Service", "/neighbour.py, line 2)"),
    ("--app through.py:Service", "through.py cannot be imported: RuntimeError: deep (/"),
    ("--app through.py:Service", "/helps.py, line 2)"),
    ("--app leaves.py:Service", "leaves.py cannot be imported: SystemExit: 0"),
    ("--app broken.py:Service", "broken.py cannot be imported: KeyboardInterrupt (/"),
    ("--app odd.py:Service", "odd.py cannot be imported: Odd (/"),
    ("--app lazy.py:Service", "lazy.py cannot be imported: RuntimeError: not now (/"),
    ("--app good.py:Nothing", "good.py has no Nothing"),
    ("--app good.py:Other", "is not a subclass of txpaxos.protocol.PaxosProtocol"),
    ("--app good.py:dataclasses", "is not a subclass of txpaxos.protocol.PaxosProtocol"),
    (
        "--app test.service.test_definition:NoHint",
        "NoHint.do does not say of what type a is: annotate it, as in a: int",
    ),
    ("--app txpaxos.service.declaration:Service", "txpaxos.Service itself has no methods: write a subclass"),
    ("--app idle.py:Idle", "Idle has no apply: write def apply(self, slot, command)"),
    ("--app txpaxos.cluster:Cluster", "is not a subclass of txpaxos.protocol.PaxosProtocol"),
    ("--record-bytes-max 1MB", "--record-bytes-max 1MB: must be a number of bytes, at least 1048576"),
    ("--record r --record-bytes-max 1000", "--record-bytes-max 1000: must be a number of bytes, at least 1048576"),
    ("--record-redact", "--record-redact is for a node that records: give --record, too, or leave it out"),
    ("--record=", "--record is empty: name a folder, or leave the option out"),
    ("--heartbeat soon", "--heartbeat soon: must be a number of seconds, from 0.001 to 3600"),
    ("--heartbeat 0", "--heartbeat 0: must be a number of seconds"),
    ("--heartbeat -1", "--heartbeat -1: must be a number of seconds"),
    ("--heartbeat nan", "--heartbeat nan: must be a number of seconds"),
    ("--heartbeat inf", "--heartbeat inf: must be a number of seconds"),
    ("--heartbeat 0.1,0.2", "--heartbeat 0.1,0.2: must be a number of seconds"),
    ("--heartbeat 100ms", "--heartbeat 100ms: must be a number of seconds"),
    ("--liveness-window 0.5", "--liveness-window 0.5: must be 2 numbers of seconds with a comma between"),
    ("--liveness-window 0.5,", "--liveness-window 0.5,: must be 2 numbers"),
    ("--liveness-window 1,2,3", "--liveness-window 1,2,3: must be 2 numbers"),
    ("--liveness-window a,b", "--liveness-window a,b: must be 2 numbers"),
    ("--liveness-window 0.15,0.3", "--liveness-window 0.15,0.3: the first must be at least two heartbeats (0.2)"),
    ("--heartbeat 0.2", "--liveness-window 0.25,0.5: the first must be at least two heartbeats (0.4)"),
    ("--liveness-window 0.6,0.3", "--liveness-window 0.6,0.3: the first must be"),
    ("--no-such-option", "option --no-such-option not recognized"),
    ("stray", "'stray': there are options only"),
    ("status --node a", "'status' '--node' 'a': there are options only"),
]


def test_every_wrong_option_gets_one_line(folder: Path) -> None:
    for line, reason in BAD:
        with pytest.raises(UsageError) as caught:
            parse(*line.split())
        message = str(caught.value)
        assert reason in message, (line, message)
        assert "\n" not in message, (line, message)


def test_an_empty_data_folder_is_none(folder: Path) -> None:
    """The variable of a script was not set."""
    with pytest.raises(UsageError, match="--data-dir is empty: name a folder, or leave the option out"):
        parse("--data-dir", "")


def test_an_application_that_cannot_be_loaded_is_a_config_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--app nothing:X: nothing cannot be imported"):
        load_application("nothing:X")


@pytest.mark.parametrize(
    ("runner", "line", "reason"),
    [
        (["-m", "twisted"], "-c three.toml", "--node is missing; its nodes are a, b, c"),
        (["-m", "twisted"], "--app syntax.py:Service", "syntax.py cannot be imported: SyntaxError"),
        (
            ["-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="],
            "--liveness-window 0.1,0.6",
            "the first must be at least two heartbeats (0.2)",
        ),
    ],
)
def test_twistd_says_what_is_wrong(folder: Path, runner: list[str], line: str, reason: str) -> None:
    command = [sys.executable, *runner, "paxos", *line.split()]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert reason in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not os.path.exists("paxos-data")


# --------------------------------------------------------------- a node that joins

JOIN = ["--join", "10.0.0.1:5000", "--node", "d", "--address", "nd.test:4001", "--client", "nd.test:5001"]


def test_a_node_that_joins(folder: Path) -> None:
    options = parse(
        *[*JOIN, "--listen", "0.0.0.0:4001", "--client-listen", "0.0.0.0:5001", "--cluster-name", "town"],
        *["--replace", "c", "--learner"],
    )
    listen, client_listen = Address("0.0.0.0", 4001), Address("0.0.0.0", 5001)
    member = Member(Address("nd.test", 4001), Address("nd.test", 5001), listen, client_listen)
    assert options.wish() == Wish(
        Address("10.0.0.1", 5000), "d", member, "txpaxos.counter:Counter", "town", votes=False, replaces="c"
    )
    assert options.data_directory == str(folder / "paxos-data-d")
    assert parse(*JOIN).wish() == Wish(
        Address("10.0.0.1", 5000),
        *("d", Member(Address("nd.test", 4001), Address("nd.test", 5001)), "txpaxos.counter:Counter"),
    )
    assert parse().wish() is None
    assert makeService(parse(*JOIN), Reactor()).wish == parse(*JOIN).wish()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--join", "10.0.0.1:5000", "--node", "d", "--address", "d:1"], "--join needs --client, too"),
        ([*JOIN, "--cluster", "three.toml"], "--join and --cluster: a node that joins learns the cluster from --join"),
        ([*JOIN, "--node", "d e"], "--node d e cannot be a node: letters, digits"),
        ([*JOIN, "--join", "10.0.0.1"], "--join '10.0.0.1': not host:port"),
        ([*JOIN, "--address", "0.0.0.0:4001"], "--address '0.0.0.0:4001': 0.0.0.0 is where a node listens"),
        ([*JOIN, "--client", "nd.test:4001"], "client of node d is nd.test:4001, which is also the address of node d"),
        (["--address", "d:1"], "--address is for a node that joins: give --join, too, or leave it out"),
        (["--learner"], "--learner is for a node that joins"),
    ],
)
def test_options_of_a_node_that_joins(folder: Path, arguments: list[str], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert str(caught.value).startswith(line)


def test_a_node_that_has_joined_needs_no_cluster_file(folder: Path) -> None:
    (folder / "paxos-data-d").mkdir()
    MembershipFile(Disk(), str(folder / "paxos-data-d")).write(JOINED)
    for arguments in (["--node", "d"], ["--data-dir", "paxos-data-d"]):
        options = parse(*arguments)
        assert (options.cluster, options.node) == (cluster_of_folder(JOINED), "d~2")
        assert options.data_directory == str(folder / "paxos-data-d")
        assert options.wish() is None


def test_one_that_was_stopped_while_it_joined(folder: Path) -> None:
    (folder / "paxos-data-d").mkdir()
    MembershipFile(Disk(), str(folder / "paxos-data-d")).write(Joining("d", 5))
    with pytest.raises(UsageError, match="node d was stopped while it joined a cluster"):
        parse("--node", "d")
