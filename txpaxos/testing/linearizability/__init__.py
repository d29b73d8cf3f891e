"""Whether a history of operations could have come from one copy of the service."""
