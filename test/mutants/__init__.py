"""Faults that our tests must find: small changes for the worse to txpaxos itself, and what puts them to the test."""
