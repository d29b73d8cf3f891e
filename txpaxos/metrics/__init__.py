"""Metrics of a node for Prometheus: counted where things happen, put into families when they are asked for."""
