"""What a seed stands for when mutants are hunted."""

from __future__ import annotations

KEYS_FROM = 1_000_000
"""From this seed on nodes have keys."""

NODES = (3, 3, 5, 3, 4, 3, 3, 2)
"""How many nodes, seed by seed. Even numbers have quorums of their own."""

CHANGES_EVERY = 3
"""Members change in one of this number of seeds."""
