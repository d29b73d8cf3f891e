"""Every command that prints something prints it as JSON, too, and the shell completes every command."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from test.helpers.cli_nodes import Nodes, txpaxos
from txpaxos.cli import main
from txpaxos.cli.printing import show

WITHOUT = {
    "demo": "a scene on a terminal, for a person to watch; its exit status says how it ended",
    "members add": "it prints nothing: it refuses, and says how a node joins",
    "play": "a page in a browser; it prints one line, with the address",
    "service-schema": "what it prints is JSON",
}
"""The commands without ``--json``, and why."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run, by all its names."""
    for name in group.commands:
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join((*path, name)), command


ALL = dict(commands(main))


def has_json(command: click.Command) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


def test_each_command_prints_json_or_says_why_not() -> None:
    assert len(ALL) > 30
    assert {name for name, command in ALL.items() if not has_json(command)} == WITHOUT.keys()


# ------------------------------------------------------------- what they print


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a cluster of one node, a counter."""
    folder = tmp_path_factory.mktemp("json")
    nodes = Nodes(folder, "a")
    try:
        nodes.start("a")
        nodes.wait_for_leader()
        yield folder
    finally:
        nodes.kill("a")


def told(folder: Path, *arguments: str, status: int = 0) -> Any:
    """What a process prints with ``--json``."""
    done = txpaxos(*arguments, "--json", folder=folder)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_of_a_cluster(cluster: Path) -> None:
    assert told(cluster, "submit", "+5") == {"value": 5}
    assert told(cluster, "submit", "-2") == {"value": 3}
    assert told(cluster, "read", "") == {"slot": told(cluster, "status")["nodes"]["a"]["applied_through"], "value": 3}
    assert told(cluster, "read", "", "--local")["value"] == 3
    assert told(cluster, "ask", "owner", status=3) == {"subject": "owner", "value": None}
    assert told(cluster, "ask", "owner", "b") == {"subject": "owner", "value": "b"}
    assert told(cluster, "ask", "owner", "--forget") == {"subject": "owner", "value": "b"}
    priority = told(cluster, "members", "priority", "a", "7")
    assert priority.pop("text").startswith("a has priority 7;")
    assert priority == {"is_done": True, "action": "priority", "node": "a"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("submit", "nonsense"), "ValueError"),
        (("members", "remove", "x"), "there is no member 'x'"),
        (("members", "remove", "a", "--dry-run"), "a is the only voter: add another member first"),
        (("read", "x", "--cluster", "nowhere.toml"), "cannot read cluster file"),
    ],
)
def test_errors_of_a_cluster(cluster: Path, arguments: tuple[str, ...], error: str) -> None:
    done = txpaxos(*arguments, "--json", folder=cluster)
    if "nowhere.toml" in arguments:  # The option is read before the command runs.
        assert (done.returncode, done.stdout) == (1, b"")
    else:
        assert done.returncode == 1
        assert error in json.loads(done.stdout)["error"]


def test_what_a_removal_would_mean(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, "a", "b", "c")
    try:
        for node in "abc":
            nodes.start(node)
        nodes.wait_for_leader()
        shown = told(tmp_path, "members", "remove", "c", "--dry-run")
        assert (shown["is_done"], shown["can_be_made"]) == (False, True)
        assert (shown["voters"], shown["voters_after"]) == (["a", "b", "c"], ["a", "b"])
        assert shown["text"][1] == "may fail  1 of 3 -> 0 of 2"
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b"\xffx", '{"value": "\\\\xffx"}'),
        ("ä\n", '{"value": "\\u00e4\\n"}'),
        ({(1, 2): 3}, '{"value": "{(1, 2): 3}"}'),
        ({1: float("nan")}, '{"value": {"1": null}}'),
    ],
)
def test_values_of_all_kinds(value: Any, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(value, {}, wants_json=True)
    assert capsys.readouterr().out == line + "\n"


# ------------------------------------------------------------- without a cluster


def shown(*arguments: str, status: int = 0) -> Any:
    """What a command prints with ``--json``."""
    result = CliRunner().invoke(main, [*arguments, "--json"], prog_name="txpaxos")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def test_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("OpenSSL")
    monkeypatch.chdir(tmp_path)
    assert shown("keys", "init") == [{"folder": "authority"}]
    a, b = shown("keys", "node", "a", "b")
    assert (a["name"], a["role"], a["folder"], b["folder"]) == ("a", "node", "a.keys", "b.keys")
    assert a.keys() == {"name", "role", "serial", "fingerprint", "expires", "folder"}
    (bob,) = shown("keys", "client", "bob", "--token")
    assert (bob["serial"], bob["expires"], bob["folder"]) == ("", None, "bob.keys")
    (alice,) = shown("keys", "client", "alice")
    assert shown("keys", "update", "a.keys", "b.keys") == [
        {"folder": "a.keys", "new": ["tokens"]},
        {"folder": "b.keys", "new": ["tokens"]},
    ]
    (renewed,) = shown("keys", "renew", "a.keys")
    assert (renewed["folder"], renewed["before"]) == ("a.keys", "a.keys.before")
    assert renewed["serial"] != a["serial"]
    (revoked,) = shown("keys", "revoke", "alice")
    assert revoked == {key: value for key, value in alice.items() if key != "folder"}
    assert shown("keys", "rotate", "begin", "--role", "node") == [{"authority": "nodes-authority-2", "role": "node"}]
    assert shown("keys", "rotate", "issue") == [
        {"authority": "nodes-authority-2", "role": "node", "without": ["a", "b"]}
    ]
    assert shown("keys", "rotate", "end", "--regardless") == [{"authority": "nodes-authority-1", "role": "node"}]
    assert shown("keys", "init", status=1)["error"].startswith("authority is there already")
    assert shown("keys", "show", "nowhere", status=1)["error"].startswith("nowhere is not a folder of keys")


def test_of_a_history(tmp_path: Path) -> None:
    sample = [sys.executable, "-m", "txpaxos.testing.linearizability.sample", "--operations", "50"]
    subprocess.run([*sample, "--output", str(tmp_path / "history")], check=True, timeout=60, capture_output=True)
    checked = shown("check", str(tmp_path / "history"), "--model", "register")
    assert (checked["linearizable"], checked["operations"]) == (True, 50)
    assert checked["report"].startswith("linearizable: 50 operations")
    assert "No such file" in shown("check", "nowhere", status=1)["error"]


OLD = """
from txpaxos import Service, command

