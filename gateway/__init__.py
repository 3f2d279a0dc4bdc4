"""Answers HTTP: takes uploads in chunks, and shows what became of them.

It never speaks to the broker: finalizing writes a row and an outbox row, so
work is accepted while RabbitMQ is down.
"""
