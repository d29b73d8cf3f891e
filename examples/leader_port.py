"""A port that one machine of several listens on; the others know where it is.

    twistd paxos --app txpaxos.recipes:Coordinator --cluster cluster.toml --node a     (and the other nodes)
    python examples/leader_port.py cluster.toml 127.0.0.1 8007                         (on each machine)

Who leads answers each line with its term. The others say who leads whenever that changes.
"""

from __future__ import annotations

import sys

from twisted.application.internet import StreamServerEndpointService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from txpaxos import Client, Cluster, watch
from txpaxos.recipes import Hold, LeaderService, Recipes
from txpaxos.recipes.replicated.permits import Permits


class Answer(LineReceiver):
    def __init__(self, lead: Hold) -> None:
        self.lead = lead

    def lineReceived(self, line: bytes) -> None:
        if self.lead.still_held():  # By our clock; what must be safe sends the token along.
            self.sendLine(b"term %d: %s" % (self.lead.token, line))


def main(file: str, host: str, port: str) -> None:
    client = Client(reactor, Cluster.load(file).resolve())

    def listening(lead: Hold) -> StreamServerEndpointService:
        endpoint = TCP4ServerEndpoint(reactor, int(port), interface=host)
        return StreamServerEndpointService(endpoint, Factory.forProtocol(lambda: Answer(lead)))

    async def follow() -> None:
        async for leader in watch(client.service(Permits).holder, "port"):
            print(f"{leader.value} leads" if leader else "there is no leader", flush=True)

    service = LeaderService(Recipes(client, reactor), "port", listening, value=f"{host}:{port}")
    reactor.callWhenRunning(service.startService)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(follow()).addErrback(lambda _: None))
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.addSystemEventTrigger("during", "shutdown", client.close)
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