class Shop(Service):
    @command
    def sell(self, what: str) -> int: ...
"""


def test_of_services(tmp_path: Path) -> None:
    old, new = f"{tmp_path}/old_shop.py:Shop", f"{tmp_path}/new_shop.py:Shop"
    (tmp_path / "old_shop.py").write_text(OLD)
    (tmp_path / "new_shop.py").write_text(OLD.replace("sell", "buy"))
    assert shown("check-service", old, old) == []
    assert sorted(change["allowed"] for change in shown("check-service", old, new, status=1)) == [False, True]
    assert "cannot be read" in shown("check-service", "nowhere", new, status=1)["error"]


def test_of_a_simulation(expected_errors: None) -> None:
    simulated = shown("simulate", "--seconds", "1", "--seeds", "2")
    assert (simulated["violation"], simulated["seeds"]) == (None, 2)
    assert simulated.keys() == {"violation", "seeds", "events", "simulated_seconds", "answered"}


DIVERGING = """
import itertools
from txpaxos import PaxosProtocol

NUMBERS = itertools.count()

class Diverging(PaxosProtocol):
    def apply(self, slot, command):
        print("applied")
        return next(NUMBERS)
"""


@pytest.mark.parametrize("more", [(), ("--prints",), ("--shrink",)])
def test_of_a_violation(tmp_path: Path, expected_errors: None, more: tuple[str, ...]) -> None:
    (tmp_path / "diverging.py").write_text(DIVERGING)
    found = shown("simulate", "--seconds", "1", "--app", f"{tmp_path}/diverging.py:Diverging", *more, status=1)
    assert found.keys() == {"violation", "rule", "seed", "faults", "last_events"}
    assert found["seed"] == 0
    assert found["rule"] in found["violation"]
    assert found["last_events"]


# ------------------------------------------------------------- in the shell

COMPLETION = 'eval "$(_TXPAXOS_COMPLETE=bash_source txpaxos)"'


def typed_into_bash(line: str, wanted: str, environment: dict[str, str]) -> str:
    """What a bash on a terminal shows when ``line`` is typed with completion on, up to ``wanted``."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
    try:
        os.write(terminal, f"{COMPLETION}; echo loa''ded\n".encode())
        seen = _read_until(terminal, "loaded")
        os.write(terminal, line.encode())
        return seen + _read_until(terminal, wanted)
    finally:
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _read_until(terminal: int, wanted: str) -> str:
    seen, give_up_at = "", time.monotonic() + 60.0
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], give_up_at - time.monotonic())
        assert ready, seen
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a ``txpaxos`` that is this one."""
    program = tmp_path / "txpaxos"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m txpaxos "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]), "TERM": "dumb", "PS1": "$ "}


@pytest.mark.parametrize(("line", "wanted"), [("txpaxos simu\t", "simulate "), ("txpaxos keys rot\t", "rotate ")])
def test_bash_completes_a_command(environment: dict[str, str], line: str, wanted: str) -> None:
    assert wanted in typed_into_bash(line, wanted, environment)


def test_bash_lists_all_commands(environment: dict[str, str]) -> None:
    ask = 'COMP_WORDS=(txpaxos ""); COMP_CWORD=1; _txpaxos_completion txpaxos; printf "%s\\n" "${COMPREPLY[@]}"'
    script = f"{COMPLETION}; {ask}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout.split(), done.stderr) == (sorted(main.commands), "")
