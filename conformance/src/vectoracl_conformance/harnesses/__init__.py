"""Harnesses that the kit brings itself: of the core's memory store, and of adapters that are odd but right."""
