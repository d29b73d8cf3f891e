"""One node of ours, as ``twistd paxos`` runs it, that also does what a benchmark asks of it and users do not.

    python -m bench.node [--sync-seconds 0.005] [--trace FILE] [--profile FILE] -- OPTIONS OF TWISTD PAXOS

It puts to itself, in its own process, when asked to on its standard input (see :mod:`bench.asking`); it can have a slow
disk; it can record its system calls, and profile itself. It ends when its standard input does.
"""

from __future__ import annotations

import cProfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import click
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from bench.asking import Question, answer
from bench.loop import Loaded, Loop, commands_for
from bench.trace import Trace
from txpaxos.cli.running import run
from txpaxos.node.node import Node
from txpaxos.server.service import PaxosService
from txpaxos.storage.disk import Disk
from txpaxos.tap import Options, makeService


class SlowDisk(Disk):
    """A disk whose every sync takes ``sync_seconds`` longer. The thread that syncs waits, as for a slow disk.

    :ivar syncs: how many there were, by kind.
    """

    def __init__(self, sync_seconds: float) -> None:
        self.syncs: Counter[str] = Counter()
        self._sync_seconds = sync_seconds

    def sync_data(self, handle: int) -> None:
        """Put a file's bytes on disk."""
        self.syncs["data"] += 1
        time.sleep(self._sync_seconds)
        super().sync_data(handle)

    def sync(self, handle: int) -> None:
        """Put a file's bytes and its size on disk."""
        self.syncs["all"] += 1
        time.sleep(self._sync_seconds)
        super().sync(handle)

    def sync_directory(self, path: str) -> None:
        """Put the names in a folder on disk."""
        self.syncs["directory"] += 1
        time.sleep(self._sync_seconds)
        super().sync_directory(path)


SAMPLE_SECONDS = 0.01


class Silences:
    """How long a node heard nothing from each other one: the longest, in seconds, to within :data:`SAMPLE_SECONDS`."""

    def __init__(self, reactor: Any, node: Node) -> None:
        self.longest: dict[str, float] = {}
        self._node = node
        self._sampling = LoopingCall(self._sample)
        self._sampling.clock = reactor

    def begin(self) -> None:
        """Begin anew."""
        self.longest.clear()
        if not self._sampling.running:
            self._sampling.start(SAMPLE_SECONDS)

    def end(self) -> None:
        """Look no more."""
        if self._sampling.running:
            self._sampling.stop()

    def _sample(self) -> None:
        for peer, seconds in self._node.status().heard.items():
            self.longest[peer] = max(self.longest.get(peer, 0.0), seconds or 0.0)


class Asked(LineOnlyReceiver):
    """Standard input: a question in each line."""

    delimiter = b"\n"

    def __init__(self, reactor: Any, service: PaxosService, disk: SlowDisk) -> None:
        self.ended: Deferred[None] = Deferred()
        self._reactor = reactor
        self._node = service.node
        self._silences = Silences(reactor, service.node)
        self._disk = disk

    def lineReceived(self, line: bytes) -> None:
        """A question."""
        question = msgspec.json.decode(line, type=Question)
        answered = Deferred.fromCoroutine(self._answer(question))
        answered.addCallback(answer, question).addErrback(lambda failure: answer(failure.getErrorMessage(), question))

    async def _answer(self, question: Question) -> Any:
        match question.about:
            case "put":
                assert question.load is not None
                commands = commands_for(question.load.value_bytes)
                loaded: Loaded = await Loop(self._reactor, [self._node.submit], commands, question.load).run()
                return attrs.asdict(loaded)
            case "begin":
                self._silences.begin()
                self._disk.syncs.clear()
                return {}
            case "end":
                self._silences.end()
                return {"silences": self._silences.longest, "syncs": self._disk.syncs}
        raise ValueError(f"this node knows nothing about {question.about}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Standard input ended."""
        self.ended.callback(None)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--sync-seconds", default=0.0, help="How much longer each sync takes.")
@click.option("--trace", "trace_file", type=click.Path(path_type=Path), help="Write there when which call was made.")
@click.option("--profile", "profile_file", type=click.Path(path_type=Path), help="Write there what cProfile saw.")
@click.argument("options", nargs=-1)
def main(sync_seconds: float, trace_file: Path | None, profile_file: Path | None, options: tuple[str, ...]) -> None:
    """See the top of this file."""
    parsed = Options()
    parsed.parseOptions(list(options))

    async def work(reactor: Any) -> None:
        trace = None if trace_file is None else Trace()
        disk = SlowDisk(sync_seconds)
        service = makeService(parsed, reactor, disk if sync_seconds else None)
        service.startService()
        asked = Asked(reactor, service, disk)
        StandardIO(asked, reactor=reactor)
        profile = cProfile.Profile()
        if profile_file is not None:
            profile.enable()
        try:
            await asked.ended
        finally:
            profile.disable()
            await service.stopService()
            if trace is not None and trace_file is not None:
                trace.write(trace_file)
            if profile_file is not None:
                profile.dump_stats(profile_file)

    run(work)


if __name__ == "__main__":
    main()
