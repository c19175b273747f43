"""Wrappers around a complete adapter, in which single flows can be replaced."""
