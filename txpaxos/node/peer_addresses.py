"""The addresses of peers, kept up to date.

The name of a peer is looked up again as long as the peer is silent, and all addresses of the name are tried. A node may
come back at another address behind its name. It may also have several addresses, some of which cannot be reached from
here. So datagrams to a silent peer go to all its addresses. Datagrams to a peer that is heard go only to the address
that it was heard from. A message from any of its addresses is taken for a message of the peer.

A name server may lag behind, and a node may have missed that a peer was moved to another port. So a silent peer is
tried at one more address, if a message came from there with the incarnation of the peer's data folder. That address is
only a candidate. It becomes one of the peer's own when the peer has shown over a stream that it receives what is sent
there.

Peers come, go and move while the node runs. A peer that is moved to another address may still run at the one before. So
it is heard, and spoken to, at both until it is heard at the new one.

Nothing here blocks: names are looked up in a thread, and the number of look-ups for each peer is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs
from twisted.python.failure import Failure

from txpaxos.cluster import Address
from txpaxos.core.messages import NodeId
from txpaxos.host_names import LookUp, canonical_host, is_ip_address

Endpoint: TypeAlias = tuple[str, int]

SILENT_SECONDS = 1.0
"""A peer that was not heard for this long may have another address now: its name is looked up."""

LOOK_UP_SECONDS_MAX = 8.0
"""The longest time between two look-ups for a silent peer; the first ones come sooner. A message that claims to be from
the peer, and comes from another address, brings the next look-up forward."""

PREVIOUS_ENDPOINTS_MAX = 16
"""Endpoints at which a peer that was moved is still tried."""


@attrs.define(eq=False)
class _PeerState:
    """What is known of the address of one peer. Times are in monotonic seconds.

    :ivar address: the address that the membership has for it.
    :ivar previous: the endpoints at which the peer may still be, since it was moved and was not heard at ``address``
        yet; for each, the address to connect to.
    :ivar endpoints: all its endpoints, by the last look-up of its name.
    :ivar heard_from: the endpoint that the peer was heard from last; ``None`` while the peer is silent.
    :ivar candidate: another endpoint, from which a message came with the peer's incarnation.
    :ivar candidate_confirmed: whether the peer has shown that it receives what is sent to ``candidate``.
    :ivar heard_at: when the peer was heard last; before that, when this node started to listen.
    :ivar wait_seconds: until the look-up after the next one; doubles with each look-up.
    :ivar unknown: whether the last look-up of its name has failed.
    """

    address: Address
    endpoints: tuple[Endpoint, ...]
    heard_at: float
    previous: dict[Endpoint, Address] = attrs.field(factory=dict)
    was_heard: bool = False
    heard_from: Endpoint | None = None
    looking_up: bool = False
    looked_up_at: float = float("-inf")
    look_up_at: float = 0.0
    wait_seconds: float = SILENT_SECONDS
    unknown: bool = False
    candidate: Endpoint | None = None
    candidate_confirmed: bool = False

    @property
    def known(self) -> frozenset[Endpoint]:
        """The endpoints from which messages of the peer may come."""
        confirmed = (self.candidate,) if self.candidate is not None and self.candidate_confirmed else ()
        return frozenset((*self.endpoints, *self.previous, *confirmed))

    def address_at(self, endpoint: Endpoint) -> Address:
        """The address to connect to while the peer is at ``endpoint``."""
        return self.previous.get(endpoint) or attrs.evolve(self.address.at(endpoint[0]), port=endpoint[1])


class PeerAddresses:
    """The addresses of the peers of one node.

    :param peers: for each peer at the start, its address in the cluster file.
    :param look_up: looks up the addresses of a name, without blocking.
    :param changed: called with a peer when its :meth:`send_endpoints` have changed.
    :param moved: called when the name of a peer leads to other endpoints: with the peer, the old endpoints, the new
        ones, and whether ``unknown`` was called for the peer before.
    :param arrived: called with a peer that was moved (:meth:`move_peer`), when it is at the new address.
    :param unknown: called with a peer, and the failure, when its name cannot be looked up. It is called once, and again
        only after a look-up has succeeded.
    :ivar addresses: for each peer, the address to connect to. It stays one mapping, which is kept up to date.
    :ivar known: for each peer, the endpoints from which its messages may come.
    :ivar heard: for each peer heard since the last tick, the endpoint that it was heard from. The receiver of datagrams
        fills it. The next :meth:`tick` adds the time, so that a datagram costs next to nothing here.
    """

    def __init__(
        self,
        peers: Mapping[NodeId, Address],
        look_up: LookUp,
        changed: Callable[[NodeId], None],
        moved: Callable[[NodeId, tuple[Endpoint, ...], tuple[Endpoint, ...], bool], None],
        arrived: Callable[[NodeId], None],
        unknown: Callable[[NodeId, Failure], None],
    ) -> None:
        self.addresses = dict(peers)
        self.known: dict[NodeId, frozenset[Endpoint]] = {}
        self._look_up = look_up
        self._changed = changed
        self._moved = moved
        self._arrived = arrived
        self._unknown = unknown
        self.heard: dict[NodeId, Endpoint] = {}
        self._look_ups_wanted: set[NodeId] = set()
        self._states: dict[NodeId, _PeerState] = {}
        self._now = 0.0
        for peer, address in peers.items():
            self.add_peer(peer, address)

    # who the peers are

    def add_peer(self, peer: NodeId, address: Address) -> None:
        """Add a peer, which is none yet. Its name, if it has one, is looked up at the next tick."""
        state = self._states[peer] = _PeerState(address, _known(address), self._now)
        self.addresses[peer] = address
        self.known[peer] = state.known

    def remove_peer(self, peer: NodeId) -> None:
        """Remove a peer. A look-up of its name that is under way changes nothing any more."""
        del self._states[peer], self.addresses[peer], self.known[peer]
        self.heard.pop(peer, None)
        self._look_ups_wanted.discard(peer)

    def move_peer(self, peer: NodeId, address: Address) -> bool:
        """Use another address for a peer from now on; the one before, too, until the peer is heard at the new one.

        :returns: whether it is another one.
        """
        before = self._states[peer]
        if _identity(before.address) == _identity(address):
            return False
        state = _PeerState(address, _known(address), before.heard_at, was_heard=before.was_heard)
        state.heard_from = before.heard_from
        if before.heard_from not in state.endpoints:
            at = {endpoint: before.address_at(endpoint) for endpoint in before.known if endpoint not in state.endpoints}
            state.previous = dict([*before.previous.items(), *at.items()][-PREVIOUS_ENDPOINTS_MAX:])
        self._states[peer] = state
        self.known[peer] = state.known
        if state.heard_from is None or not state.previous:
            self.addresses[peer] = address
        self._changed(peer)
        return True

    # where they are

    def send_endpoints(self, peer: NodeId) -> tuple[Endpoint, ...]:
        """The endpoints to which a datagram to ``peer`` is sent."""
        state = self._states[peer]
        if state.heard_from is not None:
            return (state.heard_from,)
        candidates = () if state.candidate is None else (state.candidate,)
        return tuple(dict.fromkeys((*state.endpoints, *state.previous, *candidates)))

    def start(self, now: float) -> None:
        """Start to look up names. The silence of each peer counts from ``now``, in monotonic seconds."""
        self._now = now
        for state in self._states.values():
            state.heard_at = now
            state.look_up_at = now + SILENT_SECONDS if state.endpoints else now
        self.tick(now)

    def look_up_soon(self, peer: NodeId) -> None:
        """Bring the next look-up of ``peer`` forward: a message that claims to be from it came from another address."""
        if peer in self._states:
            self._look_ups_wanted.add(peer)

    def try_endpoint(self, peer: NodeId, endpoint: Endpoint) -> None:
        """Make ``endpoint`` a candidate for ``peer``, if the peer is silent although its name was looked up since.

        A message with the peer's incarnation came from that endpoint, which is none of the peer's. If there is only an
        IP address of the peer, it may be at another port of that address: this node may have missed that it was moved.
        """
        state = self._states[peer]
        if state.heard_from is not None or endpoint == state.candidate:
            return
        if state.address.host_name:
            may_be_there = state.looked_up_at > state.heard_at and not state.looking_up
        else:
            is_silent = self._now - state.heard_at >= SILENT_SECONDS
            may_be_there = is_silent and endpoint[0] == canonical_host(state.address.host)
        if may_be_there:
            state.candidate, state.candidate_confirmed = endpoint, False
            self.addresses[peer] = state.address_at(endpoint)
            self.known[peer] = state.known
            self._changed(peer)

    def confirm_endpoint(self, peer: NodeId) -> Endpoint | None:
        """Confirm the candidate of ``peer``, which has shown that it receives what is sent there.

        :returns: the candidate; ``None`` if there is none, or it was confirmed before.
        """
        state = self._states[peer]
        if state.candidate is None or state.candidate_confirmed:
            return None
        state.candidate_confirmed = True
        self.known[peer] = state.known
        return state.candidate

    def silence_seconds(self, peer: NodeId, now: float) -> float | None:
        """How long ago ``peer`` was heard, to about half a second; ``None`` if it never was."""
        state = self._states[peer]
        if peer in self.heard:
            return 0.0
        return now - state.heard_at if state.was_heard else None

    def tick(self, now: float) -> None:
        """Note when the peers in :attr:`heard` were heard, and look up the names of silent peers, where that is due."""
        self._now = now
        for peer, endpoint in self.heard.items():
            state = self._states[peer]
            state.heard_at, state.was_heard = now, True
            if state.endpoints:  # Otherwise it is at its previous address, and the name of its new one is not known.
                state.wait_seconds, state.look_up_at = SILENT_SECONDS, now + SILENT_SECONDS
            if state.heard_from != endpoint:
                self._use_endpoint(peer, state, endpoint)
        self.heard.clear()
        for peer, state in self._states.items():
            is_heard = now - state.heard_at < SILENT_SECONDS
            if is_heard and state.endpoints:
                continue
            if state.heard_from is not None and not is_heard:
                state.heard_from = None
                if state.previous:
                    self.addresses[peer] = state.address  # It may be on its way there.
                self._changed(peer)
            if peer in self._look_ups_wanted:
                state.look_up_at = min(state.look_up_at, state.looked_up_at + SILENT_SECONDS)
            if state.address.host_name and not state.looking_up and now >= state.look_up_at:
                self._start_look_up(peer, state, now)
        self._look_ups_wanted.clear()

    def _use_endpoint(self, peer: NodeId, state: _PeerState, endpoint: Endpoint) -> None:
        state.heard_from = endpoint
        self.addresses[peer] = state.address_at(endpoint)
        if state.previous and endpoint not in state.previous:
            state.previous.clear()
            self.known[peer] = state.known
            self._arrived(peer)
        self._changed(peer)

    def _start_look_up(self, peer: NodeId, state: _PeerState, now: float) -> None:
        state.looking_up = True
        state.looked_up_at = now
        state.look_up_at = now + state.wait_seconds
        state.wait_seconds = min(2 * state.wait_seconds, LOOK_UP_SECONDS_MAX)
        found = self._look_up(state.address.host_name, state.address.family)
        found.addCallbacks(self._found, self._not_found, (peer, state), errbackArgs=(peer, state))

    def _found(self, hosts: list[str], peer: NodeId, state: _PeerState) -> None:
        if self._states.get(peer) is not state:
            return  # It was removed or moved meanwhile.
        state.looking_up = False
        was_unknown, state.unknown = state.unknown, False
        before = state.endpoints
        state.endpoints = tuple((canonical_host(host), state.address.port) for host in hosts)
        if set(before) == set(state.endpoints) and state.candidate is not None:
            return
        state.candidate, state.candidate_confirmed = None, False
        for endpoint in state.endpoints:
            state.previous.pop(endpoint, None)
        self.known[peer] = state.known
        # A connection is tried at one address only. So each look-up takes the next one.
        hosts = [host for host, _ in state.endpoints]
        last = canonical_host(self.addresses[peer].host)
        turn = (hosts.index(last) + 1) % len(hosts) if last in hosts else 0
        self.addresses[peer] = state.address.at(hosts[turn])
        if set(before) != set(state.endpoints):
            state.heard_from = None
            self._changed(peer)
            self._moved(peer, before, state.endpoints, was_unknown)

    def _not_found(self, reason: Failure, peer: NodeId, state: _PeerState) -> None:
        state.looking_up = False
        if not state.unknown and self._states.get(peer) is state:
            state.unknown = True
            self._unknown(peer, reason)


def _known(address: Address) -> tuple[Endpoint, ...]:
    """The endpoints of an address that are known without a look-up: none if the address is a name."""
    host = canonical_host(address.host)
    return ((host, address.port),) if is_ip_address(host) else ()


def _identity(address: Address) -> tuple[str, int]:
    """What tells two addresses apart: the name, or the IP address if there is no name; and the port."""
    return canonical_host(address.host_name or address.host), address.port
