"""Documents: stored files, and the text and entities read from them."""
