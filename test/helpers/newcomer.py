"""A person with an empty folder, who types the commands of a page into a shell."""

from __future__ import annotations

import itertools
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from txpaxos.cli.init import CLIENT_PORT_AHEAD
from txpaxos.cli.local_cluster import PORTS

SECONDS = 60.0


class Newcomer:
    """That person. pip looks whether all is there, and installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        home = folder / "home"
        for one in (self.folder, home):
            one.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TXPAXOS_", "PIP_"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**kept, "HOME": str(home), "PATH": path, "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1"}
        self.nodes: list[subprocess.Popen[bytes]] = []

    def type(self, command: str) -> str:
        """Run a command to its end. What it says."""
        done = self._run(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert done.stderr == ""
        return done.stdout

    def type_and_be_refused(self, command: str) -> str:
        """Run a command that fails. What it says, which is one line."""
        done = self._run(command)
        assert (done.returncode, done.stdout) == (1, ""), f"{command}: {done.stdout}{done.stderr}"
        (line,) = done.stderr.splitlines()
        return line

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def change_folder(self, command: str) -> None:
        """Do as ``cd FOLDER`` says."""
        program, folder = shlex.split(command)
        assert program == "cd"
        self.folder = (self.folder / folder).resolve()
        assert self.folder.is_dir()

    def open_terminal(self, command: str) -> None:
        """Run a command that goes on, in a terminal of its own."""
        with self._terminal(len(self.nodes)).open("wb") as terminal:
            self.nodes.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=terminal,
                    stderr=terminal,
                    start_new_session=True,
                )
            )

    def _terminal(self, number: int) -> Path:
        return Path(self.environment["HOME"]) / f"terminal {number}"

    def read_terminals(self) -> list[str]:
        """What the nodes have said."""
        return [self._terminal(number).read_text() for number in range(len(self.nodes))]

    def wait_for_leader(self) -> None:
        """Look at the terminals until one of the nodes leads and the others follow it."""
        give_up_at = time.monotonic() + SECONDS
        while not all(re.search("leads with ballot|follows", said) for said in self.read_terminals()):
            assert time.monotonic() < give_up_at, self.read_terminals()
            for node in self.nodes:
                if node.poll() != -signal.SIGINT:
                    with pytest.raises(subprocess.TimeoutExpired):
                        node.wait(0.02)

    def interrupt(self, number: int) -> None:
        """Type Ctrl-C in the terminal of that number."""
        self.nodes[number].send_signal(signal.SIGINT)
        assert self.nodes[number].wait(SECONDS) == -signal.SIGINT, self.read_terminals()

    def interrupt_nodes(self) -> None:
        """Type Ctrl-C in each terminal. No node says more than it should."""
        for number, node in enumerate(self.nodes):
            if node.poll() is None:
                self.interrupt(number)
        assert not any("Traceback" in said for said in self.read_terminals())

    def leave(self) -> None:
        """End the nodes that still run, each by its own number."""
        for node in self.nodes:
            if node.poll() is None:
                node.kill()
            node.wait()


def places(count: int) -> list[str]:
    """Values for ``txpaxos init --nodes``, without the names: places on this machine whose ports are free, and those
    for clients, too. Those for clients are in odd thousands, so that no place has the port of another one."""
    ports = [port for port in random.sample(PORTS, len(PORTS)) if port // CLIENT_PORT_AHEAD % 2 == 0]
    found = (port for port in ports if _is_free(port) and _is_free(port + CLIENT_PORT_AHEAD))
    return [f"127.0.0.1:{port}" for port in itertools.islice(found, count)]


def _is_free(port: int) -> bool:
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as one:
                one.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
