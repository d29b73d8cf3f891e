"""The algorithm, and nothing else.

No socket, clock, file, thread or randomness of its own: every handler takes a message and ``now`` and *returns* what is
to be done. Read the modules in this order: :mod:`~txpaxos.core.messages`, :mod:`~txpaxos.core.ready`,
:mod:`~txpaxos.core.guards`, :mod:`~txpaxos.core.drops`, :mod:`~txpaxos.core.essential`, :mod:`~txpaxos.core.practical`,
:mod:`~txpaxos.core.config`, :mod:`~txpaxos.core.membership`, :mod:`~txpaxos.core.election`,
:mod:`~txpaxos.core.functional`, :mod:`~txpaxos.core.log`, :mod:`~txpaxos.core.window`, :mod:`~txpaxos.core.catch_up`,
:mod:`~txpaxos.core.read_index`, :mod:`~txpaxos.core.progress`, :mod:`~txpaxos.core.leader`,
:mod:`~txpaxos.core.hand_over`, :mod:`~txpaxos.core.replica`.
"""
