"""Harnesses of the kit: the core's memory store, and unusual but correct adapters."""
