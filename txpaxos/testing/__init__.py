"""The workshop: a whole cluster in one process, on simulated time, network and disks, for our tests and for yours.

A seed replays everything exactly. What runs in it is the real thing: your subclass of
:class:`~txpaxos.protocol.PaxosProtocol`, the real core, codec and journal. Only time, wires and disks are made up.
Start with :func:`~txpaxos.testing.simulator.simulation.simulate`, or with
:class:`~txpaxos.testing.simulator.cluster.SimulatedCluster`, a cluster whose time passes when your test says so.
"""
