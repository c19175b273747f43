"""The memory adapter: exact and deterministic, the reference meaning itself. For examples, tests and the kit."""
