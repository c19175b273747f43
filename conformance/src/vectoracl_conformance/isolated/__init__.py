"""The adapter in a process that cannot see the kit: it holds the library and the adapter, and nothing of the kit.

`child` is what runs there, handed over as text; `process` is this side of the pipe; `reference_checks` runs checks over
it, with the memory store as the reference.
"""
