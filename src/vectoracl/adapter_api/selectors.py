"""Conditions that select chunks by name, for adapters that compile them with a `BooleanCompiler`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from vectoracl.adapter_api.operations import ChunkRef, Delete, refs_by_document
from vectoracl.errors import RefusedError
from vectoracl.filters.boolean_compiler import BooleanCompiler
from vectoracl.filters.predicate import Predicate

C = TypeVar("C")


def refs_condition(
    refs: Sequence[ChunkRef],
    compiler: BooleanCompiler[C],
    documents: Callable[[list[str]], C | bool],
    chunks: Callable[[list[str]], C | bool],
) -> C | bool:
    """Return that a row is one of the chunks that *refs* name.

    Args:
        refs: The chunks, with or without a document.
        compiler: The store's forms of "all of" and "one of".
        documents: Compiles that the document is one of those named; of none it must be False.
        chunks: Compiles that the chunk id is one of those named; of none it must be False.
    """
    bare, pairs = refs_by_document(refs)
    in_documents = [compiler.every([documents([document]), chunks(ids)]) for document, ids in pairs.items()]
    return compiler.some([chunks(bare), *in_documents])


def selected(
    operation: Delete,
    refs: Callable[[tuple[ChunkRef, ...]], C],
    documents: Callable[[list[str]], C],
    where: Callable[[Predicate], C],
) -> C:
    """Return the condition of the one selector of a delete. Raises: RefusedError if there is none."""
    if operation.refs is not None:
        return refs(operation.refs)
    if operation.document is not None:
        return documents([operation.document])
    if operation.where is not None:
        return where(operation.where)
    raise RefusedError("A delete needs a selector; there is none that means everything.")
