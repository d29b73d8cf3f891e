"""What nodes tell of their slots while they run, beside what their recordings tell afterwards; and the core of each
node, run again over all that it has recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import attrs

from test.helpers.facts import without_time
from test.torture.nodes import NamespacedCluster
from txpaxos.cli.replay import Outcome, as_text, replay
from txpaxos.cli.running import together
from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import LOWEST, Ballot, Slot
from txpaxos.explaining.facts import What
from txpaxos.explaining.recollection import Recollection
from txpaxos.explaining.recorded import recollect_recorded
from txpaxos.explaining.story import AGAINST_THE_RULES, Story, story_of
from txpaxos.recording.reading import recorded_nodes

SLOTS_EACH_TIME = 8
"""How many slots the nodes are asked about after each round. They remember a few seconds of a busy run."""


@attrs.define
class RecordingCheck:
    """What came of the comparison.

    :ivar slots: how many slots the nodes were asked about.
    :ivar told_facts: how many facts they told of them.
    :ivar ballots: in how many ballots the values of these slots were proposed.
    :ivar proposed_again: how many of the slots hold a value that was proposed in more than one ballot.
    :ivar explained: of how many of them the recordings tell by which votes the value was chosen.
    :ivar inputs: how many inputs of all cores came to the same again.
    :ivar found: what is wrong; empty if nothing is.
    """

    slots: int = 0
    told_facts: int = 0
    ballots: int = 0
    proposed_again: int = 0
    explained: int = 0
    inputs: int = 0
    found: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.inputs} recorded inputs replayed; nodes told {self.told_facts} facts of {self.slots} slots in"
            f" {self.ballots} ballots ({self.proposed_again} slots in more than one), all as recorded; the votes that"
            f" chose the value are known of {self.explained}"
        )


class Asked:
    """Slots that running nodes were asked about, and what they told.

    :param nodes: the cluster.
    :param rng: chooses the slots.
    :ivar told: what each node told of each slot.
    """

    def __init__(self, nodes: NamespacedCluster, rng: Random) -> None:
        self._nodes = nodes
        self._rng = rng
        self._asked_through = 0
        self._ballots: dict[Slot, Ballot] = {}
        self.told: list[Recollection] = []

    async def ask(self) -> None:
        """Ask all nodes about some of the slots that were chosen since the last time. If the leader has changed in
        between, ask also about those at which it did: they are few, and the ones that were proposed again."""
        first, last = self._asked_through + 1, await self._nodes.chosen_through()
        slots = sorted(self._rng.sample(range(first, last + 1), min(SLOTS_EACH_TIME, max(0, last - first + 1))))
        self._asked_through = max(self._asked_through, last)
        await self._about(slots)
        for before, after in pairwise(slots):
            while after - before > 1 and self._ballots.get(before) != self._ballots.get(after):
                await self._about([middle := (before + after) // 2])
                if self._ballots.get(middle) == self._ballots.get(before):
                    before = middle
                else:
                    after = middle
        await self._nodes.recorded()

    async def _about(self, slots: Sequence[Slot]) -> None:
        for of_node in await together(*(self._nodes.recall(node, slots) for node in self._nodes.cluster.members)):
            self.told += of_node
            for one in of_node:
                ballots = {fact.ballot for fact in one.facts if fact.what is What.VOTED}
                self._ballots[one.slot] = max(ballots | {self._ballots.get(one.slot, LOWEST)})


def check_recordings(folder: Path, told: Sequence[Recollection]) -> RecordingCheck:
    """Replay the recordings of all nodes, and compare them with what the nodes have told.

    :param folder: with the recordings of all nodes. They must be down.
    """
    outcome = RecordingCheck(slots=len({one.slot for one in told}), told_facts=sum(len(one.facts) for one in told))
    nodes = recorded_nodes(str(folder))
    for again in (replay(str(folder), node) for node in nodes):
        outcome.inputs += again.inputs
        outcome.found += _unlike(again)
    if outcome.found:
        return outcome
    slots = sorted({one.slot for one in told})
    recorded = {node: recollect_recorded(str(folder), node, slots) for node in nodes}
    for one in told:
        outcome.found += _not_recorded(one, recorded[one.node][one.slot])
    ballots: set[Ballot] = set()
    for slot in slots:
        of_slot = [recorded[node][slot] for node in nodes]
        story = story_of(slot, [fact for one in of_slot for fact in one.facts], nodes, _quorum(of_slot))
        outcome.found += _unsound(story, of_slot)
        outcome.explained += story.chosen_in is not None
        proposed = {fact.ballot for fact in story.facts if fact.what is What.PROPOSED}
        outcome.proposed_again += len(proposed) > 1
        ballots |= proposed
    outcome.ballots = len(ballots)
    return outcome


def _unlike(again: Outcome) -> Iterator[str]:
    if again.difference or again.error:
        yield f"the recording of {as_text(again)}"


def _not_recorded(told: Recollection, recorded: Recollection) -> Iterator[str]:
    """Whatever a node has told is in its recording. It may have more: what came later, or before a restart."""
    known = set(map(without_time, recorded.facts))
    for fact in told.facts:
        if without_time(fact) not in known:
            yield f"node {told.node} told of slot {told.slot} what is not in its recording: {fact}"
    if told.value is not None and told.value != recorded.value:
        yield f"node {told.node} told that slot {told.slot} holds {told.value}, and recorded {recorded.value}"


def _unsound(story: Story, recorded: Sequence[Recollection]) -> Iterator[str]:
    """All nodes hold one value, and each leader proposed what it may."""
    values = {one.value for one in recorded if one.value is not None}
    if len(values) != 1:
        yield f"slot {story.slot} holds {len(values)} values, as the recordings tell"
    proposed = [fact for fact in story.facts if fact.what is What.PROPOSED]
    chosen_in = story.chosen_in
    later = {one.value for one in proposed if chosen_in is not None and one.ballot >= chosen_in}
    if later - {one.mark for one in values}:
        yield f"at slot {story.slot} another value was proposed after one was chosen: {' '.join(story.reasons)}"
    if any(AGAINST_THE_RULES in reason for reason in story.reasons):
        yield f"slot {story.slot}: {' '.join(story.reasons)}"


def _quorum(recorded: Sequence[Recollection]) -> int:
    """The quorum of the most voters at the end of any recording. The story goes by it only where no proposal tells who
    could vote at the slot: then it may not know the votes that chose the value, and never tells too few for them."""
    return quorum_size(max(len(one.voters) for one in recorded))
