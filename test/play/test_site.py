"""The site of ``txpaxos play``, over real sockets: what it answers, and what it refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from test.helpers.play_site import JSON, PlaySite, played
from txpaxos.play.site import BODY_BYTES_MAX


@pytest.fixture(scope="module")
def site() -> Iterator[PlaySite]:
    with played() as running:
        yield running


def refusal(site: PlaySite, body: bytes) -> tuple[int, str]:
    """The status and the line with which a body is answered that asks for nothing that can be."""
    answer = site.request("POST", "/act", body, JSON)
    ((key, line),) = answer.json.items()
    assert (answer.status, key) in ((400, "error"), (200, "trouble"))
    assert line
    assert "\n" not in line
    return answer.status, line


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/", "text/html; charset=utf-8", b"<title>Paxos, played</title>"),
        ("/play.css", "text/css; charset=utf-8", b"prefers-color-scheme: dark"),
        ("/play.js", "text/javascript; charset=utf-8", b'"use strict"'),
    ],
)
def test_its_files(site: PlaySite, path: str, kind: str, part: bytes) -> None:
    answer = site.request("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    assert part in answer.body
    assert b"http://" not in answer.body.replace(b"http://www.w3.org/2000/svg", b""), "nothing comes from outside"
    assert b"https://" not in answer.body
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert site.request("HEAD", path).body == b""


def test_a_lesson_over_the_wire(site: PlaySite) -> None:
    view = site.ask(ask="begin", lesson="one-decree")
    run = view["run"]
    assert [node["name"] for node in view["nodes"]] == ["p", "a", "b", "c", "q", "l"]
    view = site.ask(ask="next", run=run)
    view = site.ask(ask="act", run=run, action={"do": "propose", "node": "p", "value": "red"})
    assert view["lesson"]["done"]
    assert dict(view["nodes"][0]["facts"])["value"] == "red"
    assert site.ask(ask="rewind", run=run, to=0)["place"] == 0
    other = site.ask(ask="begin", kind="replica", count=5)
    assert other["run"] != run
    assert len(other["nodes"]) == 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"ask": "dance"}',
        b'{"ask": "begin", "more": 1}',
        b'{"ask": "begin", "lesson": 7}',
        b'{"ask": "begin", "kind": "replica", "count": 1e30}',
        b'{"ask": "look", "run": null}',
        b'{"ask": "look", "run": "\xff"}',
        b'{"ask": "look", "run": "\\ud800"}',
        b"[" * 4000,
        b'{"ask":' * 500,
        b'{"ask": "begin", "lesson": ' + b"[" * 3000,
    ],
)
def test_what_is_no_request_is_one_line(site: PlaySite, body: bytes) -> None:
    assert refusal(site, body)[0] == 400


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"ask": "begin", "lesson": "no such"}', "there is no such lesson"),
        (b'{"ask": "begin", "kind": "raft"}', "there is no such kind"),
        (b'{"ask": "begin", "kind": "replica", "count": 999999999}', "there are 3 nodes, or 5"),
        (b'{"ask": "look", "run": "none"}', "this run is not kept any more: begin anew"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(site: PlaySite, body: bytes, line: str) -> None:
    assert refusal(site, body) == (200, line)


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"do": "dance"},
        {"do": "deliver"},
        {"do": "deliver", "message": "0"},
        {"do": "deliver", "message": -1},
        {"do": "deliver", "message": 10**30},
        {"do": "deliver", "message": 1.5},
        {"do": "deliver", "message": 0, "more": 0},
        {"do": "propose", "node": "p", "value": "x" * 1000},
        {"do": "propose", "node": "p", "value": "\x00"},
        {"do": "propose", "node": "p", "value": "\ud800"},
        {"do": "propose", "node": "__class__", "value": "x"},
        {"do": "cut", "node": "p", "other": ["p"]},
        {"do": "crash", "node": None},
    ],
)
def test_an_action_that_cannot_be_is_one_line_and_changes_nothing(site: PlaySite, action: dict[str, Any]) -> None:
    before = site.ask(ask="begin", kind="essential")
    refusal(site, json.dumps({"ask": "act", "run": before["run"], "action": action}).encode())
    assert site.ask(ask="look", run=before["run"]) == before


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/../setup.py", {}, 404),
        ("GET", "/play.js/", {}, 404),
        ("GET", "/act", {}, 405),
        ("POST", "/", JSON, 405),
        ("PUT", "/act", JSON, 405),
        ("POST", "/act", {}, 415),
        ("POST", "/act", {"Content-Type": "text/plain"}, 415),
        ("POST", "/act", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/act", {**JSON, "Origin": "http://evil.example"}, 403),
        ("POST", "/act", {**JSON, "Origin": "null"}, 403),
        ("GET", "/", {"Host": "evil.example"}, 403),
        ("GET", "/", {"Host": "127.0.0.1"}, 403),
        ("GET", "/", {"Host": "127.0.0.1:1"}, 403),
        ("POST", "/act", {**JSON, "Host": "evil.example"}, 403),
    ],
)
def test_what_is_refused(site: PlaySite, method: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = site.request(method, path, b"{}" if method == "POST" else None, headers)
    assert answer.status == status
    assert set(answer.json) == {"error"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_its_own_names_are_taken(site: PlaySite, host: str) -> None:
    name = f"{host}:{site.port}"
    headers = {**JSON, "Host": name, "Origin": f"http://{name}"}
    assert site.request("POST", "/act", b'{"ask": "catalogue"}', headers).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d" % (BODY_BYTES_MAX + 1),
        b"Content-Length: 99999999999999",
        b"Transfer-Encoding: chunked",
    ],
)
def test_a_long_body_is_not_read(site: PlaySite, head: bytes) -> None:
    lines = [b"POST /act HTTP/1.1", b"Host: 127.0.0.1:%d" % site.port, b"Content-Type: application/json", head]
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
        connection.sendall(b"\r\n".join([*lines, b"", b""]))
        answer = b""
        while data := connection.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_it_listens_at_loopback_only(site: PlaySite) -> None:
    """Another address of this machine is not listened at."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", site.port), timeout=30)


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=f"txpaxos: cannot listen at 127.0.0.1:{port}: .*in use"):
            played("--port", str(port)).__enter__()


def test_two_names_are_none(site: PlaySite) -> None:
    lines = [b"GET / HTTP/1.1", b"Host: 127.0.0.1:%d" % site.port, b"Host: evil.example", b"Connection: close"]
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
        connection.sendall(b"\r\n".join([*lines, b"", b""]))
        answer = b""
        while data := connection.recv(4096):
            answer += data
    assert answer.split(b" ", 2)[1] in (b"400", b"403")
