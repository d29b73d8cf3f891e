"""The rules that hold at every moment of a simulated run."""
