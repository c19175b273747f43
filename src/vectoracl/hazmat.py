"""The only doors past the scope. Each takes a written reason and leaves a record.

Nothing here belongs into an application's request path: it is for the demo, for audits and for the operator who holds
the store's credentials anyway.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vectoracl.adapter import Flow
from vectoracl.client import VectorACL
from vectoracl.drive import run, wrapped
from vectoracl.errors import InvalidInputError, VectorACLError
from vectoracl.operations import Found
from vectoracl.ports import EmbedQueries, WriteRecord
from vectoracl.principal import Principal
from vectoracl.queries import VectorQuery, check_query, check_vector
from vectoracl.records import Result


def _reason(reason: object) -> str:
    if not isinstance(reason, str) or len(reason.split()) < 3:
        raise InvalidInputError("hazmat needs a reason: a sentence of at least three words.", field="reason")
    return reason.strip()


def operator_principal(id: str, tenant: str, reason: str) -> Principal:  # noqa: A002 - the field's own name
    """Return a principal for an operator who acts as *id* of *tenant*, as the command line's `--as` does.

    It is marked as such (`kind` "operator") in the record of every decision. Raises: InvalidInputError.
    """
    return Principal(id, tenant, kind="operator", authenticated_by=f"operator: {_reason(reason)}")


class Unscoped:
    """A search over all tenants, ranked without any scope."""

    def __init__(self, acl: VectorACL, reason: str) -> None:
        self._acl = acl
        self._reason = reason

    def search(self, query: object, k: int = 10) -> Result:
        """Return the *k* best chunks of the whole default store, whoever they belong to.

        Raises: RefusedError where the store gives no operator's access; StoreError.
        """
        acl = self._acl
        named = acl._ready(acl.config.default)  # noqa: SLF001 - hazmat is the owner's own back door
        assert named.port is not None
        can = named.store.capabilities
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= can.max_k:
            raise InvalidInputError(f"k must be an integer from 1 to {can.max_k:,}.", field="k")
        checked = check_query(query, dimension=can.dimension, nonzero=can.metric == "cosine")
        if not isinstance(checked, str | VectorQuery):
            raise InvalidInputError("An unscoped search takes text or a vector.", field="query")
        decision_id = os.urandom(16).hex()
        record: Mapping[str, Any] = {
            "v": 1,
            "id": decision_id,
            "time": acl.guard.clock(),
            "action": "hazmat.unscoped",
            "permit": True,
            "reasons": [self._reason],
            "policy": "none",
            "store": named.store.name,
            "partitions": ["*"],
            "scope": "unscoped",
            "principal": None,
        }

        def flow() -> Flow[Found]:
            yield WriteRecord(record)
            outcome, returned = "cancelled", None
            try:
                resolved = checked
                if isinstance(resolved, str):
                    (vector,) = yield from EmbedQueries((resolved,))
                    resolved = VectorQuery(check_vector(vector, can.dimension, nonzero=can.metric == "cosine"))
                found = yield from named.store.adapter.unscoped(resolved, k)
                outcome, returned = "ok", len(found.hits)
                return found
            except VectorACLError as error:
                outcome = f"error:{error.code}"
                raise
            except Exception as error:  # noqa: BLE001 - re-raised as ours
                outcome = "error:internal"
                message = f"The adapter failed in a way that it does not know ({type(error).__name__})."
                debug = acl.config.debug_errors
                raise wrapped(error, message, debug=debug, code="internal") from (error if debug else None)
            finally:
                acl.guard.note({"decision": decision_id, "outcome": outcome, "returned": returned, "ms": None})

        core = acl.core_port
        found = run(flow(), {"store": named.port, "audit": core, "embedder": core}, timeout=named.config.timeout)
        return Result(found.hits, complete=found.complete, shortfall=found.shortfall, decision_id=decision_id)


def unscoped(acl: VectorACL, *, reason: str) -> Unscoped:
    """Return a search past every scope, for *reason* (a sentence), which is recorded with each use.

    Raises: InvalidInputError without a reason.
    """
    if not isinstance(acl, VectorACL):
        raise InvalidInputError("hazmat.unscoped takes a VectorACL.", field="acl")
    return Unscoped(acl, _reason(reason))
