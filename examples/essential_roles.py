"""Paxos for one value, to read: two proposers, three acceptors and a learner, each in a process of its own.

    python examples/essential_roles.py

The roles are those of ``txpaxos.core.essential``, which is Paxos as in the paper. They send the messages of
``txpaxos.wire.codec`` over UDP on 127.0.0.1, and each prints what it receives, what it concludes and what it sends.

Proposer p wants red. A little later proposer q wants blue. UDP may lose a datagram, but hardly ever does so here, so
the list LOST below names some that are dropped as they arrive. Paxos survives that. A proposer that asks a majority
finds every value that may have been chosen, and one that hears no outcome asks again in a higher ballot. The list
leaves p's value with one acceptor of three, too few to be chosen; see what becomes of red and of blue.

No process is restarted here, so none saves anything. A real acceptor saves its promise and its vote before it answers
(see ``txpaxos.core.practical``). Needs no arguments and ends by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from random import Random

from txpaxos.core.essential import Acceptor, Learner, Proposer, quorum_size
from txpaxos.core.messages import Accept, Accepted, Ballot, Decided, OneDecreeMessage, Prepare, Promise
from txpaxos.wire.codec import Codec

PROPOSERS = {"p": b"red", "q": b"blue"}
ACCEPTORS = ("a", "b", "c")
LEARNERS = ("l",)
QUORUM = quorum_size(len(ACCEPTORS))
Q_BEGINS_SECONDS = 0.3
PATIENCE_SECONDS = (0.6, 0.9)

LOST = [
    ("p", "a", Accept, Ballot(1, "p")),
    ("p", "b", Accept, Ballot(1, "p")),
    ("q", "a", Prepare, Ballot(1, "q")),
    ("l", "p", Decided, None),
]
"""Datagrams that do not arrive: from, to, what, and its ballot. Each is lost once."""


def show(message: OneDecreeMessage) -> str:
    """A message as text."""
    match message:
        case Prepare(ballot):
            return f"Prepare {ballot}"
        case Promise(ballot, accepted):
            return (
                f"Promise {ballot} ({f'I accepted {show(Accept(*accepted))[7:]}' if accepted else 'nothing accepted'})"
            )
        case Accept(ballot, value) | Accepted(ballot, value):
            return f"{type(message).__name__} {ballot} = {value.decode()}"
        case Decided(value):
            return f"Decided {value.decode()}"
    return str(message)


class Process:
    """The parts that all roles share: a socket, the codec, and printing.

    Every line is printed before the message that it announces is sent, so no answer is printed before its question.
    """

    def __init__(self, node: str, role: str, sockets: Mapping[str, socket.socket], began: float, parent: int) -> None:
        self.node = node
        self._role = role
        self._codec = Codec("essential", node)
        self._socket = sockets[node]
        self._addresses = {name: one.getsockname() for name, one in sockets.items()}
        self._began = began
        self._parent = parent
        self._lost = [one for one in LOST if one[1] == node]

    def say(self, text: str) -> None:
        """Print one line at once."""
        line = f"{(time.monotonic() - self._began) * 1000:4.0f} ms  {self._role:<10}  {text}\n"
        os.write(sys.stdout.fileno(), line.encode())

    def send(self, to: tuple[str, ...], message: OneDecreeMessage) -> None:
        """Send one message to each of ``to``."""
        self.say(f"  sends to {' '.join(to)}: {show(message)}")
        for node in to:
            self._socket.sendto(self._codec.encode(message), self._addresses[node])

    def receive(self, seconds: float | None = None) -> tuple[str, OneDecreeMessage] | None:
        """The next message that arrives and its sender; ``None`` if none does within ``seconds``."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            readable, _, _ = select.select([self._socket.fileno(), self._parent], [], [], left)
            if self._parent in readable:
                sys.exit()  # The parent process is gone, or wants this one to end.
            if not readable:
                return None
            received = self._codec.decode(self._socket.recv(65536))
            sender, message = received.sender, received.message
            assert isinstance(message, OneDecreeMessage), message
            lost = (sender, self.node, type(message), getattr(message, "ballot", None))
            if lost not in self._lost:
                return sender, message
            self._lost.remove(lost)
            self.say(f"  (lost on its way from {sender}: {show(message)})")

    def messages(self) -> Iterator[tuple[str, OneDecreeMessage]]:
        """All messages that arrive, for ever."""
        while True:
            received = self.receive()
            assert received is not None
            yield received


