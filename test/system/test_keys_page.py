"""The ten commands of docs/keys.rst that make a cluster with keys from nothing, as they are typed there.

They run in an empty folder and an empty home. Only the port numbers of the page's cluster file are replaced, since
others may have those; the commands do not name them. pip looks whether all is there, and installs nothing.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.system.test_readme import ROOT, blocks, section, text_of
from txpaxos.cli.local_cluster import free_members
from txpaxos.cluster import Cluster

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")
pytestmark = pytest.mark.timeout(180)

SECONDS = 60.0
PAGE = section(text_of("keys"), "From nothing")
COMMANDS = [line.removeprefix("$ ") for block in blocks(PAGE, "console")[:2] for line in block.splitlines()]
EXAMPLE = (ROOT / "examples" / "cluster.toml").read_text()


class Newcomer:
    """A person with an empty folder, who types commands into a shell."""

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
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert done.stderr == ""
        return done.stdout

    def open_terminal(self, command: str) -> None:
        """Run a command that goes on, in a terminal of its own."""
        with (self.folder.parent / f"terminal {len(self.nodes)}").open("wb") as terminal:
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

    def read_terminals(self) -> list[str]:
        """What the nodes have said."""
        return [(self.folder.parent / f"terminal {number}").read_text() for number in range(len(self.nodes))]

    def wait_for_leader(self) -> None:
        """Look at the terminals until one of the nodes leads and the others follow it."""
        give_up_at = time.monotonic() + SECONDS
        while not all(re.search("leads with ballot|follows", said) for said in self.read_terminals()):
            assert time.monotonic() < give_up_at, self.read_terminals()
            for node in self.nodes:
                with pytest.raises(subprocess.TimeoutExpired):
                    node.wait(0.02)

    def leave(self) -> None:
        """End the nodes that still run, each by its own number."""
        for node in self.nodes:
            if node.poll() is None:
                node.kill()
            node.wait()


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    made = Newcomer(tmp_path)
    try:
        yield made
    finally:
        made.leave()


def on_other_ports(toml: str) -> str:
    """The cluster file with other port numbers, and nothing else replaced."""
    members = free_members(3)
    ports = iter([str(port) for member in members for port in (member.address.port, member.client.port)])
    return re.sub(r'(?<=127\.0\.0\.1:)\d+(?=")', lambda _: next(ports), toml)


def test_the_cluster_file_of_the_page_is_the_example() -> None:
    assert blocks(PAGE, "toml") == [EXAMPLE]


def test_ten_commands_make_a_cluster_with_keys(newcomer: Newcomer) -> None:
    assert len(COMMANDS) == 10
    (toml,) = blocks(PAGE, "toml")
    other = on_other_ports(toml)
    assert Cluster.parse(other).members.keys() == {"a", "b", "c"}
    (newcomer.folder / "cluster.toml").write_text(other)
    make, start, ask = COMMANDS[:5], COMMANDS[5:8], COMMANDS[8:]
    *_, shown = map(newcomer.type, make)
    assert re.findall(r"^(\S+) +(node|client) ", shown, re.MULTILINE) == [
        *(("a", "node"), ("b", "node"), ("c", "node"), ("alice", "client")),
    ]
    for command in start:
        newcomer.open_terminal(command)
    newcomer.wait_for_leader()
    status, total = map(newcomer.type, ask)
    assert "leads, 3 of 3 nodes answer" in status
    assert total == "5\n"
    for node in newcomer.nodes:
        node.send_signal(signal.SIGINT)
        assert node.wait(SECONDS) == -signal.SIGINT, newcomer.read_terminals()
    assert not any("Traceback" in said for said in newcomer.read_terminals())
