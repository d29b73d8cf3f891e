"""The folder of an authority: what is believed after each step, judged by handshakes and by folders that load."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.key_folders import keys_for
from test.helpers.tls_pair import Pair
from txpaxos.errors import ConfigError
from txpaxos.keys.authority_folder import STATE, AuthorityFolder
from txpaxos.keys.folder import Keys
from txpaxos.keys.tls import client_accept, client_dial, name_of, peer_accept, peer_dial
from txpaxos.keys.trust import Role

NOW = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
YEAR = timedelta(days=365)


class Made:
    """An authority, and folders that it has made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        AuthorityFolder.create(path / "authority", NOW)

    def act(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the authority's folder, which is opened anew each time."""
        with AuthorityFolder.open(self.path / "authority") as opened:
            return getattr(opened, method)(*arguments, **options)

    def issue(self, name: str, role: Role, now: datetime = NOW) -> None:
        self.act("issue", name, role, self.path / name, now)

    def update(self, *names: str) -> list[list[str]]:
        return [self.act("update", self.path / name) for name in names]

    def renew(self, *names: str) -> None:
        for name in names:
            self.act("renew", self.path / name, NOW)

    def keys(self, name: str, role: Role = "node") -> Keys:
        return Keys.load(self.path / name, role, now=NOW)

    def line(self, method: str, *arguments: Any, **options: Any) -> str:
        """Why a method is refused. Nothing is changed then."""
        before = contents(self.path)
        with pytest.raises(ConfigError) as caught:
            self.act(method, *arguments, **options)
        assert contents(self.path) == before
        return str(caught.value).replace(f"{self.path}/", "")


def contents(path: Path) -> dict[str, bytes]:
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path)
    for name in ("a", "b"):
        made.issue(name, "node")
    made.issue("alice", "client")
    return made


def connected(one: Keys, other: Keys) -> bool:
    """Whether two nodes believe each other, whichever dials."""
    return all(
        name_of(Pair(peer_dial(dial, accept.name, at=NOW), peer_accept(accept, at=NOW)).accepted.transport) == dial.name
        for dial, accept in ((one, other), (other, one))
    )


def comes_in(client: Keys, node: Keys) -> bool:
    """Whether a client and a node believe each other."""
    pair = Pair(client_dial(client, at=NOW), client_accept(node, at=NOW))
    return (name_of(pair.dialled.transport), name_of(pair.accepted.transport)) == (node.name, client.name)


def test_what_is_issued_is_believed_and_noted(made: Made) -> None:
    a, b, alice = made.keys("a"), made.keys("b"), made.keys("alice", "client")
    assert connected(a, b)
    assert comes_in(alice, b)
    with AuthorityFolder.open(made.path / "authority") as opened:
        noted = [(one.name, one.role, one.authority, one.fingerprint) for one in opened.state.issued]
    assert noted == [
        ("a", "node", "nodes-authority-1", a.fingerprint),
        ("b", "node", "nodes-authority-1", b.fingerprint),
        ("alice", "client", "clients-authority-1", alice.fingerprint),
    ]


def test_folders_have_no_private_key_but_their_own(made: Made) -> None:
    own = {name for name in contents(made.path) if name.endswith(".key")}
    assert own == {
        "a/node.key",
        "b/node.key",
        "alice/client.key",
        "authority/nodes-authority-1.key",
        "authority/clients-authority-1.key",
    }
    texts = [data for name, data in contents(made.path).items() if not name.endswith(".key")]
    assert not any(b"PRIVATE" in data for data in texts)


def test_a_second_authority_is_not_made_over_the_first(made: Made) -> None:
    before = contents(made.path)
    with pytest.raises(ConfigError, match="authority is there already"):
        AuthorityFolder.create(made.path / "authority", NOW)
    assert contents(made.path) == before


