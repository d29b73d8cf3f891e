"""``twistd paxos``: its options, and the service that it runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python import usage
from twisted.python.failure import Failure

from txpaxos import __version__
from txpaxos.application import name_of
from txpaxos.application_checks import check_class, described_with_source
from txpaxos.cluster import ALONE, NAME, NAME_RULE, Address, Cluster, Member, check_host
from txpaxos.core.config import Timing
from txpaxos.errors import ConfigError, PaxosError
from txpaxos.node.settings import Settings
from txpaxos.node.snapshots.taking import Policy
from txpaxos.protocol import PaxosProtocol
from txpaxos.recording.options import BYTES_MAX, BYTES_MAX_LEAST, RecordingOptions
from txpaxos.server.companion import Companion
from txpaxos.server.joining import Wish
from txpaxos.server.log_output import check_log_output, set_log_output
from txpaxos.server.membership import cluster_of
from txpaxos.server.node_process import NodeProcess, NodeService, is_daemon
from txpaxos.server.service import PaxosService
from txpaxos.server.twistd_options import check_options
from txpaxos.service.application import application_of
from txpaxos.service.declaration import Service
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import joined_folder

LOG_BYTES_MIN = 4096
_NOTHING = object()
_JOIN_ONLY = ("address", "client", "listen", "client-listen", "cluster-name", "replace", "join-keys")


class Options(usage.Options):
    """The command line of ``twistd paxos``."""

    synopsis = "[options]"
    parent: Any = None  # The options of twistd.
    longdesc = (
        "Runs one node of a replicated service. Without options: a counter on a single node, in ./paxos-data, for"
        " clients at 127.0.0.1:5010. Give twistd's own options (-n, --pidfile, --logfile) before 'paxos'."
    )
    optParameters: Sequence[Sequence[Any]] = [
        ["cluster", "c", None, "The cluster file (TOML): all nodes and their addresses."],
        ["node", "i", None, "The node's id in the cluster. May be left out if there is only one."],
        ["data-dir", "d", None, "The node's data folder. [default: paxos-data, or paxos-data-NODE with --cluster]"],
        [
            "app",
            "a",
            "txpaxos.counter:Counter",
            "The PaxosProtocol or Service subclass: MODULE:CLASS or FILE.py:CLASS.",
        ],
        ["heartbeat", None, "0.1", "Seconds between a leader's heartbeats."],
        ["liveness-window", None, "0.25,0.5", "Shortest and longest silence, in seconds, before a leader is replaced."],
        ["join", None, None, "Join a cluster, with an empty data folder: HOST:PORT, where clients reach any member."],
        ["address", None, None, "With --join: HOST:PORT, where the other nodes reach this one."],
        ["client", None, None, "With --join: HOST:PORT, where clients reach this node."],
        ["listen", None, None, "With --join: HOST:PORT to listen at for other nodes. [default: the address]"],
        ["client-listen", None, None, "With --join: HOST:PORT to listen at for clients. [default: the client address]"],
        ["cluster-name", None, None, "With --join: the cluster's name. A cluster of another name is not joined."],
        ["replace", None, None, "With --join: the id of the member that leaves when this node votes."],
        ["join-keys", None, None, "With --join: the folder of keys of a client that may change the members."],
        ["keys", None, None, "The folder with the node's keys. Without it, any program may do everything."],
        ["status", None, None, "Show the status of the node by HTTP at this HOST:PORT; with --keys, by HTTPS."],
        ["record", None, None, "Record all that enters the core of the node, in this folder, for txpaxos replay."],
        ["record-bytes-max", None, f"{BYTES_MAX}", "With --record: the most bytes that the recording has on disk."],
        ["log-format", None, None, "What the log is: text, or json, an object a line. [default: text]"],
        ["log-level", None, None, "The least to log: debug, info, warn, error or critical. [default: info]"],
        ["snapshot-log-bytes", None, f"{Policy().log_bytes}", "Take a snapshot each time the log has grown by this."],
    ]
    optFlags: Sequence[Sequence[Any]] = [
        ["insecure", None, "Do not warn of a node without keys that other machines may reach."],
        ["record-redact", None, "With --record: leave out values; their length and a digest take their place."],
        ["learner", None, "With --join: learn what is chosen, and never vote."],
        ["tracing", None, "Make spans of OpenTelemetry of commands, as the environment says (OTEL_*)."],
        ["stop-at-eof", None, "Stop when standard input ends, as when the process that holds its pipe ends."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.process: NodeProcess | None = None
        self.client_endpoints: list[str] = []

    def opt_client_endpoint(self, text: str) -> None:
        """Serve clients at this Twisted endpoint, too, as unix:PATH:mode=660. May be given more often."""
        self.client_endpoints.append(text)

    def parseOptions(self, options: Any = None) -> None:
        """Parse the command line. A fault is one line, and not twistd's usage with the fault below."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            raise SystemExit(f"twistd paxos: {error} (twistd paxos --help lists the options)") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse arguments, since there are only options.

        :raises twisted.python.usage.UsageError: if there is any argument."""
        if arguments:
            stray = " ".join(map(ascii, arguments))
            raise usage.UsageError(f"{stray}: there are options only; remove it, or write it as the value of an option")

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"txpaxos {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Check the options and load the application, before anything is started.

        :raises twisted.python.usage.UsageError: one line that says what is wrong.
        """
        try:
            if self.parent is not None:
                check_options(self.parent, is_daemon(self.parent))
            if self["keys"] == "":
                raise ConfigError("--keys is empty: name a folder of keys, or leave the option out")
            if self["data-dir"] == "":
                raise ConfigError("--data-dir is empty: name a folder, or leave the option out")
            check_log_output(self.parent or {}, self["log-format"], self["log-level"])
            self._find_node()
            self.timing = self._timing()
            self.snapshot_policy = self._snapshot_policy()
            self.recording = self._recording()
            self.companions = self._companions()
            # This comes before the application is loaded: the exit handler that is registered first runs last.
            if self.parent is not None:
                self.process = NodeProcess(_reactor(), self.parent)
            self.application = load_application(self["app"])
        except PaxosError as error:
            raise usage.UsageError(str(error)) from None

    def _find_node(self) -> None:
        """Find out which node this is, of which cluster, with which folder: by a cluster file, by ``--join``, or by
        what the folder of a node that has joined says.

        :raises PaxosError: one line that says what is wrong.
        """
        self.member: Member | None = None
        if self["join"] is not None:
            self._find_joining_node()
            return
        for option in (*_JOIN_ONLY, "learner"):
            if self[option]:
                raise ConfigError(f"--{option} is for a node that joins: give --join, too, or leave it out")
        named = "paxos-data" if self["node"] is None else f"paxos-data-{self['node']}"
        if self["cluster"] is None:
            joined = joined_folder(Disk(), os.path.abspath(self["data-dir"] or named))
            if joined is not None:
                self.cluster, self.node = cluster_of(joined), joined.node
                self.data_directory = os.path.abspath(self["data-dir"] or named)
                return
        self.cluster = ALONE if self["cluster"] is None else Cluster.load(self["cluster"])
        self.node = self._node()
        default = "paxos-data" if self["cluster"] is None else f"paxos-data-{self.node}"
        self.data_directory = os.path.abspath(self["data-dir"] or default)

    def _find_joining_node(self) -> None:
        """Take the options of a node that joins a cluster."""
        if self["cluster"] is not None:
            raise ConfigError("--join and --cluster: a node that joins learns the cluster from --join; leave one out")
        for option in ("node", "address", "client"):
            if not self[option]:
                raise ConfigError(f"--join needs --{option}, too")
        if not NAME.match(self["node"]):
            raise ConfigError(f"--node {self['node']} cannot be a node: {NAME_RULE}")
        self.join_at = self._address("join")
        optional = [self._address(option) if self[option] else None for option in ("listen", "client-listen")]
        self.member = Member(self._address("address"), self._address("client"), *optional)
        self.node = self["node"]
        self.cluster = Cluster("joining", {self.node: self.member})
        self.cluster.check()
        self.data_directory = os.path.abspath(self["data-dir"] or f"paxos-data-{self.node}")

    def _address(self, option: str) -> Address:
        try:
            address = Address.parse(self[option])
            check_host(address.host, listens=option.endswith("listen"))
        except ValueError as error:
            raise ConfigError(f"--{option} {ascii(self[option])[:100]}: {error}") from None
        return address

    def wish(self) -> Wish | None:
        """What the node wants when it joins; ``None`` if it does not."""
        if self.member is None:
            return None
        name, application = self["cluster-name"], name_of(self.application)
        votes, replaces = not self["learner"], self["replace"] or ""
        keys = os.path.abspath(self["join-keys"]) if self["join-keys"] else ""
        return Wish(self.join_at, self.node, self.member, application, name, votes, replaces, keys)

    def _node(self) -> str:
        nodes = list(self.cluster.members)
        node: str | None = self["node"]
        if node is None and len(nodes) == 1:
            return nodes[0]
        if node not in nodes:
            given = "--node is missing" if node is None else f"--node {node} is not in the cluster"
            raise ConfigError(f"{given}; its nodes are {', '.join(nodes)}")
        return node

    def _timing(self) -> Timing:
        (heartbeat,) = self._seconds("heartbeat", 1)
        shortest, longest = self._seconds("liveness-window", 2)
        if not 2 * heartbeat <= shortest <= longest:
            raise ConfigError(
                f"--liveness-window {self['liveness-window']}: the first must be at least two heartbeats"
                f" ({2 * heartbeat:g}), the second at least the first"
            )
        return Timing(heartbeat_seconds=heartbeat, liveness_window_seconds=(shortest, longest))

    def _snapshot_policy(self) -> Policy:
        given = self["snapshot-log-bytes"]
        if not given.isascii() or not given.isdecimal() or int(given) < LOG_BYTES_MIN:
            raise ConfigError(f"--snapshot-log-bytes {given}: must be a number of bytes, at least {LOG_BYTES_MIN}")
        return Policy(int(given))

    def _recording(self) -> RecordingOptions | None:
        given = self["record-bytes-max"]
        if not given.isascii() or not given.isdecimal() or int(given) < BYTES_MAX_LEAST:
            raise ConfigError(f"--record-bytes-max {given}: must be a number of bytes, at least {BYTES_MAX_LEAST}")
        if self["record"]:
            return RecordingOptions(os.path.abspath(self["record"]), int(given), bool(self["record-redact"]))
        if self["record"] is not None:
            raise ConfigError("--record is empty: name a folder, or leave the option out")
        if self["record-redact"]:
            raise ConfigError("--record-redact is for a node that records: give --record, too, or leave it out")
        return None

    def _companions(self) -> list[Companion]:
        """What is to run beside the node."""
        companions: list[Companion] = []
        if self["status"] is not None:
            from txpaxos.status_port.status_port import StatusPort  # It loads twisted.web.

            companions.append(StatusPort(self["status"]))
        if self["tracing"]:
            from txpaxos.tracing.environment import EnvironmentSpans

            companions.append(EnvironmentSpans())
        return companions

    def _seconds(self, option: str, count: int) -> list[float]:
        try:
            values = [float(part) for part in self[option].split(",")]
        except ValueError:
            values = []
        if len(values) != count or not all(0.001 <= value <= 3600 for value in values):
            wanted = "a number of seconds" if count == 1 else f"{count} numbers of seconds with a comma between"
            raise ConfigError(f"--{option} {self[option]}: must be {wanted}, from 0.001 to 3600")
        return values


