"""A replicated bank, as a typed service: its commands and queries are methods.

One node of it:  twistd -n paxos --app examples/bank.py:Bank
Its client:      python examples/bank.py cluster.toml transfer ann bob 5
Its schema:      txpaxos service-schema examples/bank.py:Bank
"""

from __future__ import annotations

import sys
from random import Random
from typing import Annotated, Any

import attrs
import msgspec
from twisted.internet.task import react

from txpaxos import Client, Cluster, PaxosError, Service, ServiceError, command, encode_call, query, state

Amount = Annotated[int, msgspec.Meta(ge=0)]
"""What moves money: a negative one is refused before it is sent."""


@attrs.define
class NotEnough(ServiceError):
    """There is not enough in an account."""

    account: str
    missing: int

    def __str__(self) -> str:
        return f"{self.missing} is missing in the account of {self.account}"


class Bank(Service):
    """Accounts with whole amounts in them."""

    balances: dict[str, int] = state(dict)

    @command
    def deposit(self, account: str, amount: Amount) -> int:
        """Put an amount into an account. What is in it then."""
        self.balances[account] = self.balances.get(account, 0) + amount
        return self.balances[account]

    @command(raises=NotEnough)
    def transfer(self, source: str, target: str, amount: Amount) -> int:
        """Move an amount from one account to another. What is left in the first."""
        left = self.balances.get(source, 0) - amount
        if left < 0:
            raise NotEnough(source, -left)
        self.balances[source] = left
        self.balances[target] = self.balances.get(target, 0) + amount
        return left

    @query
    def balance(self, account: str) -> int:
        """What is in an account."""
        return self.balances.get(account, 0)

    @query
    def total(self) -> int:
        """What is in all accounts together."""
        return sum(self.balances.values())


async def main(reactor: Any, file: str, *arguments: str) -> None:
    """Call the bank, and print the answer."""
    client = Client(reactor, Cluster.load(file).resolve())
    bank = client.service(Bank, deadline_seconds=10.0)
    try:
        match arguments:
            case ["deposit", account, amount]:
                print(await bank.deposit(account, int(amount)))
            case ["transfer", source, target, amount]:
                print(await bank.transfer(source, target, int(amount)))
            case ["balance", account]:
                print(await bank.balance(account))
            case _:
                raise SystemExit(__doc__)
    except NotEnough as error:
        raise SystemExit(f"no: {error}") from None
    except PaxosError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    finally:
        client.close()


# For the simulator:  txpaxos simulate --app examples/bank.py:Bank --workload examples/bank.py:some_command \
#                         --query examples/bank.py:some_query

NAMES = ("ann", "bob", "cy")


def some_command(rng: Random) -> bytes:
    """A command as a client might send it."""
    source, target, amount = rng.choice(NAMES), rng.choice(NAMES), rng.randrange(10)
    if rng.random() < 0.5:
        return encode_call(Bank, Bank.deposit, source, amount)
    return encode_call(Bank, Bank.transfer, source, target, amount)


def some_query(rng: Random) -> bytes:
    """A query as a client might send it."""
    return encode_call(Bank, Bank.balance, rng.choice(NAMES))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    react(main, sys.argv[1:])
