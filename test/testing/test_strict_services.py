"""What is noted of typed services in tests, beyond what a node checks."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from test.service.services import Bank, Point, Refused
from txpaxos import Service, application_of, command, encode_call, query, state
from txpaxos.errors import CallRefused
from txpaxos.testing import simulate, strict_application_of


class Careless(Service):
    """A service with each mistake."""

    total: int = state(int)
    names: list[str] = state(list)
    points: list[Point] = state(list)

    @command(raises=Refused)
    def refuse_late(self) -> None:
        self.total += 1
        raise Refused("too late")

    @command
    def break_late(self) -> None:
        self.names.append("a")
        raise KeyError("b")

    @command
    def wrong_result(self) -> int:
        return "five"  # type: ignore[return-value]

    @command
    def wrong_state(self) -> None:
        self.names.append({"b", "a"})  # type: ignore[arg-type]

    @command(raises=Refused)
    def refuse_early(self) -> None:
        raise Refused("in time")

    @query
    def changes(self) -> int:
        self.total += 1
        return self.total

    @query
    def wrong_answer(self) -> str:
        return 5  # type: ignore[return-value]


LATE = "has changed the state and raised: check first, and change afterwards"


@pytest.mark.parametrize(
    ("method", "faults"),
    [
        (Careless.refuse_late, [f"Careless.refuse_late: {LATE}"]),
        (Careless.break_late, [f"Careless.break_late: {LATE}"]),
        (
            Careless.wrong_result,
            [
                "Careless.wrong_result: Careless.wrong_result returned what its annotation does not say: Expected"
                " `bool | int`, got `str`"
            ],
        ),
        (Careless.refuse_early, []),
        (
            Careless.wrong_state,
            ["Careless.wrong_state: has made a state that does not come back from a snapshot as it was"],
        ),
    ],
)
def test_commands(method: Any, faults: list[str]) -> None:
    app = strict_application_of(Careless)
    call = encode_call(Careless, method)
    for _ in range(2):
        try:
            app().apply(1, call)
        except KeyError:
            assert method.__name__ == "break_late"
    assert app.faults == faults


def test_queries() -> None:
    app = strict_application_of(Careless)
    assert app().query(encode_call(Careless, Careless.changes)) == 1
    assert app().query(encode_call(Careless, Careless.wrong_answer)) == 5
    assert [line.split(":")[0] for line in app.faults] == ["Careless.changes", "Careless.wrong_answer"]
    assert app.faults[0].endswith("is a query and has changed the state")


def test_bytes_that_are_no_call_are_refused_as_ever() -> None:
    app = strict_application_of(Bank)
    with pytest.raises(CallRefused):
        app().apply(1, b"no call")
    assert app.faults == []


def test_each_class_notes_its_own_faults() -> None:
    one, two = strict_application_of(Careless), strict_application_of(Careless)
    one().apply(1, encode_call(Careless, Careless.refuse_late))
    assert (len(one.faults), two.faults) == (1, [])


@pytest.mark.parametrize(("kind", "count"), [(Careless, 1), (Bank, 0)])
def test_in_the_simulator(kind: Any, count: int, logged_errors: list[dict[str, Any]]) -> None:
    app = strict_application_of(kind)
    assert app.__qualname__ == application_of(kind).__qualname__
    call = encode_call(kind, kind.refuse_late) if count else encode_call(kind, kind.fail, "refused")
    result = simulate(1, seconds=0.5, app=app, workload=lambda rng: call)
    assert (result.violation, len(app.faults)) == (None, count)
    gc.collect()
    logged_errors.clear()
