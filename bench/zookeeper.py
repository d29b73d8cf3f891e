"""ZooKeeper as one of those that are compared: three processes of Debian's ``zookeeper``, which sync each change."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from bench.system import START_SECONDS_MAX
from txpaxos.cli.local_cluster import ChildProcess, free_members
from txpaxos.cli.running import CommandError, together

POLL_SECONDS = 0.1
JAR = Path("/usr/share/java/zookeeper.jar")


def absent() -> str | None:
    """What is missing here to run it, and how to get it."""
    if shutil.which("java") is None or not JAR.exists():
        return "no ZooKeeper here: apt-get install zookeeper"
    if importlib.util.find_spec("kazoo") is None:
        return "no kazoo here: python -m pip install 'kazoo>=2.10'"
    return None


class ZooKeeper:
    """A cluster of ZooKeeper.

    :param folder: of this cluster alone.
    """

    name = "kazoo"

    def __init__(self, reactor: Any, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._reactor = reactor
        self._members = [*free_members(3), *free_members(3)]
        self._processes: list[ChildProcess] = []

    @property
    def addresses(self) -> str:
        """Where clients find its nodes."""
        return ",".join(str(member.client) for member in self._members[:3])

    async def start(self) -> None:
        """Start its nodes, and wait until one of them leads.

        :raises CommandError: if none does in time.
        """
        for number in (1, 2, 3):
            self._start_node(number)
        give_up_at = self._reactor.seconds() + START_SECONDS_MAX
        while not any(self._mode(number) == "leader" for number in (1, 2, 3)):
            if self._reactor.seconds() > give_up_at or any(one.ended for one in self._processes):
                raise CommandError(f"ZooKeeper has no leader: see {self.folder}/*.log")
            await deferLater(self._reactor, POLL_SECONDS)

    def _start_node(self, number: int) -> None:
        data = self.folder / f"{number}"
        data.mkdir()
        (data / "myid").write_text(f"{number}\n")
        servers = [
            f"server.{other}=127.0.0.1:{first.address.port}:{second.address.port}"
            for other, (first, second) in enumerate(zip(self._members[:3], self._members[3:], strict=True), 1)
        ]
        lines = [
            *("tickTime=2000", "initLimit=10", "syncLimit=5", f"dataDir={data}"),
            *(f"clientPort={self._members[number - 1].client.port}", "clientPortAddress=127.0.0.1"),
            *("admin.enableServer=false", "4lw.commands.whitelist=srvr", "maxClientCnxns=0"),
            *servers,
        ]
        configuration = self.folder / f"{number}.cfg"
        configuration.write_text("\n".join(lines) + "\n")
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        command = [shutil.which("java") or "java", "-cp", str(JAR), main, str(configuration)]
        self._processes.append(ChildProcess(self._reactor, command, self.folder / f"{number}.log"))

    def _mode(self, number: int) -> str:
        """What a node says of itself; nothing while it says nothing."""
        member = self._members[number - 1]
        try:
            with socket.create_connection((member.client.host, member.client.port), timeout=1.0) as connection:
                connection.sendall(b"srvr")
                answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return ""
        return answer.partition("Mode: ")[2].strip().partition("\n")[0]

    async def stop(self) -> None:
        """End its nodes."""
        await together(*(process.stop() for process in self._processes))
