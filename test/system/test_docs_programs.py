"""The programs of the pages that have no test of their own, each with what its page says is there: they run.

They talk to nodes in a simulated cluster. What a page leaves to its reader, as the work on a job, is given here.
"""

from __future__ import annotations

import ast
import gc
import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.application.service import Application, IService, Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

import txpaxos
import txpaxos.recipes
from test.helpers.page_blocks import all_blocks
from txpaxos import cli
from txpaxos.counter import Counter
from txpaxos.protocol import PaxosProtocol
from txpaxos.recipes import COORDINATION, Coordinator, Fenced
from txpaxos.service.application import application_of
from txpaxos.testing import check
from txpaxos.testing.linearizability.history import Operation
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.network import SimulatedReactor

FACES = (txpaxos, txpaxos.recipes)
"""Modules whose names a page may use without the line that imports them."""

BLOCKS = [block for block in all_blocks() if block.language == "python"]
RUN_BLOCKS: list[str] = []
"""The programs that are run here."""


def program(page: str, begins: str) -> str:
    """The one program of a page that begins so, which is run here."""
    (text,) = (block.text for block in BLOCKS if block.page == f"{page}.rst" and block.text.startswith(begins))
    RUN_BLOCKS.append(text)
    return text


def made(text: str, **given: Any) -> dict[str, Any]:
    """What a program makes that waits for nothing."""
    names = {name: getattr(face, name) for face in reversed(FACES) for name in face.__all__} | given
    exec(text, names)
    return names


