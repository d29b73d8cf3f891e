"""Save before send, as the kernel saw it: real nodes under ``strace``, killed and restarted while they count."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.task import deferLater

from test.helpers.processes import NODES, STEP_SECONDS_MAX, Counting, has_caught_up, kill_all, running
from test.helpers.strace import examine, frames_of, read_calls, strace, why_not
from txpaxos.cli.local_cluster import POLL_SECONDS, LocalCluster
from txpaxos.cli.status import Statuses, leader_of
from txpaxos.client import Client
from txpaxos.core.messages import AcceptedSlot, Ballot, Heartbeat, PromiseLog, Vote
from txpaxos.core.ready import Promised, Record, Voted
from txpaxos.storage.store import DiskStore
from txpaxos.wire.codec import Codec
from txpaxos.wire.frames import DATAGRAM_BYTES_MAX, frame
from txpaxos.wire.peer_messages import PeerMessage

pytestmark = pytest.mark.timeout(180)

CODEC = Codec("test", "a", members="abc")
Traces: TypeAlias = dict[str, tuple[list[str], Path]]
"""Node to the lines of its trace, and its data folder."""


def text(data: bytes) -> str:
    """``data`` as ``strace -xx`` writes it."""
    return "".join(f"\\x{byte:02x}" for byte in data)


def start_of(message: PeerMessage) -> str:
    """What every message of that kind begins with, as ``strace -xx`` writes it."""
    return text(CODEC.encode(message)[:4])


# ------------------------------------------------------------------- real nodes

COMMAND_BYTES = DATAGRAM_BYTES_MAX
"""A promise that tells of a vote for a command of this length goes over a stream."""

PROMISE_ON_A_STREAM = re.compile(r"sendto\(\d+<TCP.*" + re.escape(start_of(PromiseLog(Ballot(1, "a"), 1))))
CLUSTER_KILLS_MAX = 8
"""After each there is an election, mostly one in which a node sends such a promise."""

EVERY_WAY = {
    ("PrepareLog", "datagram"),
    ("PromiseLog", "datagram"),
    ("PromiseLog", "stream"),
    ("AcceptedSlot", "datagram"),
}


class TracedCluster(LocalCluster):
    """Nodes whose system calls are written down, those of each process in a file of its own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._traces: defaultdict[str, list[tuple[Path, int]]] = defaultdict(list)

    def start(self, node: str) -> None:
        """Start a node that does not run."""
        super().start(node)
        self._traces[node].append((self._next_trace(node), self.processes[node].pid))

    def command(self, node: str) -> list[str]:
        """The program that is this node, and its arguments."""
        return strace(self._next_trace(node), *super().command(node))

    async def lines(self, node: str) -> list[str]:
        """All that was written of ``node``, whose processes have ended."""
        lines: list[str] = []
        give_up_at = self._reactor.seconds() + STEP_SECONDS_MAX
        for trace, pid in self._traces[node]:
            while not re.search(rf"^{pid} +\+\+\+ ", written := trace.read_text(), re.MULTILINE):
                assert self._reactor.seconds() < give_up_at, written[-500:]
                await deferLater(self._reactor, POLL_SECONDS)
            lines += written.splitlines()
        return lines

    def show(self, pattern: re.Pattern[str]) -> bool:
        """Whether the traces show a line like that."""
        return any(pattern.search(trace.read_text()) for traces in self._traces.values() for trace, _ in traces)

    def _next_trace(self, node: str) -> Path:
        return self.folder / f"{node}.{len(self._traces[node])}.strace"


async def disturbed(reactor: Any, nodes: TracedCluster) -> None:
    """Have the nodes decide subjects and count, and kill them meanwhile: first the leader, then all."""
    client = Client(reactor, nodes.cluster)
    for number in range(4):
        await client.ask(f"subject {number}", b"value").addTimeout(STEP_SECONDS_MAX, reactor)
    client.close()
    counting = Counting(reactor, nodes.cluster, COMMAND_BYTES)
    try:
        await counting.more(20)
        statuses = await nodes.wait_until(lambda found: led(nodes, found) is not None, "an election", STEP_SECONDS_MAX)
        leader = led(nodes, statuses)
        assert leader is not None
        await nodes.kill(leader)
        await counting.more(20)
        nodes.start(leader)
        await nodes.wait_until(lambda found: has_caught_up(found, leader), "its catch-up", STEP_SECONDS_MAX)
        await counting.more(20)
        for _ in range(CLUSTER_KILLS_MAX):
            await kill_all(nodes)
            for node in NODES:
                nodes.start(node)
            await counting.more(20)
            if nodes.show(PROMISE_ON_A_STREAM):
                break
        await counting.stop()
        await nodes.wait_until(nodes.is_level, "the last slot everywhere", STEP_SECONDS_MAX)
    finally:
        counting.close()


def led(nodes: LocalCluster, statuses: Statuses) -> str | None:
    return leader_of(nodes.cluster, statuses)


