"""Facts become lookups, queries and connects: pure, without a clock of its own."""
