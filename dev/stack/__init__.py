"""The whole system on one machine without Docker: real PostgreSQL, RabbitMQ and S3.

``python -m dev.stack up | down | status`` is the command line, ``dev.stack.stack.Stack``
the same thing for tests, the demo and benchmarks, and ``dev.stack.state`` tells other
programs which process has which pid.
"""
