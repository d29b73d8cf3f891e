"""A place of its own for one run: a network that nobody else is on, and a disk that may be filled.

The whole run lives in a network namespace and a mount namespace made for it (``unshare``), the clients among them; each
node has a network namespace more. All of it is visible in there only and belongs to the processes in there: when the
run ends, however it ends, the kernel kills the nodes (``setpriv --pdeathsig``) and takes everything back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

from twisted.internet.utils import getProcessOutputAndValue

from test.torture.plan import Link
from txpaxos.cli.running import CommandError, together
from txpaxos.cluster import Address, Member

Rule: TypeAlias = tuple[str, str]
"""A node, and what is dropped on its way in: a rule for iptables."""

TOOLS = {"ip": "iproute2", "iptables-restore": "iptables", "mount": "mount", "unshare": "util-linux"}
TOOLS |= {"umount": "mount", "setpriv": "util-linux"}
INSIDE = "TXPAXOS_TORTURE_INSIDE"
NETWORK = "192.0.2.{}"
"""For documentation only (RFC 5737): there is no such address outside, and none of ours can be seen there."""

CLIENTS = NETWORK.format(254)
COMMAND_SECONDS = 20


def missing() -> str:
    """Why there can be no such place here; empty if there can."""
    if not sys.platform.startswith("linux"):
        return "it needs Linux"
    if os.geteuid() != 0:
        return "it needs root, for network namespaces"
    absent = [f"{tool} (package {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    trial = [
        *("unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec"),
        "mount -t tmpfs torture /run; ip netns add trial; ip netns exec trial iptables-restore --noflush",
    ]
    rules = _batch("-A", [f"-s {CLIENTS} -j DROP", _loss(0.5)])
    done = subprocess.run(trial, input=rules, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    return f"no network namespace with iptables can be made: {done.stderr.strip()}" if done.returncode else ""


def is_entered() -> bool:
    """Whether :func:`enter` was called, and this is what came of it."""
    return INSIDE in os.environ


def enter(command: Sequence[str]) -> NoReturn:
    """Become ``command``, with the same process id, in namespaces of its own."""
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", *command])


class NetworkNamespaces:
    """The network of ``nodes``, after :func:`enter`.

    :ivar members: where the nodes listen.
    """

    def __init__(self, reactor: Any, nodes: Sequence[str]) -> None:
        self._reactor = reactor
        self._hosts = {node: NETWORK.format(number) for number, node in enumerate(nodes, 1)}
        self._small_disk: Path | None = None
        self.members = {node: Member(Address(host, 4001), Address(host, 5001)) for node, host in self._hosts.items()}

    def build(self) -> None:
        """A bridge with the clients at it, and a cable to each node."""
        _run("mount", "-t", "tmpfs", "torture", "/run")  # ip keeps the names of network namespaces in there.
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge", "type", "bridge")
        _run("ip", "link", "set", "bridge", "up")
        _run("ip", "address", "add", f"{CLIENTS}/24", "dev", "bridge")
        for node, host in self._hosts.items():
            _run("ip", "netns", "add", node)
            _run("ip", "link", "add", f"to-{node}", "type", "veth", "peer", "name", "eth0", "netns", node)
            _run("ip", "link", "set", f"to-{node}", "master", "bridge", "up")
            _run("ip", "-n", node, "address", "add", f"{host}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _run("ip", "-n", node, "link", "set", device, "up")

    def demolish(self) -> None:
        """Make room for another. What is left when the run ends goes by itself."""
        for node in self._hosts:
            subprocess.run(["ip", "netns", "delete", node], capture_output=True, timeout=COMMAND_SECONDS)
        subprocess.run(["ip", "link", "delete", "bridge"], capture_output=True, timeout=COMMAND_SECONDS)
        subprocess.run(["umount", "/run"], capture_output=True, timeout=COMMAND_SECONDS)
        if self._small_disk is not None:
            subprocess.run(["umount", self._small_disk], capture_output=True, timeout=COMMAND_SECONDS)

    def mount_small_disk(self, folder: Path, size: int) -> None:
        """Put a file system of ``size`` bytes at ``folder``."""
        folder.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "torture", str(folder))
        self._small_disk = folder

    def at(self, node: str) -> list[str]:
        """What stands before a command so that it runs at ``node``, and dies when this process does."""
        return ["setpriv", "--pdeathsig", "KILL", *_at(node)]

    async def block(self, rules: Iterable[Rule]) -> None:
        """Drop what ``rules`` say from now on."""
        await self._filter("-A", rules)

    async def unblock(self, rules: Iterable[Rule]) -> None:
        """Drop it no more."""
        await self._filter("-D", rules)

    def of_links(self, links: Iterable[Link]) -> list[Rule]:
        """The rules that cut ``links``."""
        return [(receiver, f"-s {self._hosts[sender]} -j DROP") for sender, receiver in links]

    def of_clients(self, node: str) -> list[Rule]:
        """The rules that cut the clients from ``node``."""
        return [(node, f"-s {CLIENTS} -j DROP")]

    def of_loss(self, probability: float) -> list[Rule]:
        """The rules that lose that share of all packets to nodes."""
        return [(node, _loss(probability)) for node in self._hosts]

    async def _filter(self, action: Literal["-A", "-D"], rules: Iterable[Rule]) -> None:
        by_node: dict[str, list[str]] = {}
        for node, rule in sorted(rules):
            by_node.setdefault(node, []).append(rule)
        await together(*(self._restore(node, _batch(action, its)) for node, its in by_node.items()))

    async def _restore(self, node: str, batch: str) -> None:
        command = [*_at(node), "iptables-restore", "--noflush", "--wait"]
        _, errors, status = await getProcessOutputAndValue(
            command[0], command[1:], os.environ, reactor=self._reactor, stdinBytes=batch.encode()
        )
        if status:
            raise CommandError(f"iptables-restore at {node} failed: {errors.decode(errors='replace')}")


def _at(node: str) -> list[str]:
    return [shutil.which("ip") or "ip", "netns", "exec", node]


def _batch(action: Literal["-A", "-D"], rules: Iterable[str]) -> str:
    return "\n".join(["*filter", *(f"{action} INPUT {rule}" for rule in rules), "COMMIT", ""])


def _loss(probability: float) -> str:
    return f"-m statistic --mode random --probability {probability:.4f} -j DROP"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: {done.stderr.strip()}")
