"""The caller's own transaction: `join` and what it is made of."""
