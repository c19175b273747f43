"""How values travel: vectors and arrays in binary, in PostgreSQL's own forms (`requests`)."""

from __future__ import annotations

from typing import Any

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

from vectoracl_pgvector.requests import ArrayParam, VectorParam, VectorsParam


class _VectorDumper(Dumper):
    """Sends a vector in binary; the type is the one of the cast around the placeholder."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: VectorParam) -> bytes:
        """Return the binary form."""
        return obj.dump()


class _ArrayDumper(Dumper):
    """Sends an array in binary; the type is the one of the cast around the placeholder."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: ArrayParam) -> bytes:
        """Return the binary form."""
        return obj.dump()


class _BytesLoader(Loader):
    """Hands over a vector as it came; `decode` reads it."""

    format = Format.BINARY

    def load(self, data: Any) -> bytes:
        """Return the bytes."""
        return bytes(data)


def adapt(context: AdaptContext, oid: int) -> None:
    """Teach a connection or cursor our parameters; *oid* is the vector type's."""

    class VectorsDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: VectorsParam) -> bytes:
            return obj.dump(oid)

    context.adapters.register_dumper(VectorParam, _VectorDumper)
    context.adapters.register_dumper(ArrayParam, _ArrayDumper)
    context.adapters.register_dumper(VectorsParam, VectorsDumper)
    context.adapters.register_loader(oid, _BytesLoader)
