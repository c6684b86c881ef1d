"""How a process resolves names, and what is odd about that: facts in, words out. Pure.

One look, no tracing: `observe.inspection` gives the facts, `report` puts everything together.
"""
