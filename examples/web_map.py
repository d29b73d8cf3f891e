"""A web service that keeps texts on several machines. It refuses a change of what another has changed meanwhile:

    twistd -n paxos --app txpaxos.recipes:Coordinator --cluster cluster.toml --node a
    python examples/web_map.py cluster.toml 8001
    curl -X PUT -H 'If-Match: 0' -d hello http://127.0.0.1:8001/greeting

The answer to a PUT is the version that the text has now, for the next ``If-Match``.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txpaxos import Client, Cluster, PaxosError, ServiceError
from txpaxos.recipes import Map, Recipes, VersionMismatch


class Texts(Resource):
    isLeaf = True

    def __init__(self, texts: Map[str]) -> None:
        super().__init__()
        self._texts = texts

    def render(self, request: Request) -> int:
        answering = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        try:
            status, text = await self._result(request, request.uri[1:].decode())
        except (PaxosError, ServiceError, TypeError, ValueError) as error:
            wrong = 400 if isinstance(error, TypeError | ValueError) else 503
            status, text = 412 if isinstance(error, VersionMismatch) else wrong, str(error)
        request.setResponseCode(status)
        request.write(f"{text}\n".encode())
        request.finish()

    async def _result(self, request: Request, key: str) -> tuple[int, str]:
        version, body = request.getHeader("if-match"), request.content
        expected = None if version is None else int(version)
        if request.method == b"PUT" and body is not None:
            return 200, str(await self._texts.put(key, body.read(10**6).decode(), expected))
        entry = await self._texts.get(key)
        return (404, "there is none") if entry is None else (200, entry.value)


if __name__ == "__main__":
    recipes = Recipes(Client(reactor, Cluster.load(sys.argv[1]).resolve()), reactor, deadline_seconds=5.0)
    site: Any = Site(Texts(recipes.map("texts", str)))
    reactor.listenTCP(int(sys.argv[2]), site, interface="127.0.0.1")
    reactor.run()
