"""The files that ``txpaxos init`` writes, as texts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import attrs

from txpaxos.cluster import Cluster, is_loopback
from txpaxos.server.node_process import REMOVED

UNIT = "systemd/txpaxos@.service"
ENVIRONMENT = "environment"
CLUSTER_FILE = "cluster.toml"
README = "README.rst"
KEYS = "keys"

CONFIGURATION = "/etc/txpaxos"
"""Where the unit looks for its files."""

HOMES = ("/home/", "/root/")
"""Where a unit with ``ProtectHome=yes`` sees nothing."""

LIFE = f"""\
# Keys, and the rights of clients, are read again.
ExecReload=/bin/kill -HUP $MAINPID

# It has started when it serves. A node that comes first waits for a majority, so "systemctl start" may wait, too.
TimeoutStartSec=infinity
# A leader hands over in 2 s at most, and a disk is waited for 5 s more. A second SIGTERM skips that.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=15
# A node gives a sign of life every 15 s, but not while its disk hangs. SIGABRT has Python print where it is.
WatchdogSec=60
WatchdogSignal=SIGABRT
Environment=PYTHONFAULTHANDLER=1
LimitCORE=0
# Status {REMOVED}: the node was removed from its cluster.
Restart=on-failure
RestartSec=5
RestartPreventExitStatus={REMOVED}
"""
"""How systemd starts, watches, stops and restarts a node."""

CONFINEMENT = """\
StateDirectory=txpaxos
StateDirectoryMode=0700
UMask=0077
LimitNOFILE=65536

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
"""What a node may do on its machine."""


@attrs.frozen
class Plan:
    """What ``txpaxos init`` was asked for.

    :ivar cluster: the nodes, and what clients may do.
    :ivar application: the value of ``--app``.
    :ivar user: the user that runs the nodes.
    :ivar client: the client that gets keys; empty if there are none.
    :ivar twistd: the path of twistd.
    :ivar python: the path of the Python behind it, which may be elsewhere than its virtual environment.
    """

    cluster: Cluster
    application: str
    user: str
    client: str
    twistd: str
    python: str = ""

    @property
    def is_local(self) -> bool:
        """Whether all nodes run on one machine."""
        return all(is_loopback(member.address) for member in self.cluster.members.values())

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes."""
        return list(self.cluster.members)

    def keys_of(self, name: str) -> str:
        """The folder of keys of a node or client; it is in the folder that is written."""
        return f"{KEYS}/{name}.keys"


def texts(plan: Plan) -> dict[str, str]:
    """The text of each file, by its path in the folder."""
    return {
        CLUSTER_FILE: f"# The nodes of the cluster. Nodes and clients read the same file.\n{plan.cluster.dumps()}",
        ENVIRONMENT: environment_file(plan),
        UNIT: unit(plan),
        README: readme(plan),
    }


def start_command(plan: Plan, node: str) -> str:
    """The command that runs a node in a terminal, in the folder that is written."""
    words = ["twistd", "-n", "--pidfile=", "paxos", "--cluster", CLUSTER_FILE, "--node", node]
    words += ["--keys", plan.keys_of(node)] if plan.client else []
    return shlex.join([*words, "--data-dir", f"{node}.data", "--app", plan.application])


def client_command(plan: Plan, *words: str) -> str:
    """A ``txpaxos`` command with the cluster, in the folder that is written."""
    keys = ["--keys", plan.keys_of(plan.client)] if plan.client else []
    return shlex.join(["txpaxos", *words, "--cluster", CLUSTER_FILE, *keys])


def copy_command(plan: Plan, node: str) -> str:
    """The command that brings to a machine what its node needs, and the keys of no other."""
    host = plan.cluster.members[node].address.host
    files = [CLUSTER_FILE, ENVIRONMENT, UNIT, *([plan.keys_of(node)] if plan.client else [])]
    return shlex.join(["rsync", "-aR", *files, f"{f'[{host}]' if ':' in host else host}:txpaxos/"])


def install_commands(plan: Plan, node: str) -> list[str]:
    """The commands that install what a machine has, and start its node. An administrator types them."""
    keys, user = f"{CONFIGURATION}/{node}.keys", plan.user
    of_keys = [
        f"sudo install -d -m 700 -o {user} -g {user} {keys}",
        f"sudo install -m 600 -o {user} -g {user} -t {keys} {plan.keys_of(node)}/*",
    ]
    return [
        f"sudo install -D -m 644 -t {CONFIGURATION} {CLUSTER_FILE} {ENVIRONMENT}",
        f"sudo install -D -m 644 -t /etc/systemd/system {UNIT}",
        *(of_keys if plan.client else []),
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now --no-block txpaxos@{node}",
    ]


def user_command(plan: Plan) -> str:
    """The command that makes the user of the nodes, without a home and a shell."""
    return f"sudo useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {plan.user}"


def environment_file(plan: Plan) -> str:
    """The file of variables that the unit reads."""
    escaped = "".join(f"\\{one}" if one in '"\\$`' else one for one in plan.application)
    return f"""\
