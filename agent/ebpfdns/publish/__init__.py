"""What leaves the agent: events as lines, the schema that describes them, and where they go."""
