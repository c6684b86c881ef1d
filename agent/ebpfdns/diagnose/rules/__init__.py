"""The rules: one file for each cause. `catalogue` says in which order they are tried."""
