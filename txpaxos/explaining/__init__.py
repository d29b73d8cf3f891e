"""Why a slot holds what it holds: what nodes remember of their steps, and the story that this tells."""

from txpaxos.explaining.chronicle import Chronicle
from txpaxos.explaining.facts import Fact, ValueMark, What
from txpaxos.explaining.story import Story, story_of

__all__ = ["Chronicle", "Fact", "Story", "ValueMark", "What", "story_of"]