def propose(process: Process, value: bytes, rng: Random) -> bytes:
    """A proposer, until it is told the outcome."""
    proposer = Proposer(process.node, QUORUM)
    proposer.propose(value)
    while True:
        process.say(f"I want {value.decode()}, and ask all acceptors for a promise (phase 1)")
        process.send(ACCEPTORS, proposer.prepare())
        patience_ends = time.monotonic() + rng.uniform(*PATIENCE_SECONDS)
        while received := process.receive(max(0.0, patience_ends - time.monotonic())):
            sender, message = received
            if isinstance(message, Decided):
                process.say(f"{sender} says that {message.value.decode()} is chosen; I am done")
                return message.value
            if isinstance(message, Promise) and (accept := proposer.receive_promise(sender, message)):
                process.say(f"{' and '.join(sorted(proposer.promises))} have promised {proposer.ballot}: a majority")
                found = proposer.highest_accepted
                if found is None:
                    process.say(f"they accepted nothing below it, so I am free to propose {value.decode()} (phase 2)")
                else:
                    process.say(
                        f"{found.value.decode()} of {found.ballot} is the highest they accepted; it may be chosen, so I"
                        f" must propose {found.value.decode()} (phase 2)"
                    )
                process.send(ACCEPTORS, accept)
        process.say("no outcome yet; something was lost, so I try again in a higher ballot")


def accept(process: Process) -> None:
    """An acceptor, until it is ended."""
    acceptor = Acceptor()
    for sender, message in process.messages():
        if isinstance(message, Prepare):
            promise = acceptor.receive_prepare(message)
            if promise is None:
                process.say(f"I promised {acceptor.promised}, so I do not answer {sender}'s {show(message)}")
            else:
                process.say(f"I promise {sender} to accept nothing below {promise.ballot}")
                process.send((sender,), promise)
        elif isinstance(message, Accept):
            accepted = acceptor.receive_accept(message)
            if accepted is None:
                process.say(f"I promised {acceptor.promised}, so I do not answer {sender}'s {show(message)}")
            else:
                process.say(f"I promised nothing higher, so I accept {accepted.value.decode()} in {accepted.ballot}")
                process.send(LEARNERS, accepted)


def learn(process: Process) -> None:
    """A learner, until it is ended."""
    learner = Learner(QUORUM)
    for sender, message in process.messages():
        if isinstance(message, Accepted):
            known = learner.chosen is not None
            chosen = learner.receive_accepted(sender, message)
            voters = sorted(learner.voters[message.ballot])
            if chosen is None:
                process.say(f"only {' '.join(voters)} accepted {show(message)[9:]} so far, which is no majority")
            elif not known:
                process.say(
                    f"{' and '.join(voters)} accepted {show(message)[9:]}, a majority: {chosen.decode()} is CHOSEN"
                )
                process.send(tuple(PROPOSERS), Decided(chosen))
            elif len(voters) == 1:
                asker = message.ballot.node
                process.say(f"{asker} goes on with {message.ballot}, so it does not know yet; I tell it again")
                process.send((asker,), Decided(chosen))


def run(node: str, sockets: Mapping[str, socket.socket], began: float, parent: tuple[int, int], outcome: int) -> None:
    """Run one process, from its beginning to its end."""
    ended, end = parent
    os.close(end)  # Otherwise this process would wait for itself.
    if node in ACCEPTORS:
        accept(Process(node, f"acceptor {node}", sockets, began, ended))
    elif node in LEARNERS:
        learn(Process(node, f"learner {node}", sockets, began, ended))
    else:
        process = Process(node, f"proposer {node}", sockets, began, ended)
        if node == "q":
            process.receive(Q_BEGINS_SECONDS)
        os.write(outcome, propose(process, PROPOSERS[node], Random()) + b"\n")


def main() -> None:
    """Start all processes, and wait until both proposers know the outcome."""
    nodes = (*ACCEPTORS, *LEARNERS, *PROPOSERS)
    sockets = {node: socket.socket(type=socket.SOCK_DGRAM) for node in nodes}
    for one in sockets.values():
        one.bind(("127.0.0.1", 0))
    parent, (outcome, report) = os.pipe(), os.pipe()
    fork = multiprocessing.get_context("fork")
    began = time.monotonic()
    processes = [fork.Process(target=run, args=(node, sockets, began, parent, report), daemon=True) for node in nodes]
    for process in processes:
        process.start()
    os.close(report)
    for process in processes[-len(PROPOSERS) :]:
        process.join(20)
    os.close(parent[1])
    for process in processes:
        process.join(5)
    still_running = [node for node, process in zip(nodes, processes, strict=True) if process.is_alive()]
    if still_running:
        raise SystemExit(f"still running, and ended now: {' '.join(still_running)}")
    outcomes = os.read(outcome, 1024).decode().split()
    if len(outcomes) != len(PROPOSERS) or len(set(outcomes)) != 1:
        raise SystemExit(f"the proposers should have been told one value: {outcomes}")
    print(f"\nBoth proposers were told the same: {outcomes[0]}")


if __name__ == "__main__":
    main()
