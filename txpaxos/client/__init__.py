"""A client of a cluster."""

from txpaxos.client.client import Client

__all__ = ["Client"]
