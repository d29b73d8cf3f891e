"""What a node runs for the recipes."""

from __future__ import annotations

from txpaxos.recipes.replicated.counters import Counters
from txpaxos.recipes.replicated.gatherings import Gatherings
from txpaxos.recipes.replicated.maps import Maps
from txpaxos.recipes.replicated.permits import Permits
from txpaxos.recipes.replicated.queues import Queues
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.recipes.replicated.sets import Sets
from txpaxos.service.application import application_of

COORDINATION = (Sessions, Permits, Gatherings, Queues, Maps, Counters, Sets)
"""The services of the recipes, for a node that runs others, too: ``application_of(Bank, *COORDINATION)``."""

Coordinator = application_of(*COORDINATION)
"""The application of a node that runs the recipes and nothing else."""
