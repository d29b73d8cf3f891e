"""``txpaxos play`` from outside: what it prints, which page it opens, and how it ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from test.helpers.cli_nodes import TXPAXOS, txpaxos


def test_it_opens_the_page_that_it_prints(tmp_path: Path) -> None:
    """The browser is a program that writes the address it is given into a pipe, which the test reads."""
    pipe, browser = tmp_path / "pipe", tmp_path / "browser"
    os.mkfifo(pipe)
    browser.write_text(f'#!/bin/sh\necho "$1" > {shlex.quote(str(pipe))}\n')
    browser.chmod(0o755)
    environment = os.environ | {"BROWSER": f"{browser} %s"}
    process = subprocess.Popen(
        [*TXPAXOS, "play"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        opened = pipe.read_text().strip()
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert line == f"Paxos is at {opened} (Ctrl-C ends it)\n"
    assert (process.returncode, errors) == (130, "txpaxos: interrupted\n")


def test_a_port_that_cannot_be(tmp_path: Path) -> None:
    done = txpaxos("play", "--port", "70000", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"70000 is not in the range 0<=x<=65535" in done.stderr


def test_it_loads_no_site_for_other_commands() -> None:
    """Twisted's web server is loaded for this command alone."""
    program = "import sys; from txpaxos.cli import main, status; print('twisted.web.server' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n"
