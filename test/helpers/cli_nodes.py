"""Real nodes for the tests of the command line: ``twistd paxos`` processes that end with the test process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.cluster import Cluster

START_SECONDS_MAX = 30.0
TXPAXOS = [sys.executable, "-c", "from txpaxos.cli import main; main(prog_name='txpaxos')"]


def txpaxos(*arguments: str, folder: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command in ``folder``."""
    return subprocess.run([*TXPAXOS, *arguments], cwd=folder, input=stdin, capture_output=True, timeout=60)


class Nodes:
    """The nodes of one cluster. Its file is ``cluster.toml`` in ``folder``.

    :param options: more options for ``twistd paxos``; ``{node}`` in one is the node's name.
    :param prefix: a command that becomes the one which is its arguments.
    """

    def __init__(
        self,
        folder: Path,
        *names: str,
        cluster: str = "test",
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.options = options
        self.prefix = prefix
        self.cluster = Cluster(cluster, dict(zip(names, free_members(len(names)), strict=True)))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "cluster.toml").write_text(self.cluster.dumps())

    def start(self, node: str, file: str = "cluster.toml") -> None:
        """Start a node with the cluster file that has the name ``file``."""
        options = ["--cluster", file, "--node", node, "--data-dir", node, "--stop-at-eof"]
        options += [option.format(node=node) for option in self.options]
        command = [*self.prefix, sys.executable, "-c", TWISTD, "-n", "--pidfile=", "--logfile=-", "paxos", *options]
        with (self.folder / f"{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def kill(self, node: str) -> None:
        """Kill a node without warning."""
        process = self.processes.pop(node)
        process.kill()
        process.communicate()

    def wait_for_leader(self) -> None:
        """Ask for the status until a quorum follows a leader. Each question takes as long as the timeout for nodes that
        do not answer."""
        give_up_at = time.monotonic() + START_SECONDS_MAX
        while (asked := txpaxos("status", folder=self.folder)).returncode != 0:
            logs = "".join(log.read_text() for log in self.folder.glob("*.log"))
            assert time.monotonic() < give_up_at, asked.stdout.decode() + logs


@contextmanager
def running(folder: Path, *names: str) -> Iterator[Nodes]:
    """Nodes that have a leader."""
    nodes = Nodes(folder, *names)
    try:
        for node in names:
            nodes.start(node)
        nodes.wait_for_leader()
        yield nodes
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)
