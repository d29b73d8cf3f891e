"""Network namespaces for one run: a network without other users, and a disk that may be filled.

The whole run lives in a network namespace and a mount namespace of its own (``unshare``), the clients among them. Each
node has another network namespace. All of it is visible only there and belongs to the processes there. When the run
ends, in any way, the kernel kills the nodes (``setpriv --pdeathsig``) and removes everything.
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
"""A place, and what is dropped on its way in: a rule for iptables."""

TOOLS = {"ip": "iproute2", "iptables-restore": "iptables", "mount": "mount", "unshare": "util-linux"}
TOOLS |= {"umount": "mount", "setpriv": "util-linux"}
INSIDE = "TXPAXOS_TORTURE_INSIDE"
NETWORK = "192.0.2.{}"
"""Addresses for documentation (RFC 5737). They exist nowhere outside, and ours cannot be seen there."""

CLIENTS = NETWORK.format(254)
COMMAND_SECONDS = 20


def missing() -> str:
    """Why there can be no such namespaces here; empty if there can."""
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
    """Whether this process was started by :func:`enter`."""
    return INSIDE in os.environ


def enter(command: Sequence[str]) -> NoReturn:
    """Become ``command``, with the same process id, in namespaces of its own."""
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", *command])


class NetworkNamespaces:
    """The network, after :func:`enter`: some places, each of which has an address. A node lives in one of them.

    :param nodes: the nodes at first. Each lives in the place of its number.
    :param places: how many places there are.
    """

    def __init__(self, reactor: Any, nodes: Sequence[str], places: int) -> None:
        self._reactor = reactor
        self._hosts = {f"place-{number}": NETWORK.format(number) for number in range(1, places + 1)}
        self._small_disk: Path | None = None
        self._places: dict[str, str] = {}
        for number, node in enumerate(nodes, 1):
            self.settle(node, number)

    def settle(self, node: str, place: int) -> None:
        """From now on ``node`` lives in the place of that number."""
        self._places[node] = f"place-{place}"

    def member(self, node: str) -> Member:
        """The addresses at which ``node`` listens."""
        host = self._hosts[self._places[node]]
        return Member(Address(host, 4001), Address(host, 5001))

    def build(self) -> None:
        """Make a bridge with the clients on it, and a cable to each place."""
        _run("mount", "-t", "tmpfs", "torture", "/run")  # ip keeps the names of network namespaces in there.
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge", "type", "bridge")
        _run("ip", "link", "set", "bridge", "up")
        _run("ip", "address", "add", f"{CLIENTS}/24", "dev", "bridge")
        for place, host in self._hosts.items():
            _run("ip", "netns", "add", place)
            _run("ip", "link", "add", f"to-{place}", "type", "veth", "peer", "name", "eth0", "netns", place)
            _run("ip", "link", "set", f"to-{place}", "master", "bridge", "up")
            _run("ip", "-n", place, "address", "add", f"{host}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _run("ip", "-n", place, "link", "set", device, "up")

    def demolish(self) -> None:
        """Remove the network, so that another can be built. What is left when the run ends is removed by the kernel."""
        for place in self._hosts:
            subprocess.run(["ip", "netns", "delete", place], capture_output=True, timeout=COMMAND_SECONDS)
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
        """The words before a command that make it run at ``node`` and die with this process."""
        return ["setpriv", "--pdeathsig", "KILL", *_at(self._places[node])]

    async def block(self, rules: Iterable[Rule]) -> None:
        """Drop packets by ``rules`` from now on."""
        await self._filter("-A", rules)

    async def unblock(self, rules: Iterable[Rule]) -> None:
        """Remove ``rules``."""
        await self._filter("-D", rules)

    def of_links(self, links: Iterable[Link]) -> list[Rule]:
        """The rules that cut ``links``."""
        places = self._places
        return [(places[receiver], f"-s {self._hosts[places[sender]]} -j DROP") for sender, receiver in links]

    def of_clients(self, node: str) -> list[Rule]:
        """The rules that cut the clients from ``node``."""
        return [(self._places[node], f"-s {CLIENTS} -j DROP")]

    def of_loss(self, probability: float) -> list[Rule]:
        """The rules that lose this share of all packets to nodes."""
        return [(place, _loss(probability)) for place in self._hosts]

    async def _filter(self, action: Literal["-A", "-D"], rules: Iterable[Rule]) -> None:
        by_place: dict[str, list[str]] = {}
        for place, rule in sorted(rules):
            by_place.setdefault(place, []).append(rule)
        await together(*(self._restore(place, _batch(action, its)) for place, its in by_place.items()))

    async def _restore(self, place: str, batch: str) -> None:
        command = [*_at(place), "iptables-restore", "--noflush", "--wait"]
        _, errors, status = await getProcessOutputAndValue(
            command[0], command[1:], os.environ, reactor=self._reactor, stdinBytes=batch.encode()
        )
        if status:
            raise CommandError(f"iptables-restore at {place} failed: {errors.decode(errors='replace')}")


def _at(place: str) -> list[str]:
    return [shutil.which("ip") or "ip", "netns", "exec", place]


def _batch(action: Literal["-A", "-D"], rules: Iterable[str]) -> str:
    return "\n".join(["*filter", *(f"{action} INPUT {rule}" for rule in rules), "COMMIT", ""])


def _loss(probability: float) -> str:
    return f"-m statistic --mode random --probability {probability:.4f} -j DROP"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: {done.stderr.strip()}")
