"""Torture: real ``twistd paxos`` processes on a network of their own, hurt for as long as you like, and checked.

``make torture`` runs it; ``docs/torture.rst`` says what it does. From the bottom up: ``roster`` (who the members are,
as the plan foresees it), ``plan`` (which fault when, pure), ``network_namespace`` (the network and the small disk),
``wall_clock`` (its steps), ``commands`` (what clients ask), ``apply_log`` (the application, and what it writes down),
``applied`` (the log that the apply logs make), ``disks``, ``checker`` (compares all of these), ``nodes`` (the
processes), ``workload`` (clients and their histories), ``member_changer`` (the faults that change members), ``faults``
(performs the plan), ``report``, ``run`` (one cluster from start to end), ``__main__``. Besides: ``pauses``, a run of
its own.
"""
