"""A folder of keys: what is in it, and each reason to refuse it, in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from test.helpers.key_folders import KeyFolders, keys_for, write
from txpaxos.errors import ConfigError
from txpaxos.keys import load_keys
from txpaxos.keys.authority import AUTHORITY_LIFETIME, BACKDATED, LIFETIME, Authority, Issued, check_name, pem_of
from txpaxos.keys.folder import FILE_BYTES_MAX, Keys
from txpaxos.keys.trust import Role


@pytest.fixture
def made(tmp_path: Path) -> KeyFolders:
    return keys_for(tmp_path, ["a", "b"], ["alice"])


def refusal(made: KeyFolders, name: str = "a", later: timedelta = timedelta(0), expected: str | None = None) -> str:
    """The line that refuses a folder, with the path of the test's folder cut off."""
    role: Role = "client" if name == "alice" else "node"
    with pytest.raises(ConfigError) as caught:
        Keys.load(made.folder(name), role, name=expected, now=made.now + later)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(f"{made.path}/", "")


def test_keys_of_a_node(made: KeyFolders) -> None:
    keys = load_keys(made.folder("a"), "node", "a")
    assert (keys.name, keys.role, keys.folder) == ("a", "node", str(made.folder("a")))
    assert keys.nodes == (made.nodes_authority.certificate,)
    assert keys.clients == (made.clients_authority.certificate,)
    assert keys.private_key.public_key() == keys.chain[0].public_key()
    assert (keys.revoked, keys.token, dict(keys.tokens)) == ((), "", {})
    assert re.fullmatch("[0-9a-f]{64}", keys.fingerprint)
    assert keys.expires_in(made.now) == LIFETIME - timedelta(microseconds=made.now.microsecond)
    assert "rivate" not in repr(keys)


def test_keys_of_a_client(made: KeyFolders) -> None:
    keys = made.client("alice")
    assert (keys.name, keys.role, keys.clients) == ("alice", "client", ())
    assert keys.nodes == (made.nodes_authority.certificate,)


def test_a_token(made: KeyFolders) -> None:
    made.issue_token("bob", ["a"])
    made.issue_token("carol", ["a"])
    bob, node = made.client("bob"), made.node("a")
    assert (bob.name, bob.chain, bob.fingerprint) == ("", (), "")
    assert bob.not_after == made.nodes_authority.certificate.not_valid_after_utc
    assert bob.token not in repr(bob)
    assert node.principal_of(bob.token) == "bob"
    assert node.principal_of(made.client("carol").token) == "carol"
    assert [node.principal_of(token) for token in ("", bob.token[:-1], bob.token + "x", "é")] == ["", "", "", ""]


@pytest.mark.parametrize("file", ["node.pem", "node.key", "nodes.pem", "clients.pem"])
def test_missing(made: KeyFolders, file: str) -> None:
    (made.folder("a") / file).unlink()
    assert refusal(made) == f"a/{file} is missing"


