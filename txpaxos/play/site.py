"""The site of ``txpaxos play``: three files, and one place to which the page sends what its user does.

It is for the user of this machine. It listens at a loopback address, and answers only requests that name it so: another
site, whose name leads to this address, or a page of it, gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from txpaxos.play.actions import NotPossible
from txpaxos.play.course import LESSONS
from txpaxos.play.runs import AnyRequest, Runs

BODY_BYTES_MAX = 4096
"""The most bytes of one request's body."""

FILES = {
    b"/": ("index.html", b"text/html; charset=utf-8"),
    b"/play.css": ("play.css", b"text/css; charset=utf-8"),
    b"/play.js": ("play.js", b"text/javascript; charset=utf-8"),
}
ACT = b"/act"
JSON = b"application/json"

HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    b" img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class Refused(Exception):
    """A request that is not answered. ``status`` is that of HTTP, and the message is one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedRequest(Request):
    """A request whose body is not read if it is long, or does not say how long it is."""

    is_too_large = False

    def gotLength(self, length: int | None) -> None:
        """The head of the request has arrived."""
        self.is_too_large = length is None or length > BODY_BYTES_MAX
        super().gotLength(0 if self.is_too_large else length)
        if self.is_too_large:
            transport: Any = self.channel.transport
            transport.write(TOO_LARGE)
            transport.loseConnection()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body has arrived."""
        if not self.is_too_large:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of the request has arrived."""
        if not self.is_too_large:
            super().requestReceived(command, path, version)


class Play(Resource):
    """All of the site."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self._runs = Runs(LESSONS)
        page = files("txpaxos.play") / "page"
        self._files = {path: ((page / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        self._decoder = msgspec.json.Decoder(AnyRequest)

    def render(self, request: Request) -> bytes:
        """Answer a request."""
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        try:
            return self._answer(request)
        except Refused as refused:
            request.setResponseCode(refused.status)
            request.setHeader(b"content-type", JSON)
            return msgspec.json.encode({"error": " ".join(str(refused).split())})

    def _answer(self, request: Request) -> bytes:
        """The body of the answer.

        :raises Refused: if there is none.
        """
        check_names(request)
        if request.path == ACT:
            if request.method != b"POST":
                raise Refused(405, "this place wants POST")
            request.setHeader(b"content-type", JSON)
            return self._act(request)
        if request.path not in self._files:
            raise Refused(404, "there is no such page")
        if request.method not in (b"GET", b"HEAD"):
            raise Refused(405, "this place wants GET")
        body, kind = self._files[request.path]
        request.setHeader(b"content-type", kind)
        return body

    def _act(self, request: Request) -> bytes:
        kind = request.getHeader(b"content-type") or b""
        if kind.partition(b";")[0].strip().lower() != JSON:
            raise Refused(415, "this place wants application/json")
        content: Any = request.content
        try:
            asked = self._decoder.decode(content.read())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, str(error)) from None
        try:
            return msgspec.json.encode(self._runs.answer(asked))
        except NotPossible as error:  # As happens in a game.
            return msgspec.json.encode({"trouble": str(error)})


def check_names(request: Request) -> None:
    """Check that a request is meant for this site, and comes from its own page, if from any.

    A browser sends the name that the user went to. Another site may have its own name lead to this address (DNS
    rebinding); so a name that is not of this machine is refused.

    :raises Refused: if it is not.
    """
    port = request.getHost().port
    names = [f"{host}:{port}".encode() for host in ("127.0.0.1", "localhost")]
    if request.requestHeaders.getRawHeaders(b"host") not in [[one] for one in names]:
        raise Refused(403, "this is not the name of this site: go to the address that txpaxos play has printed")
    origin = request.getHeader(b"origin")
    if origin is not None and origin not in [b"http://" + one for one in names]:
        raise Refused(403, "this request comes from another site")


def new_site() -> Site:
    """The site, to listen with at a loopback address."""
    site = Site(Play(), requestFactory=BoundedRequest, timeout=60)
    site.displayTracebacks = False
    site.noisy = False
    return site


async def serve(reactor: Any, port: int, told: Callable[[str], object]) -> None:
    """Serve the site until it is cancelled.

    :param port: the port to listen at; 0 for any that is free.
    :param told: called with the address of the site, once it listens.
    """
    listening = reactor.listenTCP(port, new_site(), interface="127.0.0.1")
    try:
        told(f"http://127.0.0.1:{listening.getHost().port}/")
        await Deferred()
    finally:
        await listening.stopListening()
