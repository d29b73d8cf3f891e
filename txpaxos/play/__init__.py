"""Paxos in a browser, run by the shipped core: what ``txpaxos play`` shows.

The page draws and the server decides. A :class:`~txpaxos.play.stage.Stage` has real objects of :mod:`txpaxos.core` for
its nodes, and messages that arrive when the user says so. No rule of Paxos is written a second time, here or in the
page.
"""
