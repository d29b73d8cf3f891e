"""Scenarios: each file in ``scenarios/`` holds commands and, below ``----``, exactly what they print.

``TXPAXOS_REWRITE=1 python -m pytest test/core/test_scenarios.py`` writes the printouts anew. Keep a change only if you
know why it came. The commands:

=============================  =======================================================================================
``start a b c``                the members; all start at 0 s. Comes first
``run 0.5``                    let that many seconds pass
``run until leader``           until one leads, or ``run until settled``: until all have every chosen value
``propose x``                  at the leader, or ``propose x at b``
``drop a->b``                  lose what a sends to b from here on; ``a<->b`` both ways, ``a<->*`` all lines of a
``allow a->b``                 end that
``crash a``, ``restart a``     stop a node; start it from its disk
``wake a``                     a reaches its election timeout, now
``show``                       role, promise and values of each
=============================  =======================================================================================

Messages to oneself are not printed, nor are heartbeats that bring nothing new, nor their acknowledgements.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.helpers.core_cluster import CoreCluster
from test.helpers.core_node import sent
from txpaxos.core.messages import (
    NO_OP,
    AcceptedSlot,
    AcceptSlot,
    ChosenValues,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    LogMessage,
    Nack,
    NodeId,
    PrepareLog,
    PreVote,
    PreVoteGranted,
    PromiseLog,
)
from txpaxos.core.ready import Chosen, LeadershipAcquired, LeadershipChanged, LeadershipFact, LeadershipLost, Ready
from txpaxos.core.replica import Replica

SCENARIOS = Path(__file__).parents[1] / "scenarios"
DIVIDER = "----"
SECONDS_MAX = 30.0


def name(value: bytes) -> str:
    return value.decode() if value != NO_OP else "no-op"


def in_words(message: LogMessage) -> str:
    """One message, for people."""
    match message:
        case PrepareLog(ballot, first_slot):
            return f"prepare {ballot} from slot {first_slot} on"
        case PromiseLog(ballot, first_slot, values, votes):
            chosen = "".join(f", {slot} = {name(value)}" for slot, value in enumerate(values, first_slot))
            voted = "".join(f", voted {vote.slot} = {name(vote.value)} in {vote.ballot}" for vote in votes)
            return f"promise {ballot}{chosen}{voted}"
        case AcceptSlot(ballot, slot, value, chosen_through):
            return f"accept {ballot} {slot} = {name(value)}, chosen through {chosen_through}"
        case AcceptedSlot(ballot, slot):
            return f"accepted {ballot} {slot}"
        case Nack(ballot, promised):
            return f"no to {ballot}, promised {promised}"
        case Fetch(first_slot):
            return f"fetch from slot {first_slot} on"
        case ChosenValues(first_slot, values, chosen_through):
            listed = ", ".join(f"{slot} = {name(value)}" for slot, value in enumerate(values, first_slot))
            return f"values {listed}, chosen through {chosen_through}"
        case PreVote():
            return "pre-vote: would you promise?"
        case PreVoteGranted():
            return "pre-vote granted"
        case Heartbeat() | HeartbeatAck():
            return f"heartbeat {message.ballot}, chosen through {message.chosen_through}"
    raise AssertionError(message)  # No scenario has reads or snapshots.


class ScenarioCluster(CoreCluster):
    """A cluster that writes down what happens to it."""

    def __init__(self, members: list[NodeId]) -> None:
        self.lines: list[str] = []
        super().__init__(1, len(members))
        assert list(self.members) == members, f"members are called {self.members}"
        self.watch = self.deliver
        self.told = self.say_who_leads

    def say(self, line: str) -> None:
        self.lines.append(f"{self.now:6.3f}  {line}")

    def deliver(self, to: NodeId, sender: NodeId, message: LogMessage, ready: Ready) -> None:
        news = ready.chosen or ready.leadership or sent(ready, Nack)
        if sender != to and (news or not isinstance(message, Heartbeat | HeartbeatAck)):
            self.say(f"{sender} -> {to}  {in_words(message)}")

    def _deliver(self, sender: NodeId, to: NodeId, message: LogMessage, running: Replica | None) -> None:
        lost = (sender, to) in self.cut or to not in self.nodes
        if lost and not isinstance(message, Heartbeat | HeartbeatAck):
            self.say(f"{sender} -> {to}  {in_words(message)} (lost)")
        super()._deliver(sender, to, message, running)

    def say_who_leads(self, node: NodeId, fact: LeadershipFact) -> None:
        match fact:
            case LeadershipAcquired(ballot):
                self.say(f"{node} leads with {ballot}")
            case LeadershipLost(ballot):
                self.say(f"{node} leads with {ballot} no longer")
            case LeadershipChanged(_, current) if current != node:
                self.say(f"{node} follows {current or 'none'}")

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        super().hand_out(node, ready)
        for item in ready.chosen:
            assert isinstance(item, Chosen)
            self.say(f"{node} knows {item.slot} = {name(item.value)}")

    # the commands

    def perform(self, command: str) -> None:
        match command.split():
            case ["run", "until", "leader"]:
                assert self.run(SECONDS_MAX, self.leader), command
            case ["run", "until", "settled"]:
                assert self.run(SECONDS_MAX, self.settled), command
            case ["run", seconds]:
                self.run(float(seconds))
            case ["propose", value, *at]:
                assert self.propose(value.encode(), at[1] if at else self.leader()), command
            case ["drop", line]:
                self.cut |= self.between(line)
            case ["allow", line]:
                self.cut -= self.between(line)
            case ["crash", node]:
                self.stop(node)
            case ["restart", node]:
                self.start(node)
            case ["wake", node]:
                self.nodes[node].election._silent_at = self.now
                self.take(node, self.nodes[node].tick(self.now))
            case ["show"]:
                self.lines += [self.standing(node) for node in self.members]
            case _:
                raise ValueError(f"no such command: {command}")

    def between(self, line: str) -> set[tuple[NodeId, NodeId]]:
        """The directions that ``a->b`` or ``a<->b`` stands for."""
        one, two = line.replace("<", "").split("->")
        others = [node for node in self.members if node != one] if two == "*" else [two]
        there = {(one, other) for other in others}
        return there | {(other, one) for other in others} if "<" in line else there

    def standing(self, node: NodeId) -> str:
        if node not in self.nodes:
            return f"{node}  down"
        status = self.nodes[node].status()
        known = " ".join(name(value) for value in self.values(node)) or "nothing"
        return f"{node}  {status.role:<9}  of {status.leader or 'none'}  promised {status.promised}  knows {known}"


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each block of ``text``: what stands above its divider, and the commands in there."""
    for block in text.split("\n\n"):
        above = block.split(f"\n{DIVIDER}")[0].strip("\n")
        yield above, [line for line in above.splitlines() if not line.startswith("#")]


