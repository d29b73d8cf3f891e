"""``txpaxos keys``: folders of keys made, renewed, revoked, rotated and shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.cli_nodes import txpaxos
from txpaxos.cli import main
from txpaxos.keys import load_keys


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of commands. The user's mask allows all to all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TXPAXOS_AUTHORITY", raising=False)
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments], prog_name="txpaxos")


def printed(*arguments: str) -> str:
    """What a command prints that succeeds."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: str, status: int = 1) -> str:
    """The one line of a command that fails."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert "Traceback" not in result.stderr
    line, *more = result.stderr.splitlines() if status == 1 else [result.stderr]
    assert more == []
    return line


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, three nodes and two clients."""
    place = tmp_path_factory.mktemp("keys")
    options = ("--authority", str(place / "authority"))
    printed("init", str(place / "authority"))
    for name in ("a", "b", "c"):
        printed("node", name, "--folder", str(place / f"{name}.keys"), *options)
    printed("client", "alice", "--folder", str(place / "alice.keys"), *options)
    printed("client", "bob", "--token", "--folder", str(place / "bob.keys"), *options)
    return place


@pytest.fixture
def made(template: Path, folder: Path) -> Path:
    """A copy of those, in the working folder."""
    return Path(shutil.copytree(template, folder, dirs_exist_ok=True))


def test_what_is_said_while_keys_are_made(folder: Path) -> None:
    assert printed("init") == (
        "authority: an authority for nodes, and another one for clients, valid for 10 years.\n"
        "A person who has this folder can make keys for your cluster: keep it off the nodes, and keep a copy.\n"
        "Next, with the names of your nodes: txpaxos keys node a b c\n"
    )
    first, second, last = printed("node", "a", "b", "--days", "30").splitlines()
    assert first.startswith("a.keys: keys of node a, valid until 20")
    assert second.startswith("b.keys: keys of node b, valid until 20")
    assert last.startswith("Next: copy each folder to its node")
    first, *rest = printed("client", "bob", "--token", "--folder", "token").splitlines()
    assert first == "token: keys of client bob, a token"
    assert rest[0] == "Next: bring the new file `tokens` to the folders of all nodes: txpaxos keys update FOLDER..."
    assert rest[-1] == (
        'What a client may do is in the table [rights] of the cluster file, as in: bob = ["read", "write"]'
    )
    assert load_keys("a.keys", "node", "a").name == "a"


def test_only_the_owner_may_read(made: Path) -> None:
    printed("update", "a.keys")
    printed("renew", "a.keys")
    assert {stat.S_IMODE(one.stat().st_mode) for one in made.rglob("*") if one.is_dir()} == {0o700}
    assert {stat.S_IMODE(one.stat().st_mode) for one in made.rglob("*") if one.is_file()} == {0o600}


def test_an_authority_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed("init", "ours").endswith("txpaxos keys node a b c --authority ours\n")
    assert refused("node", "a").startswith("txpaxos: authority is not the folder of an authority: 'txpaxos keys init")
    printed("node", "a", "--authority", "ours")
    monkeypatch.setenv("TXPAXOS_AUTHORITY", "ours")
    printed("node", "b")


def test_table(made: Path) -> None:
    head, *rows = (line.split("  ") for line in printed("show").splitlines())
    assert [one.strip() for one in head if one] == [
        *("name", "role", "serial", "fingerprint", "expires", "signed by", "state")
    ]
    cells = [[cell.strip() for cell in row if cell] for row in rows]
    assert [(row[0], row[1], row[-1]) for row in cells] == [
        ("nodes-authority-1", "nodes", "signs"),
        ("clients-authority-1", "clients", "signs"),
        ("a", "node", "valid"),
        ("b", "node", "valid"),
        ("c", "node", "valid"),
        ("alice", "client", "valid"),
        ("bob", "client", "valid"),
    ]
    assert cells[-1][2:] == ["-", cells[-1][3], "never", "-", "valid"]


