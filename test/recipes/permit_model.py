"""Permits as they are described, with one plain list that is looked through from the beginning each time."""

from __future__ import annotations

import attrs


@attrs.define
class ModelRequest:
    holder: tuple[str, str]
    name: str
    units: int
    capacity: int
    value: str
    token: int = 0


@attrs.define
class PermitModel:
    """What :class:`~txpaxos.recipes.replicated.permits.Permits` must do.

    :ivar requests: all that wait or hold, in the order in which they came.
    :ivar granted: the requests that were granted, in that order.
    """

    tokens: int = 0
    requests: list[ModelRequest] = attrs.field(factory=list)
    granted: list[tuple[str, str]] = attrs.field(factory=list)

    def of(self, holder: tuple[str, str]) -> ModelRequest | None:
        return next((one for one in self.requests if one.holder == holder), None)

    def capacity(self, name: str) -> int | None:
        return next((one.capacity for one in self.requests if one.name == name), None)

    def acquire(self, request: ModelRequest, waits: bool) -> int | None:
        self.requests.append(request)
        self.serve([request.name])
        if not request.token and not waits:
            self.requests.remove(request)
        return request.token or None

    def end(self, *requests: ModelRequest) -> None:
        for request in requests:
            self.requests.remove(request)
        self.serve(list(dict.fromkeys(request.name for request in requests)))

    def serve(self, names: list[str]) -> None:
        for name in names:
            own = [one for one in self.requests if one.name == name]
            for request in own:
                free = request.capacity - sum(one.units for one in own if one.token)
                if request.token:
                    continue
                if request.units > free:
                    break
                self.tokens += 1
                request.token = self.tokens
                self.granted.append(request.holder)

    def listed(self, name: str) -> list[tuple[int, int, str, str]]:
        own = [one for one in self.requests if one.name == name]
        own = sorted((one for one in own if one.token), key=lambda one: one.token) + [o for o in own if not o.token]
        return [(one.token, one.units, one.holder[0], one.value) for one in own]
