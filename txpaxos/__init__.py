"""Replicated services on Twisted: Multi-Paxos that keeps its promises."""

__version__ = "0.1.0"
