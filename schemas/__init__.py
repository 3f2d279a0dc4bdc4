"""What the processes must agree on: declarations only.

Importing this package opens no socket, reads no environment and starts no
thread; no function in it does I/O.
"""
