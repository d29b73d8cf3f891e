"""A whole cluster in one process: simulated machines, disks, network and time."""
