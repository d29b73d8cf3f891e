"""Real nodes: killed, lied to, overfed and short of disk, as their users will see it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from test.helpers.processes import (
    NODES,
    STEP_SECONDS_MAX,
    Counting,
    Increment,
    has_caught_up,
    kill_all,
    running,
    totals_at_rest,
    verify,
)
from test.helpers.wire_samples import CLIENT_SAMPLES, PEER_SAMPLES, spoil
from txpaxos.cli.local_cluster import LocalCluster, free_members
from txpaxos.cli.status import Statuses, leader_of
from txpaxos.client import Client
from txpaxos.cluster import Address, Cluster
from txpaxos.core.messages import Ballot
from txpaxos.core.ready import Learned, Promised
from txpaxos.core.replica import NEWCOMER
from txpaxos.errors import PaxosError
from txpaxos.storage.journal import SEGMENT_BYTES
from txpaxos.storage.store import DiskStore
from txpaxos.wire.client_messages import ClientCodec
from txpaxos.wire.codec import Codec
from txpaxos.wire.commands import Run, encode_batch
from txpaxos.wire.frames import DATAGRAM_BYTES_MAX, frame

KILLS = int(os.environ.get("TXPAXOS_KILLS", "3"))
CLUSTER_KILLS = int(os.environ.get("TXPAXOS_CLUSTER_KILLS", "1"))
ENOUGH = 20
"""This many increments show that the cluster works."""

MEBIBYTE = 2**20

pytestmark = pytest.mark.timeout(120 + 20 * (KILLS + CLUSTER_KILLS))


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


# ----------------------------------------------------------------------- killed


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_no_increment_is_lost_or_doubled(reactor: Any, tmp_path: Path) -> None:
    nodes = LocalCluster(reactor, "test", NODES, tmp_path)
    leaders_killed = 0
    async with running(nodes):
        with closing(Counting(reactor, nodes.cluster)) as counting:
            for number in range(KILLS):
                node = NODES[number % len(NODES)]
                leaders_killed += node == await leader(nodes)
                await kill_under_way(counting, nodes.kill(node))
                await counting.more(ENOUGH)
                nodes.start(node)
                await nodes.wait_until(partial(has_caught_up, node=node), f"{node}'s catch-up", STEP_SECONDS_MAX)
            for _ in range(CLUSTER_KILLS):
                await kill_under_way(counting, kill_all(nodes))
                for node in NODES:
                    nodes.start(node)
            await counting.more(ENOUGH)
            await counting.stop()
        totals = await totals_at_rest(reactor, nodes)
    result = verify(counting.increments, totals, nodes)
    print(f"{KILLS} kills of a node ({leaders_killed} led), {CLUSTER_KILLS} of the whole cluster: {result}")
    assert not result.found


def test_proof_finds_what_is_wrong(tmp_path: Path) -> None:
    """The log holds +1, +2 (twice, sent again), +3 and +4; of +4 the client got no answer, +5 never arrived."""
    nodes, session = configure(tmp_path), bytes(8) + b"session!"
    amounts = (1, 2, 2, 3, 4)
    values = tuple(encode_batch([Run(session, amount, 0, (b"+%d" % amount,))]) for amount in amounts)
    for node in NODES:
        store = DiskStore(tmp_path / node, "test", node, sync_in_thread=False, segment_bytes=4096)
        store.load()
        store.save([Learned(1, values)])
        store.close()
    answers = {1: 1, 2: 3, 3: 6, 4: None, 5: None}
    totals = dict.fromkeys(NODES, 10)

    def found(totals: dict[str, int], answers: dict[int, int | None], sent: bool = True) -> str:
        increments = [Increment(session, amount, amount, total, sent) for amount, total in answers.items()]
        result = verify(increments, totals, nodes)
        assert (result.unanswered_in, result.unanswered_out) == (1, sum(not total for total in answers.values()) - 1)
        return str(result)

    assert found(totals, answers) == (
        "3 increments acknowledged, none lost, none doubled; of 2 never answered 1 were counted and 1 were not; the"
        " total on every node is 10"
    )
    assert found({**totals, "b": 12}, answers) == "node b has 12 and should have 10"  # +2 was counted twice
    assert found({**totals, "c": 6}, answers) == "node c has 6 and should have 10"
    assert "+6 was acknowledged as 16 and is None in the log" in found(totals, {**answers, 6: 16})
    assert "+3 was acknowledged as 7 and is 6 in the log" in found(totals, {**answers, 3: 7})
    assert "+4 was counted and never sent" in found(totals, answers, sent=False)
    assert "+3 after 1 was acknowledged as 6" in found(totals, {1: 1, 3: 6, 4: None})
    other = DiskStore(tmp_path / "c", "test", "c", sync_in_thread=False)
    other.load()
    other.save([Learned(6, values[:1]), Learned(7, (encode_batch([Run(session, 7, 0, (b"+7",))]),))])
    other.close()
    assert found(totals, answers) == "the log of node c is another"


async def leader(nodes: LocalCluster) -> str:
    """The node that leads, once one does."""
    led = partial(leader_of, nodes.cluster)
    statuses = await nodes.wait_until(lambda found: led(found) is not None, "an election", STEP_SECONDS_MAX)
    return led(statuses) or ""


async def count(reactor: Any, nodes: LocalCluster, more: int, command_bytes: int) -> list[Increment]:
    """Count until there are ``more``, and no longer."""
    with closing(Counting(reactor, nodes.cluster, command_bytes)) as counting:
        await counting.more(more)
        await counting.stop()
        return counting.increments


async def kill_under_way(counting: Counting, killing: Coroutine[Deferred[Any], Any, None]) -> None:
    """Kill while increments are under way. Of one of them, its client never learns what became of it."""
    await counting.more(ENOUGH)
    killed = Deferred.fromCoroutine(killing)
    counting.abandon()
    await killed


# ------------------------------------------------------------------ stopped


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_sigterm_ends_a_node_soon(reactor: Any, tmp_path: Path) -> None:
    """The leader under load, then the next one, and the last, which alone cannot finish what it has."""
    nodes = LocalCluster(reactor, "test", NODES, tmp_path)

    async def terminate(node: str) -> None:
        process = nodes.processes.pop(node)
        process.signal("TERM")
        await process.wait().addTimeout(5, reactor)
        assert nodes.last_line(node).endswith("Server Shut Down.")
        assert "Traceback" not in nodes.log(node).read_text()

    async with running(nodes):
        with closing(Counting(reactor, nodes.cluster)) as counting:
            for _ in range(2):
                await counting.more(ENOUGH)
                await terminate(await leader(nodes))
            (last,) = nodes.processes
            await nodes.wait_until(lambda found: is_busy(found[last]), "a command that waits", STEP_SECONDS_MAX)
            await terminate(last)
            for node in NODES:
                nodes.start(node)
            await counting.more(ENOUGH)
            await counting.stop()
        totals = await totals_at_rest(reactor, nodes)
    result = verify(counting.increments, totals, nodes)
    assert not result.found


def is_busy(status: dict[str, Any] | None) -> bool:
    return status is not None and status["waiting"] > 0


# ------------------------------------------------------------ big commands


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_commands_of_a_mebibyte(reactor: Any, tmp_path: Path) -> None:
    """They go over streams, and so does the catch-up of a node that was away meanwhile."""
    nodes = LocalCluster(reactor, "test", NODES, tmp_path)
    async with running(nodes):
        away = await leader(nodes)
        increments = await count(reactor, nodes, 4, MEBIBYTE)
        await nodes.kill(away)
        increments += await count(reactor, nodes, 4, MEBIBYTE)
        nodes.start(away)
        await nodes.wait_until(partial(has_caught_up, node=away), f"{away}'s catch-up", STEP_SECONDS_MAX)
        increments += await count(reactor, nodes, 4, MEBIBYTE)
        totals = await totals_at_rest(reactor, nodes)
    result = verify(increments, totals, nodes)
    assert not result.found
    assert all(journal_bytes(tmp_path / node) > 12 * MEBIBYTE for node in NODES)


def journal_bytes(folder: Path) -> int:
    """How many bytes of a journal are no zeros at its end."""
    return sum(len(path.read_bytes().rstrip(b"\0")) for path in folder.glob("journal/*.segment"))


# ---------------------------------------------------------------- diverged

MOODY = """
from pathlib import Path
from txpaxos.counter import Counter

