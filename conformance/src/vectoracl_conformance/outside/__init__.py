"""The adapter out of the kit's sight: in a process that holds the library and the adapter, and nothing of the kit.

`door` is what runs there, handed over as text; `far` is this side of the pipe; `mirror` runs checks over it, beside the
memory store as the reference.
"""
