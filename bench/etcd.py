"""etcd as one of those that are compared: Debian's ``etcd-server``, driven over gRPC by ``h2load``.

The load is gRPC by hand: h2load posts the same framed PutRequest to ``/etcdserverpb.KV/Put`` on the leader, again and
again. That every put was done is seen from the store's revision, which counts them.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import shutil
import ssl
import string
import struct
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from bench.certificates import AUTHORITY, CERTIFICATE, PRIVATE_KEY, make_certificates
from bench.figures import Sample, latencies_of
from bench.machine import Meter
from bench.syncs import counting
from bench.system import START_SECONDS_MAX, Load, output_of
from txpaxos.cli.local_cluster import ChildProcess, free_members
from txpaxos.cli.running import CommandError, together
from txpaxos.cluster import Member

POLL_SECONDS = 0.05
ANSWER_SECONDS = 2.0
KEY = b"key"


def absent() -> str | None:
    """What is missing here to run it, and how to get it."""
    if shutil.which("etcd") is None:
        return "no etcd here: apt-get install etcd-server"
    if shutil.which("h2load") is None:
        return "no h2load here: apt-get install nghttp2-client"
    return None


def absent_for_grpc() -> str | None:
    """What is missing here to run it for a client of its own."""
    if shutil.which("etcd") is None:
        return "no etcd here: apt-get install etcd-server"
    if importlib.util.find_spec("grpc") is None:
        return "no gRPC here: python -m pip install 'grpcio>=1.60'"
    return None


class Etcd:
    """A cluster of etcd.

    :param folder: of this cluster alone.
    :param counts_syncs: whether ``strace`` is to count their syncs.
    """

    name = "etcd"
    scheme = "http"
    _context: ssl.SSLContext | None = None

    def __init__(self, reactor: Any, folder: Path, node_count: int = 3, *, counts_syncs: bool = False) -> None:
        folder.mkdir()
        self._counts_syncs = counts_syncs
        self.folder = folder
        self.processes: dict[str, ChildProcess] = {}
        self.leader = ""
        self._at: Callable[[str], list[str]] = lambda _: []
        self._reactor = reactor
        self._members = dict(zip(string.ascii_lowercase, free_members(node_count), strict=False))

    def place(self, members: Sequence[Member], at: Callable[[str], list[str]]) -> None:
        """Have its nodes listen elsewhere, before they are started.

        :param at: from a node to what stands before its command.
        """
        self._members = dict(zip(self._members, members, strict=True))
        self._at = at

    async def start(self) -> None:
        """See :meth:`bench.system.System.start`."""
        for node in self._members:
            self.start_node(node)
        await self.find_leader()

    def start_node(self, node: str) -> None:
        """Start one that does not run."""
        log = self.folder / f"{node}.log"
        self.processes[node] = ChildProcess(self._reactor, self._command(node), log)

    def _command(self, node: str) -> list[str]:
        peers = {name: f"{self.scheme}://{member.address}" for name, member in self._members.items()}
        client = self.url(node)
        options = {
            "name": node,
            "data-dir": self.folder / node,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peers[node],
            "initial-advertise-peer-urls": peers[node],
            "initial-cluster": ",".join(f"{name}={url}" for name, url in peers.items()),
            "quota-backend-bytes": 2**33,
            "log-level": "error",
            **self._options(),
        }
        command = [
            *self._at(node),
            shutil.which("etcd") or "etcd",
            *(f"--{option}={value}" for option, value in options.items()),
        ]
        return counting(self.folder / f"{node}.syncs", command) if self._counts_syncs else command

    def url(self, node: str) -> str:
        """Where clients find a node."""
        return f"{self.scheme}://{self._members[node].client}"

    async def find_leader(self) -> str:
        """Wait until those that run agree on a leader.

        :raises CommandError: if they do not in time, or one has ended.
        """
        give_up_at = self._reactor.seconds() + START_SECONDS_MAX
        while True:
            for node, process in self.processes.items():
                if process.ended:
                    raise CommandError(f"etcd {node} ended by itself: see {self.folder / node}.log")
            statuses = {node: self.ask(node, "maintenance/status") for node in self.processes}
            leaders = {status.get("leader") for status in statuses.values()}
            for node, status in statuses.items():
                if len(leaders) == 1 and status and status["header"]["member_id"] == status.get("leader"):
                    self.leader = node
                    return node
            if self._reactor.seconds() > give_up_at:
                raise CommandError(f"etcd has no leader after {START_SECONDS_MAX:g} s")
            await deferLater(self._reactor, POLL_SECONDS)

    def ask(self, node: str, path: str) -> dict[str, Any]:
        """What a node says through its JSON interface, nothing if it says nothing."""
        request = urllib.request.Request(f"{self.url(node)}/v3/{path}", data=b"{}")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=self._context) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (OSError, ValueError):
            return {}

    def revision(self) -> int:
        """How many changes the store has seen, by the leader's word."""
        return int(self.ask(self.leader, "maintenance/status")["header"]["revision"])

    def refused(self) -> int:
        """How many puts did not end well so far, by the leader's word: HTTP says 200 for these, too."""
        url = f"{self.url(self.leader)}/metrics"
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS, context=self._context) as response:
            return refusals(response.read().decode().splitlines())

    async def stop(self) -> None:
        """See :meth:`bench.system.System.stop`."""
        await together(*(process.stop() for process in self.processes.values()))

    async def put(self, load: Load) -> Sample:
        """See :meth:`bench.system.System.put`."""
        await self.find_leader()
        before, refused = self.revision(), self.refused()
        meter, client = Meter(self.pids()), _children_cpu_seconds()
        log = self.folder / "h2load.log"
        log.unlink(missing_ok=True)
        output = await output_of(self._reactor, shutil.which("h2load") or "h2load", self._h2load(load, log))
        done, total = answers(output), self.revision() - before
        refused = self.refused() - refused
        # What was done in the warm-up is in the total alone. What was under way at the end, h2load cut off.
        if refused > load.outstanding or done > total:
            raise CommandError(f"etcd answered {done} puts, did {total}, and refused {refused}")
        seconds = latencies_from_log(log.read_text().splitlines(), load.outstanding)
        client = _children_cpu_seconds() - client
        cpu_seconds = {**meter.cpu_seconds(total), "client": client / total}
        return Sample(len(seconds), load.seconds, latencies_of(seconds), cpu_seconds, meter.datagrams(total), total)

    def _h2load(self, load: Load, log: Path) -> list[str]:
        data = self.folder / "put.grpc"
        data.write_bytes(grpc_frame(put_request(KEY, b"v" * load.value_bytes)))
        options = [f"--clients={load.connections}", f"--max-concurrent-streams={load.outstanding // load.connections}"]
        options += [f"--duration={load.seconds * 1e3:.0f}ms"]
        options += [f"--warm-up-time={load.warm_up_seconds * 1e3:.0f}ms"]
        options += [f"--data={data}", f"--log-file={log}"]
        options += [] if load.rate is None else [f"--rps={load.rate / load.connections:.0f}"]
        options += ["--header=content-type: application/grpc", "--header=te: trailers"]
        return [*options, f"{self.url(self.leader)}/etcdserverpb.KV/Put"]

    def pids(self) -> dict[str, list[int]]:
        """The nodes, by what they are."""
        followers = [process.pid for node, process in self.processes.items() if node != self.leader]
        return {"leader": [self.processes[self.leader].pid], "followers": followers}

    def _options(self) -> dict[str, Any]:
        """More options of a node."""
        return {}


