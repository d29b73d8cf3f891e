"""``--keys`` of each command, with a node that has keys: one process each."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest

from test.helpers.cli_nodes import Nodes, txpaxos
from test.helpers.key_folders import KeyFolders, keys_for
from txpaxos.rights import ALL_RIGHTS, Rights

RIGHTS = Rights({"operator": frozenset(ALL_RIGHTS), "reader": frozenset({"read"})})
COMMANDS = {
    "submit": (("submit", "+5"), b"5\n"),
    "read": (("read", ""), b""),
    "ask": (("ask", "subject", "value"), b"value\n"),
    "status": (("status",), b"a leads"),
    "members": (("members",), b""),
    "priority": (("members", "priority", "a", "2"), b""),
    "lead": (("lead", "a"), b"a leads\n"),
    "backup": (("backup", "file"), b"cluster      test"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyFolders]:
    """A node that runs, the folders of its clients, and one of another authority's."""
    path = tmp_path_factory.mktemp("keys")
    folders = keys_for(path, "a", ["operator", "reader"])
    folders.issue_token("script", ())
    keys_for(path / "others", "a", ["operator"])
    nodes = Nodes(path, "a", options=("--keys", str(folders.folder("a"))))
    (path / "cluster.toml").write_text(attrs.evolve(nodes.cluster, rights=RIGHTS).dumps())
    try:
        nodes.start("a")
        give_up_after = 60
        while txpaxos("status", "--keys", "operator", folder=path).returncode != 0:
            give_up_after -= 1
            assert give_up_after, (path / "a.log").read_text()
        yield folders
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_with_keys(folders: KeyFolders, command: str) -> None:
    arguments, printed = COMMANDS[command]
    done = txpaxos(*arguments, "--keys", "operator", folder=folders.path)
    assert (done.returncode, b"txpaxos: " in done.stderr) == (0, False)
    assert printed in done.stdout


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "read"])
def test_a_command_without_the_right(folders: KeyFolders, command: str) -> None:
    done = txpaxos(*COMMANDS[command][0], "--keys", "reader", folder=folders.path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the client 'reader' does not have the right" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ((), b"has keys, and this client has none: give it keys"),
        (("--keys", "others/operator"), b"its certificate is of an unknown authority: this client's nodes.pem needs"),
        (("--keys", "script"), b"the nodes do not know this client's token"),
        (("--keys", "none"), b"the folder of keys none is missing"),
        (("--keys", "a"), b"a has the keys of a node, and a client needs its own"),
    ],
)
@pytest.mark.parametrize("command", ["submit", "status"])
def test_a_client_that_does_not_get_in(folders: KeyFolders, command: str, keys: tuple[str, ...], line: bytes) -> None:
    """It does not wait for its timeout, either."""
    seconds = ("--timeout", "50") if command == "submit" else ()
    done = txpaxos(*COMMANDS[command][0], *seconds, *keys, folder=folders.path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert line in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_the_environment_names_the_folder(folders: KeyFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TXPAXOS_KEYS", "operator")
    assert txpaxos("submit", "+0", folder=folders.path).returncode == 0
    assert b"does not have the right" in txpaxos("submit", "+0", "--keys", "reader", folder=folders.path).stderr


def test_no_token_is_in_the_log(folders: KeyFolders) -> None:
    log = (folders.path / "a.log").read_text()
    assert "client reader at 127.0.0.1 asks for what it has no right to" in log
    assert folders.client("script").token not in log
    assert "Traceback" not in log
