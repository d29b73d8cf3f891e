"""What is done after a disaster: a cluster made from the folders that are left of another one."""
