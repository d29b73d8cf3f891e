"""A node as a Twisted service, and the port where clients come in."""
