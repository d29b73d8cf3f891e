"""A web service on asyncio that keeps its state on several machines: each process is an ASGI application and a node.

    pip install starlette uvicorn
    PAXOS_NODE=a uvicorn --app-dir examples --port 8001 asgi_counter:app
    curl -d 5 http://127.0.0.1:8001/
    curl http://127.0.0.1:8001/

A POST adds the number in its body. Its answer is the total, once a majority of the cluster has the addition on disk. A
GET tells the total, with everything in it that was answered before. When no majority answers in time, the answer is 503
with the error's name. ``PAXOS_CLUSTER`` names the cluster file: ``cluster.toml`` unless it is set.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from txpaxos import PaxosError, Service, ServiceError, command, query, state
from txpaxos.aio import Node

ANSWER_SECONDS = 5.0
DIGITS_MAX = 18


class TooBig(ServiceError):
    """The total would be none that a node can send."""


class Counter(Service):
    """The replicated part: knows nothing of the web."""

    total: int = state(int)

    @command(raises=TooBig)
    def add(self, number: int) -> int:
        if abs(self.total + number) >= 10**DIGITS_MAX:
            raise TooBig(f"the total has at most {DIGITS_MAX} digits")
        self.total += number
        return self.total

    @query
    def current(self) -> int:
        return self.total


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Run the node as long as the web server runs."""
    name, file = os.environ["PAXOS_NODE"], os.environ.get("PAXOS_CLUSTER", "cluster.toml")
    async with Node(Counter, name, file, f"paxos-data-{name}") as node:
        await node.ready()
        app.state.counter = node.service(Counter, deadline_seconds=ANSWER_SECONDS)
        yield


async def add(request: Request) -> PlainTextResponse:
    body = await request.body()
    if not body.isdigit() or len(body) > DIGITS_MAX:
        raise HTTPException(400, f"a number of at most {DIGITS_MAX} digits is to be in the body")
    return PlainTextResponse(f"{await request.app.state.counter.add(int(body))}\n")


async def current(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{await request.app.state.counter.current()}\n")


async def refused(request: Request, error: Exception) -> PlainTextResponse:
    status = 400 if isinstance(error, ServiceError) else 503
    return PlainTextResponse(f"{type(error).__name__}: {error}\n", status)


app = Starlette(
    routes=[Route("/", add, methods=["POST"]), Route("/", current)],
    exception_handlers={PaxosError: refused, ServiceError: refused},
    lifespan=lifespan,
)
