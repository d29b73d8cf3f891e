"""A web service that keeps its state on several machines: each process is a web server and a node of the cluster.

    python examples/web_counter.py cluster.toml a 8001
    curl -d 5 http://127.0.0.1:8001/
    curl http://127.0.0.1:8001/

A POST adds the number in its body, at any of the processes. Its answer is the total, once a majority of the cluster has
the addition on disk. A GET tells the total, with everything in it that was answered before; ``/local`` tells what this
node knows, without asking the others. When no majority answers in time, the answer is 503 with the error's name.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txpaxos import CommandFailed, PaxosError, PaxosProtocol, ServedNode

ANSWER_SECONDS = 5.0
BODY_BYTES_MAX = 100


class Counter(PaxosProtocol):
    """The replicated part: knows nothing of the web."""

    state_fields = ("total",)

    def __init__(self) -> None:
        self.total: int = 0

    def apply(self, slot: int, command: bytes) -> int:
        self.total += int(command)
        return self.total

    def query(self, query: bytes) -> int:
        return self.total


class CounterResource(Resource):
    """The web part: asks the counter on this node."""

    isLeaf = True

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def render_POST(self, request: Request) -> Any:
        assert request.content is not None
        body = request.content.read(BODY_BYTES_MAX + 1)
        if len(body) > BODY_BYTES_MAX:
            request.setResponseCode(413)
            return b"a number has fewer digits\n"
        return self._answer(request, self._counter.submit(body, ANSWER_SECONDS))

    def render_GET(self, request: Request) -> Any:
        consistency: Any = "local" if request.path == b"/local" else "linearizable"
        reading = self._counter.read(b"", consistency, ANSWER_SECONDS)
        return self._answer(request, reading.addCallback(lambda reading: reading.result))

    def _answer(self, request: Request, total: Deferred[int]) -> int:
        gone = request.notifyFinish().addErrback(lambda _: total.cancel())

        def told(result: int | Failure) -> None:
            gone.addErrback(lambda _: None)
            if isinstance(result, Failure):
                error = result.value
                request.setResponseCode(400 if isinstance(error, CommandFailed) else 503)
                result = f"{type(error).__name__}: {error}"  # type: ignore[assignment]
            if not request._disconnected:
                request.write(f"{result}\n".encode())
                request.finish()

        total.addBoth(told)
        return NOT_DONE_YET


def main(file: str, node: str, port: str) -> None:
    served = ServedNode(Counter, node, file, f"paxos-data-{node}", gave_up=lambda _: reactor.stop())
    served.start()
    site: Any = Site(CounterResource(served.application))
    reactor.listenTCP(int(port), site, interface="127.0.0.1")
    served.ready().addCallbacks(lambda _: print(f"node {node} is ready", flush=True), lambda _: None)
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdecimal():
        raise SystemExit(__doc__)
    try:
        main(*sys.argv[1:])
    except PaxosError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
