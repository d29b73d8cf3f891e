"""The nodes that a client may talk to: the seeds it was started with, and the members that nodes have told it of.

Members come and go while a client runs. Each node tells who the members are, with the slot of the log at which they
were chosen, and the highest slot is the newest. From then on the client talks to these members, and to its seeds no
more. The seeds are kept: when none of the members can be reached, or a node has lied about them, the client tries its
seeds again, and believes any node that knows a leader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from txpaxos.client.endpoints import EndpointString, Place
from txpaxos.cluster import Address, check_host
from txpaxos.errors import CodecError
from txpaxos.wire.client_messages import Contact, Members

UNKNOWN = -1
"""The slot of the members before a node has told any."""


class KnownNodes:
    """The nodes that one client may talk to.

    A node has the id that the cluster file gives it, and a seed of which only the address is known has that address
    for an id until its node has said who it is.

    The cluster file of a client may have another address for a node than the nodes have, for there may be a gateway
    between them. So of a node with two addresses both are tried, first the one of the cluster file. A node whose
    endpoint the client was given is tried nowhere else.

    :param seeds: the addresses that the client was started with, by id.
    :param is_fixed: whether the client talks to its seeds only, whichever nodes are members.
    :ivar slot: the slot at which the members were chosen; -1 before a node has told any.
    :ivar members: the address of each member by its id, as told.
    :ivar was_reached: whether any node has ever answered.
    """

    def __init__(self, seeds: Mapping[str, Place], is_fixed: bool) -> None:
        self.slot = UNKNOWN
        self.members: Mapping[str, Address] = {}
        self.was_reached = False
        self._seeds = dict(seeds)
        self._is_fixed = is_fixed
        self._voters: Mapping[str, Address] = {}
        self._failed: set[str] = set()  # Those whose last connection could not be made, or has ended.
        self._tried: set[str] = set()  # Those that have failed in this round.
        self._at_told: set[str] = set()  # Those that are tried at the address that was told next, not at their seed's.
        self._at_seed: dict[str, Place] = {}  # Where a node is whose id the client did not know.
        self._tries_seeds = False
        self.candidates: tuple[str, ...] = tuple(seeds)

    def __contains__(self, node: object) -> bool:
        """Whether the client may connect to ``node`` now."""
        return node in self.candidates

    def __len__(self) -> int:
        return len(self.candidates)

    def address_of(self, node: str) -> Place:
        """Where to connect to ``node`` next."""
        told, seed = self.members.get(node), self._seeds.get(node) or self._at_seed.get(node)
        address: Place | None = told if seed is None or (told is not None and node in self._at_told) else seed
        assert address is not None, node
        return address

    def knows_address_of(self, node: str) -> bool:
        """Whether there is an address of ``node``."""
        return node in self.members or node in self._seeds or node in self._at_seed

    def is_gone(self, node: str) -> bool:
        """Whether ``node`` is no member any more, by what was told last."""
        return not self._is_fixed and not self._tries_seeds and self.slot != UNKNOWN and node not in self.members

    def fresh(self, nodes: Iterable[str], last: str = "") -> list[str]:
        """Those of ``nodes`` to try next: the ones that have not failed in this round. If each has failed, the next
        round begins, so that no node is tried twice while another waits for its turn.

        :param last: the node whose turn comes when all others have failed.
        """
        nodes = list(nodes)
        fresh = [node for node in nodes if node not in self._tried]
        if not fresh:
            self._tried.difference_update(nodes)
            fresh = nodes
        return [node for node in fresh if node != last] or fresh

    def is_round_over(self, node: str) -> bool:
        """Whether each node that the client may connect to has failed in this round, ``node`` not counted."""
        return self._tried.issuperset(one for one in self.candidates if one != node)

    # what happens

    def reached(self, node: str, address: Place, name: str, knows_leader: bool) -> str:
        """A node has said that it is ``name``, on the connection to ``address`` that was made to reach ``node``.

        :param knows_leader: whether it knows a leader.
        :returns: the id of the node: ``name`` if ``node`` is only an address, else ``node``.
        """
        self.was_reached = True
        self._failed.discard(node)
        self._tried.discard(node)
        if ":" in node:
            if not self.knows_address_of(name):
                if len(self._at_seed) >= len(self._seeds):
                    self._at_seed.clear()
                self._at_seed[name] = address
            node = name
        elif name != node:
            self._try_other_address(node)
        if self._tries_seeds and knows_leader and node in self._voters:
            self._tries_seeds = False
            self._recount()
        return node

    def failed(self, node: str, was_there: bool = False) -> None:
        """A connection to ``node`` could not be made, brought nothing, or has ended. A node with two addresses counts
        as failed when it has failed at the one that was told.

        :param was_there: whether the node was found at the address.
        """
        if was_there or not self._try_other_address(node):
            self._failed.add(node)
            self._tried.add(node)
        if self._failed.issuperset(self._voters):
            self.try_seeds()

    def try_seeds(self) -> None:
        """None of the members helps: connect to the seeds, too."""
        if self._voters and not self._tries_seeds:
            self._tries_seeds = True
            self._recount()

    def tell(self, told: Members, node: str, knows_leader: bool) -> bool:
        """``node`` has told who the members are.

        :param knows_leader: whether it knows a leader, so that it is no former member that was left alone.
        :returns: whether that is news.
        :raises CodecError: if no node tells such members.
        """
        members = {one.node: _address_of(one) for one in told.members}
        is_newer = told.slot > self.slot
        is_better = self._tries_seeds and knows_leader and node not in self.members and told.slot != self.slot
        if not members or not (is_newer or is_better):
            return False
        for member, address in members.items():
            if self.members.get(member, address) != address:
                self._at_told.add(member)
        self.slot, self.members = told.slot, members
        self._voters = {one.node: members[one.node] for one in told.members if one.role == "voter"} or members
        self._tries_seeds = False
        self._at_told &= members.keys()
        self._failed &= {*members, *self._seeds}
        self._tried &= self._failed
        self._recount()
        return True

    def _try_other_address(self, node: str) -> bool:
        """Connect to ``node`` at the other one of its two addresses next, if it has two. Whether that is the one that
        was told."""
        if isinstance(self._seeds.get(node), EndpointString):
            return False  # What nodes tell is where they are without that.
        if node not in self._seeds or self.members.get(node, self._seeds[node]) == self._seeds[node]:
            return False
        self._at_told ^= {node}
        return node in self._at_told

    def _recount(self) -> None:
        if self._is_fixed or not self._voters:
            return
        nodes = dict.fromkeys(self._voters)
        if self._tries_seeds:
            nodes = dict.fromkeys((*self._seeds, *self.members))
        self.candidates = tuple(nodes)


def _address_of(contact: Contact) -> Address:
    """The address of a member that a node has told.

    :raises CodecError: if it is none.
    """
    if not contact.node or ":" in contact.node:
        raise CodecError(f"{ascii(contact.node)[:60]} is no name of a node")
    try:
        address = Address.parse(contact.client)
        check_host(address.host, listens=False)
    except ValueError as error:
        raise CodecError(f"{ascii(contact.client)[:100]} is no address: {error}") from None
    return address
