"""Snapshots of a node: taking, transferring and comparing them."""