def shown(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(printed("show", "--json", *arguments))
    return found


def test_json(made: Path) -> None:
    keys = load_keys("a.keys", "node")
    row = next(one for one in shown() if one["name"] == "a")
    assert row == {
        "name": "a",
        "role": "node",
        "serial": f"{keys.chain[0].serial_number:x}",
        "fingerprint": keys.fingerprint,
        "expires": keys.not_after.isoformat(),
        "signed_by": "nodes-authority-1",
        "revoked": None,
        "state": "valid",
    }
    own, nodes, clients = shown("a.keys")
    assert (own["name"], own["fingerprint"], own["state"]) == ("a", keys.fingerprint, "valid")
    assert own["signed_by"] == nodes["name"]
    assert nodes["signed_by"] == nodes["name"]
    assert (nodes["role"], clients["role"]) == ("nodes", "clients")
    assert [one["role"] for one in shown("alice.keys", "bob.keys")] == ["client", "nodes", "nodes"]


def test_nothing_secret_is_shown(made: Path) -> None:
    """Lines of private keys, and the token."""
    secrets = {
        line
        for one in (*made.rglob("*.key"), made / "bob.keys" / "token")
        for line in one.read_text().splitlines()
        if not line.startswith("-----")  # A token may begin with a dash.
    }
    assert len(secrets) == 7
    folders = [one.name for one in made.iterdir()]
    said = printed("show", *folders) + printed("show", "--json", *folders)
    assert not any(secret in said for secret in secrets)


def test_states(made: Path) -> None:
    printed("node", "d", "--days", "7")
    printed("revoke", "alice")
    states = {one["name"]: one["state"] for one in shown()}
    assert (states["a"], states["d"], states["alice"]) == ("valid", "expires soon", "revoked")
    printed("rotate", "begin", "--role", "node")
    assert {one["name"]: one["state"] for one in shown()}["nodes-authority-2"] == "believed"
    printed("rotate", "issue")
    printed("rotate", "end", "--regardless")
    states = {one["name"]: one["state"] for one in shown()}
    assert (states["nodes-authority-1"], states["nodes-authority-2"], states["a"]) == ("retired", "signs", "retired")
    printed("update", "alice.keys")
    assert shown("alice.keys")[0]["state"] == "revoked"


def test_revoked(made: Path) -> None:
    serial = f"{load_keys('a.keys', 'node').chain[0].serial_number:x}"
    first, last = printed("revoke", "a", "--serial", serial[:6].upper()).splitlines()
    assert first == f"revoked: certificate {serial} of node a"
    assert last.startswith("Next: txpaxos keys update FOLDER... for all nodes and clients, copy the folders;")
    assert printed("revoke", "bob").startswith("revoked: token ")
    assert printed("update", "a.keys", "alice.keys") == "a.keys: new revoked.pem\nalice.keys: new revoked.pem\n"
    assert printed("update", "a.keys") == "a.keys: nothing is new\n"


def test_a_lost_key(made: Path) -> None:
    assert printed("renew", "a.keys").splitlines()[1].startswith("a.keys.before: the earlier keys; remove them when")
    lost = f"{load_keys('a.keys.before', 'node').chain[0].serial_number:x}"
    assert printed("revoke", "a", "--older").splitlines()[0] == f"revoked: certificate {lost} of node a"
    printed("update", "a.keys", "a.keys.before")
    assert load_keys("a.keys", "node").name == "a"
    assert refused("renew", "a.keys").startswith("txpaxos: a.keys.before is there already: remove it when")


def test_folders_are_renewed_together_or_not_at_all(made: Path) -> None:
    """A second attempt would find the folders before those that were renewed already."""
    assert refused("renew", "a.keys", "nowhere").startswith("txpaxos: nowhere is not a folder of keys")
    assert not Path("a.keys.before").exists()


def test_rotation(made: Path) -> None:
    everyone = ("a.keys", "b.keys", "c.keys", "alice.keys")
    assert (
        printed("rotate", "begin").splitlines()[0] == "nodes-authority-2: a new authority for nodes, beside the old one"
    )
    printed("update", *everyone, "bob.keys")
    said = printed("rotate", "issue").splitlines()
    assert said[:4] == [
        "nodes-authority-2: signs nodes from now on",
        "nodes without a certificate of it: a, b, c",
        "clients-authority-2: signs clients from now on",
        "clients without a certificate of it: alice",
    ]
    assert refused("rotate", "end").startswith(
        "txpaxos: these have no certificate of the new authority: a, b, c, alice"
    )
    printed("renew", *everyone)
    said = printed("rotate", "end").splitlines()
    assert said[0] == "nodes-authority-1: believed no more; authority/nodes-authority-1.key may be deleted"
    (made / "authority" / "nodes-authority-1.key").unlink()
    printed("update", *everyone, "bob.keys")
    assert len(load_keys("a.keys", "node").nodes) == 1
    printed("node", "d")
    printed("rotate", "begin")
    assert shown()[4]["name"] == "nodes-authority-3"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("init",), "authority is there already, and keys are never overwritten: name another folder"),
        (("node", "a"), "a.keys is there already, and keys are never overwritten: name another folder"),
        (
            ("client", "b", "--folder", "a.keys/node.key"),
            "a.keys/node.key is there already, and is not an empty folder",
        ),
        (("node", "a b"), "'a b' is no name for a node: letters, digits,"),
        (("client", "anonymous"), "no client can be called 'anonymous'"),
        (("revoke", "x"), "x has nothing that was issued: see 'txpaxos keys show'"),
        (("revoke", "x\x1b[2J"), r"x\x1b[2J has nothing that was issued"),
        (("update", "nowhere"), "nowhere is not a folder of keys: it has neither node.pem nor client.pem"),
        (("renew", "authority"), "authority is not a folder of keys: it has neither node.pem nor client.pem"),
        (("renew", "bob.keys"), "bob.keys has a token, which does not expire"),
        (("rotate", "issue"), "there is no new authority that does not sign yet"),
        (("rotate", "end"), "no authority rotates"),
        (("show", "nowhere"), "nowhere is not a folder of keys"),
    ],
)
def test_errors_are_one_line(made: Path, arguments: tuple[str, ...], line: str) -> None:
    assert refused(*arguments).startswith(f"txpaxos: {line}")


