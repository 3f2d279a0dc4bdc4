"""The whole system on one machine without Docker: real PostgreSQL, RabbitMQ and S3.

`python -m dev.stack` is the command line. `dev.stack.stack.Stack` is the same for tests, the
demo and benchmarks. `dev.stack.state` returns the pid of each process.
"""
