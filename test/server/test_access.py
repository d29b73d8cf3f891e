"""A node with keys: who its clients are, and that each may do what the cluster file says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, get_args

import attrs
import pytest
from twisted.internet.address import IPv4Address
from twisted.logger import LogLevel, formatEvent

from test.helpers.client_port_harness import Asked
from test.helpers.fakes import logged
from test.helpers.fuzz import INPUTS
from test.helpers.key_folders import keys_for
from test.helpers.secured_port import ALL, CODEC, SecuredClient, SecuredPort, errors_of, session_of
from test.helpers.wire_samples import CLIENT_SAMPLES, spoil
from txpaxos.keys.tls import client_dial, peer_dial
from txpaxos.node.counts import Count
from txpaxos.rights import ALL_RIGHTS
from txpaxos.server import secured_connection
from txpaxos.server.access import RIGHT_FOR
from txpaxos.server.client_tls import ALERT
from txpaxos.wire.client_messages import (
    AcceptClock,
    Answer,
    Ask,
    Authenticate,
    Authenticated,
    BackupRequest,
    ChangeMembers,
    Forget,
    HandOver,
    Join,
    KeepTimers,
    KeepTogether,
    MembersRequest,
    Ping,
    Pong,
    Read,
    Recall,
    Refused,
    ReloadKeys,
    Request,
    StatusAnswer,
    StatusRequest,
    Submit,
    Welcome,
)
from txpaxos.wire.commands import COMMAND_BYTES_MAX

REQUESTS: tuple[Any, ...] = (
    Submit(1, session_of("shop"), 1, 0, (b"+1",)),
    Read(1, b"", False),
    Read(1, b"", True),
    Ask(1, "subject", b"value"),
    Ask(1, "subject", None),
    Forget(1, session_of("shop", 1), 1, "subject"),
    KeepTimers(1, 1, ("timer",)),
    KeepTogether(1, 1, 2, 1),
    StatusRequest(1),
    MembersRequest(1),
    HandOver(1, "a"),
    ChangeMembers(1, "priority", "a", priority=1),
    Join(1, "d", "10.0.0.4:1", "10.0.0.4:2", 1, bytes(16), "app"),
    BackupRequest(1),
    ReloadKeys(1),
    AcceptClock(1),
    Recall(1, 1),
)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[SecuredPort]:
    port = SecuredPort(tmp_path, {"shop": ALL, "bank": ["read", "write"], "script": ["read"]}, application=Asked)
    yield port
    port.close()


def warnings(act: Callable[[], object]) -> list[str]:
    """The lines of warning in the log while ``act`` runs."""
    return [formatEvent(event) for event in logged(act, LogLevel.warn)]


def unchanged(port: SecuredPort, act: Callable[[], object]) -> None:
    """The state of the node, its log and its members stay as they are while ``act`` runs."""
    before = port.node.application.applied[:], port.node.applied_through, port.node.members.slot
    act()
    port.reactor.idle()
    assert (port.node.application.applied, port.node.applied_through, port.node.members.slot) == before


# ------------------------------------------------------------------- rights


def test_every_kind_of_request_needs_a_right() -> None:
    assert set(RIGHT_FOR) == set(get_args(Request)) == {type(one) for one in REQUESTS}
    assert set(RIGHT_FOR.values()) == set(ALL_RIGHTS)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_a_request_needs_its_right_and_no_other(tmp_path: Path, request_: Any) -> None:
    right = RIGHT_FOR[type(request_)]
    others = [one for one in ALL_RIGHTS if one != right]
    port = SecuredPort(tmp_path, {"shop": others}, application=Asked)
    unchanged(port, lambda: errors_of(port.client("shop").ask(request_)))
    assert port.node.counters == {Count.REQUEST_NOT_ALLOWED: 1}
    (refused,) = port.client("shop").ask(request_)
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error, refused.count) == (1, "NotAllowed", 1)
    assert f"the client 'shop' does not have the right {right!r}" in refused.reason
    port = SecuredPort(tmp_path / "2", {"shop": [right]}, application=Asked)
    client = port.client("shop")
    answers = client.ask(request_)
    assert not any(isinstance(one, Refused) and one.error == "NotAllowed" for one in answers)
    assert client.is_open
    assert Count.REQUEST_NOT_ALLOWED not in port.node.counters


def test_a_run_is_refused_as_a_whole_and_counted_once(port: SecuredPort) -> None:
    refused = port.client("script").ask(Submit(7, session_of("script"), 1, 0, (b"+1", b"+2", b"+3")))
    (one,) = refused
    assert isinstance(one, Refused)
    assert (one.request, one.count, one.error) == (7, 3, "NotAllowed")
    assert port.node.counters == {Count.REQUEST_NOT_ALLOWED: 1}
    assert port.node.application.applied == []


def test_a_reader_does_nothing_but_read(port: SecuredPort) -> None:
    client = port.client("script")

    def attack() -> None:
        for request_ in REQUESTS:
            if not isinstance(request_, Read):
                assert errors_of(client.ask(request_)) == ["NotAllowed"]

    unchanged(port, lambda: warnings(attack))
    assert client.ask(Read(1, b"x", False)) != []
    assert port.node.counters == {Count.REQUEST_NOT_ALLOWED: len(REQUESTS) - 2}


def test_what_is_refused_has_one_line_of_the_log(port: SecuredPort) -> None:
    client = port.client("script")
    assert warnings(lambda: client.say(StatusRequest(1))) == [
        "client script at 10.1.1.1 asks for what it has no right to (status)"
    ]


def test_rights_of_all_that_have_shown_who_they_are(tmp_path: Path) -> None:
    port = SecuredPort(tmp_path, {"*": ["status"], "shop": ["read"]})
    assert isinstance(port.client("bank").ask(StatusRequest(1))[0], StatusAnswer)
    assert errors_of(port.client("bank").ask(Read(1, b"", True))) == ["NotAllowed"]
    assert isinstance(port.client("shop").ask(StatusRequest(1))[0], StatusAnswer)
    stranger = port.client()
    assert errors_of(stranger.ask(StatusRequest(1))) == ["NotAllowed"]


# ---------------------------------------------------------------- who a client is


def test_a_client_is_told_who_it_is_and_then_who_leads(port: SecuredPort) -> None:
    assert port.connect("bank").heard() == [
        Authenticated("bank", ("read", "write")),
        Welcome("a", "a", "10.0.0.1:5000", 1, 0.25, takes_withdrawals=True),
    ]


def test_a_stranger_learns_nothing_and_may_do_nothing(port: SecuredPort) -> None:
    client = port.connect()
    assert client.heard() == [Authenticated("", ())]

    def attack() -> None:
        for request_ in REQUESTS:
            assert errors_of(client.ask(request_)) == ["NotAllowed"]

    unchanged(port, lambda: warnings(attack))
    assert port.node.counters == {Count.REQUEST_NOT_ALLOWED: len(REQUESTS)}
    assert len(port.port.connections) == 0


def test_a_stranger_is_not_told_who_leads(port: SecuredPort) -> None:
    client = port.client()
    port.port._leader_changed()
    port.port._members_changed()
    assert client.heard() == []


def test_a_stranger_that_sends_much_or_something_else_is_disconnected(port: SecuredPort) -> None:
    for data in (CODEC.encode(Ping()), CODEC.encode(Submit(1, bytes(24), 1, 0, (bytes(600),))), bytes(2000)):
        client = port.client()
        client.write(len(data).to_bytes(4, "big") + data)
        assert not client.is_open
    assert port.node.counters == {Count.BAD_REQUEST: 3}


def test_a_stranger_has_a_limited_time(port: SecuredPort) -> None:
    client = port.client()
    lines = warnings(lambda: port.reactor.spend(secured_connection.STRANGER_SECONDS + 0.1))
    client.run()
    assert not client.is_open
    assert lines == ["a client at 10.1.1.1 is disconnected: it has not shown who it is"]
    assert port.node.counters == {Count.CLIENT_NOT_AUTHENTICATED: 1}
    assert len(port.access.strangers) == 0


def test_a_client_that_has_shown_who_it_is_stays(port: SecuredPort) -> None:
    client = port.client("bank")
    port.reactor.spend(secured_connection.STRANGER_SECONDS + 1.0)
    assert client.is_open
    assert client.ask(Ping()) == [Pong()]


def test_anonymous_clients_may_do_what_is_granted_to_them(tmp_path: Path) -> None:
    port = SecuredPort(tmp_path, {"anonymous": ["read"]}, application=Asked)
    client = port.connect()
    assert client.heard() == [
        Authenticated("", ("read",)),
        Welcome("a", "a", "10.0.0.1:5000", 1, 0.25, takes_withdrawals=True),
    ]
    assert errors_of(client.ask(Submit(1, session_of(""), 1, 0, (b"+1",)))) == ["NotAllowed"]
    assert not isinstance(client.ask(Read(1, b"", True))[0], Refused)
    assert port.access.rights_of("shop") == ("read",)
    port.close()


# ------------------------------------------------------------------- tokens


def test_a_token_shows_who_a_client_is(port: SecuredPort) -> None:
    client = port.connect("script")
    assert client.heard() == [Authenticated("", ())]
    client.say(Authenticate(port.folders.client("script").token.encode()))
    assert client.heard() == [
        Authenticated("script", ("read",)),
        Welcome("a", "a", "10.0.0.1:5000", 1, 0.25, takes_withdrawals=True),
    ]


@pytest.mark.parametrize("change", ["shorter", "longer", "other", "empty of sense"])
def test_a_wrong_token(port: SecuredPort, change: str) -> None:
    right = port.folders.client("script").token.encode()
    wrong = {"shorter": right[:-1], "longer": right + b"x", "other": right[::-1], "empty of sense": b"\xff\x00"}[change]
    client = port.connect("script")
    lines = warnings(lambda: client.say(Authenticate(wrong)))
    _, refused = client.heard()
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error) == (0, "NotAllowed")
    assert "files 'tokens'" in refused.reason
    assert not client.is_open
    assert lines == [
        "a client at 10.1.1.1 shows a token that is not in the file tokens, and is disconnected",
    ]
    assert right.decode() not in str(lines)
    assert port.node.counters == {Count.CLIENT_NOT_AUTHENTICATED: 1}


def test_a_token_is_shown_first_and_once(port: SecuredPort) -> None:
    token = port.folders.client("script").token.encode()
    for name in ("script", "bank"):
        client = port.client(name)
        client.say(Authenticate(token))
        assert not client.is_open
    assert port.node.counters == {Count.BAD_REQUEST: 2}


def test_a_token_after_a_request_of_an_anonymous_client(tmp_path: Path) -> None:
    port = SecuredPort(tmp_path, {"anonymous": ["status"], "script": ALL})
    token = port.folders.client("script").token.encode()
    client = port.client()
    assert [type(one) for one in client.ask(Authenticate(token))] == [Authenticated, Welcome]
    assert client.connection.principal == "script"
    assert len(port.port.connections) == 1
    late = port.client()
    late.say(StatusRequest(1), Authenticate(token))
    assert not late.is_open
    client.disconnect()
    port.close()


def test_a_token_is_in_no_text(port: SecuredPort) -> None:
    assert "secret" not in repr(Authenticate(b"secret"))
    assert port.folders.client("script").token not in repr(port.folders.client("script"))


# ----------------------------------------------------------------- sessions


def test_a_session_belongs_to_its_client(port: SecuredPort) -> None:
    shop, bank = port.client("shop"), port.client("bank")
    stolen = session_of("shop")
    assert isinstance(shop.ask(Submit(1, stolen, 1, 0, (b"mine",)))[0], Answer)
    port.reactor.idle()

    def attack() -> None:
        (refused,) = bank.ask(Submit(1, stolen, 2, 2**62, (b"theirs",)))
        assert isinstance(refused, Refused)
        assert (refused.error, refused.reason) == (
            "NotAllowed",
            "the session belongs to another client: begin one of your own",
        )

    lines: list[str] = []
    unchanged(port, lambda: lines.extend(warnings(attack)))
    assert lines == ["client bank at 10.1.1.1 uses a session that is not its own (Submit)"]
    assert port.node.counters == {Count.SESSION_OF_ANOTHER_CLIENT: 1}
    assert isinstance(shop.ask(Submit(2, stolen, 2, 0, (b"mine, too",)))[0], Answer)


def test_a_session_to_forget_in_belongs_to_its_client(tmp_path: Path) -> None:
    port = SecuredPort(tmp_path, {"*": ["ask"]})
    unchanged(port, lambda: port.client("bank").ask(Forget(1, session_of("shop"), 1, "subject")))
    assert port.node.counters == {Count.SESSION_OF_ANOTHER_CLIENT: 1}


@pytest.mark.parametrize("session", [bytes(8), bytes(24), session_of("shop")[16:], bytes(8) + session_of("bank")])
def test_a_session_of_no_client(port: SecuredPort, session: bytes) -> None:
    unchanged(port, lambda: port.client("bank").ask(Submit(1, session, 1, 0, (b"x",))))
    assert port.node.counters == {Count.SESSION_OF_ANOTHER_CLIENT: 1}


# ------------------------------------------------- certificates that are not believed


def refused_certificate(port: SecuredPort, creator: Any) -> tuple[str, list[str]]:
    """What a client and a node say of a connection that is refused. Nothing has changed then, and it is counted."""
    clients: list[SecuredClient] = []
    lines = warnings(lambda: clients.append(SecuredClient(port, creator)))
    (client,) = clients
    assert client.end.messages == []
    assert not client.is_open
    assert port.node.counters == {Count.CLIENT_NOT_AUTHENTICATED: 1}
    assert len(port.access.strangers) == len(port.port.connections) == 0
    return client.why, lines


def test_the_certificate_of_another_authority(port: SecuredPort, tmp_path: Path) -> None:
    others = keys_for(tmp_path / "others", "a", ["shop"])
    keys = attrs.evolve(others.client("shop"), nodes=port.keys.nodes)
    assert refused_certificate(port, client_dial(keys)) == (
        "it says that our certificate is of an unknown authority",
        ["a client at 10.1.1.1 was not let in: its certificate is of an unknown authority"],
    )


def test_the_certificate_of_a_node(port: SecuredPort) -> None:
    why, lines = refused_certificate(port, peer_dial(port.keys, "a"))
    assert why == "it says that our certificate is of an unknown authority"
    assert lines == ["a client at 10.1.1.1 was not let in: its certificate is of an unknown authority"]


@pytest.mark.parametrize(
    ("days", "phrase"), [(-400, "has expired"), (+10, "is not yet valid")], ids=["expired", "not yet valid"]
)
def test_a_certificate_at_the_wrong_time(port: SecuredPort, days: int, phrase: str) -> None:
    folders, now = port.folders, port.folders.now
    then = now + timedelta(days=days)
    folders.write("late", "client", folders.clients_authority.issue("late", then))
    folders.now = then
    why, lines = refused_certificate(port, client_dial(folders.client("late"), at=now))
    folders.now = now
    assert why == f"it says that our certificate {phrase}"
    assert lines == [f"a client at 10.1.1.1 was not let in: its certificate {phrase}"]


def test_a_revoked_certificate(tmp_path: Path) -> None:
    port = SecuredPort(tmp_path, {"*": ALL})
    shop = port.folders.client("shop")
    port.folders.revoke(shop, folders="a")
    port.factory = type(port.factory)(port.folders.node("a"), port.port, port.reactor)
    assert refused_certificate(port, client_dial(shop)) == (
        "it says that our certificate was revoked",
        ["a client at 10.1.1.1 was not let in: its certificate was revoked"],
    )


def test_a_client_does_not_believe_another_authoritys_node(port: SecuredPort, tmp_path: Path) -> None:
    others = keys_for(tmp_path / "others", "a", ["shop"])
    why, lines = refused_certificate(port, client_dial(others.client("shop")))
    assert why == "its certificate is of an unknown authority"
    assert lines == ["a client at 10.1.1.1 was not let in: it says that our certificate is of an unknown authority"]


@pytest.mark.parametrize(
    ("days", "phrase"), [(400, "has expired"), (-1, "is not yet valid")], ids=["expired", "not yet valid"]
)
def test_a_client_does_not_believe_a_node_at_the_wrong_time(port: SecuredPort, days: int, phrase: str) -> None:
    then = port.folders.now + timedelta(days=days)
    assert refused_certificate(port, client_dial(port.folders.client("shop"), at=then)) == (
        f"its certificate {phrase}",
        [f"a client at 10.1.1.1 was not let in: it says that our certificate {phrase}"],
    )


def test_a_client_does_not_believe_a_revoked_node(port: SecuredPort) -> None:
    port.folders.revoke(port.keys, folders=["shop"])
    assert refused_certificate(port, client_dial(port.folders.client("shop"))) == (
        "its certificate was revoked",
        ["a client at 10.1.1.1 was not let in: it says that our certificate was revoked"],
    )


def test_a_client_does_not_believe_a_node_with_another_name(port: SecuredPort) -> None:
    assert refused_certificate(port, client_dial(port.folders.client("shop"), ["b"])) == (
        "its certificate has the wrong name: a, and not b",
        ["a client at 10.1.1.1 was not let in: it says that our certificate has the wrong name"],
    )


# ---------------------------------------------------------- clients without TLS


def test_a_client_without_keys_is_told_soon(port: SecuredPort) -> None:
    client = SecuredClient(port, None)
    heard = client.hear_bytes()
    lines = warnings(lambda: port.reactor.spend(secured_connection.SILENT_SECONDS + 0.01))
    client.run()
    assert heard == [ALERT]
    assert not client.is_open
    assert lines == ["a client at 10.1.1.1 is disconnected: it has said nothing, as a client without keys does"]
    assert port.node.counters == {Count.CLIENT_NOT_AUTHENTICATED: 1}


def test_a_request_in_the_clear(port: SecuredPort) -> None:
    client = SecuredClient(port, None)
    client.hear_bytes()
    unchanged(port, lambda: client.say(REQUESTS[0]))
    assert not client.is_open
    assert port.node.counters == {Count.CLIENT_NOT_AUTHENTICATED: 1}


# ------------------------------------------------------------------ other keys


def test_clients_that_are_not_believed_any_more_are_disconnected(tmp_path: Path) -> None:
    port = SecuredPort(tmp_path, {"*": ALL}, tokens=("script", "job"))
    shop, bank, script, job = (port.client(name) for name in ("shop", "bank", "script", "job"))
    port.folders.revoke(port.folders.client("shop"), folders="a")
    tokens = port.folders.folder("a") / "tokens"
    tokens.write_text("".join(line for line in tokens.open() if not line.startswith("script ")))
    keys = port.folders.node("a")
    port.factory.use_keys(keys)
    lines = warnings(lambda: port.port.use_keys(keys))
    assert [one.is_open for one in (shop, bank, script, job)] == [False, True, False, True]
    assert errors_of(shop.heard() + script.heard()) == ["NotAllowed", "NotAllowed"]
    assert lines == [
        "client shop at 10.1.1.1 is disconnected: its certificate was revoked",
        "client script at 10.1.1.1 is disconnected: its token is in the file tokens no more",
    ]
    assert port.node.counters == {Count.CLIENT_NOT_AUTHENTICATED: 2}
    assert not port.connect("shop").is_open
    assert isinstance(bank.ask(Submit(1, session_of("bank"), 1, 0, (b"x",)))[0], Answer)
    port.close()


def test_a_client_within_the_handshake_is_not_believed_by_the_keys_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = SecuredPort(tmp_path, {"*": ALL})
    with monkeypatch.context() as patched:
        patched.setattr(SecuredClient, "run", lambda client: client._pump.pump())
        client = port.connect("shop")
    port.folders.revoke(port.folders.client("shop"), folders="a")
    keys = port.folders.node("a")
    port.factory.use_keys(keys)
    port.port.use_keys(keys)
    assert client.heard() == []
    assert not client.is_open
    assert isinstance(port.client("bank").ask(Submit(1, session_of("bank"), 1, 0, (b"x",)))[0], Answer)
    port.close()


# -------------------------------------------------------------------- quotas


def test_a_client_for_which_there_is_no_room_is_not_connected(
    port: SecuredPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port.port, "_files_max", 1)
    shop = port.client("shop")
    port.node_harness.store.slow = True
    shop.say(Submit(1, session_of("shop"), 1, 0, (b"x",)))
    assert port.factory.buildProtocol(IPv4Address("TCP", "10.2.2.2", 5000)) is None
    assert port.node.counters == {Count.TOO_MANY_CLIENTS: 1}
    port.node_harness.store.slow = False


def test_one_client_cannot_have_all_connections(port: SecuredPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port.port, "_files_max", 8)
    shops = [port.client("shop") for _ in range(4)]
    one_more = port.connect("shop")
    (refused,) = one_more.heard()
    assert isinstance(refused, Refused)
    assert (refused.request, refused.error) == (0, "Overloaded")
    assert not one_more.is_open
    banks = [port.client("bank") for _ in range(4)]
    assert all(one.is_open for one in (*shops, *banks))
    assert port.node.counters == {Count.TOO_MANY_CONNECTIONS_OF_A_CLIENT: 1}
    shops[0].disconnect()
    assert port.client("shop").is_open


def test_when_all_connections_are_taken_an_idle_one_of_the_client_with_most_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = SecuredPort(tmp_path, {"*": ALL}, clients=("shop", "bank", "mill"))
    monkeypatch.setattr(port.port, "_files_max", 7)
    crowds = {
        name: [port.client(name) for _ in range(count)] for name, count in (("shop", 3), ("bank", 2), ("mill", 2))
    }
    newest = port.client("mill")
    assert newest.is_open
    left = {name: sum(one.is_open for one in crowd) for name, crowd in crowds.items()}
    assert left == {"shop": 2, "bank": 2, "mill": 2}
    assert port.node.counters == {Count.TOO_MANY_CLIENTS: 1}


def test_strangers_do_not_take_the_place_of_clients(port: SecuredPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.server.client_port.STRANGERS_MAX", 3)
    shop, lonely = port.client("shop"), port.client(host="10.2.2.2")
    crowd = [port.client() for _ in range(6)]
    assert (shop.is_open, lonely.is_open) == (True, True)
    assert [one.is_open for one in crowd] == [False] * 4 + [True] * 2
    assert port.node.counters == {Count.TOO_MANY_STRANGERS: 4}
    assert port.client("bank", "10.3.3.3").is_open


def test_one_client_cannot_begin_anothers_sessions(port: SecuredPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are at the same address."""
    monkeypatch.setattr("txpaxos.server.session_rate.SESSIONS_BURST", 2)
    shop, bank = port.client("shop"), port.client("bank")
    for number in range(2):
        assert isinstance(shop.ask(Submit(number, session_of("shop", number), 1, 0, (b"x",)))[0], Answer)
    assert errors_of(port.client("shop").ask(Submit(2, session_of("shop", 2), 1, 0, (b"x",)))) == ["Overloaded"]
    assert isinstance(bank.ask(Submit(1, session_of("bank"), 1, 0, (b"x",)))[0], Answer)


