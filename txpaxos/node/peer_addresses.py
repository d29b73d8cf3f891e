"""The addresses of peers, kept up to date.

The name of a peer is looked up again as long as the peer is silent, and all addresses of the name are tried. A node may
come back at another address behind its name. It may also have several addresses, some of which cannot be reached from
here. So datagrams to a silent peer go to all its addresses. Datagrams to a peer that is heard go only to the address
that it was heard from. A message from any of its addresses is taken for a message of the peer.

A name server may lag behind. So a silent peer is tried at one more address, if a message came from there with the
incarnation of the peer's data folder. That address is only a candidate. It becomes one of the peer's own when the peer
has shown over a stream that it receives what is sent there.

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


@attrs.define(eq=False)
class _PeerState:
    """What is known of the address of one peer. Times are in monotonic seconds.

    :ivar address: the address in the cluster file.
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
    was_heard: bool = False
    heard_from: Endpoint | None = None
    looking_up: bool = False
    looked_up_at: float = float("-inf")
    look_up_at: float = 0.0
    wait_seconds: float = SILENT_SECONDS
    unknown: bool = False
    candidate: Endpoint | None = None
    candidate_confirmed: bool = False


class PeerAddresses:
    """The addresses of the peers of one node.

    :param peers: for each peer, its address in the cluster file.
    :param look_up: looks up the addresses of a name, without blocking.
    :param changed: called with a peer when its :meth:`send_endpoints` have changed.
    :param moved: called when the name of a peer leads to other endpoints: with the peer, the old endpoints, the new
        ones, and whether ``unknown`` was called for the peer before.
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
        unknown: Callable[[NodeId, Failure], None],
    ) -> None:
        self.addresses = dict(peers)
        self.known: dict[NodeId, frozenset[Endpoint]] = {}
        self._look_up = look_up
        self._changed = changed
        self._moved = moved
        self._unknown = unknown
        self.heard: dict[NodeId, Endpoint] = {}
        self._look_ups_wanted: set[NodeId] = set()
        self._states = {peer: _PeerState(address, _known(address), 0.0) for peer, address in peers.items()}
        for peer, state in self._states.items():
            self.known[peer] = frozenset(state.endpoints)

    def send_endpoints(self, peer: NodeId) -> tuple[Endpoint, ...]:
        """The endpoints to which a datagram to ``peer`` is sent."""
        state = self._states[peer]
        if state.heard_from is not None:
            return (state.heard_from,)
        return state.endpoints if state.candidate is None else (*state.endpoints, state.candidate)

    def start(self, now: float) -> None:
        """Start to look up names. The silence of each peer counts from ``now``, in monotonic seconds."""
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

        A message with the peer's incarnation came from that endpoint, which is none of the peer's.
        """
        state = self._states[peer]
        was_looked_up = state.address.host_name and state.looked_up_at > state.heard_at and not state.looking_up
        if was_looked_up and state.heard_from is None and endpoint != state.candidate and not state.candidate_confirmed:
            state.candidate = endpoint
            self.addresses[peer] = state.address.at(endpoint[0])
            self._changed(peer)

    def confirm_endpoint(self, peer: NodeId) -> Endpoint | None:
        """Confirm the candidate of ``peer``, which has shown that it receives what is sent there.

        :returns: the candidate; ``None`` if there is none, or it was confirmed before.
        """
        state = self._states[peer]
        if state.candidate is None or state.candidate_confirmed:
            return None
        state.candidate_confirmed = True
        self.known[peer] |= {state.candidate}
        return state.candidate

    def silence_seconds(self, peer: NodeId, now: float) -> float | None:
        """How long ago ``peer`` was heard, to about half a second; ``None`` if it never was."""
        state = self._states[peer]
        if peer in self.heard:
            return 0.0
        return now - state.heard_at if state.was_heard else None

    def tick(self, now: float) -> None:
        """Note when the peers in :attr:`heard` were heard, and look up the names of silent peers, where that is due."""
        for peer, endpoint in self.heard.items():
            state = self._states[peer]
            state.heard_at, state.was_heard, state.wait_seconds = now, True, SILENT_SECONDS
            state.look_up_at = now + SILENT_SECONDS
            if state.heard_from != endpoint:
                self._use_endpoint(peer, state, endpoint)
        self.heard.clear()
        for peer, state in self._states.items():
            if now - state.heard_at < SILENT_SECONDS and state.endpoints:
                continue
            if state.heard_from is not None:
                state.heard_from = None
                self._changed(peer)
            if peer in self._look_ups_wanted:
                state.look_up_at = min(state.look_up_at, state.looked_up_at + SILENT_SECONDS)
            if state.address.host_name and not state.looking_up and now >= state.look_up_at:
                self._start_look_up(peer, state, now)
        self._look_ups_wanted.clear()

    def _use_endpoint(self, peer: NodeId, state: _PeerState, endpoint: Endpoint) -> None:
        state.heard_from = endpoint
        self.addresses[peer] = state.address.at(endpoint[0])
        self._changed(peer)

    def _start_look_up(self, peer: NodeId, state: _PeerState, now: float) -> None:
        state.looking_up = True
        state.looked_up_at = now
        state.look_up_at = now + state.wait_seconds
        state.wait_seconds = min(2 * state.wait_seconds, LOOK_UP_SECONDS_MAX)
        found = self._look_up(state.address.host_name, state.address.family)
        found.addCallbacks(self._found, self._not_found, (peer,), errbackArgs=(peer,))

    def _found(self, hosts: list[str], peer: NodeId) -> None:
        state = self._states[peer]
        state.looking_up = False
        was_unknown, state.unknown = state.unknown, False
        before = state.endpoints
        state.endpoints = tuple((canonical_host(host), state.address.port) for host in hosts)
        if set(before) == set(state.endpoints) and state.candidate is not None:
            return
        state.candidate, state.candidate_confirmed = None, False
        self.known[peer] = frozenset(state.endpoints)
        # A connection is tried at one address only. So each look-up takes the next one.
        hosts = [host for host, _ in state.endpoints]
        last = canonical_host(self.addresses[peer].host)
        turn = (hosts.index(last) + 1) % len(hosts) if last in hosts else 0
        self.addresses[peer] = state.address.at(hosts[turn])
        if set(before) != set(state.endpoints):
            state.heard_from = None
            self._changed(peer)
            self._moved(peer, before, state.endpoints, was_unknown)

    def _not_found(self, reason: Failure, peer: NodeId) -> None:
        state = self._states[peer]
        state.looking_up = False
        if not state.unknown:
            state.unknown = True
            self._unknown(peer, reason)


def _known(address: Address) -> tuple[Endpoint, ...]:
    """The endpoints of an address that are known without a look-up: none if the address is a name."""
    host = canonical_host(address.host)
    return ((host, address.port),) if is_ip_address(host) else ()
