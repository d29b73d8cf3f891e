"""How a node joins a cluster of which it knows one address: it asks the leader, before it starts.

All of this blocks. It is done before the reactor runs, as the rest of a start is, so a node that cannot join ends with
one line like any other that cannot start.

While it asks, the node listens at its own addresses, and sends a random token to each process that connects. By it the
leader sees that the addresses are right.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING

import attrs

from txpaxos.cluster import Address, Cluster, Member
from txpaxos.errors import CodecError, ConfigError
from txpaxos.keys import load_keys
from txpaxos.log_lines import printable
from txpaxos.server.own_addresses import OwnAddresses, find_own_addresses
from txpaxos.storage.access import refuse_foreign_access
from txpaxos.storage.disk import Disk, ensure_directory
from txpaxos.storage.identity import lock_folder
from txpaxos.storage.membership import Joined, Joining, MembershipFile
from txpaxos.storage.messages import os_errors
from txpaxos.wire.client_messages import (
    TOKEN_BYTES,
    Authenticate,
    Authenticated,
    ClientCodec,
    FromClient,
    FromNode,
    Join,
    JoinAnswer,
    KeepAlive,
    KeepAliveReply,
    Refused,
    Welcome,
)
from txpaxos.wire.frames import FRAME_BYTES_MAX, TLS_ALERT, FrameSplitter, frame
from txpaxos.wire.members import base_name

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys
    from txpaxos.server.joining_tls import TlsSocket

JOIN_SECONDS = 30.0
"""How long a node asks to join."""

CONNECT_SECONDS = 3.0
WELCOME_SECONDS = 3.0
"""How long a node may take to say which one it is. Each does at once, unless its machine is overloaded."""
SILENCES_MAX = 3
"""How often a process may say nothing for that long, until it is taken for no node's client port."""

AGAIN_SECONDS = 0.25
"""Time until a node asks again, while there is no leader, or another one."""

TRY_AGAIN = frozenset({"NoQuorum", "OutcomeUnknown", "NodeStopped", "Overloaded"})
"""The errors after which a node asks again."""

LEFT_BY_A_JOIN = frozenset({"lock", "membership", "membership.new"})


@attrs.frozen
class Wish:
    """What the owner of a node says of it.

    :ivar at: the client address of any member.
    :ivar name: what the node is to be called.
    :ivar member: its addresses.
    :ivar application: the name of its application.
    :ivar cluster: the cluster's name, ``None`` to take whatever cluster is there.
    :ivar votes: whether it is to vote.
    :ivar replaces: the id of the member that it replaces; empty for none.
    :ivar keys: the folder with the keys of a client that may change the members; empty if the cluster has no keys.
    """

    at: Address
    name: str
    member: Member
    application: str
    cluster: str | None = None
    votes: bool = True
    replaces: str = ""
    keys: str = ""