class EtcdSecured(Etcd):
    """The same with TLS: between nodes with the certificates of both sides, for clients with that of the node alone,
    since ``h2load`` has none to show."""

    name = "etcd with TLS"
    scheme = "https"

    def __init__(self, reactor: Any, folder: Path, node_count: int = 3) -> None:
        super().__init__(reactor, folder, node_count)
        self._certificates = folder / "certificates"
        make_certificates(self._certificates)
        self._context = ssl.create_default_context(cafile=str(self._certificates / AUTHORITY))

    def _options(self) -> dict[str, Any]:
        certificate, key = self._certificates / CERTIFICATE, self._certificates / PRIVATE_KEY
        return {
            "cert-file": certificate,
            "key-file": key,
            "peer-cert-file": certificate,
            "peer-key-file": key,
            "peer-trusted-ca-file": self._certificates / AUTHORITY,
            "peer-client-cert-auth": "true",
        }


def _children_cpu_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def put_request(key: bytes, value: bytes) -> bytes:
    """The protobuf message ``PutRequest``: field 1 the key, field 2 the value."""
    return b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(value)) + value


def varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits in a byte, the lowest first, the top bit set in all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def grpc_frame(message: bytes) -> bytes:
    """A message as gRPC carries it: not compressed, its length, itself."""
    return struct.pack(">BI", 0, len(message)) + message


def answers(output: str) -> int:
    """How many requests h2load saw answered with 2xx.

    :raises CommandError: if any other one ended otherwise.
    """
    counts: dict[str, int] = {}
    for line in output.splitlines():
        what, colon, rest = line.partition(":")
        if colon and what in ("requests", "status codes"):
            for part in rest.split(","):
                number, name = part.split(maxsplit=1)
                counts[name] = int(number)
    bad = {name: counts.get(name, 0) for name in ("failed", "errored", "timeout", "3xx", "4xx", "5xx")}
    if "2xx" not in counts or any(bad.values()):
        raise CommandError(f"h2load: not all was answered well: {bad if counts else output.strip()[-200:]}")
    return counts["2xx"]


def refusals(metrics: Iterable[str]) -> int:
    """How many puts ended otherwise than with gRPC's OK, in etcd's metrics."""
    puts = [one for one in metrics if one.startswith("grpc_server_handled_total") and 'grpc_method="Put"' in one]
    return sum(int(float(one.rpartition(" ")[2])) for one in puts if 'grpc_code="OK"' not in one)


def latencies_from_log(lines: Sequence[str], under_way: int) -> list[float]:
    """Seconds of each request, from what h2load logged: its start, HTTP status, and microseconds, with tabs between.

    The first ones may have come half in the warm-up. Their status is 0, and they are left out.

    :param under_way: how many there are at a time.
    :raises CommandError: if another one was not answered with 200.
    """
    seconds = []
    for number, line in enumerate(lines):
        _, status, microseconds = line.split("\t")
        if status == "0" and number < under_way:
            continue
        if status != "200":
            raise CommandError(f"etcd answered a put with {status}")
        seconds.append(int(microseconds) / 1e6)
    return seconds
