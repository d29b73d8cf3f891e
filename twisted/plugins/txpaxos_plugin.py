"""Makes ``twistd paxos`` known. Imports nothing of txpaxos: every twistd call on the machine loads this file."""

from twisted.application.service import ServiceMaker

paxos = ServiceMaker("Paxos node", "txpaxos.tap", "Run one node of a replicated service.", "paxos")
