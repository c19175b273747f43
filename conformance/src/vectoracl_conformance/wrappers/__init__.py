"""Wrappers around a whole adapter, of which one flow at a time can be replaced."""
