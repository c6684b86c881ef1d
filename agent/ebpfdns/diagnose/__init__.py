"""Evidence becomes a cause: pure, one rule for each, in the order of the catalogue."""
