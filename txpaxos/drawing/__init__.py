"""Space-time diagrams of what happened at several nodes: as text, as a picture (SVG), and for ShiViz."""

from txpaxos.drawing.shiviz import as_shiviz
from txpaxos.drawing.space_time import SpaceTime, Step
from txpaxos.drawing.svg import as_svg
from txpaxos.drawing.text import as_text

__all__ = ["SpaceTime", "Step", "as_shiviz", "as_svg", "as_text"]