def test_one_client_cannot_have_all_requests_in_work(port: SecuredPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.server.budget.REQUEST_BYTES_ALL_MAX", 100)
    port.node_harness.store.slow = True
    shops = [port.client("shop") for _ in range(2)]
    bank = port.client("bank")
    shops[0].say(Submit(1, session_of("shop"), 1, 0, (bytes(30),)))
    assert errors_of(shops[1].ask(Submit(1, session_of("shop", 1), 1, 0, (bytes(30),)))) == ["Overloaded"]
    assert bank.ask(Submit(1, session_of("bank"), 1, 0, (bytes(30),))) == []
    port.node_harness.store.slow = False


# ---------------------------------------------------------------------- fuzz


@pytest.mark.parametrize("when", ["before TLS", "before it has shown who it is", "afterwards"])
def test_any_bytes(port: SecuredPort, when: str) -> None:
    rng = Random(1)
    samples = [CODEC.encode(one) for one in CLIENT_SAMPLES]
    clients = {"before TLS": None, "before it has shown who it is": "", "afterwards": "script"}

    def attack() -> None:
        for _ in range(INPUTS // 100):
            name = clients[when]
            client = SecuredClient(port, None) if name is None else port.client(name)
            if name is None:
                client.hear_bytes()
            data = spoil(rng, rng.choice(samples))
            client.write(rng.choice([len(data).to_bytes(4, "big"), b"\x16\x03\x01", b""]) + data)
            client.disconnect()

    unchanged(port, lambda: warnings(attack))
    assert len(port.port.connections) == len(port.access.strangers) == 0
    assert isinstance(port.client("bank").ask(Submit(1, session_of("bank"), 1, 0, (b"x",)))[0], Answer)


def test_the_largest_command(port: SecuredPort) -> None:
    command = bytes(COMMAND_BYTES_MAX)
    assert isinstance(port.client("bank").ask(Submit(1, session_of("bank"), 1, 0, (command,)))[0], Answer)
