"""A typed service on a simulated cluster, under disasters."""

from __future__ import annotations

import gc
import importlib.util
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from test.service.services import Bank, Everything, NotEnough, Point, Refused
from txpaxos import Policy, application_of, encode_call
from txpaxos.testing import SimulatedCluster, simulate

NAMES = ("ann", "bob", "cy")
WORDS = tuple("abcdefghijklmnop")


def some_command(rng: Random) -> bytes:
    """Calls of two services, and bytes that are none."""
    kind = rng.randrange(10)
    if kind < 4:
        return encode_call(Bank, Bank.deposit, rng.choice(NAMES), rng.randrange(9))
    if kind < 6:
        return encode_call(Bank, Bank.fail, rng.choice(["refused", "not enough", "late", "another", "none"]))
    if kind < 9:
        tags = frozenset(rng.sample(WORDS, 3))
        return encode_call(Everything, Everything.take, Point(rng.randrange(9), tags), c=[rng.random()])
    return rng.randbytes(rng.randrange(9))


def some_query(rng: Random) -> bytes:
    return encode_call(Bank, Bank.balance, rng.choice(NAMES))


@pytest.mark.parametrize("seed", range(6))
def test_nodes_stay_equal_under_disasters(seed: int, logged_errors: list[dict[str, Any]]) -> None:
    app = application_of(Bank, Everything)
    result = simulate(seed, seconds=4, app=app, workload=some_command, query=some_query, changes=seed % 2 == 1)
    assert result.violation is None, result
    gc.collect()
    logged_errors.clear()  # Nodes were made to die, and some commands are none.


def test_typed_clients_of_a_cluster_whose_leader_dies(logged_errors: list[dict[str, Any]]) -> None:
    cluster = SimulatedCluster(
        seed=1,
        app=application_of(Bank, savings=Bank),
        workload=lambda rng: encode_call(Bank, Bank.deposit, rng.choice(WORDS)),
        clients=2,
        callers=0,
        snapshot_policy=Policy(20_000),
    )
    client = cluster.new_client("me")
    bank, savings = client.service(Bank), client.service(Bank, "savings")
    answers: list[Any] = []

    def note(result: Any) -> None:
        answers.append(result)

    bank.deposit("me", 5).addBoth(note)
    savings.deposit("me", amount=7).addBoth(note)
    bank.fail("not enough").addBoth(note)
    cluster.run(seconds=2)
    missing = answers.pop()
    assert answers == [5, 7]
    assert (type(missing.value), missing.value.account, missing.value.missing) == (NotEnough, "ann", 5)
    answers.clear()
    leader = cluster.leader
    assert leader is not None
    cluster.hosts[leader].crash()
    bank.deposit("me").addBoth(note)
    savings.balance("me").addBoth(note)
    bank.of_all(above=-1).addBoth(note)
    cluster.run(seconds=3)
    cluster.heal()
    cluster.wait_until_converged()
    (refused,) = [one for one in answers if not isinstance(one, int)]
    assert type(refused.value) is Refused
    assert sorted(one for one in answers if isinstance(one, int)) == [6, 7]
    gc.collect()
    logged_errors.clear()


def test_the_example_on_a_simulated_cluster(logged_errors: list[dict[str, Any]]) -> None:
    file = Path(__file__).parents[2] / "examples" / "bank.py"
    spec = importlib.util.spec_from_file_location("bank_example", file)
    assert spec is not None
    assert spec.loader is not None
    bank = sys.modules["bank_example"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bank)
    app = application_of(bank.Bank)
    result = simulate(3, seconds=3, app=app, workload=bank.some_command, query=bank.some_query)
    assert result.violation is None, result
    gc.collect()
    logged_errors.clear()