def load_attribute(name: str, option: str) -> Any:
    """The attribute that ``name`` (``MODULE:ATTRIBUTE`` or ``FILE.py:ATTRIBUTE``) stands for.

    :param option: the option that ``name`` is the value of, for the error.
    :raises ConfigError: one line that says why it cannot be loaded.
    """
    source, colon, attribute = name.rpartition(":")
    if not colon or not source or not attribute:
        raise ConfigError(f"{option} {name}: must be MODULE:NAME or FILE.py:NAME")
    try:
        module = _load_file(source) if source.endswith(".py") else importlib.import_module(source)
        found = getattr(module, attribute, _NOTHING)
    except BaseException as error:  # Also SystemExit, and KeyboardInterrupt: it is a line all the same.
        raise ConfigError(f"{option} {name}: {source} cannot be imported: {described_with_source(error)}") from None
    if found is _NOTHING:
        raise ConfigError(f"{option} {name}: {source} has no {attribute}")
    return found


def _load_file(path: str) -> ModuleType:
    """Import the file at ``path`` as a module, under a name that no other module has.

    It can import its neighbours as under ``python FILE.py``, since its folder is put first in ``sys.path``."""
    folder, name = os.path.split(os.path.abspath(path))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = name[:-3]
    if name in sys.modules or name in sys.stdlib_module_names or not name.isidentifier():
        name = f"paxos_file_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses, for one, look up the module they are in.
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def load_application(name: str) -> type[PaxosProtocol]:
    """The application class that ``name``, the value of ``--app``, stands for. For a typed service it is made.

    :raises ConfigError: one line that says why it cannot be used.
    """
    found = load_attribute(name, "--app")
    try:
        if isinstance(found, type) and issubclass(found, Service):
            return application_of(found)
        if not (isinstance(found, type) and issubclass(found, PaxosProtocol)):
            raise ConfigError("it is not a subclass of txpaxos.protocol.PaxosProtocol, nor of txpaxos.Service")
        check_class(found)
    except ConfigError as error:
        raise ConfigError(f"--app {name}: {error}") from None
    return found


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def makeService(options: Options, reactor: Any = None, disk: Disk | None = None) -> PaxosService:
    """The service of one node. twistd calls this with the parsed options.

    :param reactor: the reactor; by default the installed one.
    :param disk: the system calls of the store; by default those of the real disk."""
    reactor = reactor or _reactor()
    process = options.process or NodeProcess(reactor, options.parent)
    if options["stop-at-eof"]:
        reactor.callWhenRunning(StandardIO, _StopAtEof(process), reactor=reactor)
    service = NodeService(
        options.application,
        options.node,
        options.cluster,
        options.data_directory,
        Settings(timing=options.timing, snapshot_policy=options.snapshot_policy),
        reactor=reactor,
        disk=disk,
        keys=None if options["keys"] is None else os.path.abspath(options["keys"]),
        insecure=bool(options["insecure"]),
        client_endpoints=options.client_endpoints,
        companions=options.companions,
        record=options.recording,
        gave_up=process.gave_up,
        stopped=process.stopped,
    )
    service.cluster_file = None if options["cluster"] is None else os.path.abspath(options["cluster"])
    service.process = process
    service.wish = options.wish()
    service.prepare_log = partial(
        set_log_output, options=options.parent, form=options["log-format"], level=options["log-level"]
    )
    return service


class _StopAtEof(Protocol):
    """Stops the reactor when standard input ends."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the reactor, since standard input ended."""
        self._process.stop_reactor()
