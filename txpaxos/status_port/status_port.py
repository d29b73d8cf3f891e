"""The status address as what runs beside a node."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import BAD_REQUEST, FORBIDDEN, INTERNAL_SERVER_ERROR, NOT_ALLOWED, NOT_FOUND

from txpaxos.cluster import Address, check_host, is_loopback
from txpaxos.errors import ConfigError, NotAllowed
from txpaxos.host_names import is_ip_address
from txpaxos.log_lines import for_log
from txpaxos.metrics.collector import NodeCollector
from txpaxos.metrics.meter import Meter
from txpaxos.node.counts import Count
from txpaxos.node.events import Observer
from txpaxos.server.companion import Surroundings
from txpaxos.server.own_addresses import check_free
from txpaxos.status_port.channel import StatusChannel, StatusRequest, StatusSite
from txpaxos.status_port.health import why_not_ready
from txpaxos.status_port.live import Live, file_pages
from txpaxos.status_port.pages import EVENTS, METRICS, PAGES, TEXT, Page, at_end, metrics_page
from txpaxos.status_port.recent import Recent
from txpaxos.status_port.stalls import Stalls
from txpaxos.status_port.view import view_of
from txpaxos.wire.client_messages import StatusRequest as StatusMessage

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys
    from txpaxos.server.client_tls import ClientTls

BACKLOG = 16
"""How many connections may wait to be accepted."""

SEND_BUFFER_BYTES = 2**15
"""How much of an answer the system takes before it was read. By itself it takes megabytes: minutes of the live page,
until a reader whose machine is gone is seen not to read."""

HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
"""Of each answer; a page may set others."""

_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(?::\d*)?")
"""The host that a request names, and its port."""


class _Refused(Exception):
    """A request that is not answered, with the status of HTTP and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class StatusPort:
    """Serves the status of the node that it runs beside, at an address of its own.

    .. code-block:: python

        PaxosService(Counter, "a", "cluster.toml", "paxos-data-a", companions=[StatusPort("127.0.0.1:9100")])

    With keys it is HTTPS, and a client needs the right ``status``: it shows a certificate, or a token in the header
    ``Authorization: Bearer``. Without keys it is plain HTTP, and a name of another site that leads to a loopback
    address is refused there, so that no page of that site can read it.

    :param address: where to listen, as ``HOST:PORT``; at all addresses of the host that this machine has.
    :param pages: more pages, by their paths.
    :param observers: called with each step of the node, for the pages.
    :raises ConfigError: if the address is none.
    """

    log = Logger()

    def __init__(
        self,
        address: Address | str,
        pages: Mapping[bytes, Page] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.address = _parsed(address) if isinstance(address, str) else address
        self._meter = Meter()
        self._recent = Recent()
        self.observers: tuple[Observer, ...] = (self._meter, self._recent, *observers)
        self._pages = {**PAGES, **file_pages(), **(pages or {})}
        self._stalls: Stalls | None = None
        self._live: Live | None = None
        self._ports: list[IListeningPort] = []
        self._tls: ClientTls | None = None
        self._site: StatusSite | None = None
        self._surroundings: Surroundings | None = None
        self._is_local = False  # Whether no other machine reaches the address.

    # as a companion

    def check(self, taken: Sequence[Address] = ()) -> None:
        """See whether the address is free.

        :param taken: where the node itself is going to listen.
        :raises ConfigError: if it is not."""
        for address in self._addresses():
            if any(_clash(address, other) for other in taken):
                raise self._cannot_listen(
                    ConfigError("the node itself listens there: give the status address a port of its own")
                )
            try:
                check_free(address, socket.SOCK_STREAM)
            except ConfigError as error:
                raise self._cannot_listen(error) from None

    def start(self, surroundings: Surroundings) -> None:
        """Listen.

        :raises ConfigError: if that cannot be done."""
        node, client_port = surroundings.node, surroundings.client_port
        self._surroundings = surroundings
        client_port.meter = self._meter
        self._stalls = Stalls(node.clock, self._meter)
        collector = NodeCollector(node, self._meter, client_port.status, lambda: not why_not_ready(node))
        self._pages[METRICS] = metrics_page(collector)
        self._live = Live(
            node.clock,
            lambda: view_of(node, self._meter, self._recent, len(client_port.connections)),
            node.counters,
        )
        self._pages[EVENTS] = self._live.page
        self._site = StatusSite(node.counters, node.clock.callLater, self._answer, self._lost)
        factory: Any = self._site
        if surroundings.keys is not None:
            from txpaxos.server.client_tls import ClientTls

            factory = self._tls = ClientTls(surroundings.keys, self._site, node.clock)
        addresses = self._addresses()
        try:
            for address in addresses:
                port = surroundings.reactor.listenTCP(address.port, factory, BACKLOG, address.host)
                self._ports.append(port)
                # Connections inherit it.
                port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        except CannotListenError as error:
            raise self._cannot_listen(error) from None
        self._is_local = all(map(is_loopback, addresses))
        shown, scheme = ", ".join(map(str, addresses)), "http" if surroundings.keys is None else "https"
        line = "node {node} shows its status at {at}, by {by}"
        self.log.info(line, node=node.name, at=shown, by=scheme, event="status_shown")
        if surroundings.keys is None and not surroundings.insecure and not self._is_local:
            self.log.warn(
                "node {node} shows its status at {at} without keys: any program that gets there can read it; give it"
                " keys (docs/keys.rst), or --insecure if nothing else is in that network",
                node=node.name,
                at=shown,
                event="status_without_keys",
            )

    def use_keys(self, keys: Keys) -> None:
        """Use other keys, or other rights. Connections that are open are closed: their clients may not be believed any
        more, or may see nothing any more."""
        if self._tls is not None and self._site is not None:
            self._tls.use_keys(keys)
            self._site.close()

    def stop(self) -> Deferred[None]:
        """Close all connections, and listen no more."""
        ports, self._ports = self._ports, []
        for part in (self._stalls, self._live):
            if part is not None:
                part.stop()
        if self._site is not None:
            self._site.close()
        if not ports:
            return succeed(None)
        closed: Deferred[Any] = DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        return closed.addCallback(lambda _: None)

    def _addresses(self) -> list[Address]:
        """Where to listen. Looks the name up, if the address has one, which blocks."""
        if not self.address.host_name:
            return [self.address]
        try:
            return self.address.look_up()
        except ConfigError as error:
            raise self._cannot_listen(error) from None

    def _cannot_listen(self, error: Exception) -> ConfigError:
        return ConfigError(f"status address {self.address.written}: {error}")

    # from a connection

    def _answer(self, request: StatusRequest) -> None:
        assert self._surroundings is not None
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        try:
            body = self._page(self._surroundings, request)(self._surroundings, request)
        except _Refused as refused:
            body = _told(request, refused.status, str(refused))
        except Exception:  # A fault of a page ends no node.
            self.log.failure("a page at the status address failed", for_log(), event="status_page_raised")
            body = _told(request, INTERNAL_SERVER_ERROR, "this page failed; the log of the node says why")
        if body is not None:
            at_end(request, body)

    def _page(self, at: Surroundings, request: StatusRequest) -> Page:
        """What answers ``request``.

        :raises _Refused: if nothing does."""
        self._check_client(at, request)
        page = self._pages.get(request.path)
        if page is None:
            raise self._bad(at, NOT_FOUND, f"there is no such page; there are {b', '.join(self._pages).decode()}")
        if request.method not in (b"GET", b"HEAD"):
            raise self._bad(at, NOT_ALLOWED, "this place wants GET")
        return page

    def _check_client(self, at: Surroundings, request: StatusRequest) -> None:
        access = at.client_port.access
        host = getattr(request.getClientAddress(), "host", "")
        if access is None:
            if self._is_local and not _names_this_machine(request):
                raise self._bad(at, BAD_REQUEST, "this is not the name of this site: use its address")
            return
        client, principal = f"a client at {host}", access.identify(request.channel.transport)
        scheme, _, shown = (request.getHeader(b"authorization") or b"").partition(b" ")
        token = shown.strip() if scheme.lower() == b"bearer" else b""
        if token and not principal:
            principal = access.principal_of(token)
            if not principal:
                raise _Refused(FORBIDDEN, str(access.refused_token(host)))
        refusal: NotAllowed | None = access.refusal(client, principal, StatusMessage(0))
        if refusal is not None:
            raise _Refused(FORBIDDEN, str(refusal))

    def _bad(self, at: Surroundings, status: int, line: str) -> _Refused:
        at.node.counters[Count.BAD_STATUS_REQUEST] += 1
        return _Refused(status, line)

    def _lost(self, channel: StatusChannel, reason: Failure) -> None:
        assert self._surroundings is not None
        access = self._surroundings.client_port.access
        if access is not None:
            transport: Any = channel.transport
            access.refused_connection(getattr(transport.getPeer(), "host", ""), reason)


def _clash(one: Address, other: Address) -> bool:
    """Whether one machine cannot listen at both."""
    if one.port != other.port:
        return False
    hosts = {one.host, other.host}
    if one.written == other.written or len(hosts) == 1 or "::" in hosts:  # That one takes IPv4, too.
        return True
    return "0.0.0.0" in hosts and not any(":" in host for host in hosts)


def _parsed(text: str) -> Address:
    try:
        address = Address.parse(text)
        check_host(address.host, listens=True)
    except ValueError as error:
        raise ConfigError(f"status address {text[:100]!a}: {error}") from None
    return address


def _names_this_machine(request: StatusRequest) -> bool:
    """Whether the request was sent to an IP address, or to ``localhost``. A browser that a foreign site has led to this
    machine (DNS rebinding) names that site. What names none is no browser: HAProxy, in a check of HTTP 1.0."""
    names = request.requestHeaders.getRawHeaders(b"host") or []
    if not names and request.clientproto == b"HTTP/1.0":
        return True
    found = _HOST.fullmatch(names[0].decode("latin-1")) if len(names) == 1 else None
    host = found[1].lower() if found else ""
    return host == "localhost" or is_ip_address(host.removeprefix("[").removesuffix("]"))


def _told(request: StatusRequest, status: int, line: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", TEXT)
    return f"{' '.join(line.split())}\n".encode()
