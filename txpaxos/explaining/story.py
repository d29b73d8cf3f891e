"""The story of one slot: what several nodes remember, put into one order, and why the value is what it is.

The reason follows from the algorithm (Lamport, *Paxos Made Simple*, 2001, section 2.2): a leader may propose what it
likes at a slot only if none of a quorum that promised its ballot had voted there. Otherwise it must propose the value
of the highest ballot among their votes, since that one may have been chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import LOWEST, Ballot, NodeId, Slot
from txpaxos.drawing.space_time import Kind, SpaceTime, Step
from txpaxos.explaining.facts import Fact, ValueMark, What

_OF_CHOSEN = frozenset({What.TOLD, What.CHOSEN, What.APPLIED})
"""What a node does only at a slot whose value it knows to be chosen."""

AGAINST_THE_RULES = "against the rules"
"""What a reason says of a proposal that the algorithm forbids."""

KINDS: dict[What, Kind] = {
    What.PREPARED: "sent",
    What.PROMISED: "saved",
    What.PROPOSED: "sent",
    What.VOTED: "saved",
    What.TOLD: "saved",
    What.CHOSEN: "chosen",
    What.APPLIED: "applied",
}


@attrs.frozen
class Story:
    """What is known of how a slot came to hold what it holds.

    :ivar slot: the slot; 0 if it is the story of a ballot.
    :ivar facts: what happened, in one order: no effect comes before its cause, whatever the clocks of the nodes say.
    :ivar causes: for each fact, the number of the fact that it follows from, if that is at another node.
    :ivar nodes: the nodes that were asked.
    :ivar chosen_in: the ballot in which the value was chosen; ``None`` if no quorum of votes is remembered.
    :ivar voters: whose votes in that ballot are remembered.
    :ivar reasons: in sentences: what was chosen, by whom, and why it was that value.
    """

    slot: Slot
    facts: tuple[Fact, ...]
    causes: tuple[int | None, ...]
    nodes: tuple[NodeId, ...]
    chosen_in: Ballot | None
    voters: tuple[NodeId, ...]
    reasons: tuple[str, ...]

    def diagram(self) -> SpaceTime:
        """The story as a space-time diagram. The seconds count from the first fact."""
        begun = min((fact.utc_seconds for fact in self.facts), default=0.0)
        named = {fact.node for fact in self.facts} - set(self.nodes)
        steps = [
            Step(fact.node, told(fact), fact.utc_seconds - begun, KINDS.get(fact.what, "step"), cause)
            for fact, cause in zip(self.facts, self.causes, strict=True)
        ]
        title = f"Slot {self.slot}" if self.slot else "The ballot"
        return SpaceTime((*self.nodes, *sorted(named)), tuple(steps), title)


def story_of(slot: Slot, facts: Iterable[Fact], nodes: Sequence[NodeId], quorum: int) -> Story:
    """The story that ``facts`` of several nodes tell.

    :param slot: the slot that it is about; 0 for the ballot that all facts are about.
    :param facts: of all nodes; those of each node in its own order.
    :param nodes: the nodes that were asked.
    :param quorum: how many votes choose a value, where no proposal is remembered. A proposal tells who could vote.
    """
    ordered, causes = _in_one_order(list(dict.fromkeys(facts)))
    chosen_in, voters = _choice(ordered, quorum)
    reasons = tuple(_reasons(slot, ordered, nodes, chosen_in, voters)) if slot else tuple(_reasons_of_ballot(ordered))
    return Story(slot, ordered, causes, tuple(nodes), chosen_in, voters, reasons)


# ------------------------------------------------------------------ one order


def _in_one_order(facts: Sequence[Fact]) -> tuple[tuple[Fact, ...], tuple[int | None, ...]]:
    """``facts`` in an order that all nodes could have seen: those of each node as they are, and each after its cause.
    Where that leaves a choice, the clocks decide.

    :returns: the facts, and for each the number of its cause, if that is at another node.
    """
    waiting: dict[NodeId, list[Fact]] = {}
    for fact in facts:
        waiting.setdefault(fact.node, []).append(fact)
    effects = {_key(fact) for fact in facts}
    learned_from = _learned_from(facts)
    number_of: dict[tuple[object, ...], int] = {}
    ordered: list[Fact] = []
    causes: list[int | None] = []
    while waiting:
        heads = [queue[0] for queue in waiting.values()]
        needed = [(fact, (_cause(fact), learned_from.get((fact.node, fact.what), ()))) for fact in heads]
        free = [fact for fact, keys in needed if all(key in number_of or key not in effects for key in keys)]
        # If none is free, nodes contradict each other, or one has lost its memory on the way.
        fact = min(free or heads, key=lambda fact: fact.utc_seconds)
        queue = waiting[fact.node]
        queue.pop(0)
        if not queue:
            del waiting[fact.node]
        cause = number_of.get(_cause(fact))
        causes.append(None if cause is None or ordered[cause].node == fact.node else cause)
        number_of.setdefault(_key(fact), len(ordered))
        ordered.append(fact)
    return tuple(ordered), tuple(causes)


def _learned_from(facts: Iterable[Fact]) -> dict[tuple[NodeId, What], tuple[object, ...]]:
    """For each node that has learned from a leader that its own vote is for the chosen value: the key of that leader's
    knowledge. A node that another one has told the value is not among them."""
    votes: dict[NodeId, Fact] = {}
    told, proposed = set(), set()
    for fact in facts:
        if fact.what is What.VOTED and (fact.node not in votes or fact.ballot > votes[fact.node].ballot):
            votes[fact.node] = fact
        elif fact.what is What.TOLD:
            told.add(fact.node)
        elif fact.what is What.PROPOSED:
            proposed.add(fact.ballot)
    return {
        (node, What.CHOSEN): (vote.ballot.node, What.CHOSEN, vote.slot, LOWEST)
        for node, vote in votes.items()
        if vote.ballot.node != node and vote.ballot in proposed and node not in told
    }


def _key(fact: Fact) -> tuple[object, ...]:
    """What other facts name a fact by, when it is their cause."""
    return fact.node, fact.what, fact.slot, fact.ballot


def _cause(fact: Fact) -> tuple[object, ...]:
    """The key of the fact that ``fact`` follows from, if it follows from one of another node."""
    ballot, slot = fact.ballot, fact.slot
    match fact.what:
        case What.PROMISED if fact.node != ballot.node:
            return ballot.node, What.PREPARED, 0, ballot
        case What.HEARD_PROMISE:
            return fact.peer, What.PROMISED, 0, ballot
        case What.VOTED:
            return ballot.node, What.PROPOSED, slot, ballot
        case What.HEARD_VOTE:
            return fact.peer, What.VOTED, slot, ballot
    return ()


# ---------------------------------------------------------------- the reasons


def _choice(facts: Sequence[Fact], quorum: int) -> tuple[Ballot | None, tuple[NodeId, ...]]:
    """The lowest ballot in which the remembered votes are a quorum, and whose votes these are. In every higher ballot
    the same value was proposed.

    The same members govern a slot in all ballots: those that its leaders have asked, and not the members of now."""
    asked = _asked(facts)
    if asked:
        quorum = quorum_size(len(asked))
    for ballot, voters in sorted(_votes(facts).items()):
        if len(voters) >= quorum:
            return ballot, tuple(sorted(voters))
    return None, ()


def _asked(facts: Sequence[Fact]) -> tuple[NodeId, ...]:
    return next((fact.asked for fact in facts if fact.asked), ())


def _votes(facts: Sequence[Fact]) -> dict[Ballot, set[NodeId]]:
    """Who is known to have voted in each ballot, by what it did itself, or by what the leader heard."""
    asked = _asked(facts)
    votes: dict[Ballot, set[NodeId]] = {}
    for fact in facts:
        if fact.what in (What.VOTED, What.HEARD_VOTE) and (not asked or (fact.peer or fact.node) in asked):
            votes.setdefault(fact.ballot, set()).add(fact.peer or fact.node)
    return votes


def _reasons(
    slot: Slot,
    facts: Sequence[Fact],
    nodes: Sequence[NodeId],
    chosen_in: Ballot | None,
    voters: Sequence[NodeId],
) -> Iterator[str]:
    if not facts:
        yield f"No node that was asked remembers slot {slot}: it is not used yet, or too long ago."
        return
    if all(fact.what not in _OF_CHOSEN for fact in facts) and chosen_in is None:
        yield "No node that was asked knows a value to be chosen at this slot, nor the votes of a quorum."
    elif chosen_in is None:
        yield "No quorum of votes is remembered, so the ballot in which the value was chosen is not known."
    else:
        yield f"The value was chosen in ballot {chosen_in}, by the votes of {_all_of(voters)}."
    proposed = {fact.ballot: fact for fact in facts if fact.what is What.PROPOSED}
    for ballot in sorted(proposed):
        yield _why(proposed[ballot], _promises_before(proposed[ballot], facts))
        if chosen_in is not None and ballot < chosen_in:
            yield _why_not(proposed[ballot], proposed.get(chosen_in), sorted(_votes(facts).get(ballot, ())))
    for node in dict.fromkeys(fact.node for fact in facts if fact.what is What.TOLD):
        yield f"{node} was told the chosen value by another node: a vote of its own in that ballot did not show it."
    silent = [node for node in nodes if all(fact.node != node for fact in facts)]
    if silent:
        yield f"{_all_of(silent)} {'remembers' if len(silent) == 1 else 'remember'} nothing of this slot."


def _promises_before(proposal: Fact, facts: Iterable[Fact]) -> list[Fact]:
    """The promises by which a leader went. When members change it counts more of them later, for later slots."""
    heard = (fact for fact in facts if fact.what is What.HEARD_PROMISE and fact.ballot == proposal.ballot)
    return [fact for fact in heard if fact.utc_seconds <= proposal.utc_seconds]


def _why(proposal: Fact, promises: Sequence[Fact]) -> str:
    """Why a leader proposed what it did."""
    leader, ballot = proposal.node, proposal.ballot
    begins = f"{leader} proposed {_described(proposal.value)} in ballot {ballot}"
    if not promises:
        return f"{begins}. The promises for that ballot are not remembered any more, so why is not known."
    heard = _all_of(sorted(one.peer for one in promises))
    highest = max(promises, key=lambda one: one.vote)
    if highest.vote == LOWEST:
        promised = f"none of {heard}, which had promised that ballot, had voted at this slot"
        if proposal.value == _NO_OP:
            return f"{begins} to fill the slot, or as its first entry: {promised}."
        return f"{begins}. It was free to: {promised}."
    if highest.value != proposal.value:
        return f"{begins}, though {highest.peer} had voted for another value in {highest.vote}: {AGAINST_THE_RULES}."
    return (
        f"{begins}, since it had to: {highest.peer} had voted for that value in ballot {highest.vote}, the highest vote"
        f" of {heard}, and it may have been chosen there."
    )


def _why_not(proposal: Fact, chosen: Fact | None, voted: Sequence[NodeId]) -> str:
    """What is known of a lower ballot, whose votes are not remembered as a quorum: a node may have forgotten its own.

    :param chosen: the proposal in the ballot of which a quorum is remembered.
    """
    by = f"only {_all_of(voted)}" if voted else "no node"
    known = f"{by} {'are' if len(voted) > 1 else 'is'} known to have voted for it"
    if chosen is not None and chosen.value != proposal.value:
        return f"It was not chosen in ballot {proposal.ballot}: {known}."
    return f"In ballot {proposal.ballot} {known}; if more nodes did, the value was chosen there already."


def _reasons_of_ballot(facts: Sequence[Fact]) -> Iterator[str]:
    if not facts:
        yield "No node that was asked remembers this ballot."
        return
    ballot = facts[0].ballot
    promised = sorted({fact.node for fact in facts if fact.what is What.PROMISED})
    if promised:
        yield f"{_all_of(promised)} promised ballot {ballot}."
    if heard := sorted({fact.peer for fact in facts if fact.what is What.HEARD_PROMISE}):
        yield f"{ballot.node} heard the promises of {_all_of(heard)}."


# ------------------------------------------------------------------ the words

_NO_OP = ValueMark.of(b"")


def told(fact: Fact) -> str:
    """A fact in a few words, without its node."""
    ballot = fact.ballot
    match fact.what:
        case What.PREPARED:
            return f"asks for promises of ballot {ballot}"
        case What.PROMISED:
            return f"promises ballot {ballot} (on disk)"
        case What.HEARD_PROMISE:
            return f"hears {fact.peer}'s promise of {ballot}{_vote(fact)}"
        case What.PROPOSED:
            return f"proposes {_described(fact.value)} in ballot {ballot}"
        case What.VOTED:
            return f"votes in ballot {ballot} (on disk)"
        case What.HEARD_VOTE:
            return f"hears {fact.peer}'s vote in {ballot}"
        case What.TOLD:
            return "is told the chosen value (on disk)"
        case What.CHOSEN:
            return "knows that the value is chosen"
        case What.APPLIED:
            return "has applied it"


def _vote(fact: Fact) -> str:
    """What a promise says about the slot."""
    if not fact.slot:
        return ""
    if fact.is_known:
        return ": it knows the chosen value"
    return f": it had voted in {fact.vote}" if fact.vote != LOWEST else ": it had not voted here"


def _described(value: ValueMark | None) -> str:
    if value is None:
        return "a value"
    return "a no-op" if value == _NO_OP else f"a value of {value.size_bytes} bytes ({value.checksum:08x})"


def _all_of(names: Sequence[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))
