"""Torture: real ``twistd paxos`` processes on a network of their own, hurt for as long as you like, and judged.

``make torture`` runs it; ``docs/torture.rst`` says what it does. From the bottom up: ``plan`` (which fault when, pure),
``room`` (the network and the small disk), ``wall_clock`` (its steps), ``nodes`` (the processes), ``workload`` (clients
and their histories), ``faults`` (performs the plan), ``report``, ``run`` (one cluster's life), ``__main__``.
"""
