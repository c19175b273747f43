"""Scoped operations in the caller's own transaction: `join` and its parts."""
