"""Leaders killed: how long no client is served, ours and etcd's, and what clients see of it under load."""

from __future__ import annotations

import json
import statistics
from base64 import b64encode
from collections.abc import Sequence
from contextlib import closing
from io import BytesIO
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.web.client import Agent, FileBodyProducer, readBody

from bench.etcd import KEY, Etcd
from bench.failover import fail_over
from bench.loop import Loaded, put_command
from bench.ours import Nodes, Ours
from bench.report import Report, at_most
from bench.setting import Setting, running
from bench.system import START_SECONDS_MAX, Load
from txpaxos.cli.printing import table
from txpaxos.cli.running import together
from txpaxos.cli.status import leader_of
from txpaxos.client import Client

KILLS = 20
RATIO_TARGET = 0.25
ASK_SECONDS = 0.005
"""How often a put is sent to each of etcd's survivors, until one is answered."""

PUT = put_command("key", b"v")
KILL_OUTSTANDING = 64
KILL_SECONDS = 10.0


async def fail_overs(setting: Setting, kills: int = KILLS) -> Report:
    """Kill the leader ``kills`` times, ours and etcd's in turn. Measured are the seconds until the next put that was
    sent after that is acknowledged."""
    seconds: dict[str, list[float]] = {}
    ours = Ours(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours")))
    etcd = Etcd(setting.reactor, setting.new_folder("etcd"))
    systems = [system for system in (ours, etcd) if setting.has(system.name)]
    async with running(systems):
        for number in range(1, kills + 1):
            for system in systems:
                killed = await (kill_ours(setting, ours) if system is ours else kill_etcd(setting, etcd))
                seconds.setdefault(system.name, []).append(killed)
                setting.say(f"kill {number} of {kills}, {system.name}: {killed:.3f} s")
    rows = [(name, len(all_), _text(statistics.median(all_)), _text(max(all_))) for name, all_ in seconds.items()]
    medians = {name: statistics.median(all_) for name, all_ in seconds.items()}
    ratio = medians[Ours.name] / medians[Etcd.name] if len(medians) == 2 else None
    verdicts = [at_most("fail-over, median in etcd's", ratio, RATIO_TARGET)]
    return Report("fail-over", table(("system", "kills", "median s", "worst s"), rows), verdicts, seconds)


def _text(seconds: float) -> str:
    return f"{seconds:.3f}"


async def kill_ours(setting: Setting, ours: Ours) -> float:
    """One kill, and the dead node started again."""
    nodes = ours.nodes
    with closing(Client(setting.reactor, nodes.cluster)) as client:
        await client.submit(PUT)
        seconds = await fail_over(setting.reactor, nodes, client, ours.leader, PUT)
    nodes.start(ours.leader)
    statuses = await nodes.wait_until(nodes.is_level, f"{ours.leader}'s catch-up", START_SECONDS_MAX)
    ours.leader = leader_of(nodes.cluster, statuses) or ""
    return seconds


async def kill_etcd(setting: Setting, etcd: Etcd) -> float:
    """The same to etcd. Its clients lose nothing by waiting or by asking a node that cannot answer: every survivor is
    asked again and again, whatever became of what it was asked before."""
    reactor = setting.reactor
    killed = etcd.leader
    process = etcd.processes.pop(killed)
    process.signal("KILL")
    killed_at: float = reactor.seconds()
    await next_put_of_etcd(reactor, list(etcd.processes), etcd)
    seconds: float = reactor.seconds() - killed_at
    await process.wait()
    etcd.start_node(killed)
    await etcd.find_leader()
    return seconds


async def next_put_of_etcd(reactor: Any, nodes: Sequence[str], etcd: Etcd) -> None:
    """Ask ``nodes`` again and again until one has done a put."""
    urls = [f"{etcd.url(node)}/v3/kv/put".encode() for node in nodes]
    answered: Deferred[None] = Deferred()
    agent = Agent(reactor, connectTimeout=1.0)
    body = json.dumps({"key": b64encode(KEY).decode(), "value": b64encode(b"v").decode()}).encode()

    async def put(url: bytes) -> None:
        response = await agent.request(b"POST", url, bodyProducer=FileBodyProducer(BytesIO(body)))
        await readBody(response)
        if response.code == 200 and not answered.called:
            answered.callback(None)

    def ask_all() -> None:
        for url in urls:
            Deferred.fromCoroutine(put(url)).addErrback(lambda _: None)

    asking = LoopingCall(ask_all)
    asking.start(ASK_SECONDS)
    try:
        await answered.addTimeout(START_SECONDS_MAX, reactor)
    finally:
        asking.stop()


async def kill_under_load(setting: Setting) -> Report:
    """Kill our leader in the middle of a closed loop. Every put is answered in the end, and done once."""
    if not setting.has(Ours.name):
        return Report("leader killed under load", "not measured", [], {})
    load = Load(KILL_OUTSTANDING, KILL_SECONDS)
    ours = Ours(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours")))

    async def kill() -> None:
        await deferLater(setting.reactor, load.warm_up_seconds + load.seconds / 2)
        await ours.nodes.kill(ours.leader)

    loaded: Loaded
    async with running([ours]):
        loaded, _ = await together(ours.load(load), kill())  # type: ignore[assignment]
    half = len(loaded.answered) // 2
    before, after = (statistics.median(one) for one in (loaded.answered[1:half], loaded.answered[half + 2 :]))
    rows = [
        ("puts/s before the kill", f"{before:.0f}"),
        ("puts/s after it, with a node less", f"{after:.0f}"),
        ("longest time without an answer, s", f"{loaded.longest_gap_seconds:.3f}"),
        ("puts answered, each done once", loaded.answered_total),
    ]
    return Report("leader killed under load", table(("what", ""), rows), [], attrs.asdict(loaded))
