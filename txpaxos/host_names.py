"""Host names and their IP addresses. A name is looked up when it is needed, and never in the reactor's thread.

A name may have several addresses, and they may change. So nodes and clients keep the name, and use the addresses that
it has now. A look-up blocks until the system's resolver answers, which takes half a minute if no server does. So it is
done in a daemon thread: neither the reactor nor the end of the process waits for it.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv6Address, ip_address
from threading import Thread
from typing import Any, Protocol, TypeAlias, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import UserError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from txpaxos.clock import monotonic_clock
from txpaxos.errors import ConfigError

FAMILIES = ("ipv4", "ipv6")
ADDRESSES_MAX = 8
"""The most addresses of a name that are used."""

LookUp: TypeAlias = "Callable[[str, str], Deferred[list[str]]]"
"""A function of a name and the preferred family. Its Deferred fires with the name's IP addresses, or fails with
:class:`~txpaxos.errors.ConfigError`."""


def is_ip_address(host: str) -> bool:
    """Whether ``host`` is an IP address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def canonical_host(host: str) -> str:
    """The canonical spelling of a host: an IP address in its shortest form, a name in lower case without a dot at the
    end."""
    try:
        ip = ip_address(host)
    except ValueError:
        pass
    else:
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
        return str(mapped or ip)
    if host and all(one in "0123456789abcdefxABCDEFX." for one in host) and host[0].isdigit():
        try:
            return socket.inet_ntoa(socket.inet_aton(host))  # The system accepts 127.1 and 0x7f000001, too.
        except OSError:
            pass
    return host.lower().rstrip(".")


