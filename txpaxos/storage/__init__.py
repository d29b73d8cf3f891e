"""The store: records are on disk before the messages that rest on them leave.

Read the modules in this order:

* :mod:`~txpaxos.storage.store`: what a store promises, and the store on disk;
* :mod:`~txpaxos.storage.atomic_file`: a whole state in one file, replaced in one step;
* :mod:`~txpaxos.storage.segment` and :mod:`~txpaxos.storage.journal`: appended records, and what damage means;
* :mod:`~txpaxos.storage.snapshot_file` and :mod:`~txpaxos.storage.snapshots`: snapshots, which replace older records;
* :mod:`~txpaxos.storage.disk`: every system call that a store makes.

``docs/storage.rst`` has the layout on disk and the measurements behind it.
"""
