"""Makes the vectors of passages: for each published document, and for all under a new model."""
