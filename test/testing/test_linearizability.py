"""The checker accepts what some order explains, rejects what none does, and shows where."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from random import Random
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from test.helpers.linear_brute_force import is_linearizable
from test.helpers.linear_histories import (
    READ_1,
    READ_2,
    WRITE_1,
    WRITE_2,
    Increments,
    Queue,
    SomeUnknown,
    Unless,
    opaque,
    recorded,
    swaps_that_fail,
)
from txpaxos.testing.linearizability import check as check_module
from txpaxos.testing.linearizability.check import check
from txpaxos.testing.linearizability.history import UNKNOWN, Operation
from txpaxos.testing.linearizability.models import (
    ANY,
    SAME,
    CounterModel,
    KeyValue,
    Model,
    Other,
    Register,
    model_named,
)
from txpaxos.testing.linearizability.sample import SERVICES, main, make_stale, sample_history

GOOD: list[tuple[str, Model, tuple[str, ...]]] = [
    ("nothing", Register(), ()),
    ("read at first", Register(), ('a: ["read"]', "a = null")),
    ("one after the other", Register(), (*WRITE_1, *READ_1, *WRITE_2, *READ_2)),
    ("read while writing sees the old", Register(), (*WRITE_1, 'b: ["write", 2]', *READ_1, "b = null")),
    ("read while writing sees the new", Register(), (*WRITE_1, 'b: ["write", 2]', *READ_2, "b = null")),
    ("writes in the other order", Register(), ('a: ["write", 1]', *WRITE_2, "a = null", *READ_1)),
    ("seen, then overwritten by an older", Register(), ('b: ["write", 2]', *WRITE_1, *READ_1, "b = null", *READ_2)),
    ("unknown write was applied later", Register(), ('a: ["write", 1]', "a ?", *WRITE_2, *READ_2, *READ_1)),
    ("unknown write was never applied", Register(), ('a: ["write", 1]', "a ?", *WRITE_2, *READ_2, *READ_2)),
    ("write that never ended was applied", Register(), ('a: ["write", 1]', *READ_1)),
    ("failed write is not there", Register(), (*WRITE_1, 'b: ["write", 2]', "b !", *READ_1)),
    ("swaps in a chain", Register(), ('a: ["cas", null, 1]', 'b: ["cas", 1, 2]', "b = true", "a = true")),
    ("swap that fails", Register(), (*WRITE_1, 'b: ["cas", 3, 2]', "b = false", *READ_1)),
    ("unknown swap", Register(), (*WRITE_1, 'b: ["cas", 1, 2]', "b ?", *READ_1, *READ_2)),
    ("other initial value", Register(1), READ_1),
    ("keys are apart", KeyValue(), ('a: ["put", "x", 1]', "a = null", 'b: ["get", "y"]', "b = null")),
    (
        "unknown one leads to another",
        Unless(0),
        ('a: ["unless", 0, 2]', "a ?", 'b: ["write", 1]', *READ_2, "b = null"),
    ),
    (
        "chain of unknown swaps",
        Register(),
        ('a: ["cas", null, 1]', "a ?", 'a: ["cas", 5, 2]', "a ?", 'a: ["cas", 1, 5]', "a ?", *READ_2, *READ_2),
    ),
    (
        "a write that changes nothing hides one that would",
        Register(),
        (
            *('a: ["write", 2]', 'b: ["cas", 2, 0]', "a = null", 'a: ["write", 2]', 'c: ["cas", 0, 0]', "b ?"),
            *('d: ["write", 1]', "c = true", 'e: ["read"]', "d = null", "a = null", 'f: ["cas", 1, 2]'),
            *('g: ["cas", 2, 2]', "f = false", "g = false", "e = 0"),
        ),
    ),
    ("a state that no operation names", Register(5), tuple(swaps_that_fail(3))),
    (
        "deleted",
        KeyValue(),
        ('a: ["put", "x", 1]', "a = null", 'b: ["delete", "x"]', "b = true", 'c: ["get", "x"]', "c = null"),
    ),
    ("delete need not tell", KeyValue(), ('b: ["delete", "x"]', "b = null")),
    ("counted", CounterModel(), ('a: ["add", 2]', 'b: ["add", 3]', "a = 5", "b = 3", 'c: ["read"]', "c = 5")),
    ("unknown add fills a gap", CounterModel(), ('a: ["add", 2]', "a ?", 'b: ["add", 3]', "b = 5")),
]

BAD: list[tuple[str, Model, tuple[str, ...]]] = [
    ("never written", Register(), READ_1),
    ("stale read", Register(), (*WRITE_1, *WRITE_2, *READ_1)),
    ("lost write", Register(), (*WRITE_1, 'a: ["read"]', "a = null")),
    ("back and forth", Register(), ('a: ["write", 1]', *WRITE_2, *READ_1, *READ_2, *READ_1, "a = null")),
    (
        "readers disagree",
        Register(),
        ('a: ["write", 1]', 'b: ["write", 2]', *READ_1, *READ_2, *READ_1, "a = null", "b = null"),
    ),
    ("read from the future", Register(), (*READ_1, *WRITE_1)),
    ("unknown write seen twice", Register(), ('a: ["write", 1]', "a ?", *READ_1, *WRITE_2, *READ_2, *READ_1)),
    ("unknown write seen before", Register(), (*READ_1, 'a: ["write", 1]', "a ?")),
    ("failed write is there", Register(), ('a: ["write", 1]', "a !", *READ_1)),
    ("both swapped", Register(), ('a: ["cas", null, 1]', 'b: ["cas", null, 2]', "b = true", "a = true")),
    ("swap should have worked", Register(), (*WRITE_1, 'b: ["cas", 1, 2]', "b = false")),
    ("one key of two", KeyValue(), ('a: ["put", "x", 1]', "a = null", 'b: ["get", "y"]', "b = 1")),
    ("nothing to delete", KeyValue(), ('b: ["delete", "x"]', "b = true")),
    ("still there", KeyValue(), ('a: ["put", "x", 1]', "a = null", 'b: ["delete", "x"]', "b = false")),
    (
        "nothing leads there",
        Unless(0),
        ('a: ["unless", 0, 2]', 'b: ["unless", 2, 2]', *READ_2, "a = true", "b = false"),
    ),
    (
        "write gone",
        Increments(2),
        ('a: ["write", 1]', 'b: ["increment"]', "b = null", "a = null", 'c: ["read"]', "c = 0"),
    ),
    ("added twice", CounterModel(), ('a: ["add", 1]', "a = 1", 'b: ["add", 1]', "b = 3")),
    ("lost add", CounterModel(), ('a: ["add", 1]', "a = 1", 'b: ["add", 1]', "b = 1")),
    ("unknown add counted twice", CounterModel(), ('a: ["add", 2]', "a ?", 'b: ["add", 3]', "b = 7")),
]


@pytest.mark.parametrize("patience", [1, 10_000])
@pytest.mark.parametrize(("model", "lines"), [each[1:] for each in GOOD], ids=[each[0] for each in GOOD])
def test_good_history(model: Model, lines: tuple[str, ...], patience: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "PATIENCE", patience)
    result = check(recorded(*lines).operations(), model)
    assert result.linearizable is True
    assert result.window is None
    assert result.operations == sum(line[1] == ":" for line in lines)
    assert result.report().startswith(f"linearizable: {result.operations} operations in ")


@pytest.mark.parametrize(("model", "lines"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_bad_history(model: Model, lines: tuple[str, ...]) -> None:
    result = check(recorded(*lines).operations(), model)
    assert result.linearizable is False
    assert result.window is not None
    assert result.window.ending in result.window.operations
    assert result.report().startswith("not linearizable: ")


# ------------------------------------------------- against the definition


VALUES = (None, 0, 1, 2)
REGISTER = [("read",), *(("write", v) for v in VALUES), *(("cas", v, w) for v in VALUES for w in VALUES)]
KEY_VALUE = [("get", "x"), ("delete", "x"), ("put", "x", 1), ("put", "x", 2), ("cas", "x", 1, 2), ("cas", "x", None, 1)]
COUNTER = [("read",), ("add", 1), ("add", 1), ("add", 2), ("add", -1)]
UNLESS = [*REGISTER, *(("unless", v, w) for v in VALUES for w in VALUES if v != w)]
QUEUE = [("pop",), ("push", 1), ("push", 2)]

SMALL: list[tuple[Model, list[Any], list[Any], list[Any]]] = [
    # the model, its inputs, their outputs, and its states
    (Register(), REGISTER, [*VALUES, True, False], [*VALUES]),
    (opaque(Register), REGISTER, [*VALUES, True, False], [*VALUES]),
    (opaque(Register, "cas"), REGISTER, [*VALUES, True, False], [*VALUES]),
    (opaque(Register, "write"), REGISTER, [*VALUES, True, False], [*VALUES]),
    (KeyValue(), KEY_VALUE, [*VALUES, True, False], [*VALUES]),
    (opaque(KeyValue), KEY_VALUE, [*VALUES, True, False], [*VALUES]),
    (CounterModel(), COUNTER, [*range(-4, 12)], [*range(-8, 16)]),
    (opaque(CounterModel), COUNTER, [*range(-4, 12)], [*range(-8, 16)]),
    (Unless(), UNLESS, [*VALUES, True, False], [*VALUES]),
    (SomeUnknown(), REGISTER, [*VALUES, True, False], [*VALUES]),
    (Increments(), [*REGISTER[:5], ("increment",), ("increment",)], [*VALUES], [*VALUES]),
    (Queue(), QUEUE, [None, 1, 2], []),
]


def outputs_for(model: Model, state: Hashable, input: Any, outputs: list[Any]) -> list[tuple[Any, Hashable]]:
    """The outputs that the model accepts, each with the state after it."""
    steps = [(output, *model.step(state, input, output)) for output in outputs]
    return [(output, after) for output, accepted, after in steps if accepted]


def random_operations(rng: Random, model: Model, inputs: list[Any], outputs: list[Any], count: int) -> list[Operation]:
    """Operations that were applied in some order, and then perhaps one that got another output."""
    at_once, unknown = rng.choice((1, 2, 4, 8)), rng.choice((0.0, 0.1, 0.3))
    line = itertools.count(1)
    pending: list[Operation] = []
    ended: list[Operation] = []
    asked = 0
    while asked < count or pending:
        if asked < count and len(pending) < at_once and (not pending or rng.random() < 0.6):
            asked += 1
            pending.append(Operation("a", asked, rng.choice(inputs), UNKNOWN, "unknown", next(line), None))
        else:
            operation = pending.pop(rng.randrange(len(pending)))
            is_known = rng.random() >= unknown
            ended.append(attrs.evolve(operation, outcome="ok", returned=next(line)) if is_known else operation)
    applied_at = {each: rng.uniform(each.invoked, each.returned or 3 * count) for each in ended}
    result, state = [], model.initial()
    for operation in sorted(ended, key=lambda each: applied_at[each]):
        choices = outputs_for(model, state, operation.input, outputs)
        if operation.returned is None:
            result.append(operation)
            state = choices[0][1] if choices and rng.random() < 0.5 else state
        elif choices:
            output, state = rng.choice(choices)
            result.append(attrs.evolve(operation, output=output))
    known = [number for number, each in enumerate(result) if each.returned]
    if known and rng.random() < 0.7:
        number = rng.choice(known)
        others = [
            state for state in (*VALUES, True, False, *range(5)) if _is_output(model, result[number].input, state)
        ]
        result[number] = attrs.evolve(result[number], output=rng.choice(others))
    return sorted(result, key=lambda each: each.invoked)


def _is_output(model: Model, input: Any, output: Any) -> bool:
    try:
        model.effect(input, output)
    except ValueError:
        return False
    if isinstance(model, CounterModel):
        return type(output) is int
    return input[0] != "unless" or isinstance(output, bool)


@settings(max_examples=1000, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    small=st.sampled_from(SMALL),
    count=st.integers(1, 9),
    patience=st.sampled_from((1, 5, 10_000)),
)
def test_same_as_trying_every_order(seed: int, small: Any, count: int, patience: int) -> None:
    model, inputs, outputs, states = small
    operations = random_operations(Random(seed), model, inputs, outputs, count)
    required = [each for each in operations if each.returned]
    unknown = [each for each in operations if not each.returned]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_module, "PATIENCE", patience)
        result = check(operations, model)
    assert result.linearizable is is_linearizable(model, required, unknown, model.initial())
    window = result.window
    if window is not None:
        assert result.report().startswith("not linearizable: ")
        for state in states if window.states is None else window.states:
            assert not is_linearizable(model, window.operations, window.beside, state)


@pytest.mark.parametrize(("model", "inputs", "outputs", "states"), [each for each in SMALL if each[3]])
def test_effects_agree_with_steps(model: Model, inputs: list[Any], outputs: list[Any], states: list[Any]) -> None:
    for input, output, state in itertools.product(inputs, [*outputs, UNKNOWN], states):
        effect = model.effect(input, output) if output is UNKNOWN or _is_output(model, input, output) else None
        if effect is not None:
            accepted, after = model.step(state, input, output)
            fits = effect.needs is ANY or effect.needs == state
            fits = fits or (isinstance(effect.needs, Other) and effect.needs.than != state)
            if output is UNKNOWN:
                assert accepted
                assert after == (effect.leaves if fits and effect.leaves is not SAME else state)
            else:
                assert accepted is fits, (input, output, state)
                assert not accepted or after == (state if effect.leaves is SAME else effect.leaves)


# --------------------------------------------------- real, and then damaged


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    name=st.sampled_from(sorted(SERVICES)),
    clients=st.integers(1, 12),
    unknown=st.sampled_from((0.0, 0.01, 0.2)),
)
def test_what_a_real_service_did_is_accepted(seed: int, name: str, clients: int, unknown: float) -> None:
    recorder = sample_history(Random(seed), SERVICES[name], 150, clients, unknown)
    assert check(recorder.operations(), model_named(name)).linearizable is True


def damaged(rng: Random, name: str, operations: list[Operation]) -> list[Operation]:
    """The same operations but for one: a read is stale, or a write is lost, or an add counts twice."""
    result = [*operations]
    known = [number for number, each in enumerate(operations) if each.returned]
    reads = [number for number in known if operations[number].input == ("read",)]
    writes = [number for number in known if operations[number].input[0] == "write"]
    adds = [number for number in known if operations[number].input[0] == "add"]
    if name == "counter" and adds:
        twice = rng.choice(adds)
        first, added = operations[twice], operations[twice].input[1]
        for number in known:
            if operations[number].invoked > (first.returned or 0):
                result[number] = attrs.evolve(operations[number], output=operations[number].output + added)
    elif reads and (rng.random() < 0.5 or not writes):
        number = rng.choice(reads)
        result[number] = attrs.evolve(
            operations[number], output=rng.choice([operations[each].output for each in reads])
        )
    elif writes:
        del result[rng.choice(writes)]
    return result


def test_what_was_damaged_is_rejected() -> None:
    rejected = dict.fromkeys(("register", "counter"), 0)
    for seed in range(400):
        rng = Random(seed)
        name, model = rng.choice([("register", Register()), ("counter", CounterModel())])
        operations = sample_history(rng, SERVICES[name], 9, clients=3, unknown=0.1).operations()
        operations = damaged(rng, name, operations)
        required = [each for each in operations if each.returned]
        unknown = [each for each in operations if not each.returned]
        expected = is_linearizable(model, required, unknown, model.initial())
        assert check(operations, model).linearizable is expected, seed
        rejected[name] += not expected
    assert min(rejected.values()) > 50, rejected


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_long_history(name: str) -> None:
    recorder = sample_history(Random(7), SERVICES[name], 5_000)
    good = check(recorder.operations(), model_named(name))
    assert (good.linearizable, good.operations) == (True, 5_000)
    assert good.configurations < 4 * 5_000
    make_stale(recorder)
    bad = check(recorder.operations(), model_named(name))
    assert bad.linearizable is False
    assert bad.window is not None
    assert len(bad.window.operations) <= 3


def test_long_history_of_a_model_that_tells_nothing() -> None:
    operations = sample_history(Random(7), SERVICES["register"], 2_000, unknown=0.0).operations()
    assert check(operations, opaque(Register)).linearizable is True


@pytest.mark.parametrize("count", [1, 30, 31, 32, 33, 60, 100])
def test_long_window(count: int) -> None:
    """The error shows only after many operations that do not matter."""
    lines = [*WRITE_2, *WRITE_1, *swaps_that_fail(count), 'a: ["read"]', "a = 2"]
    result = check(recorded(*lines).operations(), Register())
    assert result.window is not None
    assert [each.input for each in result.window.operations] == [("write", 1), ("read",)]
    assert len(result.window.beside) == count
    assert result.window.states is None


def test_states_are_known_if_effects_are_not() -> None:
    lines = [*WRITE_2, *WRITE_1, *swaps_that_fail(100), 'a: ["read"]', "a = 3"]
    result = check(recorded(*lines).operations(), opaque(Register, "cas"))
    assert result.window is not None
    assert [each.input for each in result.window.operations] == [("read",)]
    assert result.window.states == (1,)
    assert "\nPossible states before: 1\n" in result.report()


def test_window_that_is_too_long_to_thin_out() -> None:
    lines = [*WRITE_2, *WRITE_1, *swaps_that_fail(300), 'a: ["read"]', "a = 2"]
    result = check(recorded(*lines).operations(), Register())
    assert result.window is not None
    assert len(result.window.operations) == 302


def test_measuring_command() -> None:
    result = CliRunner().invoke(main, ["--operations", "300", "--stale"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("not linearizable: 300 operations in 1 part\n")
    assert " configurations, " in result.output
