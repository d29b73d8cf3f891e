"""The live page: its files, and the stream of what it shows (server-sent events).

A reader gets the whole view at once, and again each second, or sooner when the leader has changed. A reader that does
not read is left out until it has read, and is disconnected if that takes too long: nothing is kept for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from txpaxos.clock import MonotonicClock
from txpaxos.node.counts import Count, Counts
from txpaxos.server.companion import Surroundings
from txpaxos.status_port.channel import StatusRequest
from txpaxos.status_port.pages import Page

READERS_MAX = 32
"""How many may read the stream at a time."""
LOOK_SECONDS = 0.25
"""How often the node is looked at, while there are readers."""
TELL_SECONDS = 1.0
"""How often the view is sent if its leader is the same."""
PAUSED_SECONDS_MAX = 10.0
"""How long a reader may not read."""

STREAM = b"text/event-stream"

FILES = {
    b"/": ("index.html", b"text/html; charset=utf-8"),
    b"/status.css": ("status.css", b"text/css; charset=utf-8"),
    b"/status.js": ("status.js", b"text/javascript; charset=utf-8"),
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
    b" form-action 'none'; frame-ancestors 'none'"
)


def file_pages() -> Mapping[bytes, Page]:
    """The files of the page, by their paths."""
    folder = files("txpaxos.status_port") / "page"
    return {path: _file_page((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}


def _file_page(body: bytes, kind: bytes) -> Page:
    def page(at: Surroundings, request: StatusRequest) -> bytes:
        request.setHeader(b"content-type", kind)
        request.setHeader(b"content-security-policy", POLICY)
        return body

    return page


@implementer(IPushProducer)
class _Reader:
    """One reader of the stream.

    :ivar paused_at: since when it does not read, in monotonic seconds; ``None`` while it reads.
    """

    def __init__(self, request: StatusRequest, clock: MonotonicClock) -> None:
        self.request = request
        self.paused_at: float | None = None
        self._clock = clock

    def pauseProducing(self) -> None:
        """What was sent is not read yet."""
        if self.paused_at is None:
            self.paused_at = self._clock.seconds()

    def resumeProducing(self) -> None:
        """It was read."""
        self.paused_at = None

    def stopProducing(self) -> None:
        """The connection is gone."""


class Live:
    """The stream.

    :param clock: the timers of the node.
    :param view: what is shown, as plain data. Its ``leader`` says when to send it at once.
    :param counters: those of the node.
    """

    def __init__(self, clock: MonotonicClock, view: Callable[[], dict[str, Any]], counters: Counts) -> None:
        self._clock = clock
        self._view = view
        self._counters = counters
        self._readers: dict[_Reader, None] = {}
        self._call: IDelayedCall | None = None
        self._told_at = 0.0
        self._told: object = None

    def __len__(self) -> int:
        return len(self._readers)

    def page(self, at: Surroundings, request: StatusRequest) -> bytes | None:
        """Begin to send to one more reader."""
        if request.method == b"HEAD":
            request.setHeader(b"content-type", STREAM)
            request.finish()  # It would take a reader's place, and nothing would ever be sent that shows it is gone.
            return None
        if len(self._readers) >= READERS_MAX:
            self._counters[Count.TOO_MANY_STATUS_CONNECTIONS] += 1
            request.setResponseCode(503)
            request.setHeader(b"content-type", b"text/plain; charset=utf-8")
            return b"%d pages show this node already: close one\n" % READERS_MAX
        request.setHeader(b"content-type", STREAM)
        reader = _Reader(request, self._clock)
        self._readers[reader] = None
        request.notifyFinish().addBoth(lambda _: self._readers.pop(reader, None))
        request.registerProducer(reader, True)
        request.write(_event(self._view()))
        if self._call is None:
            self._call = self._clock.callLater(LOOK_SECONDS, self._look)
        return None

    def stop(self) -> None:
        """Send no more. It may be called again."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        """Look at the node, and tell the readers if a second has passed or the leader has changed."""
        self._call = self._clock.callLater(LOOK_SECONDS, self._look) if self._readers else None
        if not self._readers:
            return
        now, view = self._clock.seconds(), self._view()
        news = view["leader"], view["headline"]
        if now < self._told_at + TELL_SECONDS and news == self._told:
            return
        self._told_at, self._told = now, news
        data = _event(view)
        for reader in [*self._readers]:
            if reader.paused_at is None:
                reader.request.write(data)
            elif now > reader.paused_at + PAUSED_SECONDS_MAX:
                del self._readers[reader]
                reader.request.channel.abort()


def _event(view: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(view, separators=(",", ":")).encode() + b"\n\n"
