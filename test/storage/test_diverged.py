"""Nodes that make another state of the log than a majority: they stop, and stay down until an operator acts."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import LogLevel

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import alone, error_of, logged, submit
from test.node.snapshots.test_coordinator import POLICY, Ledger, agreed, fill
from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import StoreError
from txpaxos.node.snapshots.digests import Diverged
from txpaxos.storage.memory import MemoryStore


class Moody(Ledger):
    """An application that looks at what it must not: who it is."""

    wrong: NodeId = "c"

    def apply(self, slot: Slot, command: bytes) -> object:
        result = super().apply(slot, command)
        if command == b"7" and self.status().replica.node == self.wrong:
            self.lines.append(b"by the way")
        return result


def test_a_nondeterministic_apply_is_found_and_that_node_stops() -> None:
    connected = ConnectedNodes(application=Moody, snapshot_policy=POLICY)
    failures: list[Any] = []
    connected.nodes["c"].failed.addErrback(failures.append)
    connected.lead()
    leader = next(node for node in connected.nodes.values() if node.name != "c")

    def run() -> None:
        for number in range(30):
            connected.wait(leader.submit(b"%d" % number))
            if failures:
                return

    events = logged(run, LogLevel.critical)
    assert failures
    assert failures[0].check(Diverged)
    assert "the state differs at slot " in str(failures[0].value)
    assert "node c stops" in str(failures[0].value)
    assert failures[0].type is Diverged
    lines = [event["line"] for event in events if "line" in event]
    assert lines
    assert all(line.endswith(" against c") for line in lines)
    connected.nodes.pop("c")
    connected.wait(leader.submit(b"after"))
    for node in connected.nodes.values():
        assert not node.failed.called


def diverge(connected: ConnectedNodes, nodes: str) -> dict[NodeId, Any]:
    """Commands are submitted until ``nodes`` have stopped. The failure of each, and they are gone."""
    failures: dict[NodeId, Any] = {}
    for name, node in connected.nodes.items():
        node.failed.addErrback(lambda failure, name=name: failures.update({name: failure}))
    leader = connected.lead()
    for number in range(100):
        connected.reactor.spend(0.01)
        if failures.keys() == {*nodes}:
            break
        leader.submit(b"%d" % number).addErrback(lambda _: None)
    assert failures.keys() == {*nodes}
    for name in nodes:
        del connected.nodes[name]
    return failures


def test_where_all_differ_all_know_it_and_stop() -> None:
    """Also those of which one has stopped before they could hear from it in the usual way."""

    class Selfish(Ledger):
        def apply(self, slot: Slot, command: bytes) -> object:
            if command == b"5":
                self.lines.append(self.status().replica.node.encode())
            return super().apply(slot, command)

    connected = ConnectedNodes(application=Selfish, snapshot_policy=POLICY)
    failures = diverge(connected, "abc")
    assert {failure.value.finding.partition(": ")[2] for failure in failures.values()} == {"a against b against c"}


def test_a_node_stops_that_differs_from_a_majority_of_which_one_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was away when the two compared. The one that is left tells it what the other had."""
    connected = ConnectedNodes(application=Moody, snapshot_policy=POLICY)
    while connected.lead().name == "c":
        connected.restart("c")
    for number in range(6):
        connected.wait(connected.lead().submit(b"%d" % number))
    connected.reactor.spend(1.0, lambda: agreed(connected))
    connected.cut_off("c")
    for number in range(6, 14):
        connected.wait(connected.lead_of_the_rest(connected.nodes["c"]).submit(b"%d" % number))
    slots = {node.status().compaction.snapshot_slot for node in connected.nodes.values() if node.name != "c"}
    assert len(slots) == 1
    connected.reactor.spend(1.0)
    stopped: list[Any] = []
    connected.nodes["c"].failed.addErrback(stopped.append)
    connected.kill("a")
    connected.cut.clear()
    events = logged(lambda: connected.reactor.spend(20.0, lambda: stopped), LogLevel.critical)
    assert stopped[0].check(Diverged)
    assert stopped[0].value.finding.endswith(": a, b against c")
    assert any("which nodes are right is not known" in event["log_format"] for event in events)
    del connected.nodes["c"]


