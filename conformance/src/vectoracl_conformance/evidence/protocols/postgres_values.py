"""Decodes parameters of PostgreSQL's protocol to values; those of unknown types stay bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

Value = None | bool | int | float | str | bytes | tuple["Value", ...]

_TEXTS = {25, 1043, 1042, 705, 19, 18, 114, 142}
_ARRAYS = {1000: 16, 1005: 21, 1007: 23, 1016: 20, 1021: 700, 1022: 701, 1009: 25, 1015: 1043, 1014: 1042, 1003: 19,
           199: 114, 3807: 3802, 1028: 26, 2951: 2950}  # fmt: skip
_NUMBERS = {16: ">?", 21: ">h", 23: ">i", 20: ">q", 26: ">I", 700: ">f", 701: ">d"}


class Param(NamedTuple):
    """One bound parameter; the type is 0 where the client left it to the server."""

    value: Value
    type: int
    binary: bool


def param(data: bytes | None, type: int, *, binary: bool) -> Param:  # noqa: A002 - PostgreSQL's word
    """Decode one parameter. Raises: ValueError if it is not what its type says."""
    if data is None:
        return Param(None, type, binary)
    if not binary:
        return Param(data.decode(), type, binary)
    return Param(_binary(data, type), type, binary)


def _binary(data: bytes, type: int, *, nested: bool = False) -> Value:  # noqa: A002 - likewise
    if type in _TEXTS:
        return data.decode()
    if type in _NUMBERS:
        try:
            (number,) = struct.unpack(_NUMBERS[type], data)
        except struct.error as error:
            raise ValueError(str(error)) from error
        return number  # type: ignore[no-any-return]
    if type == 3802:  # jsonb: one byte of version, then text
        return data[1:].decode()
    if type == 2950 and len(data) == 16:  # uuid
        text = data.hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    if not nested and (type in _ARRAYS or (type not in _KNOWN and _looks_array(data))):
        return _array(data)
    return data


_KNOWN = _TEXTS | set(_NUMBERS) | {3802, 2950, 17}


def _looks_array(data: bytes) -> bool:
    """An array of a type that only this database knows (vectors): one dimension, then its length and a bound of 1."""
    if len(data) < 20:
        return False
    dimensions, nulls, _, _, bound = struct.unpack(">5i", data[:20])
    return dimensions == 1 and nulls in (0, 1) and bound == 1


def _array(data: bytes) -> Value:
    """Decode array_send's form of at most one dimension; of more, leave the bytes."""
    try:
        dimensions, _, element = struct.unpack_from(">iiI", data)
        if dimensions == 0:
            return ()
        if dimensions != 1:
            return data
        (count, _), at = struct.unpack_from(">ii", data, 12), 20
        items: list[Value] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            at += 4
            if length < 0:
                items.append(None)
                continue
            if at + length > len(data):
                return data
            items.append(_binary(data[at : at + length], element, nested=True))
            at += length
    except struct.error:
        return data
    return tuple(items) if at == len(data) else data
