"""The process of `needledb` with counters in its engine; run by the Python that has needledb, on its own.

    python -P needledb_counters.py FOLDER PORT          with NEEDLEDB_API_KEY in the environment

`GET /_counts` reports how many vectors the engine scored and how many requests were answered; those that carry the
header `x-kit` with the server's key are not counted. When its standard input ends, it ends.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

_KEPT = 3_600
"""How many seconds an idle connection is kept."""


class Counts:
    """The work of the engine; added up under a lock, since it works in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.scored = 0
        self.answered = 0

    def add(self, *, scored: int = 0, answered: int = 0) -> None:
        """Add."""
        with self._lock:
            self.scored += scored
            self.answered += answered


def _watch(collection: Any, counts: Counts) -> None:
    """Count the candidates of both of the engine's ways to rank: the exact one and FAISS's index.

    In a flat index FAISS scores every slot that the mask permits. In a graph it scores fewer, which cannot be seen
    from here: all that the mask permits are counted, so the number is a bound from above.
    """
    exact, ann = collection._exact, collection._ann_search  # noqa: SLF001 - that is where the engine ranks

    def counted_exact(self: Any, query: Any, candidates: Any, k: int) -> Any:
        counts.add(scored=len(candidates))
        return exact(self, query, candidates, k)

    def counted_ann(self: Any, query: Any, k: int, mask: Any, ef: int) -> Any:
        counts.add(scored=int(self.n if mask is None else mask.sum()))
        return ann(self, query, k, mask, ef)

    collection._exact, collection._ann_search = counted_exact, counted_ann  # noqa: SLF001


class _Answered:
    """ASGI middleware that counts what is asked of indexes, but for the kit's own requests."""

    def __init__(self, app: Any, counts: Counts, key: str) -> None:
        self._app, self._counts, self._key = app, counts, key.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"x-kit") != self._key:
            self._counts.add(answered=1)
        await self._app(scope, receive, send)


def _serve(folder: str, port: int) -> None:
    import uvicorn
    from needledb.core.collection import Collection
    from needledb.server.app import create_app

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    counts = Counts()
    _watch(Collection, counts)
    key = os.environ["NEEDLEDB_API_KEY"]
    app = create_app(folder, api_keys=[key])

    async def told() -> dict[str, int]:
        return {"scored": counts.scored, "answered": counts.answered}

    app.add_api_route("/_counts", told)
    threading.Thread(target=wait, daemon=True).start()
    # By default idle connections are closed after five seconds; on a busy machine that is while a client sends.
    uvicorn.run(
        _Answered(app, counts, key), host="127.0.0.1", port=port, log_level="warning", access_log=False,
        timeout_keep_alive=_KEPT,
    )  # fmt: skip


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
