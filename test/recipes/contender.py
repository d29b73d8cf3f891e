"""A program that contends for a lead, for the fail-overs of ``test_fail_overs_real.py``.

    python -m test.recipes.contender cluster.toml NAME TTL_SECONDS RESOURCE

Its child says when it starts and stops, by the clock that all processes of a machine share. Meanwhile it writes to
the file ``RESOURCE`` every few milliseconds. That file has a fence: no token is written after a higher one.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from txpaxos import Client, Cluster
from txpaxos.recipes import Fence, Fenced, Hold, LeaderService, Recipes

LEAD = "job"
WRITE_SECONDS = 0.005
RECORD_BYTES = 20


def say(what: str, token: int) -> None:
    os.write(1, b"%s %d %d\n" % (what.encode(), token, time.monotonic_ns()))


def write(resource: str, token: int) -> None:
    """Write the token as a record of its own, in one step with the check.

    :raises Fenced: if there is a higher one.
    """
    with open(resource, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - RECORD_BYTES))
        Fence(last=int(file.read() or b"0")).check(token)
        file.write(b"%0*d\n" % (RECORD_BYTES - 1, token))


class Child(Service):
    """Writes, from its start to its stop."""

    def __init__(self, lead: Hold, resource: str) -> None:
        self.lead = lead
        self.resource = resource
        self.loop = LoopingCall(self.write)

    def startService(self) -> None:
        say("start", self.lead.token)
        super().startService()
        self.loop.start(WRITE_SECONDS)

    def stopService(self) -> None:
        super().stopService()
        if self.loop.running:
            self.loop.stop()
        say("stop", self.lead.token)

    def write(self) -> None:
        """Write without asking whether the lead is still held: only the fence can refuse."""
        try:
            write(self.resource, self.lead.token)
        except Fenced:
            say("refused", self.lead.token)


def main(file: str, name: str, ttl_seconds: str, resource: str) -> None:
    client = Client(reactor, Cluster.load(file).resolve())
    service = LeaderService(
        Recipes(client, reactor), LEAD, lambda lead: Child(lead, resource), ttl_seconds=float(ttl_seconds), value=name
    )
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.addSystemEventTrigger("during", "shutdown", client.close)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
