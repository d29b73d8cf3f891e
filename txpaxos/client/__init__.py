"""A client of a cluster. It imports nothing of a node, so that a program with a client loads no node."""

from txpaxos.client.client import Client

__all__ = ["Client"]
