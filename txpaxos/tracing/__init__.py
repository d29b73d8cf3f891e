"""Spans of OpenTelemetry: the way of a command from a client to its answer.

=====================================  =================================================
:mod:`~txpaxos.tracing.contexts`       which span a span belongs to, and its bytes
:mod:`~txpaxos.tracing.client_spans`   what a client has of it
:mod:`~txpaxos.tracing.node_spans`     what a node has of it
:mod:`~txpaxos.tracing.environment`    a tracer as the environment describes it
=====================================  =================================================

Which span another belongs to is passed from function to function, and never looked up: what OpenTelemetry calls the
current span is another one when a Deferred fires. Nothing here is loaded unless a tracer is used.
"""
