"""Facts on the bus, in the past tense: CloudEvents 1.0, one struct of data per type."""
