"""Queues as they are described, with plain lists that are looked through from the beginning each time."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.define
class ModelItem:
    number: int
    queue: str
    data: bytes
    priority: int
    deliveries: int = 0


@attrs.define
class ModelRequest:
    place: int
    holder: tuple[str, str]
    queue: str
    visible_ms: int
    item: ModelItem | None = None
    token: int = 0
    due_ms: int = 0


@attrs.define
class QueueModel:
    """What :class:`~txpaxos.recipes.replicated.queues.Queues` must do. ``None`` stands for a refusal."""

    now_ms: int = 0
    numbers: int = 0
    tokens: int = 0
    items: list[ModelItem] = attrs.field(factory=list)
    requests: list[ModelRequest] = attrs.field(factory=list)
    limits: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    acknowledged: list[int] = attrs.field(factory=list)

    def put(self, queue: str, data: bytes, priority: int) -> int:
        self.numbers += 1
        self.items.append(ModelItem(self.numbers, queue, data, priority))
        self.serve()
        return self.numbers

    def take(self, queue: str, session: str, request: str, visible_ms: int, waits: bool) -> Any:
        known = self.of((session, request))
        if known is not None:
            return self.delivery(known)
        if not waits and not self.ready(queue):
            return None
        self.numbers += 1
        made = ModelRequest(self.numbers, (session, request), queue, visible_ms)
        self.requests.append(made)
        self.serve()
        return self.delivery(made)

    def end(self, request: ModelRequest, counts: bool, serve: bool = True) -> None:
        self.requests.remove(request)
        item = request.item
        if item is not None:
            item.deliveries -= not counts
            limit, dead_letters = self.limits.get(item.queue, (10**9, ""))
            if counts and item.deliveries >= limit:
                item.queue, item.deliveries = dead_letters, 0
        if serve:
            self.serve()

    def acknowledge(self, token: int) -> bool:
        held = self.by_token(token)
        if held is None:
            return False
        assert held.item is not None
        self.requests.remove(held)
        self.items.remove(held.item)
        self.acknowledged.append(held.item.number)
        return True

    def advance(self, milliseconds: int) -> None:
        until = self.now_ms + milliseconds
        while due := [one for one in self.requests if one.item and one.due_ms <= until]:
            first = min(due, key=lambda one: (one.due_ms, one.token))
            self.now_ms = max(self.now_ms, first.due_ms)
            self.end(first, counts=True)
        self.now_ms = until

    def session_ended(self, session: str) -> None:
        own = [one for one in self.requests if one.holder[0] == session]
        for one in sorted(own, key=lambda one: one.token):
            self.end(one, counts=True)

    def serve(self) -> None:
        for request in sorted(self.requests, key=lambda one: one.place):
            ready = self.ready(request.queue)
            if request.item is None and ready:
                self.tokens += 1
                request.item, request.token = ready[0], self.tokens
                request.due_ms = self.now_ms + request.visible_ms
                ready[0].deliveries += 1

    def ready(self, queue: str) -> list[ModelItem]:
        taken = [one.item for one in self.requests]
        own = [one for one in self.items if one.queue == queue and not any(one is other for other in taken)]
        return sorted(own, key=lambda one: (one.priority, one.number))

    def of(self, holder: tuple[str, str]) -> ModelRequest | None:
        return next((one for one in self.requests if one.holder == holder), None)

    def by_token(self, token: int) -> ModelRequest | None:
        return next((one for one in self.requests if one.token == token != 0), None)

    def delivery(self, request: ModelRequest | None) -> Any:
        item = None if request is None else request.item
        if request is None or item is None:
            return None
        return request.token, item.data, item.priority, item.deliveries

    def depth(self, queue: str) -> tuple[int, int, int]:
        own = [one for one in self.requests if one.queue == queue]
        taken = sum(one.item is not None for one in own)
        return len(self.ready(queue)), taken, len(own) - taken
