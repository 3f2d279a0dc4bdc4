"""The HTTP server: receives uploads in chunks, and shows jobs, documents and webhooks.

It does not connect to the broker: finalizing an upload writes an outbox row, so uploads are
accepted while RabbitMQ is down.
"""
