"""The ten commands of docs/keys.rst that make a cluster with keys from nothing, as they are typed there.

They run in an empty folder and an empty home. Only the port numbers of the page's cluster file are replaced, since
others may have those; the commands do not name them. pip looks whether all is there, and installs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.helpers.newcomer import Newcomer
from test.system.test_readme import ROOT, blocks, section, text_of
from txpaxos.cli.local_cluster import free_members
from txpaxos.cluster import Cluster

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")
pytestmark = pytest.mark.timeout(180)

PAGE = section(text_of("keys"), "From nothing")
COMMANDS = [line.removeprefix("$ ") for block in blocks(PAGE, "console")[:2] for line in block.splitlines()]
RUN_COMMANDS = COMMANDS
RUN_BLOCKS = blocks(PAGE, "toml")

EXAMPLE = (ROOT / "examples" / "cluster.toml").read_text()


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
    newcomer.interrupt_nodes()
