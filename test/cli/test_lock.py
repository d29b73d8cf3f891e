"""``txpaxos lock`` and ``txpaxos elect``: the command ends before another can have what it ran for."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred

from test.helpers.cli_nodes import TXPAXOS, Nodes, txpaxos
from test.recipes.program import STEP_SECONDS, Program, result_of
from txpaxos.cli import lock, main
from txpaxos.cli.running import CommandError, EndedWith
from txpaxos.recipes import Hold, Session
from txpaxos.recipes.replicated.sessions import Sessions

TTL_SECONDS = 10.0


class StubbornChild:
    """A command that ends when it is killed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.killed_at: float | None = None
        self.grace_seconds: float | None = None
        self.may_run_until = 0.0
        self.over: Deferred[int] = Deferred()
        self.environment: dict[str, str] = {}

    def __call__(self, reactor: Any, arguments: Any, environment: dict[str, str], run_seconds: float) -> StubbornChild:
        self.environment = environment
        self.let_run(run_seconds)
        return self

    def let_run(self, seconds: float) -> None:
        self.may_run_until = self.program.clock.seconds() + seconds

    def ended(self) -> Deferred[int]:
        return self.over

    async def end(self, grace_seconds: float) -> int:
        self.grace_seconds = grace_seconds
        ended: Deferred[int] = Deferred()
        self.program.clock.callLater(grace_seconds, ended.callback, 137)
        status = await ended
        self.killed_at = self.program.clock.seconds()
        return status


