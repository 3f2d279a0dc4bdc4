"""Delivery of events to the endpoints of tenants.

Pure decisions: the endpoints of an event (`fanout`), the signature (`signing`),
the outcome of an attempt (`outcome`), the next step of the delivery
(`settlement`). `transport` and `attempt` make one POST and do not use the database.
"""
