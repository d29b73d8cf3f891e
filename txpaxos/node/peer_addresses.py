"""Where each peer is. Names are looked up again as long as their node is silent, and all addresses of a name are tried.

A node that has a name may come back at another address behind it, and may have several addresses, not all of which
reach it from here. So to a peer that is not heard everything goes to all addresses of its name, and to one that is
heard only to the address that it was heard from. What comes from any of them is the peer's.

A name server may lag behind. So a peer that has a name, is silent at all addresses of it, and speaks from another one,
with the incarnation of its data folder, is tried there, too. It is believed there once it has shown, over a stream,
that it receives what is sent there; until then it is a candidate.

Nothing here waits: names are looked up in a thread, and how often that happens is bounded for each peer.
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
"""A peer that has said nothing for so long may have gone to another address: its name is looked up."""

LOOK_UP_SECONDS_MAX = 8.0
"""The longest time between two look-ups for a silent peer; the first come sooner. Whoever says to be the peer, and
speaks from another address, brings the next one forward."""


@attrs.define(eq=False)
class _PeerState:
    """What is known of one peer.

    :ivar address: as the cluster file has it.
    :ivar endpoints: all that it may be at.
    :ivar heard_from: of these, the one that it was heard from last, while it is not silent.
    :ivar candidate: another one that it has spoken from.
    :ivar heard_at: when that was; before it was ever heard, when this node started to listen.
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
    """Where the peers of one node are.

    :param peers: each with its address in the cluster file.
    :param look_up: looks a name up.
    :param changed: called with a peer whose :meth:`send_endpoints` are others now.
    :param moved: called with a peer, the endpoints that it had, those that its name has now, and whether ``unknown``
        was called before.
    :param unknown: called once with a peer whose name cannot be looked up, and why; and again only after it could.
    :ivar addresses: where to connect to each peer: the same mapping for ever, kept up to date.
    :ivar known: from where each peer may speak.
    :ivar heard: who was heard since the last tick, and from where. Whoever hears a peer puts it in; when, the next tick
        says, so that this costs next to nothing.
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
        """Where a datagram to ``peer`` is sent."""
        state = self._states[peer]
        if state.heard_from is not None:
            return (state.heard_from,)
        return state.endpoints if state.candidate is None else (*state.endpoints, state.candidate)

    def start(self, now: float) -> None:
        """Silence counts from here."""
        for state in self._states.values():
            state.heard_at = now
            state.look_up_at = now + SILENT_SECONDS if state.endpoints else now
        self.tick(now)

    def look_up_soon(self, peer: NodeId) -> None:
        """Somebody says to be ``peer``, at an address that is not its own: it may have moved."""
        if peer in self._states:
            self._look_ups_wanted.add(peer)

    def try_endpoint(self, peer: NodeId, endpoint: Endpoint) -> None:
        """Somebody who knows the incarnation of ``peer`` speaks from ``endpoint``, which is not its address: if it is
        silent there, though it was looked up since, it is tried at this one, too."""
        state = self._states[peer]
        was_looked_up = state.address.host_name and state.looked_up_at > state.heard_at and not state.looking_up
        if was_looked_up and state.heard_from is None and endpoint != state.candidate and not state.candidate_confirmed:
            state.candidate = endpoint
            self.addresses[peer] = state.address.at(endpoint[0])
            self._changed(peer)

    def confirm_endpoint(self, peer: NodeId) -> Endpoint | None:
        """``peer`` has shown that it receives what is sent to it. If it is a candidate somewhere: where that is."""
        state = self._states[peer]
        if state.candidate is None or state.candidate_confirmed:
            return None
        state.candidate_confirmed = True
        self.known[peer] |= {state.candidate}
        return state.candidate

    def silence_seconds(self, peer: NodeId, now: float) -> float | None:
        """How long ago ``peer`` was heard; ``None`` if it never was. Half a second or so is as good as now."""
        state = self._states[peer]
        if peer in self.heard:
            return 0.0
        return now - state.heard_at if state.was_heard else None

    def tick(self, now: float) -> None:
        """Take note of who was heard, and look up the names of those that were not."""
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
        # A connection is tried at one address, each time at another.
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
    """What is known before anything is looked up."""
    host = canonical_host(address.host)
    return ((host, address.port),) if is_ip_address(host) else ()
