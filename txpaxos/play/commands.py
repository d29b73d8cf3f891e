"""Actions written as commands, for lessons: ``deliver p->a Prepare`` in place of the number of a message.

============================  =======================================================================================
command                       what
============================  =======================================================================================
``propose red at p``          offer a value
``prepare p``                 start a ballot; ``resend p``: send again what is unanswered
``deliver p->a Prepare``      the oldest such message arrives; ``p->*``: one to each; ``*->p``: one from each. The kind
                              may be left out. ``drop``, ``double``, ``hold`` and ``release`` alike
``crash p``, ``restart p``    and ``hang p``, ``save p``
``cut a b``, ``join a b``     the link between two nodes
``time``, ``timer a``         to the next timer of any node, or of one
``step 3``                    what happens next if the user only looks on, three times
``settle``                    all messages arrive, and their answers, but for those that are held
``until a leads``             steps, until that is so; ``until one leads``: any node
============================  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from txpaxos.play.actions import (
    AnyAction,
    Crash,
    Cut,
    Deliver,
    Double,
    Drop,
    Hang,
    Hold,
    Join,
    Prepare,
    Propose,
    Release,
    Resend,
    Restart,
    Save,
    Time,
    Timer,
)
from txpaxos.play.stage import Flight, Stage

STEPS_MAX = 200
"""The limit on the steps of one command."""

OF_A_MESSAGE: dict[str, Callable[[int], AnyAction]] = {
    "deliver": Deliver,
    "drop": Drop,
    "double": Double,
    "hold": Hold,
    "release": Release,
}
OF_A_NODE: dict[str, Callable[[str], AnyAction]] = {
    "prepare": Prepare,
    "resend": Resend,
    "crash": Crash,
    "restart": Restart,
    "hang": Hang,
    "save": Save,
    "timer": Timer,
}


def perform(stage: Stage, command: str) -> list[AnyAction]:
    """Perform a command on the stage.

    :returns: the actions that it stands for there.
    :raises ValueError: if there is no such command, or no such message.
    """
    done = []
    for action in _actions(stage, command):
        stage.perform(action)
        done.append(action)
    return done


def _actions(stage: Stage, command: str) -> Iterator[AnyAction]:
    """The actions of a command. The stage has performed each before it is asked for the next."""
    match command.split():
        case ["propose", value, "at", node]:
            yield Propose(node, value)
        case ["cut", node, other]:
            yield Cut(node, other)
        case ["join", node, other]:
            yield Join(node, other)
        case ["time"]:
            yield Time()
        case ["step", count]:
            for _ in range(int(count)):
                yield stage.next_step()
        case ["settle"]:
            while any(not one.is_held for one in stage.under_way()):
                yield stage.next_step()
        case ["until", node, "leads"]:
            for _ in range(STEPS_MAX):
                nodes = stage.members if node == "one" else (node,)
                if any(stage.facts_of(one).get("role") == "leader" for one in nodes):
                    return
                yield stage.next_step()
            raise ValueError(f"{node} does not lead")
        case [verb, node] if verb in OF_A_NODE:
            yield OF_A_NODE[verb](node)
        case [verb, way, *kind] if verb in OF_A_MESSAGE and "->" in way:
            numbers = [one.number for one in _messages(stage, way, *kind)]
            if not numbers:
                raise ValueError(f"{command}: no such message is under way")
            for number in numbers:
                yield OF_A_MESSAGE[verb](number)
        case _:
            raise ValueError(f"no such command: {command}")


def _messages(stage: Stage, way: str, kind: str = "") -> Iterator[Flight]:
    """The oldest messages under way that are meant: one for each pair of nodes."""
    sender, to = way.split("->")
    seen = set()
    for one in stage.under_way():
        is_meant = sender in ("*", one.sender) and to in ("*", one.to) and kind in ("", type(one.message).__name__)
        if is_meant and (one.sender, one.to) not in seen:
            seen.add((one.sender, one.to))
            yield one
