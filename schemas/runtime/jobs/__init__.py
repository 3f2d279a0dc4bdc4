"""Changes of jobs that gateways and workers make: cancel and retry, each within one transaction.

The functions take a synchronous session; a gateway calls them with `AsyncSession.run_sync`.
"""
