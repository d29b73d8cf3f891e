"""Records on disk before messages leave: the store.

Read the modules in this order: :mod:`~txpaxos.storage.store` (what a store promises, and the one on disk),
:mod:`~txpaxos.storage.atomic_file` (a whole state, replaced at once), :mod:`~txpaxos.storage.segment` and
:mod:`~txpaxos.storage.journal` (appended records, and what damage means), :mod:`~txpaxos.storage.snapshot_file` and
:mod:`~txpaxos.storage.snapshots` (what stands for the records before it), :mod:`~txpaxos.storage.disk` (every system
call there is). ``docs/storage.rst`` has the layout on disk and the measurements behind it.
"""
