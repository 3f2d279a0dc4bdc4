"""Actions on many jobs: the jobs of a filter are cancelled or retried, one transaction each."""
