"""Events on the bus: facts in the past tense, one struct of CloudEvents 1.0 data per type."""