def test_what_is_refused_changes_nothing(made: Made) -> None:
    assert made.line("issue", "c", "node", made.path / "a", NOW).startswith("a is there already, and keys are never")
    assert made.line("issue", "c d", "node", made.path / "c", NOW).startswith("'c d' is no name for a node")
    assert made.line("issue_token", "anonymous", made.path / "c", NOW).startswith("no client can be called 'anonymous'")
    assert made.line("revoke", "x", None, NOW) == "x has nothing that was issued: see 'txpaxos keys show'"
    assert (
        made.line("update", made.path) == f"{made.path} is not a folder of keys: it has neither node.pem nor client.pem"
    )
    stranger = keys_for(made.path / "other", ["s"]).folder("s")
    expected = "the certificate in other/s was not issued by the authority in authority"
    assert made.line("renew", stranger, NOW) == expected


def test_not_an_authority(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the folder of an authority: 'txpaxos keys init"):
        AuthorityFolder.open(tmp_path).__enter__()


@pytest.mark.parametrize("state", [b"", b"{}", b'{"version": "one"}'])
def test_damaged_notes(made: Made, state: bytes) -> None:
    (made.path / "authority" / STATE).write_bytes(state)
    assert made.line("update", made.path / "a").startswith("authority/authority.json is damaged, or of another release")


@pytest.mark.parametrize(
    ("noted", "instead"),
    [
        (b'"signs": true', b'"signs": false'),
        (b'"is_trusted": true', b'"is_trusted": false'),
        (b'"changes": 0', b'"changes": -1'),
        (b'09.123456Z"', b'09"'),
        (b'"serial": "', b'"serial": "z'),
    ],
)
def test_notes_that_make_no_sense(made: Made, noted: bytes, instead: bytes) -> None:
    path = made.path / "authority" / STATE
    notes = path.read_bytes()
    assert noted in notes
    path.write_bytes(notes.replace(noted, instead))
    assert made.line("update", made.path / "a").startswith("authority/authority.json is damaged")


def test_a_private_key_of_another_authority_signs_nothing(made: Made) -> None:
    """No node would believe it, and folders would have lists of revoked certificates that no node takes."""
    authority = made.path / "authority"
    (authority / "nodes-authority-1.key").write_bytes((authority / "clients-authority-1.key").read_bytes())
    assert made.line("issue", "d", "node", made.path / "d", NOW) == (
        "authority/nodes-authority-1.key does not fit nodes-authority-1.pem: bring back the copy of the authority's"
        " folder"
    )


def test_a_rotation_that_was_interrupted_begins_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full, or the machine stops, when the new private key is written and not noted yet."""

    def stop(*_: Any, **__: Any) -> None:
        raise OSError("full")

    with monkeypatch.context() as patched:
        patched.setattr(AuthorityFolder, "_save", stop)
        with pytest.raises(OSError, match="full"):
            made.act("begin_rotation", ["node", "client"], NOW)
    left = contents(made.path / "authority")
    assert "nodes-authority-2.key" in left
    begun = made.act("begin_rotation", ["node", "client"], NOW)
    assert [one.id for one in begun] == ["nodes-authority-3", "clients-authority-3"]
    assert contents(made.path / "authority")["nodes-authority-2.key"] == left["nodes-authority-2.key"]
    made.update("a")
    made.act("sign_with_the_new")
    made.renew("a")
    made.act("end_rotation", NOW, regardless=True)
    made.update("a")
    assert made.keys("a").name == "a"


def test_a_renewal_that_was_interrupted_says_where_the_folder_is(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine stops when the folder of before is moved away, and the new one is not in its place yet."""
    renamed: list[Any] = []
    really_rename = os.rename

    def rename(source: Any, target: Any) -> None:
        if renamed:
            raise OSError("stopped")
        renamed.append(target)
        really_rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("txpaxos.keys.writing.os.rename", rename)
        with pytest.raises(OSError, match="stopped"):
            made.renew("a")
    assert made.line("update", made.path / "a") == (
        "a is missing, and a.before is there: a command was interrupted; rename that, and try again"
    )
    (made.path / "a.before").rename(made.path / "a")
    made.renew("a")
    assert made.keys("a").name == "a"


def test_what_could_not_be_written_is_not_noted(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a rotation would end, as if the node had the certificate that was lost."""

    def stop(*_: Any) -> None:
        raise OSError("full")

    made.act("begin_rotation", ["node", "client"], NOW)
    made.act("sign_with_the_new")
    with monkeypatch.context() as patched:
        for name in ("write_folder", "replace_folder"):
            patched.setattr(f"txpaxos.keys.authority_folder.{name}", stop)
        for act in (
            lambda: made.renew("a"),
            lambda: made.issue("d", "node"),
            lambda: made.act("issue_token", "batch", made.path / "batch", NOW),
        ):
            with pytest.raises(OSError, match="full"):
                act()
    assert "these have no certificate of the new authority: a" in made.line("end_rotation", NOW)
    assert made.line("revoke", "batch", None, NOW).startswith("batch has nothing that was issued")
    assert made.line("revoke", "d", None, NOW).startswith("d has nothing that was issued")


def test_notes_of_another_release(made: Made) -> None:
    notes = made.path / "authority" / STATE
    notes.write_bytes(notes.read_bytes().replace(b'"version": 1', b'"version": 2'))
    assert made.line("update", made.path / "a").endswith("has version 2, and this release reads version 1")


def test_revoked(made: Made) -> None:
    a, b, alice = made.keys("a"), made.keys("b"), made.keys("alice", "client")
    assert [one.name for one in made.act("revoke", "a", None, NOW)] == ["a"]
    assert made.line("revoke", "a", None, NOW) == "a has nothing that is not revoked already: see 'txpaxos keys show'"
    made.act("revoke", "alice", None, NOW)
    assert connected(a, b), "b does not know it yet"
    assert made.update("b") == [["revoked.pem"]]
    assert made.update("b") == [[]]
    assert not connected(a, made.keys("b"))
    assert not comes_in(alice, made.keys("b"))
    made.update("alice")
    assert not comes_in(made.keys("alice", "client"), a)


def test_a_lost_key(made: Made) -> None:
    lost, b = made.keys("a"), made.keys("b")
    assert (
        made.line("revoke", "a", None, NOW, True)
        == "a has nothing that is not revoked already but its newest: see 'txpaxos keys show'"
    )
    made.renew("a")
    assert connected(lost, b)
    assert connected(made.keys("a"), b)
    made.act("revoke", "a", None, NOW, keeps_newest=True)
    made.update("a", "b")
    assert connected(made.keys("a"), made.keys("b"))
    assert not connected(lost, made.keys("b"))
    assert made.keys("a").private_key.public_key() != lost.private_key.public_key()


def test_one_serial_is_revoked(made: Made) -> None:
    first = f"{made.keys('a').chain[0].serial_number:x}"
    made.renew("a")
    assert made.line("revoke", "a", None, NOW, what="0x").startswith(
        "a has nothing that is not revoked already and begins so"
    )
    assert [one.serial for one in made.act("revoke", "a", None, NOW, what=first[:8])] == [first]


def test_a_node_and_a_client_with_one_name(made: Made) -> None:
    made.act("issue", "a", "client", made.path / "client-a", NOW)
    assert (
        made.line("revoke", "a", None, NOW)
        == "a node and a client are called a: say which, by --role node or --role client"
    )
    (revoked,) = made.act("revoke", "a", "client", NOW)
    assert revoked.role == "client"


def test_tokens(made: Made) -> None:
    for name in ("bob", "carol"):
        made.act("issue_token", name, made.path / name, NOW)
    assert made.update("a", "alice") == [["tokens"], []]
    bob, carol = (made.keys(name, "client").token for name in ("bob", "carol"))
    assert [made.keys("a").principal_of(token) for token in (bob, carol)] == ["bob", "carol"]
    assert made.line("renew", made.path / "bob", NOW).startswith("bob has a token, which does not expire")
    made.act("revoke", "bob", None, NOW)
    made.update("a")
    assert [made.keys("a").principal_of(token) for token in (bob, carol)] == ["", "carol"]
    assert not any(bob.encode() in data for name, data in contents(made.path).items() if name != "bob/token")


def test_the_authority_rotates_and_no_pair_is_ever_apart(made: Made) -> None:
    """Folders are updated one after the other; after each, all believe each other."""

    def all_believe() -> None:
        a, b, alice = made.keys("a"), made.keys("b"), made.keys("alice", "client")
        assert connected(a, b)
        assert comes_in(alice, a)
        assert comes_in(alice, b)

    old = made.keys("a")
    steps = (
        (("begin_rotation", ("node", "client"), NOW), made.update),
        (("sign_with_the_new",), made.renew),
        (("end_rotation", NOW), made.update),
    )
    for step, bring in steps:
        made.act(*step)
        all_believe()
        for name in ("a", "alice", "b"):
            bring(name)
            all_believe()
    assert not connected(old, made.keys("b"))
    assert len(made.keys("b").nodes) == 1
    made.issue("c", "node")
    assert connected(made.keys("a"), made.keys("c"))


def test_steps_of_a_rotation_out_of_order(made: Made) -> None:
    assert made.line("sign_with_the_new").startswith("there is no new authority that does not sign yet")
    assert made.line("end_rotation", NOW).startswith("no authority rotates")
    made.act("begin_rotation", ("node",), NOW)
    assert made.line("begin_rotation", ("client", "node"), NOW).startswith("the authority of nodes rotates already")
    assert made.line("end_rotation", NOW).startswith("the new authority of nodes has signed nothing yet")
    made.act("sign_with_the_new")
    assert made.line("sign_with_the_new").startswith("there is no new authority that does not sign yet")
    made.renew("a")
    assert (
        made.line("end_rotation", NOW)
        == "these have no certificate of the new authority: b: 'txpaxos keys renew' first"
    )
    assert [one.id for one in made.act("end_rotation", NOW, regardless=True)] == ["nodes-authority-1"]


def test_what_is_expired_or_revoked_does_not_hold_up_a_rotation(made: Made) -> None:
    made.issue("c", "node", NOW - 2 * YEAR)
    made.act("begin_rotation", ("node",), NOW)
    made.act("sign_with_the_new")
    made.act("revoke", "b", None, NOW)
    made.renew("a")
    assert [one.id for one in made.act("end_rotation", NOW)] == ["nodes-authority-1"]


def test_revoked_stays_revoked_while_the_authority_rotates(made: Made) -> None:
    a = made.keys("a")
    made.act("revoke", "a", None, NOW)
    made.act("begin_rotation", ("node",), NOW)
    made.act("sign_with_the_new")
    made.update("b")
    b = made.keys("b")
    assert not connected(a, b)
    made.renew("b")
    assert not connected(a, made.keys("b"))
    assert connected(b, made.keys("b"))


def test_an_interrupted_command_is_completed_by_the_next(made: Made) -> None:
    """It had noted what it revokes, and not yet written the list."""
    place = made.path / "authority"
    before = {name: (place / name).read_bytes() for name in ("revoked.pem", "tokens", "nodes.pem")}
    made.act("revoke", "a", None, NOW)
    made.act("issue_token", "bob", made.path / "bob", NOW)
    made.act("begin_rotation", ("node",), NOW)
    after = {name: (place / name).read_bytes() for name in before}
    assert all(before[name] != after[name] for name in before)
    for name, data in before.items():
        (place / name).write_bytes(data)
    made.update("b")
    assert {name: (place / name).read_bytes() for name in before} == after
    assert {name: (made.path / "b" / name).read_bytes() for name in before} == after


def test_expiry_never_outlives_the_authority(made: Made) -> None:
    made.act("issue", "c", "node", made.path / "c", NOW + 9.5 * YEAR, YEAR)
    keys = Keys.load(made.path / "c", "node", now=NOW + 9.6 * YEAR)
    assert keys.not_after <= made.keys("a").nodes[0].not_valid_after_utc


def test_an_expired_authority_signs_nothing(made: Made) -> None:
    line = made.line("issue", "c", "node", made.path / "c", NOW + 10 * YEAR)
    assert line == "the authority of nodes has expired: 'txpaxos keys rotate' makes a new one"
    made.act("begin_rotation", ("node",), NOW + 10 * YEAR)
    made.act("sign_with_the_new")
    made.issue("c", "node", NOW + 10 * YEAR)


def test_a_folder_that_others_could_have_changed_signs_nothing(tmp_path: Path) -> None:
    """They could have put an authority of their own into it."""
    made = Made(tmp_path)
    (tmp_path / "authority").chmod(0o777)
    with pytest.raises(ConfigError, match="may be changed by other users \\(mode 0777\\): 'chmod go-w "):
        made.issue("z", "node")
    assert not (tmp_path / "z").exists()
