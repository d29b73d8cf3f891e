"""The core, model-checked: every state that a small cluster can get into, looked at once.

What is stepped is the shipped code of :mod:`txpaxos.core`, not a model of it; only the network, the disks and time are
made up, in :mod:`~txpaxos.testing.model.cluster_space`, :mod:`~txpaxos.testing.model.disk` and
:mod:`~txpaxos.testing.model.parts`. Messages are delayed, lost, doubled and reordered, nodes crash before and after
each save and restart, timers go off whenever they may. ``python -m txpaxos.testing.model`` runs it.
"""
