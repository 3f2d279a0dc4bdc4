"""Delivery of events to the endpoints of tenants.

`dispatch` is the engine, on the queues of `owned_queues`. Pure decisions: who starts next (`lanes`), when an endpoint may get a request
(`pacing`), what is kept in memory (`endpoint_queue`, `load_requests`), the outcome of an attempt
(`outcome`), and what follows from it (`settlement`). `store` has the statements; `transport` and
`attempt` make one POST and do not use the database.
"""
