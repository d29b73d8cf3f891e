"""The spans of a node whose tracer is set up by the environment, as OpenTelemetry says: ``OTEL_*``.

The SDK of OpenTelemetry reads most of these variables by itself. Only the choice of an exporter is left to the program.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from txpaxos.clock import monotonic_clock
from txpaxos.errors import ConfigError
from txpaxos.node.events import Event, Observer

if TYPE_CHECKING:
    from txpaxos.cluster import Address
    from txpaxos.keys.folder import Keys
    from txpaxos.tracing.node_spans import NodeSpans

EXPORTERS = "opentelemetry_traces_exporter"
"""The group of entry points in which packages of OpenTelemetry say what they export with."""

FLUSH_SECONDS = 2.0
"""How long a node that stops waits until its last spans are exported. A collector may be gone."""

_NAME = "txpaxos"
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


class EnvironmentSpans:
    """Makes the spans of a node, and exports them: a companion of the node.

    Its threads are started with the node, since a daemon would lose those that it had before.

    :param environ: the environment.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._spans: NodeSpans | None = None
        self._provider: Any = None
        self._reactor: Any = None

    @property
    def observers(self) -> Sequence[Observer]:
        """What is called with each step of the node."""
        return (self._observe,)

    def check(self, taken: Sequence[Address] = ()) -> None:
        """See whether the libraries are there.

        :raises ConfigError: one line, if one of them is not, or no exporter has the name that is asked for.
        """
        try:
            import_module("opentelemetry.sdk.trace")
        except ImportError:
            raise ConfigError('--tracing: OpenTelemetry is not installed: pip install "txpaxos[tracing]"') from None
        if self._environ.get("OTEL_SDK_DISABLED", "").lower() != "true":
            exporters_of(self._environ)

    def start(self, surroundings: Any) -> None:
        """Begin to make spans.

        :param surroundings: those of a companion.
        :raises ConfigError: one line, if an exporter cannot be made."""
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from txpaxos.tracing.node_spans import NodeSpans

        if self._environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return
        self._reactor = surroundings.reactor
        provider = TracerProvider(shutdown_on_exit=False)
        for make_exporter in exporters_of(self._environ):
            try:
                provider.add_span_processor(BatchSpanProcessor(make_exporter()))
            except Exception as error:
                raise ConfigError(f"--tracing: the exporter cannot be made: {error}") from None
        self._provider = provider
        self._spans = NodeSpans(provider.get_tracer(_NAME))
        self._spans.start(surroundings)

    def use_keys(self, keys: Keys) -> None:
        """No keys are needed."""

    def stop(self) -> Deferred[None]:
        """End all spans, and export what is left, if that takes no more than ``FLUSH_SECONDS``."""
        provider, self._provider = self._provider, None
        if self._spans is None or provider is None:
            return succeed(None)
        self._spans.stop()
        self._spans = None
        done: Deferred[None] = Deferred()
        reactor = self._reactor
        timer = monotonic_clock(reactor).callLater(FLUSH_SECONDS, done.callback, None)

        def exported() -> None:
            if timer.active():
                timer.cancel()
                done.callback(None)

        def export() -> None:
            try:
                provider.shutdown()
            finally:
                reactor.callFromThread(exported)

        # The process does not wait for this thread, as it would for one of the reactor's.
        threading.Thread(target=export, name="txpaxos-last-spans", daemon=True).start()
        return done

    def _observe(self, event: Event) -> None:
        if self._spans is not None:
            self._spans.observe(event)


def exporters_of(environ: Mapping[str, str]) -> list[Callable[[], Any]]:
    """What makes the exporters that ``OTEL_TRACES_EXPORTER`` names: ``otlp`` unless it is set, several with commas
    between, or ``none``.

    :raises ConfigError: one line, if one of them is not installed.
    """
    found: list[Callable[[], Any]] = []
    for given in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        name = given.strip()
        if name == "none":
            continue
        if name == "otlp":
            protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            name = _OTLP.get(protocol or "grpc", name)
        exporters = entry_points(group=EXPORTERS, name=name)
        if not exporters:
            raise ConfigError(
                f"--tracing: OTEL_TRACES_EXPORTER: there is no exporter {ascii(name)[:60]}: install its package, as"
                " opentelemetry-exporter-otlp"
            )
        found.append(_loaded(next(iter(exporters))))
    return found


def _loaded(exporter: Any) -> Callable[[], Any]:
    """The class of an exporter.

    :raises ConfigError: one line, if it cannot be imported."""
    try:
        loaded: Callable[[], Any] = exporter.load()
    except Exception as error:
        raise ConfigError(f"--tracing: the exporter {exporter.name} cannot be imported: {error}") from None
    return loaded
