"""A node in a program of one's own: how it starts, says that it is ready, and ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, formatEvent

from test.helpers.fakes import error_of, free_ports, outcome_of
from test.helpers.fakes import logged as logged_while
from test.service.services import Bank, NotEnough, Refused
from test.storage.test_membership import JOINED
from txpaxos import Client, Cluster, ConfigError, NodeStopped, PaxosService, ServedNode, Settings, StoreError, Timing
from txpaxos.cluster import Address, Member
from txpaxos.counter import Counter
from txpaxos.node.events import CommandReached, Event
from txpaxos.server.membership import FolderMembership, addresses_of
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import MembershipFile, joined_folder
from txpaxos.wire.members import AddMember, RemoveMember

SECONDS = 20.0


def cluster_of(names: str) -> Cluster:
    ports = iter(free_ports(2 * len(names)))
    members = {name: Member(*(Address("127.0.0.1", next(ports)) for _ in range(2))) for name in names}
    return Cluster("own", members)


async def answered(deferred: Any) -> Any:
    return await deferred.addTimeout(SECONDS, reactor)


async def test_three_lines(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(cluster_of("a").dumps())
    served = ServedNode(Counter, "a", tmp_path / "cluster.toml", tmp_path / "data")
    served.start()
    counter = await answered(served.ready())
    assert isinstance(counter, Counter)
    assert counter is served.application
    assert await answered(counter.submit(b"+5", deadline_seconds=SECONDS)) == 5
    assert (await answered(counter.read(b"", deadline_seconds=SECONDS))).result == 5
    assert await answered(served.ready()) is counter
    await answered(served.stop())


async def test_observers_see_each_step(tmp_path: Path) -> None:
    events: list[Event] = []
    numbers: list[int] = []
    observers = (events.append, lambda _: numbers.append(len(events)))
    served = ServedNode(Counter, "a", cluster_of("a"), tmp_path, observers=observers)
    served.start()
    counter = await answered(served.ready())
    await answered(counter.submit(b"+5", deadline_seconds=SECONDS))
    assert [event.command for event in events if isinstance(event, CommandReached)] == [b"+5"]
    assert numbers == [*range(1, len(events) + 1)]
    await answered(served.stop())


async def test_a_typed_service_in_three_lines_and_its_client(tmp_path: Path) -> None:
    cluster = cluster_of("a")
    served = ServedNode(Bank, "a", cluster, tmp_path / "data")
    served.start()
    application = await answered(served.ready())
    client = Client(reactor, cluster)
    bank = client.service(Bank, deadline_seconds=SECONDS)
    assert await bank.deposit("ann", 5) == 5
    assert await application.service(Bank).deposit("ann") == 6
    assert await bank.of_all(above=5) == {"ann": 6}
    with pytest.raises(NotEnough) as caught:
        await bank.fail("not enough")
    assert (caught.value.account, caught.value.missing) == ("ann", 5)
    with pytest.raises(Refused):
        await bank.of_all(above=-1)
    client.close()
    await answered(served.stop())


async def test_it_is_ready_when_a_leader_is_known(tmp_path: Path) -> None:
    cluster, settings = cluster_of("abc"), Settings(timing=Timing(heartbeat_seconds=0.05))
    nodes = [ServedNode(Counter, name, cluster, tmp_path / name, settings) for name in "abc"]
    nodes[0].start()
    ready = outcome_of(nodes[0].ready())
    await deferLater(reactor, 0.05)
    assert ready == []
    for node in nodes[1:]:
        node.start()
    counters = [await answered(node.ready()) for node in nodes]
    assert {counter.leader for counter in counters} <= {"a", "b", "c"}
    assert ready == [counters[0]]
    assert await answered(counters[2].submit(b"+1", SECONDS)) == 1
    for node in nodes:
        await answered(node.stop())


async def test_it_does_not_become_ready_any_more(tmp_path: Path) -> None:
    served = ServedNode(Counter, "a", cluster_of("abc"), tmp_path)
    error = error_of(served.ready())
    assert isinstance(error, NodeStopped)
    assert str(error) == "node a does not run"
    with pytest.raises(NodeStopped, match="node a was not started"):
        _ = served.application
    served.start()
    waiting, cancelled = outcome_of(served.ready()), served.ready()
    given_up = outcome_of(cancelled)
    cancelled.cancel()
    assert len(given_up) == 1
    await answered(served.stop())
    assert waiting[0].check(NodeStopped)
    assert isinstance(error_of(served.ready()), NodeStopped)


async def test_it_gives_up_before_it_is_ready(tmp_path: Path) -> None:
    told: list[Any] = []
    served = ServedNode(Counter, "a", cluster_of("abc"), tmp_path, gave_up=told.append)
    served.start()
    waiting = outcome_of(served.ready())
    logged_while(lambda: served.node.give_up(StoreError("its disk is gone")))
    await deferLater(reactor, 0.05)
    assert waiting[0].check(NodeStopped)
    assert [str(failure.value) for failure in told] == ["its disk is gone"]


async def test_an_object_is_started_once(tmp_path: Path) -> None:
    cluster, counter = cluster_of("a"), Counter()
    served = ServedNode(counter, "a", cluster, tmp_path)
    served.start()
    assert await answered(served.ready()) is counter
    await answered(served.stop())
    with pytest.raises(ConfigError, match="this Counter has a node already"):
        ServedNode(counter, "a", cluster, tmp_path).start()
    again = ServedNode(Counter, "a", cluster, tmp_path)  # Nothing is locked, and no port is open.
    again.start()
    await answered(again.stop())


async def test_the_folder_says_who_founded_the_cluster_once_members_have_changed(tmp_path: Path) -> None:
    """The cluster file may be edited then. It says only where the node listens."""
    cluster = cluster_of("a")
    served = ServedNode(Counter, "a", cluster, tmp_path)
    served.start()
    incarnation = served.node._store.incarnation
    await answered(served.stop())
    members = addresses_of(cluster.members)
    FolderMembership(Disk(), str(tmp_path)).note_members("a", incarnation, cluster, members, 7)
    edited = Cluster("own", {**cluster.members, **{f"{name}2": one for name, one in cluster_of("a").members.items()}})
    served = ServedNode(Counter, "a", edited, tmp_path)
    (event,) = [
        one for one in logged_while(served.start, LogLevel.info) if "as the data folder says" in str(one["log_format"])
    ]
    assert formatEvent(event) == "the cluster file has the nodes a, a2; the members are a, as the data folder says"
    assert served.node.cluster.founding_members == ("a",)
    assert await answered((await answered(served.ready())).submit(b"+5", SECONDS)) == 5
    await answered(served.stop())


async def test_members_that_change_are_noted_in_the_folder(tmp_path: Path) -> None:
    cluster = cluster_of("a")
    served = ServedNode(Counter, "a", cluster, tmp_path)
    served.start()
    await answered(served.ready())
    assert joined_folder(Disk(), str(tmp_path)) is None
    add = AddMember("d", "127.0.0.1:1", "127.0.0.1:2", 5, "learner")
    slot, _ = await answered(served.node.change_members(add))
    saved = joined_folder(Disk(), str(tmp_path))
    assert saved is not None
    assert (saved.slot, list(saved.members), list(saved.founding)) == (slot, ["a", "d"], ["a"])
    (tmp_path / "membership").unlink()
    (tmp_path / "membership").mkdir()
    await answered(served.node.change_members(RemoveMember("d")))  # That it cannot be noted ends no node.
    assert await answered(served.application.submit(b"+5", SECONDS)) == 5
    await answered(served.stop())


async def test_a_folder_of_another_node_that_has_joined(tmp_path: Path) -> None:
    MembershipFile(Disk(), str(tmp_path)).write(JOINED)
    with pytest.raises(StoreError, match="belongs to node 'd~2' of cluster 'town', not to node 'a' of cluster 'own'"):
        ServedNode(Counter, "a", cluster_of("a"), tmp_path).start()


async def test_a_second_start_leaves_the_node_alone(tmp_path: Path) -> None:
    service = PaxosService(Counter, "a", cluster_of("a"), tmp_path)
    service.startService()
    with pytest.raises(ConfigError, match="node a runs already: stop it before you start it again"):
        service.startService()
    assert service.running
    assert await answered((await answered(service.ready())).submit(b"+5", SECONDS)) == 5
    await answered(service.stopService())


class Leaver(Counter):
    """Stops its node at each command."""

    def apply(self, slot: int, command: bytes) -> int:
        self.stop()
        return super().apply(slot, command)


async def test_an_application_that_stops_its_node_while_the_log_is_applied_again(tmp_path: Path) -> None:
    cluster, told = cluster_of("a"), []
    for app in (Counter, Leaver):
        service = PaxosService(app, "a", cluster, tmp_path, stopped=lambda: told.append("stopped"))
        service.startService()
        if app is Counter:
            counter = await answered(service.ready())
            for _ in range(3):
                await answered(counter.submit(b"+5", SECONDS))
            await answered(service.stopService())
    assert told == ["stopped"]
    assert not service.running
    await deferLater(reactor, 0.05)
    again = PaxosService(Counter, "a", cluster, tmp_path)  # Its ports and its folder are free.
    again.startService()
    assert (await answered((await answered(again.ready())).read(b"", deadline_seconds=SECONDS))).result == 15
    await answered(again.stopService())


async def test_a_wait_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    served = ServedNode(Counter, "a", cluster_of("abc"), tmp_path)
    served.start()
    for _ in range(3):
        waiting = served.ready()
        waiting.addErrback(lambda _: None)
        waiting.cancel()
    assert served._waiting == []
    await answered(served.stop())


def test_a_reactor_that_is_there_already(tmp_path: Path) -> None:
    program = """
