"""Torture: real ``twistd paxos`` processes on a network of their own, hurt for as long as you like, and judged.

``make torture`` runs it; ``docs/torture.rst`` says what it does. From the bottom up: ``plan`` (which fault when, pure),
``room`` (the network and the small disk), ``wall_clock`` (its steps), ``commands`` (what clients ask), ``diary`` (the
application, and what it writes down), ``applied`` (the log that the diaries make), ``disks``, ``judge`` (holds all that
together), ``nodes`` (the processes), ``workload`` (clients and their histories), ``faults`` (performs the plan),
``report``, ``run`` (one cluster's life), ``__main__``. Beside them: ``pauses``, a run of its own.
"""
