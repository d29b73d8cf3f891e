"""Names of hosts, and the IP addresses behind them: looked up when they are needed, and never in the reactor's thread.

A name may have several addresses, and others tomorrow than today. So what is kept is the name; what is used is what it
means now. A look-up blocks for as long as the system's resolver likes, half a minute if no server answers. It is done
in a daemon thread, for which neither the reactor nor the end of the process waits.
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
"""Of a name with more addresses, the others are not used."""

LookUp: TypeAlias = "Callable[[str, str], Deferred[list[str]]]"
"""From a name and the family that comes first to its IP addresses; fails with :class:`~txpaxos.errors.ConfigError`."""


def is_ip_address(host: str) -> bool:
    """Whether ``host`` is an IP address, and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def canonical_host(host: str) -> str:
    """One spelling of a host: IP addresses in their shortest form, names in small letters without a dot at the end."""
    try:
        ip = ip_address(host)
    except ValueError:
        pass
    else:
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
        return str(mapped or ip)
    if host and all(one in "0123456789abcdefxABCDEFX." for one in host) and host[0].isdigit():
        try:
            return socket.inet_ntoa(socket.inet_aton(host))  # As the system reads 127.1 and 0x7f000001.
        except OSError:
            pass
    return host.lower().rstrip(".")


def look_up(name: str, family: str = FAMILIES[0]) -> list[str]:
    """The IP addresses of ``name``, which may be one itself; those of ``family`` first. Blocks.

    :raises ConfigError: one line, if it has none that can be used.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:  # The latter if a label of the name is empty or too long.
        raise ConfigError(f"cannot resolve {name!r}: {error}; use an IP address, or mend the name") from None
    hosts = dict.fromkeys(canonical_host(str(entry[4][0])) for entry in found if "%" not in str(entry[4][0]))
    usable = [host for host in hosts if _is_usable(host)]
    if not usable:
        raise ConfigError(
            f"{name!r} has no address at which others could reach it; use an IP address, or mend the name"
        )
    usable.sort(key=lambda host: (":" in host) != (family == "ipv6"))  # Else in the order of the system.
    return usable[:ADDRESSES_MAX]


def _is_usable(host: str) -> bool:
    """Whether others can be told of this address: it is of one machine, and needs no zone to mean something."""
    ip = ip_address(host)
    return not (ip.is_unspecified or ip.is_multicast or (ip.version == 6 and ip.is_link_local))


def look_up_together(names: Iterable[tuple[str, str]], seconds: float) -> dict[tuple[str, str], list[str]]:
    """Look up names, each with the family that comes first, all at once. Blocks, for ``seconds`` at most.

    :returns: those that were known in time, with their addresses."""
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
    """The same without blocking. A simulated reactor knows its hosts by itself."""
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
    """What :func:`connect` connects to: a :class:`txpaxos.cluster.Address`."""

    @property
    def host(self) -> str:
        """A name or an IP address."""

    @property
    def port(self) -> int:
        """The port."""

    @property
    def family(self) -> str:
        """Which addresses of a name come first."""

    @property
    def host_name(self) -> str:
        """The name, empty if there is none."""


def connect(
    reactor: Any, place: Destination, factory: ClientFactory, timeout: float, look_up: LookUp | None = None
) -> IConnector:
    """Connect to ``place``, as ``connectTCP`` does, whose ``factory`` is told in the same way. A name is looked up
    anew, and all its addresses are tried; the one known from before, if that fails."""
    if not place.host_name:
        connector: IConnector = reactor.connectTCP(place.host, place.port, factory, timeout)
        return connector
    attempt: IConnector = _NameConnector(reactor, place, factory, timeout).start(
        look_up or partial(look_up_in_thread, reactor)
    )
    return attempt


class _NameConnector(ClientFactory):
    """One attempt to connect to a name. Of the interface of a connector it has what an attempt needs."""

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
        """Look the name up, and try."""
        self._late = monotonic_clock(self._reactor).callLater(self._timeout, self._looked_up, [])
        look_up(self._place.host_name, self._place.family).addCallbacks(self._looked_up, self._not_found)
        self._started = True
        return self

    def stopConnecting(self) -> None:
        """Try no more. The factory is told, as by a connector of Twisted's."""
        self._hosts.clear()
        if self._connector is not None:
            self._connector.stopConnecting()
        else:
            self._fail(Failure(UserError()))

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol | None:
        """The connection stands."""
        self._over = True
        protocol: Any = self._factory.buildProtocol(cast(Any, addr))
        return protocol if isinstance(protocol, TwistedProtocol) else None

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Not at this address; perhaps at another."""
        self._connector = None
        self._reason = reason
        self._try_next()

    def _not_found(self, reason: Failure) -> None:
        self._reason = reason
        self._looked_up([])

    def _looked_up(self, hosts: list[str]) -> None:
        """The name's addresses; none if it is not known, or that took too long."""
        late, self._late = self._late, None
        if late is None:
            return  # It took too long.
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
        if not self._started:  # Whoever wants the connection does not have this connector yet.
            self._reactor.callLater(0, self._fail, reason)
            return
        self._over = True
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
        self._factory.clientConnectionFailed(self, reason)  # type: ignore[arg-type]