@pytest.fixture(scope="module")
def traceable() -> None:
    """Skip where nothing can be traced."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest_twisted.async_fixture(scope="module")  # type: ignore[untyped-decorator]
async def traces(traceable: None, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    from twisted.internet import reactor

    nodes = TracedCluster(reactor, "test", NODES, tmp_path_factory.mktemp("traced"))
    async with running(nodes):
        await disturbed(reactor, nodes)
    return {node: (await nodes.lines(node), nodes.folder / node) for node in NODES}


def test_nothing_leaves_before_it_is_saved(traces: Traces) -> None:
    checked: Counter[tuple[str, str]] = Counter()
    for node, (lines, folder) in traces.items():
        findings = examine(lines, folder, CODEC)
        assert findings.early == [], node
        assert findings.frames_missed == 0, node
        checked += findings.checked
    print(", ".join(f"{count} {kind} by {way}" for (kind, way), count in sorted(checked.items())))
    assert checked.keys() >= EVERY_WAY


def in_one_line(lines: list[str], number: int) -> list[str]:
    """The trace with the whole of a call in line ``number``, where its begin or its end is. A call is in two lines when
    other threads have made calls meanwhile."""
    thread, line = lines[number].split(maxsplit=1)
    begins, resumes = "<unfinished ...>", " resumed>"
    if line.endswith(begins):
        other = next(n for n in range(number + 1, len(lines)) if is_resumed(lines[n], thread))
        begun, resumed = line, lines[other]
    elif resumes in line.partition("(")[0]:
        other = next(
            n for n in range(number - 1, -1, -1) if lines[n].split()[0] == thread and lines[n].endswith(begins)
        )
        begun, resumed = lines[other].split(maxsplit=1)[1], lines[number]
    else:
        return lines
    whole = f"{thread} {begun.removesuffix(begins).rstrip()}{resumed.partition(resumes)[2]}"
    return [{number: whole, other: f"{thread} --- in line {number} ---"}.get(n, one) for n, one in enumerate(lines)]


def is_resumed(line: str, thread: str) -> bool:
    """Whether a line is the end of a call of ``thread`` that was in two lines."""
    return line.split()[0] == thread and line.split()[1] == "<..."


def test_a_call_in_two_lines_is_put_into_one() -> None:
    lines = ["1 fdatasync(3</a> <unfinished ...>", "2 getpid() = 2", "1 <... fdatasync resumed>) = 0", "1 getpid() = 1"]
    whole = "1 fdatasync(3</a>) = 0"
    assert in_one_line(lines, 0) == [whole, lines[1], "1 --- in line 0 ---", lines[3]]
    assert in_one_line(lines, 2) == ["1 --- in line 2 ---", lines[1], whole, lines[3]]
    assert in_one_line(lines, 1) is lines
    assert len(read_calls(in_one_line(lines, 2))) == len(read_calls(lines)) == 3


def test_trace_in_which_one_send_and_its_sync_have_changed_places(traces: Traces) -> None:
    """The first vote that a follower casts in a process rests on the sync before it, and on no other."""
    lines, folder = next(one for one in traces.values() if first_vote(one[0]) is not None)
    vote = first_vote(lines)
    assert vote is not None
    sync = max(number for number, line in enumerate(lines[:vote]) if "fdatasync" in line and line.endswith("= 0"))
    lines = in_one_line(in_one_line(list(lines), sync), vote)
    lines[sync], lines[vote] = lines[vote], lines[sync]
    early = examine(lines, folder, CODEC).early
    assert early
    assert early[0].startswith(f"line {sync}: AcceptedSlot")


def test_trace_in_which_every_sync_failed(traces: Traces) -> None:
    for lines, folder in traces.values():
        failed = [
            re.sub("= 0$", "= -1 EIO (Input/output error)", line) if "datasync" in line else line for line in lines
        ]
        findings = examine(failed, folder, CODEC)
        assert len(findings.early) > len(NODES)
        assert findings.frames_missed > 0


def first_vote(lines: list[str]) -> int | None:
    """The line in which a node first sends a vote to another."""
    vote = f'"{start_of(AcceptedSlot(Ballot(1, "a"), 1))}'
    return next((number for number, line in enumerate(lines) if "sendto" in line and vote in line), None)


# ------------------------------------------------------------- traces by hand

BALLOT = Ballot(1, "b")
VALUE = b"value"
UDP = "UDP:[127.0.0.1:4001]"
TCP = "TCP:[127.0.0.1:4001->127.0.0.1:50000]"


def sent(message: PeerMessage) -> str:
    data = CODEC.encode(message)
    return f'7 sendto(9<{UDP}>, "{text(data)}", {len(data)}, 0, NULL, 0) = {len(data)}'


def streamed(data: bytes) -> str:
    return f'7 sendto(9<{TCP}>, "{text(data)}", {len(data)}, 0, NULL, 0) = {len(data)}'


def written(path: Path, data: bytes, offset: int = 0) -> str:
    return f'8 pwrite64(5<{text(bytes(path))}>, "{text(data)}", {len(data)}, {offset}) = {len(data)}'


def synced(path: Path) -> str:
    return f"8 fsync(5<{text(bytes(path))}>) = 0"


def renamed(path: Path) -> str:
    return f'8 rename("{text(bytes(path) + b".new")}", "{text(bytes(path))}") = 0'


def saved(folder: Path, *records: Record) -> tuple[list[str], list[str], str]:
    """Save ``records`` in a new journal: the lines of its birth, those of each record's write, and that of a sync."""
    store = DiskStore(folder, "test", "a", sync_in_thread=False, segment_bytes=4096)
    store.load()
    for record in records:
        store.save([record])
    store.close()
    segment = folder / "journal" / "00000000.segment"
    writes = [written(segment, data, offset) for (_, offset), (data, _) in sorted(frames_of(folder).items())]
    return [renamed(segment), synced(segment.parent)], writes, synced(segment).replace("fsync", "fdatasync")


