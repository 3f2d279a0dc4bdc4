"""Deliveries of events to the endpoints of tenants.

Decisions are pure: which endpoints receive an event (`fanout`), which bytes are
signed (`signing`), how an attempt ended (`outcome`), what the delivery does
next (`settlement`). `transport` and `attempt` make one POST, without a database.
"""
