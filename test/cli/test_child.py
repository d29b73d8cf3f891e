"""A command that runs beside txpaxos, with real processes and the real reactor, each in a Python of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from txpaxos.cli.guard import Guard

PROGRAM = """
import sys
from typing import Any
from txpaxos.cli.child import Child
from txpaxos.cli.running import CommandError, run

async def work(reactor: Any) -> Any:
{body}

try:
    print("status", run(work), flush=True)
except CommandError as error:
    error.show()
"""


def run(body: str, stdin: str = "") -> tuple[str, str]:
    program = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    done = subprocess.run(
        [sys.executable, "-c", program], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout, done.stderr


def test_it_has_the_streams_and_the_environment_and_its_status_is_passed_on() -> None:
    body = """
        script = 'read line; echo "$line $TOKEN"; echo oops >&2; exit 7'
        child = Child(reactor, ["sh", "-c", script], {"TOKEN": "5"}, 60.0)
        return await child.ended()
    """
    assert run(body, "hello\n") == ("hello 5\nstatus 7\n", "oops\n")


def test_a_signal_is_a_status_as_shells_have_it() -> None:
    assert run('return await Child(reactor, ["sh", "-c", "kill -TERM $$"], {}, 60.0).ended()') == ("status 143\n", "")


def test_it_is_asked_to_end() -> None:
    body = """
        script = "trap 'echo ending; exit 3' TERM; echo; while :; do read x; done"
        child = Child(reactor, ["sh", "-c", script], {}, 60.0)
        return await child.end(60.0)
    """
    out, err = run(body)
    assert (out.split()[-2:], err) in [(["status", "3"], ""), (["status", "143"], "")]


def test_it_is_killed_if_it_does_not_end_with_all_that_it_has_started(tmp_path: Path) -> None:
    """Both the command and its child ignore SIGTERM; neither holds the pipe after that."""
    body = f"""
        from twisted.internet.task import deferLater
        from pathlib import Path
        loop = "while :; do sleep 1; done"
        script = "trap '' TERM; (" + loop + ") & touch {tmp_path}/up; " + loop
        child = Child(reactor, ["sh", "-c", script], {{}}, 60.0)
        while not Path("{tmp_path}/up").exists():
            await deferLater(reactor, 0.01, lambda: None)
        return await child.end(0.05)
    """
    assert run(body) == ("status 137\n", "")


def test_what_cannot_be_run_is_one_line() -> None:
    out, err = run('return await Child(reactor, ["/no/such/command"], {}, 60.0).ended()')
    assert (out, err) == ("", "txpaxos: /no/such/command cannot be run: No such file or directory\n")


def test_it_can_be_waited_for_after_its_end_and_a_wait_can_be_cancelled() -> None:
    body = """
        child = Child(reactor, ["true"], {}, 60.0)
        child.ended().addErrback(lambda _: print("cancelled")).cancel()
        assert await child.ended() == 0
        assert await child.end(1.0) == 0
        return await child.ended()
    """
    assert run(body) == ("cancelled\nstatus 0\n", "")


def start(body: str) -> subprocess.Popen[str]:
    program = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program], stdin=null, stdout=pipe, text=True)


def assert_command_is_killed_while_its_parent_is_stopped(body: str) -> None:
    """The command prints its pid. After that the parent stops itself."""
    with start(body) as parent:
        assert parent.stdout is not None
        command = os.pidfd_open(int(parent.stdout.readline()))
        assert select.select([command], [], [], 60.0)[0]
        parent.send_signal(signal.SIGCONT)
        assert parent.stdout.read() == "status 137\n"
    os.close(command)


STUBBORN = "trap '' TERM; echo $$; while :; do read x; done"


@pytest.mark.parametrize("script", ["echo $$; exec sleep 1000", "sh -c 'echo $$; exec sleep 1000'; echo on", STUBBORN])
def test_it_is_ended_when_this_process_is_killed(script: str) -> None:
    body = f"""
        child = Child(reactor, ["sh", "-c", {script!r}], {{}}, 60.0)
        child.let_run(1.0)
        return await child.ended()
    """
    with start(body) as parent:
        assert parent.stdout is not None
        command = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.stdout.read()  # Until the command has ended, the pipe is open.
        assert select.select([command], [], [], 60.0)[0]
    os.close(command)


def test_it_is_killed_in_time_when_this_process_is_stopped() -> None:
    body = f"""
        import os, signal
        child = Child(reactor, ["sh", "-c", {STUBBORN!r}], {{}}, 60.0)
        child.let_run(0.3)
        os.kill(os.getpid(), signal.SIGSTOP)
        return await child.ended()
    """
    assert_command_is_killed_while_its_parent_is_stopped(body)


def test_what_a_command_has_left_behind_is_ended_with_it_and_the_guard_keeps_no_pipe_open() -> None:
    """As long as anything holds the pipe, this does not come to its end."""
    body = """
        child = Child(reactor, ["sh", "-c", "sleep 1000 & echo up"], {}, 60.0)
        status = await child.ended()
        print(child._guard._process.returncode, flush=True)
        return status
    """
    assert run(body) == ("up\n0\nstatus 0\n", "")


@pytest.mark.parametrize("script", ["kill -9 $PPID; echo $$; exec sleep 1000", f"kill -9 $PPID; {STUBBORN}"])
def test_it_is_ended_also_when_this_process_is_killed_in_the_very_beginning(script: str) -> None:
    body = f"""
        child = Child(reactor, ["sh", "-c", {script!r}], {{}}, 1.0)
        return await child.ended()
    """
    with start(body) as parent:
        assert parent.stdout is not None
        command = os.pidfd_open(int(parent.stdout.readline()))
        assert select.select([command], [], [], 60.0)[0]
    os.close(command)


def test_a_guard_that_cannot_be_replaced_now_is_replaced_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    guard = Guard(has_group=False)
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(["sh", "-c", STUBBORN], stdin=pipe, stdout=null) as command:
        guard.started(command.pid)
        guard._process.kill()
        guard._process.wait()
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", refuses)
            guard.let_run(60.0)
            guard.let_run(60.0)
        guard.let_run(0.0)
        assert command.wait(60) == -signal.SIGKILL
    guard.dismiss()


def test_a_guard_that_was_killed_is_replaced() -> None:
    body = f"""
        import os, signal
        child = Child(reactor, ["sh", "-c", {STUBBORN!r}], {{}}, 60.0)
        first = child._guard._process
        first.kill()
        first.wait()
        child.let_run(0.3)
        os.kill(os.getpid(), signal.SIGSTOP)
        return await child.ended()
    """
    assert_command_is_killed_while_its_parent_is_stopped(body)