class World:
    """A cluster that runs an application, and a program that is given its reactor and its cluster file.

    The checker sees what the clients of the program submit.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, app: type[PaxosProtocol], **given: Any) -> None:
        nothing: dict[str, Any] = {"clients": 0, "callers": 0, "askers": 0, "readers": 0}
        self.cluster = SimulatedCluster(1, app=app, workload=lambda rng: b"", sessions_max=65536, **nothing)
        reactor = SimulatedReactor(self.cluster.network, "program")
        Path("cluster.toml").write_text(self.cluster.configuration.dumps())
        watched: dict[str, Any] = {"rng": self.cluster.fork_rng(), "sending": self.cluster.checker.submitting}
        monkeypatch.setattr(txpaxos, "Client", partial(txpaxos.Client, **watched))
        self.names = made("", reactor=reactor, cluster=self.cluster.configuration, **given)
        self.run("client = Client(reactor, cluster)")

    def start(self, text: str) -> Deferred[Any]:
        """Begin to run a program, or a part of one."""
        begun = eval(compile(text, "a block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), self.names)
        return Deferred.fromCoroutine(begun) if inspect.iscoroutine(begun) else succeed(None)

    def run(self, text: str) -> Any:
        """Run a program to its end."""
        return self.end(self.start(text))

    def end(self, begun: Deferred[Any]) -> Any:
        """Wait until what has begun has ended."""
        outcome: list[Any] = []
        begun.addBoth(outcome.append)
        self.cluster.run(3.0)
        assert outcome, "it does not end"
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def cut_off(self, begun: Deferred[Any]) -> None:
        """What has begun would go on for ever. End it."""
        self.cluster.run(3.0)
        assert not begun.called
        begun.addErrback(lambda failure: None)
        begun.cancel()
        self.cluster.run(3.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --------------------------------------------------------------------- services

BANK = program("README", "from txpaxos import Service")
COUNTER_WITH_FIELDS = program("snapshots", "class Counter")
IN_CHUNKS = program("snapshots", "import msgspec")


def test_the_bank_of_the_readme() -> None:
    bank = made(BANK)["Bank"]()
    assert [bank.deposit("ann", 5), bank.deposit("ann", 2), bank.balance("ann"), bank.balance("bob")] == [5, 7, 7, 0]


def test_snapshots() -> None:
    counter, other = (made(COUNTER_WITH_FIELDS)["Counter"]() for _ in "ab")
    counter.total = 5
    other.restore(iter([counter.snapshot()]))
    assert other.total == 5
    items, methods = {str(number): number for number in range(1200)}, made(IN_CHUNKS)
    big, other = type("Big", (), methods)(), type("Big", (), methods)()
    big.items = items
    chunks = list(big.snapshot())
    other.restore(iter(chunks))
    assert (len(chunks), other.items) == (3, items)


# ---------------------------------------------------------------------- clients

WITH_KEYS = program("calls", "client = ")
TO_ENDPOINTS = program("operations", "client = ")
REGISTERS = program("registers", "service.ask")
TRACED = program("tracing", "from opentelemetry")


def test_a_client_is_given_keys() -> None:
    pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")
    for command in (["init", "counter"], ["keys", "init"], ["keys", "client", "shop", "--folder", "keys-of-the-shop"]):
        done = CliRunner().invoke(cli.main, command, prog_name="txpaxos")
        assert done.exit_code == 0, done.output
    Path("cluster.toml").write_bytes(Path("counter/cluster.toml").read_bytes())
    made(WITH_KEYS, reactor=MemoryReactorClock())["client"].close()


def test_a_client_is_given_endpoints() -> None:
    made(TO_ENDPOINTS, reactor=MemoryReactorClock())["client"].close()


def test_a_register_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Counter)
    world.cluster.checker.asking("owner of shard 7", b"node-b")
    world.run("service = client\n" + REGISTERS)
    world.run("told = await client.ask('owner of shard 7')")
    assert world.names["told"] == b"node-b"


def test_commands_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="pip install 'txpaxos[test]'")
    from test.helpers.spans import Spans

    spans = Spans()
    monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda name: spans.tracer)
    bank = made(BANK)["Bank"]

    class Both(application_of(bank)):  # type: ignore[misc]
        def apply(self, slot: int, command: bytes) -> Any:
            return 1 if command == b"+1" else super().apply(slot, command)

    world = World(monkeypatch, Both, Bank=bank)
    world.run(TRACED)
    root = world.names["root"] = spans.root()
    world.run("await order(root)")
    root.end()
    commands = spans.named("txpaxos submit")
    assert [command.parent for command in commands] == [root.get_span_context()] * 2


# ---------------------------------------------------------------------- recipes

TO_MAKE = program("recipes", "from txpaxos import Client, Cluster")
SESSION = program("recipes", "async with await recipes.session")
LOCKS = program("recipes", "async with session.lock")
STORAGE = program("recipes", "class Storage")
LEDGER = program("recipes", "from txpaxos import Service")
LEADER = program("recipes", "service = LeaderService")
NEAR_LEADER = program("recipes", "node = PaxosService")
GATHERINGS = program("recipes", "async with session.party")
QUEUES = program("recipes", "import attrs")
MAPS = program("recipes", "limits = ")
COUNTERS = program("recipes", "hits = ")


class Done:
    """The reader's work, and what was done."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    async def __call__(self, *work: Any) -> None:
        self.done.append(work)

    async def write(self, data: bytes, fence: int) -> None:
        self.done.append((data, fence))


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A program with a session, in the way the page makes it."""
    done, ledger = Done(), made(LEDGER)
    world = World(
        monkeypatch,
        application_of(ledger["Ledger"], *COORDINATION),
        Ledger=ledger["Ledger"],
        work=done,
        storage=done,
        data=b"report",
    )
    world.run(TO_MAKE)
    world.run("session = await recipes.session(ttl_seconds=10.0)")
    yield world
    world.run("await session.close()")
    gc.collect()


def test_a_session_ends_with_its_block(recipes: World) -> None:
    recipes.run(SESSION.replace("as session:", "as own:"))
    assert recipes.names["own"].state == "closed"


def test_locks(recipes: World) -> None:
    recipes.run(LOCKS)
    ((data, fence),) = recipes.names["work"].done
    assert data == b"report"
    assert fence > 0


def test_a_resource_refuses_an_older_token() -> None:
    storage = made(STORAGE)["Storage"]()
    storage.write(5, b"new")
    with pytest.raises(Fenced):
        storage.write(4, b"old")
    assert storage.data == b"new"


def test_a_command_asks_the_state_for_the_hold(recipes: World) -> None:
    recipes.run("ledger = client.service(Ledger)\nhold = await session.lock('ledger').acquire()")
    recipes.run("await ledger.write(hold.token, 'one')\nawait hold.release()")
    with pytest.raises(Fenced):
        recipes.run("await ledger.write(hold.token, 'two')")


def test_a_service_is_where_the_lock_is(recipes: World) -> None:
    began: list[int] = []

    class Cron(Service):
        def __init__(self, token: int) -> None:
            began.append(token)

    recipes.names |= {"Cron": Cron, "application": Application("cron")}
    recipes.run(LEADER)
    whole: Any = IService(recipes.names["application"])
    whole.startService()
    recipes.cluster.run(5.0)
    assert len(began) == 1
    assert recipes.end(whole.stopService()) is not None


def test_a_service_is_told_who_leads(recipes: World) -> None:
    recipes.names |= {"Coordinator": Coordinator, "Cron": Service}
    recipes.run(NEAR_LEADER)
    assert isinstance(recipes.names["service"], Service)


def test_gatherings(recipes: World) -> None:
    party, create, wait, double = (ast.unparse(part) for part in ast.parse(GATHERINGS).body)
    recipes.cut_off(recipes.start(party))
    recipes.run(create)
    waiting = recipes.start(wait)
    recipes.cluster.run(3.0)
    assert not waiting.called
    recipes.run("await session.barrier('maintenance').remove()")
    recipes.end(waiting)
    racing = []
    for _ in range(4):
        assert recipes.names["work"].done == []
        recipes.run("session = await recipes.session(ttl_seconds=10.0)")
        racing.append(recipes.start(double))
    for one in racing:
        recipes.end(one)
    assert len(recipes.names["work"].done) == 4


def test_queues(recipes: World) -> None:
    recipes.run(QUEUES)
    assert recipes.names["work"].done == [(recipes.names["Job"]("resize 5.png"),)]
    assert recipes.run("depth = await jobs.depth()") is None
    assert (recipes.names["depth"].ready, recipes.names["depth"].taken) == (0, 0)


def test_maps(recipes: World, capsys: pytest.CaptureFixture[str]) -> None:
    *changes, follow = (ast.unparse(part) for part in ast.parse(MAPS).body)
    recipes.run("\n".join(changes))
    assert (recipes.names["entry"].key, recipes.names["entry"].value) == ("ann", 6)
    recipes.cut_off(recipes.start(follow))
    assert capsys.readouterr().out.splitlines() == ["ann 3 False", "bob 3 False"]


def test_counters_and_sets(recipes: World) -> None:
    recipes.run(COUNTERS)
    recipes.run("total = await hits.value()\nleft = [name async for name in names.members()]")
    assert (recipes.names["total"], recipes.names["left"]) == (1, [])


# ------------------------------------------------------------------- histories

RECORDED = program("linearizability", "from txpaxos.testing import HistoryRecorder")
CHECKED = program("linearizability", "from txpaxos.testing import check")
MODEL = program("linearizability", "from txpaxos.testing.linearizability")
REPLAYED = program("source", "from txpaxos.recording")


class Answering:
    """A client whose commands are answered at once."""

    def submit(self, command: bytes) -> Deferred[None]:
        return succeed(None)


def test_a_history_is_recorded_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    made(RECORDED, reactor=Clock(), client=Answering())["recorder"].close()
    made(CHECKED)
    assert capsys.readouterr().out.startswith("linearizable: 1 operation")


def test_a_model_of_one_s_own() -> None:
    queue = made(MODEL)["Queue"]
    asked = [(("push", 1), None), (("push", 2), None), (("pop",), 1), (("pop",), 2), (("pop",), None)]
    operations = [
        Operation("a", number, input, output, "ok", 2 * number + 1, 2 * number + 2)
        for number, (input, output) in enumerate(asked)
    ]
    assert check(operations, queue()).linearizable
    assert not check(operations[1:], queue()).linearizable


def test_a_recording_is_read(folder: Path, expected_errors: None) -> None:
    simulate = ["simulate", "--seed", "719", "--seconds", "1", "--record", str(folder / "recording")]
    done = CliRunner().invoke(cli.main, simulate, prog_name="txpaxos")
    assert done.exit_code == 0, done.output
    assert REPLAYED.count("/var/lib/counter/recording") == 1
    names = made(REPLAYED.replace("/var/lib/counter/recording", str(folder / "recording")))
    assert names["ready"] is not None
