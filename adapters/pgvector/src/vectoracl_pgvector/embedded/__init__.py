"""An embedded PostgreSQL with pgvector: started at first use, shared by processes, stopped by the last one.

`start` returns the running server of a folder; `release` ends one use of it, and `stop` ends it for all users.
"""

from vectoracl_pgvector.embedded.server import EmbeddedServer, release, start, stop

__all__ = ["EmbeddedServer", "release", "start", "stop"]
