"""Runs the adapter in a process that cannot see the kit, to detect adapters that behave differently under test.

The process contains the library and the adapter. `child` runs there and is passed as text; `process` is this side of
the pipe; `reference_checks` runs checks over it, with the memory store as the reference.
"""
