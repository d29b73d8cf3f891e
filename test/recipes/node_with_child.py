"""A node of a cluster, and beside it a service whose child comes to the node that leads, for ``test_near_leader_real``.

    python -m test.recipes.node_with_child cluster.toml NODE SETTLED_SECONDS

Its child says when it starts and stops, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import os
import sys
import time

from twisted.application.service import Service
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from txpaxos import Client, Cluster, ServedNode
from txpaxos.recipes import Coordinator, Hold, LeaderService, Recipes, near_leader


class Child(Service):
    def __init__(self, lead: Hold) -> None:
        self.lead = lead

    def say(self, what: str) -> None:
        os.write(1, b"%s %d %d\n" % (what.encode(), self.lead.token, time.monotonic_ns()))

    def startService(self) -> None:
        super().startService()
        self.say("start")

    def stopService(self) -> None:
        super().stopService()
        self.say("stop")


def main(file: str, name: str, settled_seconds: str) -> None:
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    near_leader.SETTLED_SECONDS = float(settled_seconds)
    cluster = Cluster.load(file).resolve()
    node = ServedNode(Coordinator, name, cluster, f"data-{name}")
    client = Client(reactor, cluster)
    service = LeaderService(Recipes(client, reactor), "job", Child, near_leader=node.leads)

    def start() -> None:
        node.start()
        service.startService()

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
