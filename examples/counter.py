"""A replicated number: every command adds to it, on every node, in the same order.

One node of it: twistd -n paxos --app examples/counter.py:Counter
"""

from txpaxos import PaxosProtocol


class Counter(PaxosProtocol):
    total = 0

    def apply(self, slot: int, command: bytes) -> int:
        self.total += int(command)
        print(f"slot {slot}: {command.decode()} makes {self.total}", flush=True)
        return self.total

    def query(self, query: bytes) -> int:
        return self.total
