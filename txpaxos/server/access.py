"""Who the clients of one client port are and what they may do, when keys are on.

A client is known by its *principal*: the name in its certificate, if the certificate is signed by the authority of the
clients, or the name that its token stands for. It is asked for nothing else, and believed in nothing else. The cluster
file says what each principal may do (:mod:`txpaxos.rights`).

The client port has one :class:`Access` if it has keys. Its connections ask it before they do anything else with a
request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.errors import NotAllowed
from txpaxos.log_lines import LineLimiter, printable
from txpaxos.node.counts import Count, Counts
from txpaxos.node.node import Node
from txpaxos.rights import ALL_RIGHTS, ASK, MEMBERS, READ, STATUS, WRITE, Rights
from txpaxos.server.client_table import ClientTable
from txpaxos.wire.client_messages import (
    AcceptClock,
    Ask,
    BackupRequest,
    ChangeMembers,
    Forget,
    HandOver,
    Join,
    KeepTimers,
    KeepTogether,
    MembersRequest,
    Read,
    Recall,
    ReloadKeys,
    Request,
    StatusRequest,
    Submit,
)
from txpaxos.wire.commands import belongs_to, session_owner

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys

RIGHT_FOR: dict[type[Any], str] = {
    Submit: WRITE,
    Read: READ,
    KeepTimers: WRITE,
    KeepTogether: WRITE,
    Ask: ASK,
    Forget: ASK,
    StatusRequest: STATUS,
    MembersRequest: STATUS,
    HandOver: MEMBERS,
    ChangeMembers: MEMBERS,
    Join: MEMBERS,
    ReloadKeys: MEMBERS,
    AcceptClock: MEMBERS,
    Recall: STATUS,
    BackupRequest: MEMBERS,
}
"""The right that each kind of request needs. A backup has all that any client has stored, so it needs more than the
right to read."""

STRANGERS_MAX = 256
"""Connections that have not shown yet who they are. One more takes the place of one of the address that has most."""

Identify: TypeAlias = Callable[[Any], str]
"""Tells the verified name of the client at the other end of a transport; empty if it has shown no certificate."""

Explain: TypeAlias = Callable[[Failure], str]
"""Tells, in a few words, what was the matter with a connection that ended before its client was known."""

Distrust: TypeAlias = "Callable[[Any, Keys], str]"
"""Tells why the certificate of the client at the other end of a transport is believed no more; empty if it is."""


class Access:
    """Who may do what at one client port.

    :param keys: the keys of the node, with the tokens of clients that have no certificate.
    :param identify: tells the name in a client's certificate.
    :param explain: tells why a connection ended.
    :param distrust: tells why a certificate is believed no more.
    :ivar rights: what is granted to whom. It may change.
    :ivar strangers: the connections that have not shown yet who they are.
    """

    log = Logger()

    def __init__(
        self,
        rights: Rights,
        keys: Keys,
        identify: Identify,
        explain: Explain,
        distrust: Distrust,
        counters: Counts,
        lines: LineLimiter,
    ) -> None:
        self.keys = keys
        self.identify = identify
        self.strangers = ClientTable()
        self.rights = rights
        self._explain = explain
        self._distrust = distrust
        self._counters = counters
        self._lines = lines

    def rights_of(self, principal: str) -> tuple[str, ...]:
        """What ``principal`` may do."""
        granted = self.rights.of(principal)
        return tuple(one for one in ALL_RIGHTS if one in granted)

    def principal_of(self, token: bytes) -> str:
        """The client that has this token; empty if none has."""
        return self.keys.principal_of(token.decode(errors="replace"))

    # refusals

    def refusal(self, client: str, principal: str, request: Request) -> NotAllowed | None:
        """Why ``request`` is refused; ``None`` if it is allowed. A refusal is counted and logged.

        :param client: what the log calls the client.
        """
        right = RIGHT_FOR[type(request)]
        if right not in self.rights.of(principal):
            self._counters[Count.REQUEST_NOT_ALLOWED] += 1
            self._say(client, "asks for what it has no right to ({what})", right, event="client_not_allowed")
            name = f"the client {principal!r}" if principal else "a client without a certificate or a token"
            return NotAllowed(
                f"{name} does not have the right {right!r}: grant it under [rights] in the cluster files, and have the"
                " nodes read them (txpaxos keys reload)"
            )
        if isinstance(request, Submit | Forget) and not belongs_to(request.session, session_owner(principal)):
            self._counters[Count.SESSION_OF_ANOTHER_CLIENT] += 1
            self._say(
                client,
                "uses a session that is not its own ({what})",
                type(request).__name__,
                event="client_not_allowed",
            )
            return NotAllowed("the session belongs to another client: begin one of your own")
        return None

    def distrust(self, client: str, principal: str, transport: Any, token: bytes) -> NotAllowed | None:
        """Why a client that is connected is disconnected, now that the node has other keys; ``None`` if it stays.

        :param token: what it has shown, empty if it has shown a certificate.
        """
        if token:
            reason = "" if self.principal_of(token) == principal else "its token is in the file tokens no more"
        else:
            reason = self._distrust(transport, self.keys)
        if not reason:
            return None
        self._counters[Count.CLIENT_NOT_AUTHENTICATED] += 1
        self._say(client, "is disconnected: {what}", reason, event="client_disconnected")
        return NotAllowed(f"the node has other keys now, and takes this client no more: {reason}")

    def refused_token(self, host: str) -> NotAllowed:
        """A client has shown a token that no client has."""
        self._counters[Count.CLIENT_NOT_AUTHENTICATED] += 1
        line = "shows a token that is not in the file {what}, and is disconnected"
        self._say(f"a client at {host}", line, "tokens", event="client_disconnected")
        return NotAllowed("the nodes do not know this client's token: have it written to their files 'tokens'")

    def refused_connection(self, host: str, reason: Failure) -> None:
        """A connection has ended before its client was known, since TLS could not be agreed upon."""
        explained = self._explain(reason)
        if explained:
            self._counters[Count.CLIENT_NOT_AUTHENTICATED] += 1
            self._say(f"a client at {host}", "was not let in: {what}", explained, event="client_not_let_in")

    def gave_up(self, host: str, why: str) -> None:
        """A connection is closed, since its client has not shown in time who it is."""
        self._counters[Count.CLIENT_NOT_AUTHENTICATED] += 1
        self._say(f"a client at {host}", "is disconnected: {what}", why, event="client_disconnected")

    def _say(self, client: str, line: str, what: str, *, event: str) -> None:
        more = self._lines.admits(line)
        if more is not None:
            self.log.warn(
                "{client} " + line + "{more}", client=printable(client), what=printable(what), more=more, event=event
            )


def access_of(node: Node, keys: Keys, lines: LineLimiter) -> Access:
    """Who may do what at the client port of ``node``, which has ``keys``."""
    from txpaxos.keys.tls import name_of, reason_of, refusal_of

    def distrust(transport: Any, keys: Keys) -> str:
        return refusal_of(transport, keys.clients, keys)

    return Access(node.cluster.rights, keys, name_of, reason_of, distrust, node.counters, lines)