import asyncio
from twisted.internet import reactor
from txpaxos.asyncio_reactor import asyncio_reactor

async def main():
    async with asyncio_reactor():
        pass

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: Twisted has its reactor already: enter asyncio_")


def test_a_cluster_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        ServedNode(Counter, "a", tmp_path / "missing.toml", tmp_path)


PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from txpaxos import PaxosService
from txpaxos.counter import Counter

seconds = reactor.seconds
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
service = PaxosService(Counter, "a", sys.argv[1], sys.argv[2])
service.startService()
assert reactor.seconds == seconds

def ready(counter):
    print("ready", counter.leader)
    {end}

service.ready().addCallback(ready)
reactor.run()
print("running", service.running)
"""


@pytest.mark.parametrize("end", ["reactor.stop()", "service.stopService().addCallback(lambda _: reactor.stop())"])
def test_a_program_ends_in_order(tmp_path: Path, end: str) -> None:
    (tmp_path / "cluster.toml").write_text(cluster_of("a").dumps())
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", PROGRAM.replace("{end}", end)]
    for _ in range(2):  # Again, with what was saved.
        done = subprocess.run(
            [*command, str(tmp_path / "cluster.toml"), str(tmp_path / "data")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "ready a" in done.stdout
        assert "gives up" not in done.stdout
        assert "#critical" not in done.stdout
        assert "#warn" not in done.stdout
