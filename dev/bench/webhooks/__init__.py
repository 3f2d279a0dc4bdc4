"""What the benchmarks of webhooks share: receivers, bare loops, and a system of their own."""
