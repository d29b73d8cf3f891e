"""Recordings: all that enters the core of a node, on disk, so that it can be run again.

======================================  ================================================
:mod:`~txpaxos.recording.recorder`      what a node records with
:mod:`~txpaxos.recording.reading`       the events of a recording, one after the other
:mod:`~txpaxos.recording.replaying`     the core, run again over them
======================================  ================================================
"""