def test_missing_folder(made: KeyFolders) -> None:
    assert refusal(made, "x") == "the folder of keys x is missing"
    write(made.folder("d"), b"")
    assert refusal(made, "d") == "d is not a folder of keys, but a file"
    assert refusal(made, "d/e") == "the folder of keys d/e cannot be read: Not a directory"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("node.pem", "a/node.pem is not PEM with certificates: Unable to load PEM file"),
        ("nodes.pem", "a/nodes.pem is not PEM with certificates: Unable to load PEM file"),
        ("node.key", "a/node.key is not PEM with a private key: Unable to load PEM file"),
        ("revoked.pem", "a/revoked.pem is not PEM with lists of revoked certificates: something else is at its end"),
        ("tokens", "a/tokens, line 1: not a name, a space, and the SHA-256 of a token in hexadecimal"),
    ],
)
@pytest.mark.parametrize("data", [b"rubbish", b"\x00\xff\n\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_not_pem(made: KeyFolders, file: str, said: str, data: bytes) -> None:
    write(made.folder("a") / file, data)
    assert refusal(made).startswith(said.partition(":")[0])


def test_an_empty_list_of_revoked_certificates_was_copied_in_part(made: KeyFolders) -> None:
    write(made.folder("a") / "revoked.pem", b"")
    assert refusal(made) == "a/revoked.pem is not PEM with lists of revoked certificates: it is empty"


@pytest.mark.parametrize("file", ["revoked.pem", "tokens"])
def test_a_link_to_nowhere_is_not_taken_for_a_file_that_need_not_be_there(made: KeyFolders, file: str) -> None:
    (made.folder("a") / file).symlink_to("nowhere")
    assert refusal(made) == f"a/{file} is missing"


def test_keys_of_the_other_role(made: KeyFolders) -> None:
    made.issue_token("bob", [])
    for name in ("alice", "bob"):
        with pytest.raises(ConfigError, match=f"{name} has the keys of a client, and a node needs its own"):
            made.node(name)
    with pytest.raises(ConfigError, match="a has the keys of a node, and a client needs its own"):
        made.client("a")


def test_big_file(made: KeyFolders) -> None:
    write(made.folder("a") / "nodes.pem", bytes(FILE_BYTES_MAX + 1))
    assert refusal(made) == "a/nodes.pem has more than 1048576 bytes: it is no file of keys"


def test_private_key_of_another_certificate(made: KeyFolders) -> None:
    write(made.folder("a") / "node.key", (made.folder("b") / "node.key").read_bytes())
    assert refusal(made) == "a/node.key does not fit a/node.pem: the certificate is that of another private key"


def test_private_key_with_a_password(made: KeyFolders) -> None:
    key = made.node("a").private_key
    protected = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    write(made.folder("a") / "node.key", protected)
    assert refusal(made) == "a/node.key is protected by a password: write it without one"


def test_expired(made: KeyFolders) -> None:
    made.node("a")
    line = refusal(made, later=LIFETIME + timedelta(seconds=1))
    until = f"{made.now + LIFETIME:%Y-%m-%d %H:%M:%S} UTC"
    assert line == f"a/node.pem has expired at {until}: issue a new one"
    assert refusal(made, "alice", LIFETIME + timedelta(seconds=1)).startswith("alice/client.pem has expired")


def test_not_yet_valid(made: KeyFolders) -> None:
    line = refusal(made, later=-BACKDATED - timedelta(seconds=1))
    since = f"{made.now - BACKDATED:%Y-%m-%d %H:%M:%S} UTC"
    assert line.startswith(f"a/node.pem is not yet valid, but from {since} on, and now is ")
    assert line.endswith("UTC: compare the clocks")


def test_expired_authority(made: KeyFolders) -> None:
    made.nodes_authority = Authority.create("node", made.now, timedelta(days=400))
    late = made.nodes_authority.issue("d", made.now + timedelta(days=300))
    made.write("d", "node", late)
    keys = Keys.load(made.folder("d"), "node", now=made.now + timedelta(days=399))
    assert keys.not_after == made.nodes_authority.certificate.not_valid_after_utc
    assert refusal(made, "d", timedelta(days=401)).startswith("d/node.pem has expired")


def test_wrong_name(made: KeyFolders) -> None:
    assert refusal(made, expected="b") == "a/node.pem has the wrong name: it is for CN=a, which is not the name 'b'"


@pytest.mark.parametrize("name", ["node 1", "", "x" * 33, "-a"])
def test_a_name_that_no_node_can_have(made: KeyFolders, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a node: letters, digits"):
        made.nodes_authority.issue(name, made.now)


def test_reserved_name(made: KeyFolders) -> None:
    check_name("anonymous", "node")
    with pytest.raises(ConfigError, match="no client can be called 'anonymous'"):
        made.clients_authority.issue("anonymous", made.now)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_private_key_that_others_may_read(made: KeyFolders, mode: int) -> None:
    (made.folder("a") / "node.key").chmod(mode)
    assert refusal(
        made
    ) == f"a/node.key may be read by other users (mode {mode:04o}): 'chmod 600 {made.path}/a/node.key'".replace(
        f"{made.path}/", ""
    )


def test_token_that_others_may_read(made: KeyFolders) -> None:
    made.issue_token("alice2", [])
    (made.folder("alice2") / "token").chmod(0o644)
    with pytest.raises(ConfigError, match=r"token may be read by other users \(mode 0644\)"):
        made.client("alice2")


@pytest.mark.parametrize("place", ["", "nodes.pem", "clients.pem", "node.pem", "tokens", "revoked.pem"])
def test_what_others_may_change(made: KeyFolders, place: str) -> None:
    made.issue_token("bob", ["a"])
    made.revoke(folders=["a"])
    path = made.folder("a") / place
    path.chmod(path.stat().st_mode | 0o020)
    assert " may be changed by other users (mode 0" in refusal(made)


def test_what_others_may_read(made: KeyFolders) -> None:
    for path in made.folder("a").iterdir():
        if path.suffix == ".pem":
            path.chmod(0o644)
    made.folder("a").chmod(0o755)
    assert made.node("a").name == "a"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_root_may_use_what_a_user_owns(made: KeyFolders) -> None:
    os.chown(made.folder("a") / "node.key", 12345, 12345)
    assert made.node("a").name == "a"


def test_other_authority(made: KeyFolders) -> None:
    other = Authority.create("node", made.now)
    write(made.folder("a") / "nodes.pem", pem_of([other.certificate]))
    assert refusal(made) == ("a/node.pem is of an unknown authority: nodes.pem must have the authority of nodes")


def test_certificate_of_a_client_as_that_of_a_node(made: KeyFolders) -> None:
    client = made.clients_authority.issue("a", made.now)
    made.write("a", "node", client)
    assert refusal(made) == "a/node.pem is for another purpose: its extended key usage is not that of a node"


def test_authority_of_clients_as_that_of_nodes(made: KeyFolders) -> None:
    crossed = Authority("node", made.clients_authority.own)
    made.write("a", "node", crossed.issue("a", made.now))
    assert refusal(made) == (
        "a/node.pem is of an unknown authority (it is a client's): nodes.pem must have the authority of nodes"
    )


def test_one_authority_for_both(made: KeyFolders) -> None:
    both = pem_of([made.clients_authority.certificate, made.nodes_authority.certificate])
    write(made.folder("a") / "clients.pem", both)
    line = refusal(made)
    assert line.startswith("a: nodes.pem and clients.pem have an authority in common (CN=txpaxos nodes authority ")
    assert line.endswith("), so a client could be a node: use two")


def test_what_is_no_authority(made: KeyFolders) -> None:
    write(made.folder("a") / "nodes.pem", (made.folder("b") / "node.pem").read_bytes())
    assert refusal(made) == "a/nodes.pem: the certificate of CN=b is not that of an authority"


def test_revoked(made: KeyFolders) -> None:
    made.revoke(made.node("a"), folders=["a", "b"])
    assert refusal(made) == "a/node.pem was revoked: issue a new one"
    assert len(made.node("b").revoked) == 2


def test_revocations_of_another_authority(made: KeyFolders) -> None:
    other = Authority.create("node", made.now)
    write(made.folder("a") / "revoked.pem", pem_of([other.revocations([], 1, made.now)]))
    assert refusal(made).startswith("a/revoked.pem: a list is signed by an unknown authority, CN=txpaxos nodes")


def test_forged_revocations(made: KeyFolders) -> None:
    """An authority with the same name, but another key."""
    other = Authority.create("node", made.now)
    forged = Authority("node", Issued(made.nodes_authority.certificate, other.own.private_key))
    write(made.folder("a") / "revoked.pem", pem_of([forged.revocations([], 1, made.now)]))
    assert refusal(made).startswith("a/revoked.pem: a list is signed by an unknown authority")


def test_two_authorities_while_they_rotate(made: KeyFolders) -> None:
    old, made.nodes_authority = made.nodes_authority, Authority.create("node", made.now)
    made.issue("d", "node")
    for name in ("a", "d"):
        write(made.folder(name) / "nodes.pem", pem_of([old.certificate, made.nodes_authority.certificate]))
    assert [made.node(name).name for name in ("a", "d")] == ["a", "d"]


def test_certificate_and_token(made: KeyFolders) -> None:
    write(made.folder("alice") / "token", b"secret")
    assert refusal(made, "alice") == "alice has a certificate and a token: remove one of them"


@pytest.mark.parametrize("token", [b"", b"\n", b"a\nb", b"\x00", b"x" * 201])
def test_what_is_no_token(made: KeyFolders, token: bytes) -> None:
    (made.folder("alice") / "client.pem").unlink()
    write(made.folder("alice") / "token", token)
    assert refusal(made, "alice") == "alice/token has no token: one line of 1 to 200 characters"


def test_authority(made: KeyFolders) -> None:
    certificate = made.nodes_authority.certificate
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == AUTHORITY_LIFETIME + BACKDATED
    assert Authority.create("node", made.now).certificate.subject != certificate.subject
    pems = [len((made.folder(name) / "node.pem").read_bytes()) for name in ("a", "b")]
    assert pems[0] == pems[1]


def test_lines_of_tokens_that_say_nothing(made: KeyFolders) -> None:
    made.issue_token("bob", ["a"])
    tokens = made.folder("a") / "tokens"
    write(tokens, b"# of programs\n\n" + tokens.read_bytes())
    assert [*made.node("a").tokens.values()] == ["bob"]


def test_what_is_no_file(made: KeyFolders) -> None:
    (made.folder("a") / "nodes.pem").unlink()
    (made.folder("a") / "nodes.pem").mkdir()
    assert refusal(made) == "a/nodes.pem cannot be read: Is a directory"


def test_files_of_another_user(made: KeyFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = made.folder("a").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner != 0:
        assert refusal(made) == f"a belongs to user {owner}, and this process runs as user {owner + 1}"
        return
    assert made.node("a").name == "a"
    os.chown(made.folder("a") / "node.key", 12345, -1)
    assert refusal(made) == "a/node.key belongs to user 12345, and this process runs as user 1"


@pytest.mark.parametrize("module", ["cryptography", "OpenSSL"])
def test_without_the_libraries(made: KeyFolders, module: str) -> None:
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from txpaxos.keys import load_keys\nfrom txpaxos.errors import ConfigError\n"
        "try: load_keys(sys.argv[1], 'node')\nexcept ConfigError as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(made.folder("a"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith("keys need more packages (")
    assert done.stdout.endswith("): pip install 'txpaxos[keys]'\n")
