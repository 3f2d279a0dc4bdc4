"""Object storage: the few calls the pipeline needs, and S3 behind them."""
