"""An own PostgreSQL with pgvector: started at first use, shared by processes, stopped by the last one.

`start` returns the running server of a folder; `release` gives it up, and `stop` ends it for everybody.
"""

from vectoracl_pgvector.embedded.server import EmbeddedServer, release, start, stop

__all__ = ["EmbeddedServer", "release", "start", "stop"]
