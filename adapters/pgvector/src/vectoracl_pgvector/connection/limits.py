"""Maps PostgreSQL's limits (SQLSTATE class 54) to errors that name the limit.

One code, 54000, covers many limits, and PostgreSQL's message is translated and quotes values. The name of the C source
file that raised the error is neither, so it decides which limit it was.
"""

from __future__ import annotations

import re
from typing import Final

from vectoracl.errors import StoreError

_WORDS: Final = re.compile(r"(to_tsany|tsvector\w*|tsquery\w*|ts_\w+|wparser\w*|spell|dict\w*)\.c\Z")
_KEY: Final = re.compile(r"(nbt\w+|indextuple|hash\w+|spgdoinsert|gin\w+|brin\w*)\.c\Z")
_ROW: Final = re.compile(r"(hio|heaptuple|heapam|toast\w*)\.c\Z")
_METADATA: Final = re.compile(r"(jsonb?\w*)\.c\Z")
_VECTOR_INDEX: Final = re.compile(r"(hnsw\w*|ivf\w*)\.c\Z")
_VECTOR: Final = re.compile(r"(vector|halfvec|sparsevec|bitvec)\.c\Z")
_MESSAGE: Final = re.compile(r"(stringinfo|arrayfuncs|arrayutils|varlena|mcxt)\.c\Z")


def limit_error(state: str, source: str | None, *, writes: bool, adapter: str) -> StoreError:
    """Return the error for a limit with the SQLSTATE *state* that was raised in the C file *source*."""
    code, text = _limit(state, source or "", writes=writes)
    return StoreError(text, code=code, adapter=adapter, sent="no")


def _limit(state: str, source: str, *, writes: bool) -> tuple[str, str]:
    nothing = "nothing was written" if writes else "nothing was read"
    match state:
        case "54001":
            return "too_complex", (
                "The statement is nested too deeply for PostgreSQL (max_stack_depth), so nothing was done. Make the "
                "filter flatter: one in_([…]) instead of many alternatives."
            )
        case "54011":
            return "too_many_columns", "The table would have more columns than PostgreSQL allows; nothing was changed."
        case "54023":
            return "too_complex", "A function was called with more arguments than PostgreSQL allows; nothing was done."
    if _WORDS.search(source):
        if writes:
            return "too_large", (
                "A text has more words than PostgreSQL's full text search can store (1 MB of them), and nothing "
                "was written. Split the chunk, or set lexical = false for this store."
            )
        return "too_large", (
            "The query text has more words than PostgreSQL's full text search accepts (1 MB of them); "
            "nothing was read. Search with a shorter text, or with a vector."
        )
    if _KEY.search(source):
        return "too_large", (
            f"A value is longer than an index of the table accepts (about 2,700 bytes), and {nothing}. Use shorter "
            "ids, or drop an index that was added on another column."
        )
    if _ROW.search(source):
        return "too_large", (
            f"A row with its vector does not fit into one page of PostgreSQL (8 kB), and {nothing}. Use shorter ids, "
            "or "
            'type = "halfvec", which halves the vector.'
        )
    if _METADATA.search(source):
        return "too_large", f"The metadata of a chunk is larger than jsonb accepts (256 MB), and {nothing}. Shorten it."
    if _VECTOR_INDEX.search(source):
        return "index_dimensions", (
            "pgvector cannot index this many dimensions: HNSW accepts 2,000 of vector and 4,000 of halfvec. Set "
            'type = "halfvec" and run `vectoracl provision`, or leave the tenants in the shared partition, where they '
            "are searched without an index."
        )
    if _VECTOR.search(source):
        return "dimensions", f"pgvector accepts vectors of up to 16,000 dimensions, and {nothing}. Use a smaller model."
    if _MESSAGE.search(source):
        return "too_large", f"One request is larger than PostgreSQL accepts (1 GB), and {nothing}. Lower max_batch."
    return "limit", (
        f"A limit of PostgreSQL was reached (SQLSTATE {state}{', ' + source if source else ''}), and {nothing}. The "
        "server's log names it."
    )
