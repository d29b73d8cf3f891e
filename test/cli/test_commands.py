"""The command line of ``txpaxos``: what it takes, and what it says to what it does not take. Nothing runs here."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import txpaxos.cli.check
from txpaxos import __version__
from txpaxos.cli import ask, main, read, submit
from txpaxos.cli.running import CommandError
from txpaxos.cluster import ALONE, Address, Cluster, Member
from txpaxos.wire.commands import COMMAND_BYTES_MAX

PAIR = Cluster(
    "pair",
    {
        "left": Member(Address("127.0.0.1", 1001), Address("127.0.0.1", 1002)),
        "right": Member(Address("127.0.0.1", 1003), Address("127.0.0.1", 1004)),
    },
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="txpaxos")


def parameters(command: click.Command, *arguments: str, stdin: bytes = b"") -> dict[str, Any]:
    with CliRunner().isolation(stdin):
        return command.make_context("txpaxos", list(arguments)).params


def test_help_names_every_command() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.split("Commands:\n")[1].splitlines()] == [
        "ask",
        "backup",
        "check",
        "check-service",
        "clock",
        "demo",
        "doctor",
        "elect",
        "explain",
        "init",
        "keys",
        "lead",
        "lock",
        "map",
        "members",
        "play",
        "queue",
        "read",
        "recover",
        "replay",
        "restore",
        "service-schema",
        "simulate",
        "status",
        "submit",
        "top",
    ]


@pytest.mark.parametrize("command", ["ask", "demo", "doctor", "play", "read", "recover", "replay", "status", "submit"])
def test_every_command_has_help(command: str) -> None:
    result = invoke(command, "-h")
    assert result.exit_code == 0
    assert "Exit" in result.output or "print" in result.output or "ends with" in result.output


def test_help_says_how_undecided_exits() -> None:
    assert f"status {ask.UNDECIDED}" in " ".join(invoke("ask", "--help").output.split())


def test_version() -> None:
    assert invoke("--version").output == f"txpaxos, version {__version__}\n"


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "txpaxos", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"txpaxos, version {__version__}\n"


def test_a_history_that_is_not_there_is_named_once() -> None:
    result = invoke("check", "nope.jsonl")
    assert (result.exit_code, result.stderr) == (1, "txpaxos: cannot read nope.jsonl: No such file or directory\n")


def test_an_empty_history_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    result = invoke("check", str(tmp_path / "empty.jsonl"))
    assert result.exit_code == 2
    assert "holds no operation, so there is nothing to judge" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["submit"], "Missing argument 'COMMAND'"),
        (["submit", "+1", "+2"], "unexpected extra argument (+2)"),
        (["submit", "--typo"], "--typo"),
        (["submit", "-5", "--typo"], "unexpected extra argument (--typo)"),
        (["submit", "--timeout", "0", "+1"], "must be above 0"),
        (["submit", "--timeout", "-1", "+1"], "must be above 0"),
        (["submit", "--timeout", "nan", "+1"], "must be above 0"),
        (["submit", "--timeout", "inf", "+1"], "must be above 0"),
        (["submit", "--timeout", "soon", "+1"], "not a valid float"),
        (["read"], "Missing argument 'QUERY'"),
        (["read", "--remote", "x"], "--remote"),
        (["ask"], "Missing argument 'SUBJECT'"),
        (["ask", "\udcff"], "not UTF-8"),
        (["status", "a"], "unexpected extra argument (a)"),
        (["walk"], "walk"),
        (["simulate", "--seconds", "nan"], "nan is not a number"),
        (["simulate", "--seconds", "inf"], "not in the range"),
        (["status", "--cluster", ""], "it is empty: name a cluster file, or leave the option out"),
        (["init", ""], "it is empty: name a folder."),
        (["replay", ""], "it is empty: name a folder."),
        (["explain", "1", "--recording", ""], "it is empty: name a folder."),
        (["simulate", "--record", ""], "it is empty: name a folder."),
    ],
)
def test_wrong_command_line_exits_with_2(arguments: list[str], complaint: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["submit", "+1"], ["read", "x"], ["ask", "subject"], ["status"]])
def test_wrong_cluster_file_is_one_line(command: list[str]) -> None:
    missing = invoke(*command, "--cluster", "missing.toml")
    assert missing.exit_code == 1
    assert missing.stderr == "txpaxos: cannot read cluster file missing.toml: No such file or directory\n"
    Path("cluster.toml").write_text("cluster = 'x'\n")
    empty = invoke(*command)
    assert empty.exit_code == 1
    assert empty.stderr == "txpaxos: cluster file cluster.toml: needs at least one [nodes.NAME] table\n"


@pytest.mark.parametrize("command", [["submit", "-"], ["read", "-"], ["ask", "subject", "-"]])
@pytest.mark.parametrize(
    ("redirection", "complaint"),
    [
        ("<&-", "standard input is closed, and the argument - means to read it: give the bytes instead"),
        ("0>/dev/null", "standard input cannot be read: Bad file descriptor"),
    ],
)
def test_a_standard_input_that_cannot_be_read_is_one_line(command: list[str], redirection: str, complaint: str) -> None:
    line = f"exec {shlex.quote(sys.executable)} -m txpaxos {shlex.join(command)} {redirection}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"txpaxos: {complaint}")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "submit --help", "--version", "simulate --seconds 0.1"])
def test_a_standard_output_that_is_full_is_named(arguments: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "txpaxos", *arguments.split()]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=buffered)
    assert done.returncode == 1
    assert done.stderr == "txpaxos: standard output cannot be written: No space left on device\n"


def test_a_disk_that_is_full_is_not_taken_for_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.toml")

    monkeypatch.setattr(txpaxos.cli.check, "check_file", refuse)
    result = invoke("check", "history")
    assert (result.exit_code, result.stderr) == (1, "txpaxos: [Errno 28] No space left on device: 'a.toml'\n")


def test_error_of_many_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    CommandError("first\n  second\n").show()
    assert capsys.readouterr().err == "txpaxos: first second\n"


def test_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdtemp(prefix: str) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", f"/tmp/{prefix}")

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    result = invoke("demo")
    assert result.exit_code == 1
    assert result.stderr == "txpaxos: [Errno 28] No space left on device: '/tmp/txpaxos-demo-'\n"


def test_cluster_is_that_of_the_option_the_folder_or_one_node() -> None:
    assert parameters(submit.command, "+1")["cluster"] == ALONE
    Path("cluster.toml").write_text(PAIR.dumps())
    assert parameters(submit.command, "+1")["cluster"] == PAIR
    Path("other.toml").write_text(ALONE.dumps())
    assert parameters(submit.command, "+1", "--cluster", "other.toml")["cluster"] == ALONE


@pytest.mark.parametrize(
    "arguments", [["-5"], ["--", "-5"], ["-5", "--timeout", "3"], ["--timeout", "3", "-5"], ["--timeout=3", "--", "-5"]]
)
def test_negative_number_is_an_argument(arguments: list[str]) -> None:
    assert parameters(submit.command, *arguments)["command"] == b"-5"
    assert parameters(ask.command, "subject", *arguments)["value"] == b"-5"


def test_arguments_are_bytes() -> None:
    assert parameters(submit.command, "päx")["command"] == "päx".encode()
    assert parameters(submit.command, "\udcff")["command"] == b"\xff"  # as Python hands over what is not UTF-8
    assert parameters(submit.command, "")["command"] == b""
    assert parameters(ask.command, "subject")["value"] is None
    assert parameters(ask.command, "subject", "")["value"] == b""


def test_dash_is_standard_input() -> None:
    data = b"\x00\xff\n-"
    assert parameters(submit.command, "-", stdin=data)["command"] == data
    assert parameters(ask.command, "subject", "-", stdin=data)["value"] == data
    assert parameters(read.command, "-", "--local", stdin=data) | {"cluster": None} == {
        "query": data,
        "local": True,
        "cluster": None,
        "timeout_seconds": 5.0,
        "wants_json": False,
    }


def test_endless_standard_input_is_too_much() -> None:
    command = parameters(submit.command, "-", stdin=bytes(COMMAND_BYTES_MAX + 100))["command"]
    assert len(command) == COMMAND_BYTES_MAX + 1


def test_an_interrupt_before_the_reactor_runs_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("txpaxos.cli.service.load_attribute", interrupted)
    result = invoke("service-schema", "a:B")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "txpaxos: interrupted\n")


def test_an_interrupt_while_the_command_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    """click is loaded first of all; this one is slow for ever."""
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))}
    done = subprocess.run(
        [sys.executable, "-m", "txpaxos", "--help"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