def join_cluster(
    wish: Wish,
    directory: str,
    disk: Disk | None = None,
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
    monotonic: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Joined:
    """Join a cluster with the data folder ``directory``. Blocks.

    A folder that has joined already is left as it is, and is asked nothing.

    :returns: what the folder says from now on.
    :raises ConfigError: one line that says why the node cannot join.
    :raises StoreError: if the folder cannot be used.
    """
    disk = disk or Disk()
    with os_errors("create", directory):
        ensure_directory(disk, directory)
    refuse_foreign_access(disk, directory)
    lock = lock_folder(disk, directory)
    try:
        file = MembershipFile(disk, directory)
        known = file.read()
        if isinstance(known, Joined):
            if known.name != wish.name:
                raise ConfigError(f"{directory} belongs to node {known.node} of cluster {known.cluster}")
            return known
        _refuse_used(disk, directory)
        if known is None or known.name != wish.name:
            known = Joining(wish.name, int.from_bytes(random_bytes(8), "little") or 1)
            file.write(known)
        joined = _ask(wish, known, random_bytes(TOKEN_BYTES), monotonic, wait)
        file.write(joined)
        return joined
    finally:
        disk.close(lock)


def _refuse_used(disk: Disk, directory: str) -> None:
    with os_errors("read", directory):
        found = sorted(set(disk.list_directory(directory)) - LEFT_BY_A_JOIN)
    if found:
        raise ConfigError(
            f"{directory} is not empty ({printable(', '.join(found)[:100])}): a node joins with an empty data folder;"
            " if it is a member already, leave --join out"
        )


def _ask(
    wish: Wish, known: Joining, token: bytes, monotonic: Callable[[], float], wait: Callable[[float], None]
) -> Joined:
    """Ask to join, until there is an answer.

    :raises ConfigError: if the node is refused, or there is no leader for too long.
    """
    own = find_own_addresses(Cluster("joining", {wish.name: wish.member}), wish.name)
    own.check_free()
    member = wish.member
    request = Join(
        1,
        wish.name,
        member.address.written,
        member.client.written,
        known.incarnation,
        token,
        wish.application,
        wish.votes,
        wish.replaces,
    )
    until = monotonic() + JOIN_SECONDS
    with showing_token(own, token):
        answer = _Asking(wish, request).ask(lambda: monotonic() < until, wait)
    return Joined(
        wish.name,
        known.incarnation,
        answer.cluster,
        answer.node,
        answer.founding,
        answer.members,
        answer.slot,
        "" if member.listen is None else member.listen.written,
        "" if member.client_listen is None else member.client_listen.written,
        given=(member.address.written, member.client.written),
        learners=answer.learners,
        rights=answer.rights,
    )


class _Asking:
    """The search for the leader, and its answer."""

    def __init__(self, wish: Wish, request: Join) -> None:
        self._wish = wish
        self._keys = load_keys(wish.keys, "client") if wish.keys else None
        self._request = request
        self._target = wish.at
        self._reason = ""
        self._has_connected = False
        self._silences = 0

    def ask(self, goes_on: Callable[[], bool], wait: Callable[[float], None]) -> JoinAnswer:
        """Ask until there is an answer, or no more time.

        :raises ConfigError: if the node is refused, or no leader answers.
        """
        while True:
            answer = self._ask_once()
            if answer is not None:
                return answer
            if not goes_on():
                raise ConfigError(f"--join {self._wish.at}: {self._reason}")
            wait(AGAIN_SECONDS)

    def _ask_once(self) -> JoinAnswer | None:
        target, self._target = self._target, self._wish.at
        try:
            with _Connection(target, self._wish.cluster, self._keys) as connection:
                self._has_connected = True
                return self._ask_node(connection)
        except _Silence:
            self._silences += 1
            self._reason = f"the node at {target} says nothing: it may have too much to do"
            if self._silences >= SILENCES_MAX:
                raise _no_client_port(target) from None
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            if target == self._wish.at:
                self._reason = f"no node answers there ({reason}): start it, or give the address of another one"
                if not self._has_connected:
                    raise ConfigError(f"--join {target}: {self._reason}") from None
            else:
                self._reason = f"the leader is at {target}, which this machine does not reach ({reason})"
        except (CodecError, ValueError) as error:
            cluster = "a cluster" if self._wish.cluster is None else f"the cluster {self._wish.cluster}"
            raise ConfigError(f"--join {target}: no node of {cluster} is there ({error})") from None
        return None

    def _ask_node(self, connection: _Connection) -> JoinAnswer | None:
        is_asked = has_shown = False
        for message in connection.messages():
            match message:
                case Authenticated("", ()) if self._keys is not None and self._keys.token and not has_shown:
                    connection.send(Authenticate(self._keys.token.encode()))
                    has_shown = True
                case Authenticated("", ()):
                    raise ConfigError(f"--join {self._wish.at}: the nodes do not take --join-keys {self._wish.keys}")
                case Welcome(node) if connection.node not in ("", base_name(node)):
                    raise CodecError(f"it says that it is {ascii(node)[:40]}, and its certificate says otherwise")
                case Welcome(node, leader, address):
                    if leader == node and not is_asked:
                        connection.send(self._request)
                        is_asked = True
                    elif leader != node:
                        self._reason = "the cluster has no leader: start a majority of its nodes first"
                        if leader is not None and address is not None:
                            self._reason = f"the leader, {leader}, does not answer"
                            self._target = Address.parse(address)
                        return None
                case JoinAnswer():
                    return message
                case Refused():
                    self._reason = message.reason
                    if message.error not in TRY_AGAIN:
                        raise ConfigError(f"--join {self._wish.at}: {message.reason}")
                    return None
                case _:
                    pass
        self._reason = "the connection to the leader was closed"
        return None


class _Silence(Exception):
    """A process said nothing for a time in which a node says which one it is."""


class _Connection:
    """A connection to the client port of a node.

    :raises OSError: if it cannot be made.
    """

    def __init__(self, address: Address, cluster: str | None, keys: Keys | None = None) -> None:
        self._address = address
        self._codec = ClientCodec(cluster)
        self._is_welcome = False
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)
        plain = socket.create_connection((address.host, address.port), CONNECT_SECONDS)
        self._socket: socket.socket | TlsSocket = plain
        self.node = ""
        if keys is not None:
            self._socket = _in_tls(plain, keys, f"--join {address}")
            self.node = self._socket.node

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, message: FromClient) -> None:
        """Send ``message``."""
        self._socket.sendall(frame(self._codec.encode(message)))

    def messages(self) -> Iterator[FromNode | FromClient]:
        """What the node sends, until it closes the connection.

        :raises ConfigError: if the process there closes it, and has said nothing.
        :raises _Silence: if the process there says nothing.
        """
        while True:
            self._socket.settimeout(JOIN_SECONDS if self._is_welcome else WELCOME_SECONDS)
            try:
                data = self._socket.recv(2**16)
            except TimeoutError:
                if not self._is_welcome:
                    raise _Silence from None
                data = b""
            if not data:
                break
            if not self._is_welcome and data.startswith(TLS_ALERT):
                raise ConfigError(f"--join {self._address}: the cluster has keys: give --join-keys and --keys, too")
            for part in self._splitter.feed(data):
                message = self._codec.decode(part)
                if isinstance(message, KeepAlive):
                    self.send(KeepAliveReply())
                else:
                    self._is_welcome = True
                    yield message
        if not self._is_welcome:
            raise _no_client_port(self._address)