def start_again(connected: ConnectedNodes, name: NodeId) -> Any:
    """Start a node on what its store holds."""
    store = connected.stores[name]
    connected.stores[name] = type(store)(saved=store.saved, files=store.files)
    try:
        connected.start(name)
    except StoreError:
        connected.nodes.pop(name, None)
        raise
    return connected.nodes[name]


def discard_snapshots(connected: ConnectedNodes, name: NodeId) -> None:
    """Put them aside."""
    contents = connected.stores[name].files.contents
    for path in [path for path in contents if path.endswith(".snapshot")]:
        del contents[path]


def test_a_diverged_node_does_not_start_again_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says at which slot it differs, from whom, and what to do; done so, it takes the state from the others."""
    monkeypatch.setattr(Moody, "wrong", "a")
    connected = ConnectedNodes(application=Moody, snapshot_policy=POLICY)
    while connected.lead().name == "a":
        connected.restart("a")
    failure = diverge(connected, "a")["a"]
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            start_again(connected, "a")
        line = str(caught.value)
        assert f"/diverged says: {failure.value.finding}; correct the cause, then rename /snapshots to" in line
        assert failure.value.finding.endswith(": a against b, c")
        assert "\n" not in line
    fill(connected, 60)
    monkeypatch.setattr(Moody, "wrong", "none")
    discard_snapshots(connected, "a")
    again = start_again(connected, "a")
    assert not any(path.endswith("diverged") for path in connected.stores["a"].files.contents)
    assert connected.reactor.spend(20.0, lambda: agreed(connected))
    assert b"by the way" not in again.application.lines
    assert start_again(connected, "a").application.lines == again.application.lines


def test_where_all_have_stopped_the_one_that_is_believed_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Selfish(Ledger):
        wrong = True

        def apply(self, slot: Slot, command: bytes) -> object:
            if self.wrong and command == b"50":
                self.lines.append(self.status().replica.node.encode())
            return super().apply(slot, command)

    connected = ConnectedNodes(application=Selfish, snapshot_policy=POLICY)
    diverge(connected, "abc")
    monkeypatch.setattr(Selfish, "wrong", False)
    for name in "abc":
        with pytest.raises(StoreError, match="a against b against c"):
            start_again(connected, name)
    del connected.stores["b"].files.contents["/diverged"]
    for name in "ac":
        discard_snapshots(connected, name)
    for name in "abc":
        start_again(connected, name)
    assert connected.reactor.spend(20.0, lambda: agreed(connected) and connected.nodes["b"].application.lines)
    assert b"b" in connected.nodes["a"].application.lines
    assert b"a" not in connected.nodes["a"].application.lines
    fill(connected, 40)
    assert connected.reactor.spend(5.0, lambda: agreed(connected))


def test_the_verdict_is_on_disk_before_the_node_has_stopped() -> None:
    """A program that starts the node again at once must find the marker. But the node stops sending before that."""
    harness = alone(application=Ledger, snapshot_policy=POLICY)
    for number in range(15):
        submit(harness, b"%d" % number)
    harness.store.slow = True
    logged(lambda: harness.node._snapshots._diverged(Diverged("the state differs", "a")))
    assert harness.failures == []
    assert error_of(harness.node.submit(b"more")).args == ("node a is stopping; submit to another",)
    harness.store.finish()
    (failure,) = harness.failures
    assert failure.check(Diverged)
    with pytest.raises(StoreError, match="/diverged says: the state differs; "):
        MemoryStore(harness.store.saved, files=harness.store.files).load()


def test_a_verdict_that_cannot_be_saved_is_told() -> None:
    harness = alone(application=Ledger)
    harness.store.files.failing = True
    events = logged(lambda: harness.node._snapshots._diverged(Diverged("the state differs", "a")))
    assert any(event["log_format"].startswith("do not start this node again as it is") for event in events)
    (failure,) = harness.failures
    assert failure.check(Diverged)