@pytest.mark.parametrize(
    ("order", "is_early"),
    [
        ("write sync vote", False),
        ("write vote sync", True),
        ("vote write sync", True),
        ("sync write vote", True),
        ("write sync-that-fails vote", True),
        ("write sync-begins sync-ends vote", False),
        ("write sync-begins vote sync-ends", True),
        ("sync-begins write sync-ends vote", True),
        ("write sync-begins killed vote", True),
        ("write killed-sync vote", True),
        ("write sync head tail", False),
        ("write head sync tail", True),
    ],
)
def test_vote_and_its_sync(tmp_path: Path, order: str, is_early: bool) -> None:
    vote = AcceptedSlot(BALLOT, 1)
    birth, (write,), sync = saved(tmp_path, Voted(BALLOT, 1, VALUE, 0))
    stream = frame(CODEC.encode(vote))
    lines = {
        "write": write.replace("8", "6", 1),  # In another thread, so that it fits into a sync.
        "sync": sync,
        "sync-that-fails": sync.replace("= 0", "= -1 EIO (Input/output error)"),
        "sync-begins": sync.replace(") = 0", " <unfinished ...>"),
        "sync-ends": "8 <... fdatasync resumed>) = 0",
        "killed-sync": sync.replace(") = 0", " <unfinished ...>) = ?"),
        "killed": "8 <... fdatasync resumed> <unfinished ...>) = ?",
        "vote": sent(vote),
        "head": streamed(stream[:9]),
        "tail": streamed(stream[9:]),
    }
    early = examine([*birth, *(lines[word] for word in order.split())], tmp_path, CODEC).early
    assert [one.partition(": ")[2] for one in early] == [
        f"{vote} left, and the promise in it was not on disk" for _ in range(is_early)
    ]


def test_promise_and_the_vote_that_it_tells_of(tmp_path: Path) -> None:
    promise = PromiseLog(BALLOT, 1, (), (Vote(1, BALLOT, VALUE),))
    birth, (promised, voted), sync = saved(tmp_path, Promised(BALLOT), Voted(BALLOT, 1, VALUE, 0))
    for lines, missing in (
        ([promised, sync, voted, sync], []),
        ([promised, sync, voted], ["a vote that it tells of"]),
        ([promised, voted], ["the promise"]),
    ):
        early = examine([*birth, *lines, sent(promise)], tmp_path, CODEC).early
        assert [one.partition(" left, and ")[2] for one in early] == [f"{one} was not on disk" for one in missing]


def test_vote_at_a_slot_that_is_chosen(tmp_path: Path) -> None:
    """An older vote will do where the node knows that its slot is chosen; only there."""
    higher = Ballot(2, "b")
    birth, writes, sync = saved(tmp_path, Voted(BALLOT, 1, VALUE, 0), Promised(higher), Voted(BALLOT, 2, VALUE, 1))
    heard = sent(Heartbeat(BALLOT, 1)).replace("sendto", "recvfrom")
    vote = sent(AcceptedSlot(higher, 1))
    two = [*birth, *writes[:2], sync]
    assert len(examine([*two, vote], tmp_path, CODEC).early) == 1
    assert examine([*two, heard, vote], tmp_path, CODEC).early == []
    assert examine([*two, writes[2], sync, vote], tmp_path, CODEC).early == []


def test_frame_that_the_trace_does_not_show(tmp_path: Path) -> None:
    birth, writes, sync = saved(tmp_path, Promised(BALLOT), Voted(BALLOT, 1, VALUE, 0))
    assert examine([*birth, writes[0], sync, writes[1], sync], tmp_path, CODEC).frames_missed == 0
    assert examine([*birth, writes[0], sync, writes[1]], tmp_path, CODEC).frames_missed == 1


@pytest.mark.parametrize(
    "line",
    [
        "gibberish",
        f'7 sendto(9<{UDP}>, "\\x97"..., 1, 0, NULL, 0) = 1',
        f'7 write(9<{UDP}>, "\\x97", 1) = 1',
    ],
)
def test_trace_that_cannot_be_followed(tmp_path: Path, line: str) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="line 0 of the trace"):
        examine([line], tmp_path, CODEC)
