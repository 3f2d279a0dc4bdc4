"""Does the work: moves uploads to the object store and reads the documents among them."""
