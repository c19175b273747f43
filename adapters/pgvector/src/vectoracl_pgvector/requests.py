"""Requests to PostgreSQL as data: one request is one transaction in one round trip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vectoracl.adapter_api.contract import Request
from vectoracl.model.records import Vector

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with `%s` placeholders. Names come from `names.Names`, values only from `params`.

    Attributes:
        sql: The text.
        params: The values of the placeholders.
        rows: Whether the reply is the rows; otherwise it is the row count.
        binary: Whether rows are sent in binary. Text works for every type of the catalogs.
        since: The oldest `server_version` that supports it; on older servers the reply has no rows.
    """

    sql: str
    params: tuple[Any, ...] | Mapping[str, Any] = ()
    rows: bool = True
    binary: bool = True
    since: int = 0


@dataclass(frozen=True, slots=True)
class Transaction(Request[tuple[Any, ...]]):
    """Transaction-local settings and the statements, as one transaction in one message, with one reply a statement.

    `partition` is the tenant that the settings name; None only for statements that read the catalogs. With `snapshot`
    all statements, which must be reads, see the same state.
    """

    partition: str | None
    statements: tuple[Statement, ...]
    settings: tuple[tuple[str, str], ...] = ()
    read_only: bool = True
    snapshot: bool = False

    @property
    def writes(self) -> bool:
        """Whether the transaction may change rows."""
        return not self.read_only


@dataclass(frozen=True, slots=True)
class RankAll(Request[list[Row]]):
    """For `hazmat`: run `statement` once for each tenant, as the owner, under that tenant's scope."""

    partition: str | None
    statement: Statement
    settings: tuple[tuple[str, str], ...]


class VectorParam:
    """A vector parameter in pgvector's binary format; PostgreSQL takes its type from the surrounding cast."""

    __slots__ = ("half", "vector")

    def __init__(self, vector: Vector, *, half: bool = False) -> None:
        self.vector = vector
        self.half = half

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VectorParam) and self.half == other.half and np.array_equal(self.vector, other.vector)

    __hash__ = None  # type: ignore[assignment]  # compared in golden files, never used as a key

    def __repr__(self) -> str:
        return f"VectorParam({len(self.vector)})"

    def dump(self) -> bytes:
        """Return dimension, a reserved zero and the numbers, big-endian (pgvector's vector_recv, halfvec_recv)."""
        header = len(self.vector).to_bytes(2, "big") + b"\0\0"
        return header + self.vector.astype(">f2" if self.half else ">f4").tobytes()


class VectorsParam:
    """Vectors of shape (n, dimension) as one array parameter."""

    __slots__ = ("half", "matrix")

    def __init__(self, matrix: NDArray[np.float32], *, half: bool = False) -> None:
        self.matrix = matrix
        self.half = half

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VectorsParam) and self.half == other.half and np.array_equal(self.matrix, other.matrix)

    __hash__ = None  # type: ignore[assignment]  # see VectorParam

    def __repr__(self) -> str:
        return f"VectorsParam{self.matrix.shape}"

    def dump(self, oid: int) -> bytes:
        """Return PostgreSQL's binary array of vectors (array_recv); *oid* is the vector type's OID."""
        count, dimension = self.matrix.shape
        number = ">f2" if self.half else ">f4"
        size = 2 if self.half else 4
        element = np.dtype(
            [("length", ">i4"), ("dimension", ">i2"), ("zero", ">i2"), ("numbers", number, (dimension,))]
        )
        data = np.empty(count, element)
        data["length"], data["dimension"], data["zero"] = 4 + size * dimension, dimension, 0
        data["numbers"] = self.matrix
        header = np.array([1, 0, oid, count, 1], ">i4")
        return header.tobytes() + data.tobytes()


_ELEMENTS = {"text": 25, "jsonb": 3802, "int8": 20, "int4": 23, "float8": 701}  # fixed in pg_type.dat
_NUMBERS = {"int8": ">i8", "int4": ">i4", "float8": ">f8"}


class ArrayParam:
    """Values of one built-in type as one array parameter; `jsonb` values are JSON texts, as bytes.

    psycopg itself sends lists as text, which escapes and parses every element.
    """

    __slots__ = ("kind", "values")

    def __init__(self, kind: Literal["text", "jsonb", "int8", "int4", "float8"], values: list[Any]) -> None:
        self.kind = kind
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayParam) and (self.kind, self.values) == (other.kind, other.values)

    __hash__ = None  # type: ignore[assignment]  # see VectorParam

    def __repr__(self) -> str:
        return f"ArrayParam({self.kind!r}, {len(self.values)} values)"

    def dump(self) -> bytes:
        """Return PostgreSQL's binary array (array_recv)."""
        count = len(self.values)
        header = np.array([1, 0, _ELEMENTS[self.kind], count, 1], ">i4").tobytes()
        number = _NUMBERS.get(self.kind)
        if number is not None:
            size = np.dtype(number).itemsize
            data = np.empty(count, [("length", ">i4"), ("number", number)])
            data["length"], data["number"] = size, self.values
            return header + data.tobytes()
        if self.kind == "jsonb":
            raws = [b"\x01" + one for one in self.values]  # the version of its binary form (jsonb_recv)
        else:
            raws = [one.encode() for one in self.values]
        return header + b"".join([part for raw in raws for part in (len(raw).to_bytes(4, "big"), raw)])


def load_vector(data: bytes | memoryview, *, half: bool = False) -> Vector:
    """Read a vector in pgvector's binary format; return it as float32."""
    return np.frombuffer(data, ">f2" if half else ">f4", offset=4).astype(np.float32)
