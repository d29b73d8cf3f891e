"""Typed services: methods with annotations in place of bytes."""