class Moody(Counter):
    def apply(self, slot, command):
        if self.status().replica.node == "c" and not Path(__file__).with_name("corrected").exists():
            self.total += 1
        return super().apply(slot, command)
"""


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_diverged_node_stays_down_until_its_snapshots_are_moved_away(reactor: Any, tmp_path: Path) -> None:
    """Whatever starts it again by itself, it ends with the same line; then it takes the state from the others."""
    application = tmp_path / "moody.py"
    application.write_text(MOODY)
    nodes = LocalCluster(
        reactor, "test", NODES, tmp_path, ["--app", f"{application}:Moody", "--snapshot-log-bytes", "4096"]
    )
    async with running(nodes):
        with closing(Counting(reactor, nodes.cluster)) as counting:
            finding = r"the state differs at slot \d+: a, b against c; "
            for line in ("gives up: ", *["cannot start: .*/c/diverged says: "] * 2):
                process = nodes.processes.pop("c")
                await process.wait().addTimeout(STEP_SECONDS_MAX, reactor)
                assert process.exit_status == 1
                assert re.search(f"node c {line}{finding}", nodes.log("c").read_text())
                nodes.log("c").unlink()
                nodes.start("c")
            await nodes.processes["c"].wait()
            application.with_name("corrected").touch()
            (tmp_path / "c" / "snapshots").rename(tmp_path / "c" / "snapshots.discarded")
            nodes.start("c")
            await nodes.wait_until(partial(has_caught_up, node="c"), "c's catch-up", STEP_SECONDS_MAX)
            await counting.more(ENOUGH)
            await counting.stop()
        totals = await totals_at_rest(reactor, nodes)
    assert len(set(totals.values())) == 1
    assert not (tmp_path / "c" / "diverged").exists()


# ------------------------------------------------------------- cannot start


def configure(folder: Path, cluster: str = "test") -> LocalCluster:
    """Nodes that may be started one by one, or refuse to."""
    nodes = LocalCluster(None, cluster, NODES, folder)
    nodes.cluster = Cluster(cluster, dict(zip(NODES, free_members(len(NODES)), strict=True)))
    nodes.file.write_text(nodes.cluster.dumps())
    return nodes


def refusal(command: list[str]) -> str:
    """Run a node that cannot start. The line that says why: its last."""
    done = subprocess.run(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert "Unhandled" not in done.stdout
    assert done.stdout.count("cannot start") == 1
    return done.stdout.splitlines()[-1].partition("twistd paxos: ")[2]


@pytest.mark.parametrize(
    ("key", "kind"), [("address", socket.SOCK_DGRAM), ("address", socket.SOCK_STREAM), ("client", socket.SOCK_STREAM)]
)
def test_port_in_use(tmp_path: Path, key: str, kind: socket.SocketKind) -> None:
    nodes = configure(tmp_path)
    address: Address = getattr(nodes.cluster.members["a"], key)
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((address.host, address.port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        said = refusal(nodes.command("a"))
    assert said.startswith(f"node a cannot start: Couldn't listen on {address} (")
    assert "Address already in use" in said


def test_data_folder_of_another_process(tmp_path: Path) -> None:
    nodes, folder = configure(tmp_path), tmp_path / "a"
    store = DiskStore(folder, "test", "a", sync_in_thread=False)
    assert refusal(nodes.command("a")) == (
        f"node a cannot start: {folder} is in use by another process: stop it, or give this node a folder of its own"
    )
    store.load()
    store.save([Promised(Ballot(1, "a"))])
    store.close()
    of_b = [*nodes.command("b")[:-1], str(folder)]
    other = tmp_path / "other"
    other.mkdir()
    of_other = [*configure(other, "other").command("a")[:-1], str(folder)]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for command, node, cluster in ((of_b, "b", "test"), (of_other, "a", "other")):
        assert refusal(command) == (
            f"node {node} cannot start: {folder} belongs to node 'a' of cluster 'test', not to node '{node}' of cluster"
            f" '{cluster}': give each node a folder of its own, or correct the name; nothing was changed"
        )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    nodes = configure(tmp_path)
    folder = tmp_path / "a"
    folder.mkdir(0o500)
    command = nodes.command("a")
    if os.geteuid() == 0:  # Root may write everywhere, unless it gives that up.
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and setpriv, which takes that away, is not installed")
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    assert refusal(command) == (
        f"node a cannot start: cannot lock {folder}/lock: Permission denied; give the user that the node runs as access"
        f" to it, then start the node again"
    )


# ----------------------------------------------------------------- full disk


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of ``size`` bytes at ``folder``. Skips the test where none can be mounted."""
    folder.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("a small file system to fill needs root and the mount command")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "txpaxos-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def test_disk_that_is_full_at_the_start(tmp_path: Path) -> None:
    nodes = configure(tmp_path)
    folder = tmp_path / "a"
    with small_disk(folder, SEGMENT_BYTES // 2):
        assert refusal(nodes.command("a")) == (
            f"node a cannot start: cannot create the journal in {folder}/journal: No space left on device; free some"
            f" space on that disk, then start the node again"
        )


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_disk_that_is_full_later(reactor: Any, tmp_path: Path) -> None:
    """A node whose journal may not grow ends and says so; the others go on; with space again it catches up."""
    nodes = LocalCluster(reactor, "test", NODES, tmp_path, ["--snapshot-log-bytes", f"{2**40}"])  # The log stays whole.
    folder = tmp_path / "c"
    with small_disk(folder, 2 * SEGMENT_BYTES + MEBIBYTE):
        filler = folder / "filler"
        filler.write_bytes(bytes(2 * MEBIBYTE))
        async with running(nodes):
            process = nodes.processes["c"]
            with closing(Counting(reactor, nodes.cluster, MEBIBYTE)) as counting:
                await process.wait().addTimeout(STEP_SECONDS_MAX, reactor)
                del nodes.processes["c"]
                await counting.more(4)
                await counting.stop()
            assert process.exit_status == 1
            assert "Traceback" not in nodes.log("c").read_text()
            (said,) = re.findall("] (.* gives up: .*)", nodes.log("c").read_text())
            assert said == (
                f"node c gives up: cannot write {folder}/journal/00000001.segment: No space left on device; free some"
                f" space on that disk, then start the node again"
            )
            filler.unlink()
            nodes.start("c")
            await nodes.wait_until(partial(has_caught_up, node="c"), "c's catch-up", STEP_SECONDS_MAX)
            later = await count(reactor, nodes, 4, MEBIBYTE)
            totals = await totals_at_rest(reactor, nodes)
        result = verify(counting.increments + later, totals, nodes)
    assert not result.found


# ----------------------------------------------------------------- lied to

DATAGRAMS = 10_000
DATAGRAMS_AT_ONCE = 100
"""This many fit the smallest receive buffer that a kernel gives."""

FRAMES = 5_000
"""At each of the two ports."""

GROWTH_BYTES_MAX = 20_000_000


def rubbish(rng: Random, messages: list[bytes]) -> bytes:
    """Random bytes, or a spoiled message of the cluster itself."""
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(DATAGRAM_BYTES_MAX))
    message = rng.choice(messages)
    spoiled = spoil(rng, message)
    return spoiled if spoiled != message else b""


