"""Vectors of texts, for search by meaning: the gateway embeds queries, a worker embeds passages.

Both use the same model, or search compares vectors of different spaces: the name of a model is that
of its row in `embedding_models`.
"""
