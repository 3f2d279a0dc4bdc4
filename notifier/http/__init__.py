"""A bounded HTTP/1.1 client for receivers that nobody vouches for.

`Transport` is the transport of a `httpx` client: a pool of connections to checked addresses, each
an `asyncio` protocol over llhttp.
"""
