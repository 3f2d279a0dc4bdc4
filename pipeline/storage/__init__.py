"""Object storage: the port that the pipeline uses, and its S3 adapter."""
