"""Tables and figures of documents."""
