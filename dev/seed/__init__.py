"""A history of many jobs in every table, made by SQL; for benchmarks, tests and development."""