def send_frames(rng: Random, address: Address, messages: list[bytes], count: int) -> None:
    """Send each frame over a connection of its own, until the node closes it."""
    for _ in range(count):
        with socket.create_connection((address.host, address.port), timeout=STEP_SECONDS_MAX) as connection:
            connection.sendall(frame(rubbish(rng, messages)))
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass


def send_datagrams(rng: Random, address: Address, messages: list[bytes], count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(rubbish(rng, messages), (address.host, address.port))


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    (size,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(size) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc that tells a process's memory")
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_rubbish_at_both_ports(reactor: Any, tmp_path: Path) -> None:
    rng = Random(20)
    peers = [Codec("test", "b", 1).encode(sample) for sample in PEER_SAMPLES]
    clients = [ClientCodec("test").encode(sample) for sample in CLIENT_SAMPLES]
    nodes = LocalCluster(reactor, "test", NODES, tmp_path)

    async def counted(name: str, count: int) -> None:
        def is_there(statuses: Statuses) -> bool:
            status = statuses["a"]
            return status is not None and status["counters"].get(name, 0) >= count

        await nodes.wait_until(is_there, f"{count} times {name!r}", STEP_SECONDS_MAX)

    async with running(nodes):
        member, pid = nodes.cluster.members["a"], nodes.processes["a"].pid
        resident = resident_bytes(pid)
        for count in range(DATAGRAMS_AT_ONCE, DATAGRAMS + 1, DATAGRAMS_AT_ONCE):
            await deferToThread(send_datagrams, rng, member.address, peers, DATAGRAMS_AT_ONCE)
            await counted("bad_datagram", count)
        await deferToThread(send_frames, rng, member.address, peers, FRAMES)
        await counted("bad_frame", FRAMES)
        await deferToThread(send_frames, rng, member.client, clients, FRAMES)
        await counted("bad_request", FRAMES)
        growth = resident_bytes(pid) - resident
        print(f"{DATAGRAMS} datagrams and {2 * FRAMES} frames: the node has grown by {growth / 1e6:.1f} MB")
        assert growth < GROWTH_BYTES_MAX
        with closing(Counting(reactor, nodes.cluster)) as counting:
            await counting.more(ENOUGH)
        assert nodes.processes["a"].pid == pid
        assert not nodes.processes["a"].ended
    assert "Traceback" not in nodes.log("a").read_text()


# -------------------------------------------------------- other folders, other files


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_lost_folder_makes_no_quorum(reactor: Any, tmp_path: Path) -> None:
    """Two of three have the state. If one of these is down, too, the one whose folder was lost does not stand in."""
    nodes = LocalCluster(reactor, "test", NODES, tmp_path)
    async with running(nodes):
        await count(reactor, nodes, ENOUGH, 0)
        await lose_folder(nodes, "b")
        nodes.start("b")
        await nodes.wait_until(lambda found: "b" in found and b_is_forgotten(nodes), "a refusal", STEP_SECONDS_MAX)
        await count(reactor, nodes, ENOUGH, 0)
        await nodes.kill("c")
        with closing(Client(reactor, nodes.cluster, rng=Random(1))) as client, pytest.raises(PaxosError):
            await client.submit(b"+0", 2.0)
        nodes.start("c")
        await count(reactor, nodes, ENOUGH, 0)
        statuses = await nodes.wait_until(lambda found: len(found) == len(NODES), "all", STEP_SECONDS_MAX)
    assert statuses["b"] is not None
    assert statuses["b"]["role"] == NEWCOMER


async def lose_folder(nodes: LocalCluster, node: str) -> None:
    """A node is killed, and what it saved is gone."""
    await nodes.kill(node)
    shutil.rmtree(nodes.folder / node)


def b_is_forgotten(nodes: LocalCluster) -> bool:
    return "another data folder" in nodes.log("a").read_text() + nodes.log("c").read_text()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_node_with_other_members_is_refused(reactor: Any, tmp_path: Path) -> None:
    """Its cluster file has one node more under the same cluster name. It says so, the others go on without it."""
    nodes = LocalCluster(reactor, "test", NODES, tmp_path)
    async with running(nodes):
        await count(reactor, nodes, ENOUGH, 0)
        await lose_folder(nodes, "c")
        text = nodes.file.read_text()
        nodes.file.write_text(Cluster("test", {**nodes.cluster.members, "d": free_members(1)[0]}).dumps())
        nodes.start("c")
        await nodes.wait_until(
            lambda _: "has other nodes in its cluster file" in nodes.log("a").read_text(), "a refusal", STEP_SECONDS_MAX
        )
        nodes.file.write_text(text)
        await count(reactor, nodes, ENOUGH, 0)
        statuses = await nodes.wait_until(lambda found: bool(found.get("a")), "a's answer", STEP_SECONDS_MAX)
    assert "c" in str(statuses["a"]["refuses"])  # type: ignore[index]
