"""Several observers are one."""

from __future__ import annotations

from txpaxos.node.events import Event, TimePassed, as_one


def test_without_observers_there_is_none() -> None:
    assert as_one(()) is None


def test_one_observer_is_itself() -> None:
    seen: list[Event] = []
    observer = seen.append
    assert as_one(iter((observer,))) is observer


def test_each_is_told_of_each_event_in_order() -> None:
    seen: list[tuple[str, Event]] = []
    observe = as_one([lambda event: seen.append(("first", event)), lambda event: seen.append(("second", event))])
    assert observe is not None
    for now in (1.0, 2.0):
        observe(TimePassed(now))
    assert seen == [(name, TimePassed(now)) for now in (1.0, 2.0) for name in ("first", "second")]