def look_up(name: str, family: str = FAMILIES[0]) -> list[str]:
    """Look up the IP addresses of ``name``, which may be an IP address itself. Blocks.

    :param family: the preferred family, ``"ipv4"`` or ``"ipv6"``. Its addresses come first.
    :raises ConfigError: one line, if the name has no address that can be used.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long.
        raise ConfigError(f"cannot resolve {name!r}: {error}; use an IP address, or correct the name") from None
    hosts = dict.fromkeys(canonical_host(str(entry[4][0])) for entry in found if "%" not in str(entry[4][0]))
    usable = [host for host in hosts if _is_usable(host)]
    if not usable:
        raise ConfigError(
            f"{name!r} has no address at which others could reach it; use an IP address, or correct the name"
        )
    usable.sort(key=lambda host: (":" in host) != (family == "ipv6"))  # Within a family the system's order is kept.
    return usable[:ADDRESSES_MAX]


def _is_usable(host: str) -> bool:
    """Whether other machines can use this address: it is the address of one machine, and needs no zone."""
    ip = ip_address(host)
    return not (ip.is_unspecified or ip.is_multicast or (ip.version == 6 and ip.is_link_local))


def look_up_together(names: Iterable[tuple[str, str]], seconds: float) -> dict[tuple[str, str], list[str]]:
    """Look up several names at once. Blocks, for ``seconds`` at most.

    :param names: the names, each with its preferred family.
    :returns: the addresses of the names that were resolved in time."""
    found: dict[tuple[str, str], list[str]] = {}

    def run(name: str, family: str) -> None:
        with contextlib.suppress(ConfigError):
            found[name, family] = look_up(name, family)

    threads = [Thread(target=run, args=name, name=f"txpaxos-look-up-{name[0]}", daemon=True) for name in set(names)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def look_up_in_thread(reactor: Any, name: str, family: str = FAMILIES[0]) -> Deferred[list[str]]:
    """Look up the IP addresses of ``name`` without blocking. Fires with them, or fails with ConfigError.

    A simulated reactor resolves names by its own method ``look_up``.

    :param family: the preferred family, as of :func:`look_up`."""
    own = getattr(reactor, "look_up", None)
    if own is not None:
        known: Deferred[list[str]] = own(name)
        return known
    if is_ip_address(name):
        return succeed([canonical_host(name)])
    found: Deferred[list[str]] = Deferred()

    def run() -> None:
        try:
            hosts = look_up(name, family)
        except BaseException:
            reactor.callFromThread(found.errback, Failure())
        else:
            reactor.callFromThread(found.callback, hosts)

    Thread(target=run, name=f"txpaxos-look-up-{name}", daemon=True).start()
    return found


class Destination(Protocol):
    """The address that :func:`connect` connects to, which is a :class:`txpaxos.cluster.Address`.

    This module cannot import that class, since that module imports this one."""

    @property
    def host(self) -> str:
        """A name or an IP address."""

    @property
    def port(self) -> int:
        """The TCP port."""

    @property
    def family(self) -> str:
        """The preferred family of addresses."""

    @property
    def host_name(self) -> str:
        """The name of the host, empty if there is none."""


def connect(
    reactor: Any, place: Destination, factory: ClientFactory, timeout: float, look_up: LookUp | None = None
) -> IConnector:
    """Connect to ``place`` as ``connectTCP`` does, with the same calls of ``factory``.

    A host name is looked up again, and its addresses are tried one after the other. If the look-up fails, the IP
    address from an earlier look-up is tried.

    :param timeout: seconds for the look-up, and for each address.
    :param look_up: looks names up; :func:`look_up_in_thread` unless given."""
    if not place.host_name:
        connector: IConnector = reactor.connectTCP(place.host, place.port, factory, timeout)
        return connector
    attempt: IConnector = _NameConnector(reactor, place, factory, timeout).start(
        look_up or partial(look_up_in_thread, reactor)
    )
    return attempt


class _NameConnector(ClientFactory):
    """Connects to a host by its name, once. It has the part of the interface of a connector that is needed for that."""

    noisy = False

    def __init__(self, reactor: Any, place: Destination, factory: ClientFactory, timeout: float) -> None:
        self._reactor = reactor
        self._place = place
        self._factory = factory
        self._timeout = timeout
        self._hosts: list[str] = []
        self._reason = Failure(ConfigError(f"it takes long to look up {place.host_name!r}"))
        self._late: IDelayedCall | None = None
        self._connector: IConnector | None = None
        self._started = self._over = False

    def start(self, look_up: LookUp) -> Any:
        """Look the name up, then connect."""
        self._late = monotonic_clock(self._reactor).callLater(self._timeout, self._looked_up, [])
        look_up(self._place.host_name, self._place.family).addCallbacks(self._looked_up, self._not_found)
        self._started = True
        return self

    def stopConnecting(self) -> None:
        """Stop. The factory's ``clientConnectionFailed`` is called, as by Twisted's connectors."""
        self._hosts.clear()
        if self._connector is not None:
            self._connector.stopConnecting()
        else:
            self._fail(Failure(UserError()))

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol | None:
        """Hand the connection, which is established, to the factory."""
        self._over = True
        protocol: Any = self._factory.buildProtocol(cast(Any, addr))
        return protocol if isinstance(protocol, TwistedProtocol) else None

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Try the next address, since this one failed."""
        self._connector = None
        self._reason = reason
        self._try_next()

    def _not_found(self, reason: Failure) -> None:
        self._reason = reason
        self._looked_up([])

    def _looked_up(self, hosts: list[str]) -> None:
        """Try the name's addresses. There are none if the look-up failed, or took too long."""
        late, self._late = self._late, None
        if late is None:
            return  # The look-up took too long.
        if late.active():
            late.cancel()
        before = [self._place.host] if is_ip_address(self._place.host) else []
        self._hosts = list(hosts or before)
        self._try_next()

    def _try_next(self) -> None:
        if self._over:
            return
        if self._hosts:
            self._connector = self._reactor.connectTCP(self._hosts.pop(0), self._place.port, self, self._timeout)
        else:
            self._fail(self._reason)

    def _fail(self, reason: Failure) -> None:
        if self._over:
            return
        if not self._started:  # The caller of connect() does not have this connector yet.
            self._reactor.callLater(0, self._fail, reason)
            return
        self._over = True
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
        self._factory.clientConnectionFailed(self, reason)  # type: ignore[arg-type]
