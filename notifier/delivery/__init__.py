"""Events on their way to the endpoints of tenants.

Decisions are pure: which endpoints (`fanout`), which bytes are signed
(`signing`), where a request may go (`targets`), what an answer means
(`outcome`), when to try again (`schedule`). `transport` and `attempt` do one
POST; they know no database.
"""
