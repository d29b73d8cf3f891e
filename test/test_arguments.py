"""A wrong type raises at the call, at every entry point, and goes no further: no disk, no wire, no other command."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from test.helpers.fake_nodes import ManualNodes
from test.helpers.fakes import SESSION, THREE, NodeHarness, Reactor, alone, error_of, outcome_of, restarted, submit
from txpaxos.arguments import check_seconds, checked_bytes, checked_subject, checked_timers
from txpaxos.client import Client
from txpaxos.errors import ConfigError, NoQuorum, OutcomeUnknown, ValueTooLarge
from txpaxos.wire.client_messages import Ask, Submit
from txpaxos.wire.commands import Run

NO_BYTES: list[Any] = ["text", None, 5, 5.0, True, bytearray(b"x"), memoryview(b"x"), [b"x"], object()]
NO_STR: list[Any] = [b"king", None, 5, bytearray(b"x"), object()]
NO_SECONDS: list[Any] = ["5", b"5", True, [5], Decimal(5), object()]
BAD_SECONDS = [0, -1, 0.0, float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)]

Call = Callable[[Any], Any]


def name_of(value: object) -> str:
    return type(value).__name__


def calls(entry_point: Any) -> list[tuple[Call, list[Any]]]:
    """Each argument of each call of a node or a client, and what it may not be."""
    return [
        (lambda wrong: entry_point.submit(wrong), NO_BYTES),
        (lambda wrong: entry_point.read(wrong), NO_BYTES),
        (lambda wrong: entry_point.read(wrong, "local"), NO_BYTES),
        (lambda wrong: entry_point.read(b"q", wrong), [None, b"local", 5, True]),
        (lambda wrong: entry_point.ask(wrong), NO_STR),
        (lambda wrong: entry_point.ask(wrong, b"v"), NO_STR),
        (lambda wrong: entry_point.ask("king", wrong), [wrong for wrong in NO_BYTES if wrong is not None]),
        (lambda wrong: entry_point.submit(b"x", deadline_seconds=wrong), NO_SECONDS),
        (lambda wrong: entry_point.read(b"x", deadline_seconds=wrong), NO_SECONDS),
        (lambda wrong: entry_point.ask("king", b"x", deadline_seconds=wrong), NO_SECONDS),
    ]


def check_all(entry_point: Any) -> None:
    for call, wrongs in calls(entry_point):
        for wrong in wrongs:
            with pytest.raises(TypeError, match=f" not {name_of(wrong)}"):
                call(wrong)
    for call in (entry_point.submit, entry_point.read):
        for seconds in BAD_SECONDS:
            with pytest.raises(ValueError, match="deadline_seconds must be finite and above zero"):
                call(b"x", deadline_seconds=seconds)
    with pytest.raises(ValueError, match="there are 'linearizable' and 'local'"):
        entry_point.read(b"q", "stale")
    with pytest.raises(ValueError, match="UTF-8"):
        entry_point.ask("\ud800")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(math.nan, "nan"), (-math.inf, "-inf"), (math.inf, "it is too long"), (0, "0")]
)
def test_a_time_that_is_no_time_is_told_as_what_it_is(seconds: float, shown: str) -> None:
    with pytest.raises(ValueError, match=f"^ttl_seconds must be finite and above zero: {shown}$"):
        check_seconds(seconds, "ttl_seconds")


def test_at_a_client_nothing_is_sent_and_others_go_on() -> None:
    nodes = ManualNodes()
    good = outcome_of(nodes.client.submit(b"good"))
    check_all(nodes.client)
    with pytest.raises(TypeError):
        nodes.client.status(deadline_seconds="5")  # type: ignore[arg-type]
    line = nodes.accept()
    (sent,) = line.said()
    assert isinstance(sent, Submit)
    assert sent.commands == (b"good",)
    line.answer(1, "done")
    assert good == ["done"]
    assert nodes.client.next_sequence == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, THREE), "the first argument must be the reactor (from twisted.internet import reactor), not NoneType"),
        ((THREE,), "the first argument must be the reactor"),
        ((Reactor(), "cluster.toml"), "must be a Cluster, not str: load it, Cluster.load('cluster.toml')"),
        ((Reactor(), Path("a.toml")), "Cluster.load('a.toml')"),
        ((Reactor(), None), "cluster must be a Cluster, not NoneType"),
        ((Reactor(), THREE, "a"), "nodes must be a list of names, or None for all of them, not str: write ['a']"),
        ((Reactor(), THREE, b"a"), "nodes must be a list of names, or None for all of them, not bytes"),
        ((Reactor(), THREE, 3), "nodes must be a list of names, or None for all of them, not int"),
        ((Reactor(), THREE, [None]), "nodes must be a list of names, and one of them is NoneType"),
        ((Reactor(), THREE, [["a"]]), "nodes must be a list of names, and one of them is list"),
    ],
)
def test_what_makes_no_client(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        Client(*arguments, *([THREE] if len(arguments) == 1 else []))
    assert words in str(caught.value)


@pytest.mark.parametrize("nodes", [(), ("d",), ("a", "d")])
def test_nodes_that_are_not_in_the_cluster(nodes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"its nodes are a, b, c"):
        Client(Reactor(), THREE, nodes)


def test_nodes_may_come_from_a_generator() -> None:
    client = Client(Reactor(), THREE, (name for name in "ab"))
    assert client.findings().count("10.0.0.") == 2


def test_at_a_node_nothing_is_saved_and_others_go_on() -> None:
    harness = alone()
    good = outcome_of(harness.node.submit(b"good"))
    saves = len(harness.store.saves)
    check_all(harness.node)
    for wrong in NO_BYTES:
        with pytest.raises(TypeError, match=f"a command must be bytes, not {name_of(wrong)}"):
            harness.node.submit_run(Run(SESSION, 1, 0, (b"x", wrong)))
    assert len(harness.store.saves) == saves
    harness.reactor.idle()
    assert good == ["good@1"]
    assert submit(harness, b"more") == ["more@2"]
    assert harness.failures == []
    again = restarted(harness)
    again.reactor.idle()
    assert [command for _, command in again.node.application.applied] == [b"good", b"more"]


def test_at_a_follower_nothing_is_passed_on() -> None:
    harness = NodeHarness("b")
    harness.forget()
    check_all(harness.node)
    harness.reactor.idle()
    assert harness.events == []
    assert harness.failures == []


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ((SESSION, 1, 0, (b"x",)), "a run must be a Run, not tuple"),
        (None, "a run must be a Run, not NoneType"),
        (Run(SESSION, 1, 0, [b"x"]), "must be a tuple, not list"),  # type: ignore[arg-type]
        (Run("session1", 1, 0, (b"x",)), "not str, int, int"),  # type: ignore[arg-type]
        (Run(SESSION, True, 0, (b"x",)), "not bytes, bool, int"),
        (Run(SESSION, 1, 0.0, (b"x",)), "not bytes, int, float"),  # type: ignore[arg-type]
    ],
)
def test_a_run_of_wrong_types(run: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        alone().node.submit_run(run)


@pytest.mark.parametrize(
    "run",
    [Run(SESSION, 1, 0, ()), Run(b"short", 1, 0, (b"x",)), Run(SESSION, -1, 0, (b"x",)), Run(SESSION, 1, -1, (b"x",))],
)
def test_a_run_that_cannot_be_told(run: Run) -> None:
    with pytest.raises(ValueError, match="a run needs a session"):
        alone().node.submit_run(run)


def test_what_is_more_than_bytes_or_str_is_made_plain() -> None:
    """The wire and the disk hold plain ones."""

    class Command(bytes):
        pass

    class King(enum.StrEnum):
        OF_BRITAIN = "Arthur"

    assert type(checked_bytes(Command(b"x"), "a command")) is bytes
    assert (type(checked_subject(King.OF_BRITAIN)), checked_subject(King.OF_BRITAIN)) == (str, "Arthur")
    nodes = ManualNodes()
    nodes.client.submit(Command(b"x"))
    nodes.client.ask(King.OF_BRITAIN, Command(b"y"))
    sent = nodes.accept().said()
    assert isinstance(sent[0], Submit)
    assert (sent[0].commands, sent[1]) == ((b"x",), Ask(2, "Arthur", b"y"))


def test_sizes_are_an_outcome_not_a_mistake() -> None:
    """An error that may depend on the input of another caller is a failed answer."""
    assert isinstance(error_of(ManualNodes().client.ask("")), ValueTooLarge)
    assert isinstance(error_of(alone().node.ask("")), ValueTooLarge)


def test_the_deadline_of_a_client_is_kept() -> None:
    nodes = ManualNodes()
    waiting = nodes.client.submit(b"x", deadline_seconds=1)
    assert isinstance(nodes.reactor, Reactor)
    nodes.reactor.spend(1.1)
    assert error_of(waiting)


def test_the_deadlines_of_a_node_are_kept() -> None:
    """With the error that says what may have become of it. A late outcome is ignored."""
    harness = NodeHarness("b")
    waiting = {
        OutcomeUnknown: [harness.node.submit(b"x", 1), harness.node.ask("king", b"Arthur", 1)],
        NoQuorum: [harness.node.ask("king", None, 1), harness.node.read(b"q", "linearizable", 1)],
    }
    harness.reactor.spend(0.9)
    assert not any(one.called for several in waiting.values() for one in several)
    harness.reactor.spend(0.2)
    for error, several in waiting.items():
        assert [type(error_of(one)) for one in several] == [error, error]
    harness.node.stop()


def test_a_node_that_answers_in_time() -> None:
    harness = alone()
    answers = [outcome_of(harness.node.submit(b"x", 1)), outcome_of(harness.node.ask("king", b"Arthur", 1))]
    harness.reactor.idle()
    assert answers == [["x@1"], [b"Arthur"]]
    harness.reactor.spend(5.0)
    assert answers == [["x@1"], [b"Arthur"]]


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ("session", TypeError, "the names of timers must be a list of str, not str: write ['session']"),
        (b"session", TypeError, "the names of timers must be a list of str, not bytes"),
        (None, TypeError, "the names of timers must be a list of str, not NoneType"),
        ([b"a"], TypeError, "the name of a timer must be a str, not bytes"),
        (["\ud800"], ValueError, "UTF-8"),
        (["ä" * 257], ValueError, "the name of a timer has 514 bytes and may have 512"),
        ([], ValueError, "0 timers: one call keeps 1 to 1024 alive"),
        (["a"] * 1025, ValueError, "1025 timers: one call keeps 1 to 1024 alive"),
    ],
)
def test_what_names_no_timers(names: Any, error: type[Exception], words: str) -> None:
    nodes = ManualNodes()
    with pytest.raises(error) as caught:
        nodes.client.keep_alive(names)
    assert words in str(caught.value)
    assert checked_timers((name for name in "ab"), 512, 2) == ("a", "b")
