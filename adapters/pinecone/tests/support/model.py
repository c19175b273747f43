"""A model of an index that keeps up with its writes: small and quick, so that every order can be tried."""

from __future__ import annotations

from typing import Any

from vectoracl_pinecone.requests import Done, FetchBy, Listing, Match, Page, Put, Query, Remove

from pinecone_support.stub import passes


class Model:
    """The records of one namespace; each request is one indivisible thing."""

    def __init__(self, records: dict[str, Any] | None = None) -> None:
        self.records = dict(records or {})

    def __call__(self, request: Any) -> Any:
        match request:
            case Put(records=some):
                self.records.update((one.id, one.metadata) for one in some)
                return Done()
            case Remove(ids=ids, filter=where):
                gone = ids if ids is not None else [one for one in self.records if passes(where, self.records[one])]
                for one in gone:
                    self.records.pop(one, None)
                return Done()
            case Listing(prefix=prefix, token=token, limit=limit):
                ids = sorted(one for one in self.records if one.startswith(prefix or "") and one > (token or ""))
                return Page(tuple(map(Match, ids[:limit])), ids[limit - 1] if len(ids) > limit else None)
            case FetchBy(filter=where, limit=limit, token=token):
                ids = [one for one in sorted(self.records) if passes(where, self.records[one]) and one > (token or "")]
                rows = tuple(Match(one, 0.0, self.records[one]) for one in ids[:limit])
                return Page(rows, ids[limit - 1] if len(ids) > limit else None)
            case Query(filter=where, top_k=top):
                ids = [one for one in sorted(self.records) if where is None or passes(where, self.records[one])]
                return tuple(Match(one, 1.0, self.records[one]) for one in ids[:top])
        raise AssertionError(type(request).__name__)

    def execute(self, request: Any, _: float | None) -> Any:
        return self(request)

    parallel = 1

    def close(self) -> None:
        pass
