"""What is around a typed service: the time, its timers, and the other services of its node."""

from __future__ import annotations

import pytest

from test.helpers.fakes import alone
from txpaxos import ConfigError, ReplicatedTime, Service, application_of, command, query, state
from txpaxos.testing import ServicesHarness, strict_application_of


class Alarm(Service):
    """Has timers."""

    rung: list[str] = state(list)

    @command
    def set(self, name: str, after_seconds: float) -> int:
        self.timers.set(name, after_seconds, name.encode())
        return self.now.elapsed_ms

    @command
    def stop(self, name: str) -> bool:
        return self.timers.cancel(name)

    def timer_fired(self, name: str, payload: bytes) -> None:
        self.rung.append(f"{name} {payload.decode()} {self.now.elapsed_ms}")

    @query
    def left_seconds(self, name: str) -> float | None:
        return self.timers.due_in_seconds(name) if name in self.timers else None


class Secretary(Service):
    """Calls another service."""

    set: int = state(int)

    @command
    def remind(self, name: str) -> int:
        self.set += 1
        return self.sibling(Alarm).set(name, 10.0)

    @query
    def beside(self) -> list[str]:
        return [type(one).__name__ for one in self.siblings()]


class Own(Service):
    """Every name is the service's own."""

    now: str = state(lambda: "mine")  # type: ignore[assignment]

    @command
    def changed(self, topic: str) -> str:  # type: ignore[override]
        self.now = topic
        return self.now


def test_timers_are_the_services_own() -> None:
    harness = ServicesHarness(Alarm, other=Alarm)
    alarm, other = harness.service(Alarm), harness.service(Alarm, "other")
    assert harness.result(alarm.set("tea", 3.0)) == 0
    harness.advance(1.0)
    assert harness.result(other.set("tea", 3.0)) == 1000
    assert harness.result(other.set("egg", 3.0)) == 1000
    assert harness.result(alarm.left_seconds("tea")) == 2.0
    assert harness.result(alarm.left_seconds("egg")) is None
    assert harness.result(other.stop("egg")) is True
    assert harness.result(alarm.stop("egg")) is False
    harness.snapshot_and_restore()
    harness.advance(10.0)
    assert harness.state_of(Alarm).rung == ["tea tea 3000"]
    assert harness.state_of(Alarm, "other").rung == ["tea tea 4000"]
    assert harness.now.elapsed_ms == 11_000


def test_a_command_calls_another_service_of_its_node() -> None:
    harness = ServicesHarness(Alarm, Secretary)
    secretary = harness.service(Secretary)
    harness.advance(2.5)
    assert harness.result(secretary.remind("tea")) == 2500
    harness.advance(10.0)
    assert harness.state_of(Alarm).rung == ["tea tea 12500"]
    assert harness.result(secretary.beside()) == ["Alarm", "Secretary"]


def test_a_service_that_is_not_there() -> None:
    harness = ServicesHarness(Secretary, alarm=Alarm)
    secretary = harness.state_of(Secretary)
    there = "there are Secretary as 'Secretary', Alarm as 'alarm'"
    with pytest.raises(LookupError, match=f"no service 'Alarm' of Alarm is beside 'Secretary': {there}"):
        secretary.remind("tea")
    with pytest.raises(LookupError, match="no service 'alarm' of Own"):
        secretary.sibling(Own, "alarm")
    assert type(secretary.sibling(Alarm, "alarm")) is Alarm


def test_without_a_node() -> None:
    alarm = Alarm()
    assert alarm.set("tea", 1.0) == 0
    assert alarm.now == ReplicatedTime(0, 0)
    assert alarm.siblings() == (alarm,)
    assert alarm.sibling(Alarm) is alarm
    alarm.changed("anything")
    assert Alarm().left_seconds("tea") is None
    with pytest.raises(TypeError, match="the name of a timer must be a str, not int"):
        alarm.timers.set(5, 1.0)  # type: ignore[arg-type]
    assert 5 not in alarm.timers


def test_a_service_may_use_the_names_for_something_else() -> None:
    harness = ServicesHarness(Own)
    assert harness.result(harness.service(Own).changed("yours")) == "yours"
    harness.snapshot_and_restore()
    assert harness.state_of(Own).now == "yours"


def test_a_timer_of_a_service_that_is_gone_fires_for_none() -> None:
    application = application_of(Secretary)()
    application.timer_fired(1, "Alarm/tea", b"")
    application.timer_fired(1, "tea", b"")
    assert application.state_of(Secretary).set == 0


def test_on_a_node() -> None:
    harness = alone(application=strict_application_of(Alarm, Secretary))
    application = harness.node.application
    secretary = application.service(Secretary)
    results: list[object] = []
    secretary.remind("tea").addBoth(results.append)
    for _ in range(200):
        harness.reactor.advance(0.1)
    assert len(results) == 1
    (rung,) = application.state_of(Alarm).rung
    assert rung.startswith("tea tea ")
    assert 9.9 < int(rung.split()[2]) / 1000 < 11.0
    assert application.faults == []


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("lock {nome}", "names 'nome', which is no parameter: use name"),
        ("lock {0}", "names '0', which is no parameter: use name"),
        ("lock {", "is no pattern: "),
    ],
)
def test_a_topic_that_is_wrong(topic: str, reason: str) -> None:
    class Wrong(Service):
        @query(topic=topic)
        def of(self, name: str) -> int:
            return 0

    with pytest.raises(ConfigError) as caught:
        application_of(Wrong)
    assert reason in str(caught.value)
    assert str(caught.value).startswith("Wrong.of: its topic ")


def test_a_topic_is_a_str() -> None:
    with pytest.raises(TypeError, match="the topic of a query must be a str, not int"):
        query(topic=5)  # type: ignore[call-overload]
