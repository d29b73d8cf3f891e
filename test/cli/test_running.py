"""How commands run: deadlines and cancellation on a fake clock, and the real reactor in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from txpaxos.cli.running import INTERRUPTED, request, together
from txpaxos.client import Client
from txpaxos.cluster import ALONE
from txpaxos.errors import NotChosen, OutcomeUnknown
from txpaxos.wire.client_messages import ClientCodec, Welcome
from txpaxos.wire.frames import frame


def outcome(deferred: Deferred[Any]) -> Any:
    """What ``deferred`` has fired with."""
    seen: list[Any] = []
    deferred.addBoth(seen.append)
    (result,) = seen
    return result


def begin(reactor: Any, ask: Any, seconds: float = 5.0) -> Deferred[Any]:
    return Deferred.fromCoroutine(request(reactor, ALONE, seconds, ask))


def submit(client: Client) -> Deferred[Any]:
    return client.submit(b"+1")


class TestRequest:
    def test_no_node_there(self) -> None:
        reactor = MemoryReactorClock()
        answer = begin(reactor, submit, 0.5)
        reactor.advance(0.499)
        assert not answer.called
        reactor.advance(0.001)
        failure = outcome(answer)
        assert isinstance(failure.value, NotChosen)
        assert str(failure.value) == (
            "no quorum of cluster alone answered within 0.5 s; nothing was changed: a at 127.0.0.1:5010 does not answer"
        )
        assert reactor.getDelayedCalls() == []

    def test_a_node_there_but_silent(self) -> None:
        reactor = MemoryReactorClock()
        answer = begin(reactor, submit)
        protocol: Any = reactor.tcpClients[0][2].buildProtocol(None)
        protocol.makeConnection(_Transport())
        protocol.dataReceived(frame(ClientCodec("alone").encode(Welcome("a", "a", None))))
        reactor.advance(5.0)
        failure = outcome(answer)
        assert isinstance(failure.value, OutcomeUnknown)
        assert "; it may still take effect, or not: a at 127.0.0.1:5010 " in str(failure.value)

    def test_answer_ends_it(self) -> None:
        reactor = MemoryReactorClock()
        clients: list[Client] = []

        def ask(client: Client) -> Deferred[int]:
            clients.append(client)
            return succeed(7)

        assert outcome(begin(reactor, ask)) == 7
        assert reactor.getDelayedCalls() == []
        assert isinstance(outcome(clients[0].submit(b"+1")).value, NotChosen)  # it is closed

    def test_refusal_is_handed_on_as_it_is(self) -> None:
        def ask(client: Client) -> Deferred[int]:
            raise OutcomeUnknown("node a is stopping")

        failure = outcome(begin(MemoryReactorClock(), ask))
        assert str(failure.value) == "node a is stopping"

    def test_cancel(self) -> None:
        reactor = MemoryReactorClock()
        answer = begin(reactor, submit)
        answer.cancel()
        assert isinstance(outcome(answer).value, CancelledError)
        assert reactor.getDelayedCalls() == []


class TestTogether:
    def test_results_stand_in_order(self) -> None:
        parts: list[Deferred[int]] = [Deferred(), Deferred()]
        whole = Deferred.fromCoroutine(together(*map(_wait, parts)))
        parts[1].callback(1)
        assert not whole.called
        parts[0].callback(0)
        assert outcome(whole) == [0, 1]

    def test_first_failure_ends_the_others(self) -> None:
        cancelled: list[Deferred[int]] = []
        parts: list[Deferred[int]] = [Deferred(cancelled.append), Deferred()]
        whole = Deferred.fromCoroutine(together(*map(_wait, parts)))
        parts[1].errback(ValueError("bad"))
        failure = outcome(whole)
        assert isinstance(failure, Failure)
        assert repr(failure.value) == "ValueError('bad')"
        assert cancelled == [parts[0]]

    def test_cancel_ends_all(self) -> None:
        cancelled: list[Deferred[int]] = []
        parts: list[Deferred[int]] = [Deferred(cancelled.append), Deferred(cancelled.append)]
        whole = Deferred.fromCoroutine(together(*map(_wait, parts)))
        whole.cancel()
        assert isinstance(outcome(whole).value, CancelledError)
        assert cancelled == parts

    def test_nothing(self) -> None:
        assert outcome(Deferred.fromCoroutine(together())) == []


class TestRun:
    @pytest.mark.parametrize(
        ("body", "printed"),
        [
            ("return 7", "7"),
            ("raise ValueError('bad')", "ValueError('bad')"),
            ("await deferLater(reactor, 0.001)\n    raise ValueError('bad')", "ValueError('bad')"),
            # A signal, while it works and again while it tidies up.
            (
                "try:\n        os.kill(os.getpid(), signal.SIGINT)\n        await Deferred()\n"
                "    finally:\n        os.kill(os.getpid(), signal.SIGINT)\n"
                "        await deferLater(reactor, 0.001)\n        print('tidy', end=' ')",
                f"tidy SystemExit({INTERRUPTED})",
            ),
            (
                "try:\n        os.kill(os.getpid(), signal.SIGTERM)\n        await Deferred()\n"
                "    finally:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
                "        await deferLater(reactor, 0.001)\n        print('tidy', end=' ')",
                "tidy SystemExit(143)",
            ),
        ],
        ids=["result", "error", "error-later", "signal", "terminated"],
    )
    def test_outcome(self, body: str, printed: str) -> None:
        program = (
            "import os, signal\n"
            "from twisted.internet.defer import Deferred\n"
            "from twisted.internet.task import deferLater\n"
            "from txpaxos.cli.running import run\n"
            f"async def work(reactor):\n    {body}\n"
            "try:\n    print(run(work))\n"
            "except BaseException as error:\n    print(repr(error))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.stdout == f"{printed}\n", done.stderr
        assert done.stderr == ("txpaxos: interrupted\n" if "SystemExit" in printed else "")


async def _wait(part: Deferred[int]) -> int:
    return await part


class _Transport:
    """Takes everything and says nothing."""

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...
