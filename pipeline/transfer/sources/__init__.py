"""Where the bytes of an upload lie while they wait for their transfer, and how they are read."""
