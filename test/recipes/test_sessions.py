"""Sessions in the state: what belongs to them ends with them, whatever happens, and in no slot too much."""

from __future__ import annotations

from typing import Any

import pytest

from test.recipes.nodes import Nodes
from txpaxos.recipes.replicated import sessions
from txpaxos.recipes.replicated.maps import Maps
from txpaxos.recipes.replicated.permits import Permits
from txpaxos.recipes.replicated.queues import Queues
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.service.declaration import Service, command, state


def test_a_service_that_fails_keeps_no_other_from_hearing_of_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(service: Queues, session_id: str) -> Any:
        raise ValueError("broken")

    nodes = Nodes(Permits, Queues, Maps)
    nodes.open("s1")
    nodes.of(Maps).put("a", "k", b"", session_id="s1")
    nodes.of(Permits).acquire("lock", "s1", "r")
    monkeypatch.setattr(Queues, "session_ended", fails)
    with pytest.raises(ValueError, match="broken"):
        nodes.close("s1")
    assert nodes.of(Maps).size("a") == 0
    assert nodes.of(Permits).contenders("lock") == ()
    assert not nodes.of(Sessions).is_open("s1")


def test_sessions_that_are_over_at_once_end_in_several_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "DROPPED_MAX", 3)
    nodes = Nodes(Permits)
    for session in ("s1", "s2", "s3"):
        nodes.of(Sessions).open(session, 1000)
        for number in range(3):
            nodes.of(Permits).acquire(f"{session} {number}", session, str(number))
    nodes.harness._advance_to(1000)
    assert list(nodes.of(Sessions).ttl_ms) == ["s2", "s3"]
    nodes.harness.keep_alive("Sessions/s2", "Sessions/s3")
    assert nodes.harness.timers.kept_alive("Sessions/s2") is None, "its program is told that it is over"
    nodes.harness._advance_to(1001)
    assert list(nodes.of(Sessions).ttl_ms) == ["s3"]
    nodes.advance(0.001)
    assert (nodes.of(Sessions).ttl_ms, nodes.of(Permits).requests) == ({}, {})


def test_sessions_with_little_end_together() -> None:
    nodes = Nodes(Permits)
    for number in range(200):
        nodes.of(Sessions).open(str(number), 1000)
    nodes.harness._advance_to(1000)
    assert nodes.of(Sessions).ttl_ms == {}


def test_a_service_need_not_say_how_much_it_has_dropped() -> None:
    class Mine(Service):
        """Without a count, as a service of a program's own."""

        ended: list[str] = state(list)

        def session_ended(self, session_id: str) -> None:
            self.ended.append(session_id)

        @command
        def nothing(self) -> None: ...

    nodes = Nodes(Mine, Maps)
    nodes.open("s1")
    nodes.close("s1")
    assert nodes.of(Mine).ended == ["s1"]
