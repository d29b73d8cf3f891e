"""A model checker for the core: it visits every state that a small cluster can reach.

It runs the shipped code of :mod:`txpaxos.core`, not a model of it. Only the network, the disks and time are simulated,
in :mod:`~txpaxos.testing.model.cluster_space`, :mod:`~txpaxos.testing.model.disk` and
:mod:`~txpaxos.testing.model.parts`. Messages are delayed, lost, duplicated and reordered. Nodes crash before and after
each save, and restart. Timers fire at any time. ``python -m txpaxos.testing.model`` runs it.
"""