class Supervised:
    """A command that runs while a lock is held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program = Program()
        self.child = StubbornChild(self.program)
        monkeypatch.setattr(lock, "Child", self.child)
        self.session: Session = result_of(self.program.recipes.session(TTL_SECONDS))
        hold: Hold = result_of(self.session.lock("nightly").acquire())
        self.told: list[tuple[str, dict[str, Any]]] = []
        work = lock._supervise(
            self.program.clock, self.session, hold, ("backup",), lambda state, **known: self.told.append((state, known))
        )
        self.status = Deferred.fromCoroutine(work)


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Supervised:
    return Supervised(monkeypatch)


def test_its_status_is_passed_on(supervised: Supervised) -> None:
    assert supervised.child.environment == {"TXPAXOS_FENCE_TOKEN": "1"}
    supervised.child.over.callback(7)
    assert result_of(supervised.status) == 7
    assert supervised.told == [("released", {"status": 7})]


def test_it_is_killed_before_another_can_have_the_lock(supervised: Supervised) -> None:
    program, session = supervised.program, supervised.session
    program.is_cut_off = True
    ended_at = None
    while ended_at is None:
        program.advance(STEP_SECONDS)
        if not program.harness.state_of(Sessions).is_open(session.session_id):
            ended_at = program.clock.seconds()
    error = result_of(supervised.status)
    assert isinstance(error, CommandError)
    assert error.message == "nightly was lost, and backup was ended: no quorum has confirmed it in time"
    assert supervised.told == [("lost", {"status": 137})]
    assert supervised.child.grace_seconds is not None
    assert supervised.child.grace_seconds > TTL_SECONDS / 5
    assert supervised.child.killed_at is not None
    assert supervised.child.killed_at < ended_at - 0.4
    assert supervised.child.killed_at < supervised.child.may_run_until < ended_at - 0.2


def test_the_guard_is_told_how_long_it_may_run(supervised: Supervised) -> None:
    for _ in range(10):
        assert supervised.child.may_run_until == pytest.approx(
            supervised.program.clock.seconds() + supervised.session.lease_left_seconds - 0.25, abs=0.6
        )
        supervised.program.advance(3.0)
    supervised.child.over.callback(0)
    assert result_of(supervised.status) == 0


def test_it_is_killed_at_once_when_the_lock_is_gone(supervised: Supervised) -> None:
    supervised.program.harness.state_of(Sessions).close(supervised.session.session_id)
    supervised.program.advance(4.0)
    assert supervised.child.grace_seconds == 0.0
    assert isinstance(result_of(supervised.status), CommandError)


def test_it_ends_with_txpaxos(supervised: Supervised) -> None:
    supervised.status.cancel()
    assert supervised.child.killed_at is None
    supervised.program.advance(TTL_SECONDS)
    assert supervised.child.killed_at is not None
    error = result_of(supervised.status)
    assert isinstance(error, EndedWith)
    assert (error.status, supervised.told) == (137, [("released", {"status": 137})])


def test_with_a_node_and_real_commands(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, "a", options=("--app", "txpaxos.recipes:Coordinator"))
    try:
        nodes.start("a")
        nodes.wait_for_leader()
        done = txpaxos("lock", "l", "--json", "--", "sh", "-c", "echo $TXPAXOS_FENCE_TOKEN; exit 7", folder=tmp_path)
        assert (done.returncode, done.stdout) == (7, b"1\n")
        plain = txpaxos("lock", "--ttl", "5", "l", "--timeout=9", "echo", "--ttl", "--", "-l", folder=tmp_path)
        assert (plain.returncode, plain.stdout) == (0, b"--ttl -- -l\n"), plain.stderr
        assert [json.loads(line)["state"] for line in done.stderr.splitlines()] == ["held", "released"]
        mute = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", *TXPAXOS, "lock", "l", "--json", "--", "sh", "-c", "exit 9"]
        assert subprocess.run(mute, cwd=tmp_path, timeout=60, check=False).returncode == 9
        elected = [*TXPAXOS, "elect", "l", "--value", "me", "--", "sh", "-c", "echo up; exec sleep 100"]
        piped: Any = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        with subprocess.Popen(elected, **piped) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            assert txpaxos("elect", "l", folder=tmp_path).stdout == b"me\n"
            late = txpaxos("lock", "l", "--timeout", "1.5", "true", "--timeout", "9", folder=tmp_path)
            assert (late.returncode, late.stderr) == (1, b"txpaxos: the permit l did not come within 1.5 s\n")
            process.terminate()
            assert process.wait(60) == 143
        for handler, status in (("exit 0", 0), ("exit 5", 5)):  # Its own, if it ends in order.
            program = f"trap '{handler}' TERM; echo up; while :; do sleep 0.01; done"
            with subprocess.Popen([*TXPAXOS, "lock", "l", "sh", "-c", program], **piped) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"up\n"
                process.terminate()
                assert process.wait(60) == status
        free = txpaxos("elect", "l", folder=tmp_path)
        assert (free.returncode, free.stderr) == (1, b"txpaxos: none is elected in l\n")
    finally:
        nodes.kill("a")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("lock", "nightly"), "Missing argument '[--] COMMAND...'"),
        (("lock", "nightly", "-l", "ls"), "No such option"),
        (("lock", "nightly", "--ttl", "0.5", "--", "ls"), "0.5 is not in the range"),
        (("elect", "nightly", "--timeout", "0", "--", "ls"), "0.0 is not in the range"),
        (("lock", "nightly", "--ttl", "nan", "--", "ls"), "Invalid value for '--ttl': nan is not a number."),
        (("lock", "nightly", "--timeout", "nan", "--", "ls"), "Invalid value for '--timeout': nan is not a number."),
        (("elect", "nightly", "--timeout", "nan"), "Invalid value for '--timeout': nan is not a number."),
        (("lock", "nightly", "--", ""), "the name of the command is empty."),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(main, arguments, prog_name="txpaxos")
    assert result.exit_code == 2
    assert text in result.output


@pytest.mark.parametrize("command", ["lock", "elect"])
def test_without_a_cluster_no_more_than_the_timeout_passes(command: str, tmp_path: Path) -> None:
    Nodes(tmp_path, "a")
    begun_at = time.monotonic()
    done = txpaxos(command, "nightly", "--timeout", "0.5", "true", folder=tmp_path)
    assert time.monotonic() - begun_at < lock.ANSWER_SECONDS
    assert done.returncode == 1
    assert re.fullmatch(
        rb"txpaxos: no quorum has answered within 0.5 s: a at 127\.0\.0\.1:\d+ refuses connections.*\n", done.stderr
    )


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["n", "ls", "-l"], ["n", "--", "ls", "-l"]),
        (["n", "--ttl", "5", "ls", "--ttl", "6"], ["n", "--ttl", "5", "--", "ls", "--ttl", "6"]),
        (["--json", "n", "ls", "--", "-l"], ["--json", "n", "--", "ls", "--", "-l"]),
        (["--ttl=5", "n", "-", "x"], ["--ttl=5", "n", "--", "-", "x"]),
        (["n", "--", "ls", "--ttl", "6"], ["n", "--", "ls", "--ttl", "6"]),
        (["--", "-n", "ls"], ["--", "-n", "ls"]),
        (["n"], ["n"]),
    ],
)
def test_what_stands_behind_the_command_is_its_own(given: list[str], taken: list[str]) -> None:
    assert lock._with_separator(given, {"--ttl", "--timeout"}) == taken
