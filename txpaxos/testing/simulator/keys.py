"""The keys of a simulated cluster: an authority, and a folder for each node.

Certificates and lists of revoked ones are real. Private keys are made, and not used
(:mod:`~txpaxos.testing.simulator.tls`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from random import Random

from cryptography.x509 import Certificate, CertificateRevocationList

from txpaxos.core.messages import NodeId
from txpaxos.keys.authority import Authority, Issued
from txpaxos.keys.folder import Keys
from txpaxos.testing.checkers.keys import KeysChecker
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.testing.simulator.tls import BEGAN, SimulatedTls
from txpaxos.wire.members import base_name

OLD_ENOUGH = timedelta(days=1)
"""How long before the simulation all certificates are made: no clock that is stepped makes one not yet valid."""


class ClusterKeys:
    """What is in the folders of keys, and which process has read it.

    :param rng: decides all that is random in handshakes.
    :param checker: sees each sealed datagram.
    :ivar authority: signs certificates now.
    :ivar believed: the authorities that nodes believe.
    :ivar shown: all certificates that were shown in a handshake, by their fingerprints.
    """

    def __init__(self, rng: Random, checker: KeysChecker) -> None:
        self.checker = checker
        self.authority = self.new_authority()
        self.believed = [self.authority]
        self.shown: dict[bytes, Sequence[Certificate]] = {}
        self._rng = rng
        self._own: dict[str, Issued] = {}
        self._revoked: list[int] = []
        self._lists: tuple[CertificateRevocationList, ...] = ()
        self._version = 0
        self._read: dict[SimulatedReactor, int] = {}

    # from processes

    def tls_of(self, node: NodeId, reactor: SimulatedReactor) -> SimulatedTls:
        """What a process of ``node`` does with keys."""
        return SimulatedTls(node, reactor, Random(self._rng.random()), self.shown, self.checker)

    def read(self, node: NodeId, reactor: SimulatedReactor) -> Keys:
        """A process reads what is in the folder of ``node``."""
        self._read[reactor] = self._version
        return self.folder_of(node)

    def has_read(self, reactor: SimulatedReactor) -> bool:
        """Whether a process has read what is in its folder now."""
        return self._read.get(reactor) == self._version

    def folder_of(self, node: NodeId) -> Keys:
        """What is in the folder of ``node``."""
        name = base_name(node)
        if name not in self._own:
            self.issue(node)
        own = self._own[name]
        nodes = tuple(one.certificate for one in self.believed)
        not_after = own.certificate.not_valid_after_utc
        return Keys("", "node", name, not_after, (own.certificate,), own.private_key, nodes, (), self._lists, "", {})

    # from the operator

    def changed(self, nodes: Sequence[NodeId], readers: Sequence[tuple[NodeId, SimulatedReactor]]) -> None:
        """The folders of ``nodes`` have other contents now.

        :param readers: the processes that run, and their nodes. Those of other nodes need read nothing."""
        self._version += 1
        for node, reactor in readers:
            if node not in nodes:
                self._read[reactor] = self._version

    def new_authority(self) -> Authority:
        """Another authority."""
        return Authority.create("node", BEGAN - 2 * OLD_ENOUGH)

    def issue(self, node: NodeId) -> None:
        """Put a new certificate into the folder of ``node``."""
        self._own[base_name(node)] = self.authority.issue(base_name(node), BEGAN - OLD_ENOUGH)

    def issue_all(self, authority: Authority) -> None:
        """Put a new certificate, of another authority, into each folder."""
        self.authority = authority
        for name in self._own:
            self.issue(name)

    def revoke(self, certificate: Certificate) -> None:
        """Put the list with ``certificate`` on it into each folder, if its authority is still believed."""
        self._revoked.append(certificate.serial_number)
        when = BEGAN - OLD_ENOUGH
        revoked = [(serial, when) for serial in self._revoked]
        self._lists = tuple(one.revocations(revoked, len(revoked), when) for one in self.believed)