# Read by txpaxos@.service. All nodes must have the same application.
TXPAXOS_APP="{escaped}"

# Further options of "twistd paxos", the same for all nodes, as: --snapshot-log-bytes 67108864
TXPAXOS_OPTIONS=

# Where Python looks for the module of the application, if it is not installed.
#PYTHONPATH=/opt/application
"""


def unit(plan: Plan) -> str:
    """The systemd unit of a node: a template, whose instances are named like the nodes."""
    keys = f" --keys {CONFIGURATION}/%i.keys" if plan.client else ""
    paths = (plan.twistd, plan.python, plan.application)
    home = "read-only" if any(path.startswith(HOMES) for path in paths) else "yes"
    return f"""\
[Unit]
Description=Node %i of the txpaxos cluster {plan.cluster.name}
Wants=network-online.target
After=network-online.target
# A node that cannot start says why in one line. After five of them in five minutes systemd gives it up.
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
User={plan.user}
EnvironmentFile={CONFIGURATION}/{ENVIRONMENT}
ExecStart={_unit_path(plan.twistd)} -n --pidfile= --logfile=- paxos --cluster {CONFIGURATION}/{CLUSTER_FILE} \\
    --node %i{keys} --data-dir %S/txpaxos/%i --app ${{TXPAXOS_APP}} $TXPAXOS_OPTIONS
{LIFE}
{CONFINEMENT}ProtectHome={home}

[Install]
WantedBy=multi-user.target
"""


def readme(plan: Plan) -> str:
    """The next commands, as a page."""
    title = f"The txpaxos cluster {plan.cluster.name}"
    first = plan.nodes[0]
    parts = [f"{title}\n{'=' * len(title)}", _files_said(plan)]
    if plan.is_local:
        parts += _titled("In terminals", "Each node in a terminal of its own:")
        parts += [_commands([start_command(plan, node) for node in plan.nodes])]
    else:
        parts += _titled("To the machines", "What each node needs:")
        parts += [_commands([copy_command(plan, node) for node in plan.nodes])]
    where = "which is this one" if plan.is_local else "in the folder ``txpaxos`` to which that was copied"
    parts += _titled("With systemd", f"On each machine, {where}; here for node {first}:")
    parts += [
        _commands([user_command(plan), *install_commands(plan, first)]),
        f"The unit runs ``{plan.twistd}``. If twistd is elsewhere on a machine, write that into the unit.",
    ]
    parts += _titled("Ask them", "What the nodes say of themselves, and a command, as the counter takes it:")
    parts += [_commands([client_command(plan, "status"), client_command(plan, "submit", "+5")])]
    return "\n\n".join(parts) + "\n"


def _files_said(plan: Plan) -> str:
    lines = [
        "Written by ``txpaxos init``. Type the commands in this folder.",
        f"``{CLUSTER_FILE}`` has the nodes, ``{ENVIRONMENT}`` what the unit in ``systemd`` reads.",
    ]
    if plan.client:
        lines.append(f"``{KEYS}/authority`` makes keys for this cluster: keep it off the nodes, and keep a copy.")
    return "\n".join(lines)


def _titled(title: str, text: str) -> list[str]:
    return [f"{title}\n{'-' * len(title)}", text]


def _commands(lines: Sequence[str]) -> str:
    return "\n".join([".. code-block:: console", "", *(f"   $ {line}" for line in lines)])


def _unit_path(path: str) -> str:
    """A path as the program of a unit: systemd expands ``%`` and ``$``, and splits at spaces."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(one in path for one in " \"'\\") else escaped
