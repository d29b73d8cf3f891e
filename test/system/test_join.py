"""Real nodes: a node joins a running cluster by one address, votes, and starts again without being told anything."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from test.helpers.cli_nodes import Nodes, txpaxos
from test.helpers.cli_nodes import running as running_nodes
from test.helpers.key_folders import KeyFolders, keys_for
from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.rights import ALL_RIGHTS, Rights
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import joined_folder

SECONDS = 60.0

pytestmark = pytest.mark.timeout(240)


class Joining:
    """A cluster of nodes a, b and c, and nodes that join it."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.folder = nodes.folder
        (self.member,) = free_members(1)
        self.at = str(nodes.cluster.members["b"].client)

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "--logfile=-", "paxos", "--stop-at-eof", *options]

    def options(self, name: str = "d", at: str = "", **others: str) -> list[str]:
        given = {
            "join": at or self.at,
            "node": name,
            "address": str(self.member.address),
            "client": str(self.member.client),
            **others,
        }
        return [part for option, value in given.items() for part in (f"--{option.replace('_', '-')}", value)]

    def start(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.nodes.processes[name] = subprocess.Popen(
                self.command(*options), cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def refusal(self, *options: str) -> str:
        """What a node says that is refused. It ends."""
        ended = subprocess.run(self.command(*options), cwd=self.folder, input=b"", capture_output=True, timeout=SECONDS)
        assert ended.returncode == 1
        assert b"Traceback" not in ended.stderr
        return ended.stderr.decode()

    def logged(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, {node: self.logged(node)[-3000:] for node in self.nodes.processes}
            threading.Event().wait(0.2)  # Until the log is written, which nothing else tells.

    def submit(self, command: str) -> str:
        return txpaxos("submit", "--timeout", "30", command, folder=self.folder).stdout.decode().strip()

    def status(self) -> dict[str, Any]:
        known: dict[str, Any] = json.loads(txpaxos("status", "--json", folder=self.folder).stdout)
        return known


@pytest.fixture
def joining(tmp_path: Path) -> Iterator[Joining]:
    with running_nodes(tmp_path, "a", "b", "c") as nodes:
        yield Joining(nodes)


def test_a_node_joins_votes_and_starts_again(joining: Joining) -> None:
    assert joining.submit("+1") == "1"
    joining.start("d", *joining.options(cluster_name="test"))
    joining.wait_until(lambda: "node d is a voter now" in joining.logged("d"))
    assert joining.submit("+2") == "3"
    joining.wait_until(lambda: joined_folder(Disk(), str(joining.folder / "a")))  # The founders know it, too.
    for number, options in enumerate((["--node", "d"], joining.options()), 2):
        joining.nodes.kill("d")
        joining.start("d", *options)  # The same command line as before does no harm.
        joining.wait_until(lambda number=number: joining.logged("d").count(" applied slots and ") == number)  # type: ignore[misc]
    joining.nodes.kill("a")
    assert joining.submit("+1") == "4"  # With a gone, d is needed for a majority of four.


def test_what_is_refused_is_one_line(joining: Joining) -> None:
    (joining.folder / "other.py").write_text("from txpaxos.counter import Counter\nclass Other(Counter):\n    pass\n")
    assert "run txpaxos.counter:Counter, and the new one other:Other: start it with the same --app" in joining.refusal(
        *joining.options(), "--app", "other.py:Other"
    )
    peers = str(joining.nodes.cluster.members["b"].address)
    assert "not the one for other nodes" in joining.refusal(*joining.options(at=peers))
    assert "a is a member, with another data folder" in joining.refusal(*joining.options("a"))
    assert "no node of the cluster village is there" in joining.refusal(*joining.options(cluster_name="village"))
    (joining.folder / "paxos-data-e").mkdir(mode=0o700)
    (joining.folder / "paxos-data-e" / "identity").touch()
    assert "paxos-data-e is not empty (identity)" in joining.refusal(*joining.options("e"))
    own = joining.options()
    taken = joining.refusal(*own, "--status", own[own.index("--client") + 1])
    assert "the node itself listens there: give the status address a port of its own" in taken
    assert list(joining.status()["nodes"]) == ["a", "b", "c"]
    assert joining.submit("+1") == "1"


def test_a_node_whose_disk_was_lost_comes_back_under_its_name(joining: Joining) -> None:
    assert joining.submit("+1") == "1"
    joining.nodes.kill("c")
    joining.start("c2", *joining.options("c", replace="c", data_dir="new-c"))
    joining.wait_until(lambda: "node c~2 is a voter now" in joining.logged("c2"))
    joining.nodes.kill("a")
    assert joining.submit("+1") == "2"  # By b and c~2: c is no member any more.
    slot = max(one.get("applied_through", 0) for one in joining.status()["nodes"].values())
    told = json.loads(txpaxos("explain", str(slot), "--json", folder=joining.folder).stdout)
    assert {fact["node"] for fact in told["facts"]} == {"b", "c~2"}


def see_what_is_refused(joining: Joining, folders: KeyFolders) -> None:
    """With keys that it cannot start with, or none, a node does not even join."""
    own = {"keys": str(folders.folder("d"))}
    nodes_own, may, may_not = ({**own, "join_keys": str(folders.folder(name))} for name in ("d", "operator", "shop"))
    assert "the cluster has keys: give --join-keys and --keys, too" in joining.refusal(*joining.options(**own))
    assert "d has the keys of a node, and a client needs" in joining.refusal(*joining.options(**nodes_own))
    others = {**may, "keys": str(folders.folder("a"))}
    assert "node.pem has the wrong name" in joining.refusal(*joining.options(**others))
    without = joining.options(join_keys=may["join_keys"])
    assert "give --keys, too, with the keys of the node" in joining.refusal(*without)
    assert "the client 'shop' does not have the right 'members'" in joining.refusal(*joining.options(**may_not))


def test_a_node_joins_a_cluster_with_keys(tmp_path: Path) -> None:
    """A client that may change the members vouches for it, and it has a certificate of its own."""
    folders = keys_for(tmp_path, "abcd", ["operator", "shop"])
    nodes = Nodes(tmp_path, "a", "b", "c")
    granted = Rights({"operator": frozenset(ALL_RIGHTS), "shop": frozenset({"read", "write"})})
    (tmp_path / "cluster.toml").write_text(attrs.evolve(nodes.cluster, rights=granted).dumps())
    joining = Joining(nodes)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TXPAXOS_KEYS", str(folders.folder("operator")))
        try:
            for name in "abc":
                nodes.options = ("--keys", str(folders.folder(name)))
                nodes.start(name)
            nodes.wait_for_leader()
            assert joining.submit("+1") == "1"
            own = {"keys": str(folders.folder("d"))}
            may = {**own, "join_keys": str(folders.folder("operator"))}
            see_what_is_refused(joining, folders)
            joining.start("d", *joining.options(**may))
            joining.wait_until(lambda: "node d is a voter now" in joining.logged("d"))
            assert joining.submit("+2") == "3"
            assert "refuses them all" not in joining.logged("d")
            assert [one["reachable"] for one in joining.status()["nodes"].values()] == [True] * 4
            # It grants what the others grant: also as the leader, and when it starts again without a cluster file.
            at_d = ("--node", str(joining.member.client))
            assert txpaxos("lead", "d", folder=tmp_path).returncode == 0
            assert txpaxos("submit", "+1", *at_d, folder=tmp_path).stdout == b"4\n"
            nodes.kill("d")
            joining.start("d", "--node", "d", *("--keys", own["keys"]))
            joining.wait_until(lambda: joining.logged("d").count(" applied slots and ") == 2)
            shop = ("--keys", str(folders.folder("shop")), *at_d)
            assert txpaxos("submit", "+1", *shop, folder=tmp_path).stdout == b"5\n"
            refused = txpaxos("members", *shop, folder=tmp_path)
            assert b"'shop' does not have the right 'status'" in refused.stdout + refused.stderr
            # One that replaces a dead member does, too.
            nodes.kill("c")
            (joining.member,) = free_members(1)
            own = {"keys": str(folders.folder("c"))}
            joining.start("c2", *joining.options("c", **own, replace="c", data_dir="c2", join_keys=may["join_keys"]))
            joining.wait_until(lambda: "node c~2 is a voter now" in joining.logged("c2"))
            at_c2 = ("--node", str(joining.member.client))
            assert txpaxos("submit", "+1", *at_c2, folder=tmp_path).stdout == b"6\n"
        finally:
            for name in list(nodes.processes):
                nodes.kill(name)