@pytest.mark.parametrize("arguments", [("node",), ("node", "x", "y", "--folder", "z"), ("node", "x", "--days", "0")])
def test_wrong_command_lines(made: Path, arguments: tuple[str, ...]) -> None:
    assert refused(*arguments, status=2).startswith("Usage: txpaxos keys node")
    assert not list(made.glob("[xyz]*"))


def test_a_folder_that_cannot_be_shown_is_one_line(made: Path) -> None:
    (made / "a.keys" / "node.pem").write_bytes(b"rubbish")
    assert refused("show", "a.keys").startswith("txpaxos: a.keys/node.pem is not PEM with certificates")


def test_the_commands_of_the_page(folder: Path) -> None:
    """All of them, one after the other, with the reader's own part: what is not in use any more is removed.

    ``reload`` needs a cluster that runs: ``test/system/test_keys.py`` does it."""
    page = (Path(__file__).parents[2] / "docs" / "keys.rst").read_text()
    commands = re.findall(r"^   \$ txpaxos keys (.*)", page, re.MULTILINE)
    assert len(commands) > 12
    assert "reload --cluster cluster.toml --keys alice.keys" in commands
    for command in commands:
        if command.startswith("reload"):
            continue
        for before in folder.glob("*.before"):
            shutil.rmtree(before)
        printed(*shlex.split(command))
    nodes = [load_keys(f"{name}.keys", "node", name) for name in ("a", "b", "c")]
    assert [len(one.nodes) for one in nodes] == [1, 1, 1]
    assert len({one.nodes for one in nodes}) == 1


@pytest.mark.parametrize("library", ["cryptography", "OpenSSL"])
def test_without_the_libraries(folder: Path, library: str) -> None:
    """Other commands work; this one says what is missing."""
    program = f"import sys; sys.modules[{library!r}] = None; from txpaxos.cli import main; main(prog_name='txpaxos')"
    for arguments in (["keys", "--help"], ["keys", "init"]):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        if arguments[-1] == "init":
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("txpaxos: keys need more packages (")
            assert done.stderr.endswith("): pip install 'txpaxos[keys]'\n")
        else:
            assert (done.returncode, done.stderr) == (0, "")


def test_no_authority_here(folder: Path) -> None:
    line = "txpaxos: authority is not the folder of an authority: 'txpaxos keys init authority' makes one"
    assert [refused(*words) for words in (["show"], ["node", "a"], ["rotate", "begin"])] == [line] * 3


def test_a_process(folder: Path) -> None:
    done = txpaxos("keys", "init", folder=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    done = txpaxos("keys", "init", folder=folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"txpaxos: authority is there already")
