"""The page *Deploying*: its commands are those that ``txpaxos init`` says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from test.system.test_readme import blocks, keys, section, text_of
from txpaxos.cli import main

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

PAGE = section(text_of("deploying"), "Three machines with systemd")
COMMANDS = [line.removeprefix("$ ") for block in blocks(PAGE, "console") for line in block.splitlines()]
RUN_COMMANDS = [line for line in COMMANDS if line.startswith("txpaxos init")]


def test_commands_are_those_of_the_readme_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = next(number for number, command in enumerate(COMMANDS) if "txpaxos init" in command)
    done = CliRunner().invoke(main, shlex.split(COMMANDS[start])[1:], prog_name="txpaxos")
    assert done.exit_code == 0, done.output
    assert COMMANDS[start + 1] == "cd counter"
    page = (tmp_path / "counter" / "README.rst").read_text()
    written = [line.removeprefix("$ ") for block in blocks(page, "console") for line in block.splitlines()]
    assert COMMANDS[start + 2 :] == written


def test_files_are_those_that_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["init", "counter", "--keys"], prog_name="txpaxos")
    assert done.exit_code == 0, done.output
    named = {key.partition("``")[0] for key in keys(PAGE)}
    written = {
        line.strip().removeprefix("counter/") for line in done.output.splitlines() if line.startswith("  counter/")
    }
    assert written - {"keys/b.keys", "keys/c.keys"} == named
