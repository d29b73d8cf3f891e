"""The page *The first hour*: all of it, typed as it stands there, in an empty folder.

Only the ports are others, since the page's may be taken. pip looks whether all is there, and installs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.helpers.newcomer import Newcomer, places
from test.system.test_readme import blocks, section, text_of

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")
pytestmark = pytest.mark.timeout(300)

TEXT = text_of("first-hour")
TITLES = (
    "Ten minutes: look at it",
    "Twenty minutes: a service",
    "Ten minutes: three nodes with keys",
    "Ten minutes: break it",
    "Ten minutes: another client, and a backup",
)


def commands(title: str) -> list[str]:
    """The commands of a section."""
    return [line.removeprefix("$ ") for block in blocks(section(TEXT, title), "console") for line in block.splitlines()]


RUN_COMMANDS = [command for title in TITLES for command in commands(title)]
RUN_BLOCKS = blocks(TEXT, "python")


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    made = Newcomer(tmp_path)
    made.environment.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        yield made
    finally:
        made.leave()


def write_programs(newcomer: Newcomer) -> None:
    """Write the blocks of Python into the files that the page names before each of them."""
    names = re.findall(r"``(\w+\.py)``[^`]*\n\n\.\. code-block:: python", TEXT)
    programs = blocks(TEXT, "python")
    assert names == ["stock.py", "test_stock.py", "shop.py"]
    for name, program in zip(names, programs, strict=True):
        (newcomer.folder / name).write_text(program)


def test_sections_are_all(newcomer: Newcomer) -> None:
    assert re.findall(r"^(.+)\n-{3,}$", TEXT, re.MULTILINE) == [*TITLES]


def test_the_first_hour(newcomer: Newcomer) -> None:
    look, service, nodes, break_it, another = map(commands, TITLES)
    install, demo = look
    newcomer.type(install)
    assert newcomer.type(demo).rstrip().endswith("and no client has noticed.")
    write_programs(newcomer)
    assert [newcomer.type(one) for one in service] == ["the service is well\n"]

    init, show, *starts = nodes[:5]
    with_ports = ",".join(f"{name}={place}" for name, place in zip("abc", places(3), strict=True))
    written = newcomer.type(f"{init} --nodes {with_ports}")
    assert [line.strip() for line in written.splitlines() if "twistd" in line] == [
        start.replace("--app stock.py", f"--app {newcomer.folder}/stock.py") for start in starts
    ]
    assert "admin" in newcomer.type(show)
    for start in starts:
        newcomer.open_terminal(start)
    newcomer.wait_for_leader()

    export, status, *calls = nodes[5:]
    assert export.startswith("export TXPAXOS_KEYS=")
    newcomer.environment["TXPAXOS_KEYS"] = export.partition("=")[2]
    assert "3 of 3 nodes answer" in newcomer.type(status)
    assert [newcomer.type(call) for call in calls] == [
        "5 of tea left\n",
        "3 of tea left\n",
        "tea is sold out: 3 left\n",
    ]

    sell, status, start, lead, members, add = break_it
    newcomer.interrupt(0)
    assert newcomer.type(sell) == "2 of tea left\n"
    assert "2 of 3 nodes answer" in newcomer.type(status)
    assert start == starts[0]
    newcomer.open_terminal(start)
    newcomer.wait_for_leader()
    assert newcomer.type(lead) == "a leads\n"
    assert "3 voters of 3 members" in newcomer.type(members)
    assert newcomer.type(add) == "3 of tea left\n"

    client, edit, reload, refused, backup, check = another
    newcomer.type(client)
    newcomer.type(edit)
    assert len(newcomer.type(reload).splitlines()) == 3
    assert "the client 'till' does not have the right" in newcomer.type_and_be_refused(refused)
    newcomer.type(backup)
    assert "application  stock:Stock" in newcomer.type(check)
    newcomer.interrupt_nodes()
