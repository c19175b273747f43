"""The door through which a mutant in the adapter's process sees the whole store, as the harness reads it."""

from __future__ import annotations

import secrets
from multiprocessing.connection import Client, Listener
from threading import Thread
from typing import Any

from vectoracl_conformance.harness import Store
from vectoracl_conformance.isolated.put_in import Door


class HarnessDoor:
    """Answers mutants in another process that ask for the rows of *store*; this process learns nothing of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = secrets.token_bytes(32)
        self._open = True
        self._listener = Listener(authkey=self._key)
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def door(self) -> Door:
        """The address and the key."""
        return str(self._listener.address), self._key

    def _serve(self) -> None:
        while self._open:
            try:
                with self._listener.accept() as connection:
                    what = connection.recv_bytes(16)
                    connection.send(self._answer(what))
            except Exception:  # noqa: BLE001, S112 - one that does not ask as agreed gets no answer
                continue
        self._listener.close()

    def _answer(self, what: bytes) -> tuple[str, Any]:
        try:
            if what == b"census":
                return "ok", list(self._store.census())
            return "ok", self._store.parts()
        except Exception as error:  # noqa: BLE001 - it is raised there
            return "error", f"{type(error).__name__}: {error}"

    def close(self) -> None:
        """Answer no longer."""
        self._open = False
        with Client(self._listener.address, authkey=self._key) as connection:
            connection.send_bytes(b"")
        self._thread.join(5)
