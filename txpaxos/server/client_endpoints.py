"""Further places at which a node listens for clients, as Twisted's server endpoints."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Any, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from txpaxos.cluster import Address
from txpaxos.errors import ConfigError

ClientEndpoint: TypeAlias = str | IStreamServerEndpoint
"""A server endpoint, or its string."""

UNIX = "unix"
"""What stands for the address of a client at a Unix socket, which has none."""


def endpoint_of(reactor: Any, given: ClientEndpoint, backlog: int) -> IStreamServerEndpoint:
    """The endpoint that ``given`` is, or describes.

    :param backlog: how many connections may wait at least to be accepted, at a Unix socket.
    :raises ConfigError: if it describes none.
    """
    if not isinstance(given, str):
        return given
    try:
        endpoint: IStreamServerEndpoint = serverFromString(_UnixSockets(reactor, backlog), given)
    except Exception as error:  # Each kind of endpoint raises what it likes.
        raise ConfigError(f"client endpoint {given!a}: {_reason(error)}") from None
    return endpoint


def cannot_listen(given: ClientEndpoint, failure: Failure) -> ConfigError:
    """The error for an endpoint at which a node cannot listen."""
    return ConfigError(f"client endpoint {shown(given)}: {_reason(failure.value)}")


def shown(given: ClientEndpoint) -> str:
    """An endpoint as text."""
    return ascii(given) if isinstance(given, str) else type(given).__name__


def address_of(port: IListeningPort) -> Address | None:
    """The TCP address at which ``port`` listens; ``None`` if it is a Unix socket or the like."""
    host = port.getHost()
    return Address(host.host, host.port) if isinstance(host, IPv4Address | IPv6Address) else None


def host_of(address: IAddress | None) -> str:
    """What a client counts by, and is called in the log: its IP address. All clients at Unix sockets count as one."""
    return UNIX if isinstance(address, UNIXAddress) else getattr(address, "host", "")


class _UnixSockets:
    """A reactor whose Unix sockets may have been left over by a node that was killed.

    Twisted's own way is a file with the number of the process that listens. In a container each process may have the
    same number, so a node would find its own, and not start. So it is found out by a connection who listens."""

    def __init__(self, reactor: Any, backlog: int) -> None:
        self._reactor = reactor
        self._backlog = backlog
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUNIX(self, address: str, factory: Any, backlog: int, mode: int, wantPID: bool) -> IListeningPort:
        """Listen at the path ``address``.

        :raises ConfigError: if another program does, or there is a file of another kind."""
        _free(address)
        port: IListeningPort = self._reactor.listenUNIX(address, factory, max(backlog, self._backlog), mode, False)
        return port


def _free(path: str) -> None:
    """Remove the socket at ``path`` if no program listens there.

    :raises ConfigError: if it cannot be used."""
    try:
        kind = os.lstat(path).st_mode
    except (OSError, ValueError):
        return  # What is wrong, if anything, is said by the attempt to listen.
    if not stat.S_ISSOCK(kind):
        raise ConfigError("there is a file that is no socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
        except BlockingIOError:
            raise ConfigError(_IN_USE) from None
        except OSError:
            pass
        else:
            raise ConfigError(_IN_USE)


_IN_USE = "another program listens there: does this node run already?"


def _reason(error: BaseException | None) -> str:
    if isinstance(error, CannotListenError) and isinstance(error.socketError, OSError):
        error = error.socketError
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {text}"
    return " ".join(text.split()) or type(error).__name__
