"""Registers as an earlier release has left them: some decided, some half decided, in the data folders of its nodes.

Earlier releases decided each register by ballots of its own, and kept the state of each in a file. Nothing of this
package writes such files any more. A simulation and the tests of stores begin with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import attrs

from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import LOWEST, Ballot, NodeId, Proposal
from txpaxos.core.ready import DecreeState, PeerMet, Record, SubjectState, Voter
from txpaxos.storage.acknowledged import Acknowledged
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk, ensure_directory, ensure_inner_directory
from txpaxos.storage.executor import execute_now
from txpaxos.storage.identity import VERSION, read_identity, write_identity
from txpaxos.storage.records import encode
from txpaxos.storage.register_files import name_of, path_of
from txpaxos.storage.store import DiskStore

BALLOTS_MAX = 4
CHOSEN_CHANCE = 0.5
"""How often a node knows that a value is chosen which is."""


@attrs.define
class OlderRegisters:
    """Registers of an earlier release.

    :ivar states: what each node has on disk.
    :ivar chosen: the value of each register that is chosen.
    :ivar proposed: the values that were ever proposed for each register.
    """

    states: dict[NodeId, list[SubjectState]]
    chosen: dict[str, bytes] = attrs.field(factory=dict)
    proposed: dict[str, set[bytes]] = attrs.field(factory=dict)


def voted_state(subject: str, round: int) -> SubjectState:
    """The state of a register that has one vote, different for each ``round``."""
    ballot = Ballot(round, "node-1")
    return SubjectState(subject, DecreeState(ballot, Proposal(ballot, b"%d" % round), None))


def draw_registers(
    rng: Random, nodes: Sequence[NodeId], subjects: Iterable[str], value_bytes: int = 0
) -> OlderRegisters:
    """Let ``nodes`` run a few ballots for each of ``subjects``. Messages are lost, so that much is left half done.

    :param value_bytes: the shortest value, in bytes.
    """
    drawn = OlderRegisters({node: [] for node in nodes})
    for subject in subjects:
        _run_ballots(rng, nodes, subject, value_bytes, drawn)
    return drawn


def _run_ballots(rng: Random, nodes: Sequence[NodeId], subject: str, value_bytes: int, drawn: OlderRegisters) -> None:
    quorum = quorum_size(len(nodes))
    states = {node: DecreeState() for node in nodes}
    voters: dict[Ballot, set[NodeId]] = {}
    chosen: bytes | None = None
    for round in range(1, rng.randint(1, BALLOTS_MAX) + 1):
        ballot = Ballot(round, rng.choice(nodes))
        promised = rng.sample(nodes, rng.randint(1, len(nodes)))
        for node in promised:
            states[node] = attrs.evolve(states[node], promised=ballot)
        if len(promised) < quorum:
            continue
        told = [state.accepted for node in promised if (state := states[node]).accepted is not None]
        value = max(told).value if told else (b"%s of %s" % (str(ballot).encode(), subject.encode()))
        value = value.ljust(value_bytes)
        drawn.proposed.setdefault(subject, set()).add(value)
        for node in rng.sample(nodes, rng.randint(0, len(nodes))):
            if states[node].promised <= ballot:
                states[node] = attrs.evolve(states[node], promised=ballot, accepted=Proposal(ballot, value))
                voters.setdefault(ballot, set()).add(node)
        if len(voters.get(ballot, ())) >= quorum:
            chosen = value
    for node, state in states.items():
        if chosen is not None and rng.random() < CHOSEN_CHANCE:
            state = attrs.evolve(state, chosen=chosen)
        if state.promised > LOWEST or state.chosen is not None:
            drawn.states[node].append(SubjectState(subject, state))
    if chosen is not None:
        drawn.chosen[subject] = chosen


def make_older_folder(disk: Disk, directory: str, cluster: str, node: NodeId, records: Iterable[Record]) -> None:
    """Make the data folder of a node that an earlier release has run.

    :param records: what the node has saved: its vote, its peers, the states of registers.
    """
    records = list(records)
    store = DiskStore(directory, cluster, node, disk=disk, execute=execute_now, random_bytes=Random(node).randbytes)
    store.load()
    store.save([record for record in records if isinstance(record, PeerMet | Voter)])
    store.close()
    add_registers(disk, directory, [record for record in records if isinstance(record, SubjectState)])


def add_registers(disk: Disk, directory: str, states: Iterable[SubjectState]) -> None:
    """Put the states of registers into the data folder of a node that does not run, as an earlier release did."""
    file = AtomicFile(disk, f"{directory}/identity", VERSION)
    identity = read_identity(file)
    assert identity is not None, directory
    ensure_directory(disk, f"{directory}/subjects")
    mark = Acknowledged(disk, f"{directory}/acknowledged", identity.incarnation)
    known = mark.read()
    count, names = known.subjects, known.names
    for state in states:
        path = path_of(f"{directory}/subjects", state.subject)
        ensure_inner_directory(disk, path.rpartition("/")[0])
        one = AtomicFile(disk, path)
        one.write(encode((state,)))
        if one.serial == 1:
            count, names = count + 1, names ^ name_of(path)
    mark.begin(attrs.evolve(known, subjects=count, names=names))
    mark.close()
    write_identity(file, attrs.evolve(identity, has_registers=True))
