"""psycopg dumpers and loaders for vectors and arrays in PostgreSQL's binary format (see `requests`)."""

from __future__ import annotations

from typing import Any

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

from vectoracl_pgvector.requests import ArrayParam, VectorParam, VectorsParam


class _VectorDumper(Dumper):
    """Dumps a vector in binary; its type comes from the cast around the placeholder."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: VectorParam) -> bytes:
        """Return the binary form."""
        return obj.dump()


class _ArrayDumper(Dumper):
    """Dumps an array in binary; its type comes from the cast around the placeholder."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: ArrayParam) -> bytes:
        """Return the binary form."""
        return obj.dump()


class _BytesLoader(Loader):
    """Loads a vector as raw bytes; `decode` reads them."""

    format = Format.BINARY

    def load(self, data: Any) -> bytes:
        """Return the bytes."""
        return bytes(data)


def adapt(context: AdaptContext, oid: int) -> None:
    """Register our dumpers and loaders on a connection or cursor; *oid* is the vector type's OID."""

    class VectorsDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: VectorsParam) -> bytes:
            return obj.dump(oid)

    context.adapters.register_dumper(VectorParam, _VectorDumper)
    context.adapters.register_dumper(ArrayParam, _ArrayDumper)
    context.adapters.register_dumper(VectorsParam, VectorsDumper)
    context.adapters.register_loader(oid, _BytesLoader)
