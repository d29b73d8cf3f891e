"""Fixtures for every test."""

from __future__ import annotations

import gc
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from twisted.logger import ILogObserver, globalLogBeginner, globalLogPublisher
from zope.interface import provider

# Else Twisted prints every failure to standard error, tests' own included.
globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

TESTS = Path(__file__).parent

COVERED = [TESTS / place for place in os.environ.get("TXPAXOS_COVERED", "").split()]
"""The folders, and files, whose tests run under coverage; empty for all."""


HASH_SEED = "PYTHONHASHSEED"


def pytest_configure(config: pytest.Config) -> None:
    """Give all workers one order of sets, else a test whose parameters come from a set has another name in each. The
    processes that tests start have an order each, as the nodes of a cluster do."""
    if hasattr(config, "workerinput"):
        os.environ.pop(HASH_SEED, None)
    elif config.getoption("numprocesses", None):
        os.environ.setdefault(HASH_SEED, str(random.randrange(2**32)))


def pytest_report_header() -> list[str]:
    """Say which order the workers have, so that a run can be done again."""
    return [f"{HASH_SEED}={os.environ[HASH_SEED]}"] if HASH_SEED in os.environ else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out of coverage what ``TXPAXOS_COVERED`` does not name. Under coverage a test takes three times as long."""
    for item in items:
        if COVERED and not any(item.path.is_relative_to(place) for place in COVERED):
            item.add_marker("no_cover")


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """Have the collection after each test look only at what was made since its module began: the rest is imported code,
    and what pytest keeps. At this moment nothing of an earlier test is left but that."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[list[dict[str, Any]]]:
    """Fail a test that leaves an error in Twisted's log: an unhandled Deferred passes silently otherwise.

    A test that expects errors looks at the list and clears it.
    """
    seen: list[dict[str, Any]] = []

    @provider(ILogObserver)
    def observer(event: dict[str, Any]) -> None:
        if event.get("log_failure") is not None or event.get("isError"):
            seen.append(event)

    globalLogPublisher.addObserver(observer)
    yield seen
    gc.collect()  # makes "Unhandled error in Deferred" appear now and not in some later test
    globalLogPublisher.removeObserver(observer)
    if seen:
        pytest.fail(f"errors in the Twisted log: {[str(e.get('log_failure') or e.get('log_format')) for e in seen]}")


@pytest.fixture
def expected_errors(logged_errors: list[dict[str, Any]]) -> Iterator[None]:
    """Allow errors in the log, as of nodes that are made to die, of broken disks, and of applications that raise."""
    yield
    gc.collect()
    while logged_errors:
        logged_errors.clear()  # Objects that the log kept alive may log more when they are collected.
        gc.collect()


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of each name, as the test says. No server is asked; IP addresses are read as ever."""
    known: dict[str, list[str]] = {"localhost": ["127.0.0.1", "::1"]}
    system = socket.getaddrinfo

    def getaddrinfo(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in known:
            return [(0, 0, 0, "", (host, 0)) for host in known[name]]
        if name == "" or not set(name) <= set("0123456789abcdefx.:"):
            "".join(name).encode("idna")  # As the system does: it refuses what no name can be.
            raise socket.gaierror(-2, "Name or service not known")
        return system(name, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known
