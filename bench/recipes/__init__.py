"""Locks, queues and maps, of ours and of others, each driven by one client process of its own."""