def _in_tls(plain: socket.socket, keys: Keys, place: str) -> TlsSocket:
    from txpaxos.server.joining_tls import TlsSocket

    try:
        return TlsSocket(plain, keys, place)
    except BaseException as error:
        plain.close()
        if isinstance(error, EOFError):
            raise ConfigError(f"{place}: the node there closes the connection: does it have keys?") from None
        raise


def _no_client_port(address: Address) -> ConfigError:
    return ConfigError(
        f"--join {address}: the process there does not speak to clients: give the address at which clients reach a node"
        " (its client address), not the one for other nodes"
    )


@contextlib.contextmanager
def showing_token(own: OwnAddresses, token: bytes) -> Iterator[None]:
    """Send ``token`` to each process that connects to an address of this node, meanwhile.

    :raises ConfigError: if one of the addresses is taken.
    """
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for address in dict.fromkeys([*own.peers_at, *own.clients_at]):
            listener = stack.enter_context(_listener(address))
            selector.register(listener, selectors.EVENT_READ)
        end, stop = socket.socketpair()
        stack.enter_context(end)
        selector.register(end, selectors.EVENT_READ)
        thread = Thread(target=_show, args=(selector, end, token), name="txpaxos-join", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.close()
            thread.join()


def _listener(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(f"Couldn't listen on {address} (TCP): {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _show(selector: selectors.BaseSelector, end: socket.socket, token: bytes) -> None:
    while True:
        for key, _ in selector.select():
            if key.fileobj is end:
                return
            assert isinstance(key.fileobj, socket.socket)
            with contextlib.suppress(OSError):
                connection, _ = key.fileobj.accept()
                with connection:
                    connection.sendall(token)
