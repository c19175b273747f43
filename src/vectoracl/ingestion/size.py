"""The validator `size`: limits of texts, chunks and metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import StrictInt, model_validator

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.settings import Model
from vectoracl.ingestion.validators import Ingestion, Verdict


class SizeOptions(Model):
    """The options of `size`; at least one limit is required.

    `text_bytes` and `metadata_bytes` (as JSON) are of one chunk, `document_bytes` (texts) and `chunks` of a document
    in one write. `answer` is what happens beyond a limit.
    """

    text_bytes: StrictInt | None = None
    document_bytes: StrictInt | None = None
    chunks: StrictInt | None = None
    metadata_bytes: StrictInt | None = None
    answer: Literal["refuse", "quarantine"] = "refuse"

    @model_validator(mode="after")
    def _limits(self) -> SizeOptions:
        limits = (self.text_bytes, self.document_bytes, self.chunks, self.metadata_bytes)
        if all(one is None for one in limits):
            raise ValueError("size needs text_bytes, document_bytes, chunks or metadata_bytes")
        if any(one is not None and one < 0 for one in limits):
            raise ValueError("a limit is a number of at least 0")
        return self


class Size:
    """Limits how much is written for one document."""

    def __init__(self, options: SizeOptions) -> None:
        self._options = options

    def validate(self, ingestion: Ingestion) -> Verdict:
        """Compare the sizes with the limits."""
        for what, size, limit in self._sizes(ingestion):
            if limit is not None and size > limit:
                return Verdict(self._options.answer, f"{what}: {size:,}, and at most {limit:,} are allowed")
        return Verdict.accept()

    def _sizes(self, ingestion: Ingestion) -> Iterator[tuple[str, int, int | None]]:
        limits, total = self._options, 0
        yield "chunks in one write of the document", len(ingestion.chunks), limits.chunks
        for number, chunk in enumerate(ingestion.chunks, 1):
            size = len(chunk.text.encode())
            total += size
            yield f"bytes of text of chunk {number}", size, limits.text_bytes
            if limits.metadata_bytes is not None:
                yield f"bytes of metadata of chunk {number}", _bytes_of(chunk.metadata), limits.metadata_bytes
        yield "bytes of all texts of the document", total, limits.document_bytes
        if ingestion.changes is not None:
            yield "bytes of changed metadata", _bytes_of(ingestion.changes), limits.metadata_bytes


def _bytes_of(metadata: Mapping[str, Any]) -> int:
    return len(dump_metadata(metadata)) if metadata else 0