def play(text: str) -> str:
    """The scenario ``text`` with the printouts that its commands have now."""
    cluster: ScenarioCluster | None = None
    printed = []
    for above, commands in blocks(text):
        for command in commands:
            if cluster is None:
                verb, *members = command.split()
                assert verb == "start", "a scenario begins with: start a b c"
                cluster = ScenarioCluster(members)
            else:
                cluster.perform(command)
        below: list[str] = []
        if cluster is not None and commands:
            below, cluster.lines = [DIVIDER, *cluster.lines], []
        printed.append("\n".join([above, *below]))
    return "\n\n".join(printed) + "\n"


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.txt")), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text = path.read_text()
    played = play(text)
    if os.environ.get("TXPAXOS_REWRITE"):
        path.write_text(played)
    else:
        assert played == text, "TXPAXOS_REWRITE=1 writes it anew; keep that only if you know why it changed"


def test_there_are_scenarios() -> None:
    assert len(list(SCENARIOS.glob("*.txt"))) >= 5


def test_commands_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="no such command: dance"):
        play("start a b c\n\ndance\n")


def test_same_seed_same_story() -> None:
    text = "start a b c\n\nrun until leader\npropose x\nrun 1.0\nshow\n"
    assert play(text) == play(text)
    assert play(play(text)) == play(text), "and printouts are not read as commands"
