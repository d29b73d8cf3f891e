"""``twistd paxos --tracing``: a tracer as the environment describes it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from twisted.internet import reactor

from test.helpers.fakes import Reactor, outcome_of
from test.helpers.spans import Spans
from test.server.test_served_node import SECONDS, answered, cluster_of
from txpaxos import Client, ConfigError, ServedNode
from txpaxos.cli.local_cluster import TWISTD, free_members
from txpaxos.cluster import Cluster
from txpaxos.counter import Counter
from txpaxos.node.events import TimePassed
from txpaxos.tracing import environment
from txpaxos.tracing.environment import EXPORTERS, FLUSH_SECONDS, EnvironmentSpans, exporters_of

MADE: list[InMemorySpanExporter] = []


class Kept(InMemorySpanExporter):
    """An exporter whose spans the test reads."""

    def __init__(self) -> None:
        super().__init__()
        MADE.append(self)


class Unwilling:
    def __init__(self) -> None:
        raise ValueError("no such place")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters that are installed."""
    here = {
        "kept": f"{__name__}:Kept",
        "otlp_proto_grpc": f"{__name__}:Kept",
        "otlp_proto_http": f"{__name__}:Spans",
        "unwilling": f"{__name__}:Unwilling",
        "broken": "there.is.none:Exporter",
    }

    def entry_points(group: str, name: str) -> EntryPoints:
        assert group == EXPORTERS
        return EntryPoints([EntryPoint(name, here[name], group)] if name in here else [])

    monkeypatch.setattr(environment, "entry_points", entry_points)
    MADE.clear()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, [Kept]),
        ({"OTEL_TRACES_EXPORTER": ""}, [Kept]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, [Kept]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, [Spans]),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, [Kept]),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "kept, otlp_proto_http"}, [Kept, Spans]),
    ],
)
def test_exporters(environ: dict[str, str], found: list[type]) -> None:
    assert exporters_of(environ) == found


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "there is no exporter 'zipkin': install its package"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}, "there is no exporter 'otlp'"),
        ({"OTEL_TRACES_EXPORTER": "broken"}, "the exporter broken cannot be imported: No module named 'there'"),
    ],
)
def test_exporters_that_are_not_there(environ: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        EnvironmentSpans(environ).check()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install \"txpaxos\[tracing\]\""):
        EnvironmentSpans({}).check()


@pytest.mark.usefixtures("installed")
def test_an_exporter_that_cannot_be_made() -> None:
    spans = EnvironmentSpans({"OTEL_TRACES_EXPORTER": "unwilling"})
    spans.check()
    with pytest.raises(ConfigError, match="the exporter cannot be made: no such place"):
        spans.start(SimpleNamespace(reactor=reactor))


@pytest.mark.usefixtures("installed")
def test_the_environment_may_switch_it_off() -> None:
    spans = EnvironmentSpans({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "zipkin"})
    spans.check()
    spans.start(SimpleNamespace())
    (observe,) = spans.observers
    observe(TimePassed(1.0))
    assert spans.stop().called
    assert MADE == []


@pytest.mark.usefixtures("installed")
async def test_what_is_left_is_exported_when_the_node_stops(tmp_path: Path) -> None:
    """And the node may be started again."""
    own, cluster = Spans(), cluster_of("a")
    companion = EnvironmentSpans({"OTEL_TRACES_EXPORTER": "kept"})
    for number in (1, 2):
        served = ServedNode(Counter, "a", cluster, tmp_path, companions=[companion])
        served.start()
        await answered(served.ready())
        client = Client(reactor, cluster, tracer=own.tracer)
        assert await answered(client.submit(b"+1", SECONDS)) == number
        client.close()
        await answered(served.stop())
        assert len(MADE) == number
        assert "txpaxos command" in [span.name for span in MADE[-1].get_finished_spans()]


class Stuck(InMemorySpanExporter):
    """An exporter whose collector takes the spans, and does not answer."""

    def export(self, spans: Any) -> Any:
        threading.Event().wait(SECONDS)
        return super().export(spans)


@pytest.mark.usefixtures("installed")
def test_a_collector_that_does_not_answer_keeps_no_node_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Reactor()
    released, ended = threading.Event(), threading.Event()

    def call_from_thread(function: Callable[[], None]) -> None:
        function()
        ended.set()

    clock.callFromThread = call_from_thread
    monkeypatch.setattr(Kept, "shutdown", lambda _: released.wait(SECONDS))
    spans = EnvironmentSpans({"OTEL_TRACES_EXPORTER": "kept"})
    surroundings = SimpleNamespace(reactor=clock, node=SimpleNamespace(name="a"), client_port=SimpleNamespace())
    spans.start(surroundings)
    stopped = outcome_of(spans.stop())
    clock.spend(FLUSH_SECONDS - 0.1)
    assert stopped == []
    clock.spend(0.2)
    assert stopped == [None]
    released.set()
    assert ended.wait(SECONDS)
    assert stopped == [None]


async def test_twistd_ends_though_its_collector_does_not_answer(tmp_path: Path) -> None:
    """Its thread would keep the process until the collector answers."""
    (tmp_path / "stuck.dist-info").mkdir()
    (tmp_path / "stuck.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1\n")
    (tmp_path / "stuck.dist-info" / "entry_points.txt").write_text(f"[{EXPORTERS}]\nstuck = {__name__}:Stuck\n")
    path = f"{Path(__file__).parents[2]}:{tmp_path}"
    process = run_node(tmp_path, "--tracing", OTEL_TRACES_EXPORTER="stuck", PYTHONPATH=path)
    try:
        client = Client(reactor, Cluster.load(tmp_path / "cluster.toml"), tracer=Spans().tracer)
        assert await answered(client.submit(b"+1", SECONDS)) == 1
        client.close()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=SECONDS / 2)
    finally:
        process.kill()
        process.wait()
    assert "Server Shut Down" in said


def run_node(folder: Path, *options: str, **environ: str) -> subprocess.Popen[str]:
    cluster = Cluster("test", {"a": free_members(1)[0]})
    (folder / "cluster.toml").write_text(cluster.dumps())
    return subprocess.Popen(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "paxos", "-c", "cluster.toml", *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])} | environ,
    )


async def test_twistd_with_tracing(tmp_path: Path) -> None:
    """The SDK brings one exporter, which prints. The name of the service is from the environment, too."""
    settings = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "shop"}
    process = run_node(tmp_path, "--tracing", **settings)
    try:
        client = Client(reactor, Cluster.load(tmp_path / "cluster.toml"), tracer=Spans().tracer)
        assert await answered(client.submit(b"+1", SECONDS)) == 1
        client.close()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert '"name": "txpaxos command"' in said
    assert '"service.name": "shop"' in said
    assert "Server Shut Down" in said


def test_twistd_without_an_exporter(tmp_path: Path) -> None:
    process = run_node(tmp_path, "--tracing", OTEL_TRACES_EXPORTER="pigeon")
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "node a cannot start: --tracing: OTEL_TRACES_EXPORTER: there is no exporter 'pigeon'" in said
