"""The page *Typed services*: its programs are some, and its test passes."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred

from test.system.test_imports import ROOT
from test.system.test_readme import blocks
from txpaxos.testing import SimulatedCluster

BLOCKS = blocks((ROOT / "docs" / "typed-services.rst").read_text(), "python")
RUN_BLOCKS = BLOCKS


def names() -> dict[str, Any]:
    """What all blocks define."""
    defined: dict[str, Any] = {"__name__": __name__}
    for block in BLOCKS:
        exec(block, defined)
    return defined


def test_the_test_of_the_page(logged_errors: list[dict[str, Any]]) -> None:
    names()["test_disasters"]()
    gc.collect()
    logged_errors.clear()  # Of machines that crash.


def test_the_client_of_the_page(capsys: Any) -> None:
    page = names()
    cluster = SimulatedCluster(
        *(1, 3, page["Shop"], page["some_command"]), clients=0, callers=0, askers=0, sessions_max=65536
    )
    client = cluster.new_client("me")
    Deferred.fromCoroutine(page["pay"](client))
    cluster.run(seconds=2)
    client.service(page["Bank"]).deposit("ann", 7).addCallback(lambda _: Deferred.fromCoroutine(page["pay"](client)))
    cluster.run(seconds=2)
    assert capsys.readouterr().out.splitlines() == ["ann does not have that much, but 0", "ann has 2"]
    assert [*page["Shop"].definitions] == ["Bank", "savings"]
