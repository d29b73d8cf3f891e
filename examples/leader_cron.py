"""A job that one machine of several runs, every few seconds.

    twistd paxos --app txpaxos.recipes:Coordinator --cluster cluster.toml --node a     (and the other nodes)
    python examples/leader_cron.py cluster.toml 10                                     (on each machine)

One of these programs runs the job. When it is stopped, the next one does at once; when it is lost, after ten seconds.
"""

from __future__ import annotations

import sys

from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from txpaxos import Client, Cluster
from txpaxos.recipes import Hold, LeaderService, Recipes


class Cron(Service):
    """The job, from the beginning of a term to its end."""

    def __init__(self, lead: Hold, seconds: float) -> None:
        self.lead = lead
        self.seconds = seconds
        self.loop = LoopingCall(self.run)

    def startService(self) -> None:
        super().startService()
        self.loop.start(self.seconds)

    def stopService(self) -> None:
        super().stopService()
        if self.loop.running:
            self.loop.stop()

    def run(self) -> None:
        # What the job writes to should see the token, and refuse a lower one than the highest that it has seen.
        print(f"the report of term {self.lead.token}", flush=True)


def main(file: str, seconds: str) -> None:
    client = Client(reactor, Cluster.load(file).resolve())
    service = LeaderService(Recipes(client, reactor), "cron", lambda lead: Cron(lead, float(seconds)))
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.addSystemEventTrigger("during", "shutdown", client.close)
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
