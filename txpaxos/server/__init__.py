"""A node as a Twisted service, and the port at which clients connect to it."""
