"""What clients are told of an error: a name that they know."""

from __future__ import annotations

import inspect

import pytest
from twisted.python.failure import Failure

from txpaxos import errors
from txpaxos.errors import CodecError, MembersRefused, OtherCluster, PaxosError, QueryFailed
from txpaxos.server.answers import refusal
from txpaxos.server.measuring import outcomes_of
from txpaxos.wire.client_messages import Read


class NotLevel(MembersRefused):
    """Such as a part of a node has for itself."""


class NoSuchRow(QueryFailed):
    """Such as an application raises."""


class NoSuchKey(NoSuchRow):
    """A class of a class of its own."""


class Both(CodecError, KeyError):
    """With another base."""


@pytest.mark.parametrize(
    ("error", "name"),
    [
        *((NotLevel("n"), "MembersRefused"), (NoSuchRow("n"), "QueryFailed"), (NoSuchKey("n"), "QueryFailed")),
        *((Both("n"), "CodecError"), (OtherCluster(), "OtherCluster"), (PaxosError("n"), "PaxosError")),
    ],
)
def test_an_error_has_the_name_of_the_nearest_class_that_clients_know(error: PaxosError, name: str) -> None:
    assert refusal(1, error).error == name
    assert outcomes_of(Read(1, b"", False), Failure(error)) == {name: 1}
    assert issubclass(getattr(errors, name), PaxosError)


def test_other_errors_have_the_name_of_them_all() -> None:
    assert refusal(1, KeyError("n")).error == refusal(1, None).error == "PaxosError"


def test_every_error_of_this_package_has_its_own_name() -> None:
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        error = kind.__new__(kind)
        assert isinstance(error, PaxosError)
        assert errors.error_name(error) == name
