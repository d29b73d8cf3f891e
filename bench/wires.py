"""Nodes in network namespaces, each at a cable of its own that can be cut: packets are dropped, and no side is told.

It needs Linux, root, and ``ip`` and ``unshare``. The program that measures has to be in a network namespace of its own,
in which the bridge is that the cables end at: :func:`enter`. When it ends, the kernel takes all of it back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from txpaxos.cli.running import CommandError
from txpaxos.cluster import Address, Member

INSIDE = "TXPAXOS_BENCH_INSIDE"
NETWORK = "192.0.2.{}"
"""For documentation only (RFC 5737): there is no such address outside."""

PEER_PORT, CLIENT_PORT = 4001, 5001


def missing() -> str:
    """Why there can be no such thing here; empty if there can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "it needs Linux, and root"
    absent = [tool for tool in ("ip", "unshare", "setpriv", "mount") if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    trial = ["unshare", "--net", "--mount", "ip", "link", "add", "trial", "type", "bridge"]
    done = subprocess.run(trial, capture_output=True, text=True, timeout=20)
    return f"no network namespace can be made: {done.stderr.strip()}" if done.returncode else ""


def is_entered() -> bool:
    """Whether :func:`enter` was called, and this is what came of it."""
    return INSIDE in os.environ


def enter(command: Sequence[str]) -> NoReturn:
    """Become ``command``, with the same process id, in namespaces of its own."""
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", *command])


class Wires:
    """A bridge with this process at it, and a cable to each node.

    :param nodes: their names, which become those of their namespaces.
    :param first: the last number of the first one's address.
    """

    def __init__(self, nodes: Sequence[str], first: int) -> None:
        self._hosts = {node: NETWORK.format(number) for number, node in enumerate(nodes, first)}

    @property
    def members(self) -> list[Member]:
        """Where the nodes listen."""
        return [Member(Address(host, PEER_PORT), Address(host, CLIENT_PORT)) for host in self._hosts.values()]

    @staticmethod
    def build_bridge() -> None:
        """The bridge, once for all nodes."""
        _run("mount", "-t", "tmpfs", "bench", "/run")  # ip keeps the names of network namespaces in there.
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge", "type", "bridge")
        _run("ip", "link", "set", "bridge", "up")
        _run("ip", "address", "add", f"{NETWORK.format(254)}/24", "dev", "bridge")

    def build(self) -> None:
        """The cables."""
        for node, host in self._hosts.items():
            _run("ip", "netns", "add", node)
            _run("ip", "link", "add", f"to-{node}", "type", "veth", "peer", "name", "eth0", "netns", node)
            _run("ip", "link", "set", f"to-{node}", "master", "bridge", "up")
            _run("ip", "-n", node, "address", "add", f"{host}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _run("ip", "-n", node, "link", "set", device, "up")

    def at(self, node: str) -> list[str]:
        """What stands before a command so that it runs at ``node``, and dies when this process does."""
        return ["setpriv", "--pdeathsig", "KILL", shutil.which("ip") or "ip", "netns", "exec", node]

    def cut(self, node: str) -> None:
        """Drop all packets from and to ``node``: its cable leads nowhere, and still carries a signal."""
        _run("ip", "link", "set", f"to-{node}", "nomaster")

    def reconnect(self, node: str) -> None:
        """Connect the cable of ``node`` again."""
        _run("ip", "link", "set", f"to-{node}", "master", "bridge")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: {done.stderr.strip()}")
