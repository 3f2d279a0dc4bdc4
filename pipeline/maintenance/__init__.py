"""What nobody came back for is taken away."""
