"""The memory adapter: exact, deterministic, and the reference semantics. For examples, tests and the kit."""
