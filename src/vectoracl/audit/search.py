"""The search of audit files for reads that returned a certain chunk, by the hashes of `returned_hashes`.

A read is a permitted decision whose action is in `READS`. It *can be judged* if the files also hold its outcome, with
hashes under one of the given keys. All other reads are counted by the reason why they cannot be judged, so that a
search never reports "not read" for a read that is not known.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from vectoracl.audit.returned_hashes import key_id, returned_hash
from vectoracl.errors import InvalidInputError, without_context

READS = frozenset({"search", "fetch", "scan", "hazmat.unscoped"})
"""The actions whose operations return chunks."""
_NOTHING_RETURNED = ("empty", "denied", "violation", "cancelled", "explained")
_LONGEST = 8_000_000  # bytes of a line: 10,000 hashes are about 700,000


@dataclass(frozen=True, slots=True)
class Read:
    """A recorded read that returned at least one of the chunks: the decision's id and the ids of these chunks.

    `record` is the decision's record; None if the files hold only its outcome (the record was rotated away).
    """

    decision: str
    record: Mapping[str, Any] | None
    chunks: tuple[str, ...]


@dataclass(slots=True)
class Search:
    """The result of a search: the reads, the number of judged reads, and the numbers of others by reason."""

    reads: list[Read] = field(default_factory=list)
    judged: int = 0
    without_hashes: int = 0
    """Reads that were recorded while `returned = "hashed"` was off."""
    other_key: dict[str, int] = field(default_factory=dict)
    """Reads under a key that was not given, by the key's id."""
    without_outcome: int = 0
    """Reads without an outcome in the files: of a killed process, still running, or it could not be written."""
    cut: int = 0
    """Reads that returned more chunks than an outcome holds, where the held ones do not answer the question."""
    unreadable: int = 0
    """Lines that are not a record, for example after the disk was full."""

    @property
    def complete(self) -> bool:
        """Whether every read in the files could be judged."""
        return not (self.without_hashes or self.other_key or self.without_outcome or self.cut or self.unreadable)


def sizes(files: Sequence[Path]) -> list[tuple[Path, int]]:
    """Return *files* with their present sizes in bytes, so that later records are left out.

    Raises: InvalidInputError for a file that does not exist.
    """
    return [(one, _size(one)) for one in files]


@without_context
def _size(path: Path) -> int:
    try:
        if not path.is_file():
            raise InvalidInputError(f"There is no audit file {path}.", field="file")
        return path.stat().st_size
    except OSError as error:
        raise InvalidInputError(f"The audit file {path} cannot be read: {error.strerror}.", field="file") from None


def find(
    files: Iterable[tuple[Path, int]], keys: Sequence[str], tenant: str, document: str, chunks: Sequence[str]
) -> Search:
    """Search *files*, oldest first and each up to its size, for reads that returned any of *chunks* of *document*.

    A file whose name ends in ".gz" is unpacked and read to its end. *keys* are the key of the configuration and
    earlier ones. Raises: ConfigError for a key that is too short; InvalidInputError.
    """
    hashes = {key_id(key): {returned_hash(key, tenant, document, one): one for one in chunks} for key in keys}
    search = Search()
    pending: dict[str, Mapping[str, Any]] = {}
    for path, size in files:
        for line in _lines(path, size):
            _take(line, hashes, pending, search)
    search.without_outcome += len(pending)
    return search


def _take(
    line: bytes, wanted: Mapping[str, Mapping[str, str]], pending: dict[str, Mapping[str, Any]], found: Search
) -> None:
    """Handle one line: a decision waits for its outcome, an outcome is judged."""
    try:
        data = orjson.loads(line)
        record, outcome = data.get("decision"), data.get("outcome")
        if record is not None and record["action"] in READS and record["permit"]:
            pending[str(record["id"])] = record
        elif outcome is not None:
            _judge(outcome, wanted, pending, found)
    except (orjson.JSONDecodeError, AttributeError, TypeError, KeyError):
        found.unreadable += 1


def _judge(
    outcome: Mapping[str, Any],
    wanted: Mapping[str, Mapping[str, str]],
    pending: dict[str, Mapping[str, Any]],
    found: Search,
) -> None:
    decision, how = str(outcome.get("decision")), outcome["outcome"]
    record, ids = pending.pop(decision, None), outcome.get("ids")
    if ids is None:
        if record is None:
            return  # not a read; or a read without hashes whose decision was rotated away
        if how == "ok":
            found.without_hashes += 1
        elif how in _NOTHING_RETURNED or how.startswith("error:"):
            found.judged += 1
        else:
            found.without_outcome += 1
        return
    hashes = wanted.get(ids["key"])
    if hashes is None:
        found.other_key[str(ids["key"])] = found.other_key.get(str(ids["key"]), 0) + 1
        return
    chunks = tuple(hashes[one] for one in ids["hashes"] if one in hashes)
    if ids["more"] and len(chunks) < len(hashes):
        found.cut += 1
    else:
        found.judged += 1
    if chunks:
        found.reads.append(Read(decision, record, chunks))


def _lines(path: Path, size: int) -> Iterator[bytes]:
    """Yield the lines of *path*, of the first *size* bytes. Raises: InvalidInputError."""
    why = ""
    try:
        with _opened(path) as file:
            bytes_left = size if path.suffix != ".gz" else None
            while bytes_left is None or bytes_left > 0:
                line = file.readline(_LONGEST)
                if not line:
                    return
                if bytes_left is not None:
                    bytes_left -= len(line)
                if line.strip():
                    yield line
            return
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
    raise InvalidInputError(f"The audit file {path} cannot be read: {why}.", field="file")


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
