"""The handles of a governor: labels, documents, holds, retention, quarantine and erasure of one tenant.

`Governance` and `AsyncGovernance` build the same flows and differ only in the driver. A governor is whom
`[registry] governors` names, and no one else: no policy permits these actions and no scoped handle has them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from vectoracl.adapter_api.contract import Flow
from vectoracl.engine import governing
from vectoracl.engine.governed_store import ROUND
from vectoracl.engine.governing import Governor, Receipt, Reconciled
from vectoracl.engine.handle import Lifetime
from vectoracl.engine.pipeline import Pipeline, Store
from vectoracl.engine.verifying import Verification
from vectoracl.errors import ClosedError, InvalidInputError
from vectoracl.model.actions import GovernAction
from vectoracl.model.identifiers import check_id, check_tenant, check_text
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl.registry.access import MAX_RECORDS, Access, Applied, Outcome, Reading, SourceInfo, contradiction
from vectoracl.registry.requests import Govern
from vectoracl.registry.restores import Verified
from vectoracl.registry.scopes import Quarantine
from vectoracl.registry.values import DocumentInfo, Entry, LabelDefinition, Place, check_label

T = TypeVar("T")
Documents = str | Iterable[str]
_MOST = 100_000
_GREATEST = 2**53
_NAME = 1024
_FEED_PART = 500
"""The records of a feed that are taken over in one transaction."""
_RECORDS = 10_000
"""The records of a source that are read by one request."""


class _Feed:
    """A feed that is being applied: its records in the order of their moments, and what has changed so far."""

    def __init__(self, source: str, records: Sequence[Access]) -> None:
        self.source = source
        self.as_of = max(one.as_of for one in records)
        self._number = len(records)
        said = (one for one in records if one.document is not None)
        self._records = sorted(said, key=lambda one: one.as_of)
        contents: dict[tuple[str | None, float], str] = {}
        for one in self._records:
            if contents.setdefault((one.document, one.as_of), one.content()) != one.content():
                raise contradiction(one.document)
        self._changed: dict[str, None] = {}
        self._older = self._done = self._over = 0

    def parts(self) -> Iterator[Sequence[Access]]:
        """Yield the parts, each of which is one change."""
        for start in range(0, len(self._records), _FEED_PART):
            yield self._records[start : start + _FEED_PART]

    def take(self, found: Outcome, number: int, progress: Callable[[int], None] | None) -> None:
        """Add what a part of *number* records has changed."""
        self._changed.update(dict.fromkeys(found.changed))
        self._older += found.older
        self._over = found.over
        self._done += number
        if progress is not None:
            progress(self._done)

    def applied(self, found: Reading) -> Applied:
        """Return the result."""
        self._changed.update(dict.fromkeys(found.changed))
        changed, unplaced = tuple(self._changed), tuple(found.unplaced)
        return Applied(self.source, self._number, changed, self._older, found.as_of, self._over, unplaced)


class GovernanceBase:
    """The base of `Governance` and `AsyncGovernance`: checks arguments and builds flows."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: Callable[[], Store],
        driver: Any,
        governor: Governor,
        life: Lifetime,
        reason: str = "",
        sign: Callable[[Mapping[str, Any]], bytes] = lambda _: b"",
    ) -> None:
        self._sign = sign
        self._pipeline = pipeline
        self._store = store
        self._driver = driver
        self._governor = governor
        self._life = life
        self._reason = reason

    def __repr__(self) -> str:
        principal = self._governor.principal
        return f"<{type(self).__name__} of tenant {principal.tenant!r} by {principal.id!r}>"

    @property
    def _tenant(self) -> str:
        return self._governor.principal.tenant

    @property
    def _by(self) -> str:
        return self._governor.principal.id

    def _open(self) -> Store:
        if not self._life.open():
            raise ClosedError("This handle was closed. Get a new one with acl.governance(principal).")
        return self._store()

    def _why(self, reason: str, *, required: bool = False) -> str:
        text = reason or self._reason
        if required and not text.strip():
            raise InvalidInputError("This needs a reason, which is recorded.", field="reason")
        return check_text(text, "reason", _NAME)

    def _change(
        self, action: GovernAction, reason: str, method: str, *arguments: Any, **options: Any
    ) -> tuple[Store, Flow[Any]]:
        store = self._open()
        request = Govern(method, (self._tenant, *arguments), tuple(options.items()))
        return store, governing.change(self._pipeline, store, self._governor, action, reason, request)

    def _define(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, str | float | bool] | None,
        entries: Iterable[Entry],
        children: bool,  # noqa: FBT001 - forwarded
        shared: bool,  # noqa: FBT001 - forwarded
        reason: str,
    ) -> tuple[Store, Flow[Any]]:
        given = tuple(entries)
        if not all(type(one) is Entry for one in given):
            raise InvalidInputError("entries holds values of vectoracl.Entry.", field="entries")
        label = LabelDefinition(
            check_label(name),
            None if parent is None else check_label(parent, "parent"),
            dict(attributes or {}),
            given,
            children is True,
            shared is True,
        )
        why = self._why(reason)
        return self._change("label", why, "define_label", label, self._by, why)

    def _drop(self, name: str, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason)
        return self._change("label", why, "drop_label", check_label(name), self._by, why)

    def _point(self, documents: Documents, label: str, reason: str, *, create: bool) -> tuple[Store, Flow[Any]]:
        why, action = self._why(reason), "classify" if create else "move"
        names = _names(documents)
        return self._change(action, why, "classify", names, check_label(label), self._by, why, create=create)  # type: ignore[arg-type]  # the arguments after the names are the request's own

    def _hold(self, documents: Documents, matter: str, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason, required=True)
        return self._change("hold", why, "hold", _names(documents), _named(matter, "matter"), self._by, why)

    def _release(self, documents: Documents | None, matter: str, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason, required=True)
        names = None if documents is None else _names(documents)
        return self._change("release", why, "release", names, _named(matter, "matter"), self._by, why)

    def _retain(self, documents: Documents, until: float | None, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason)
        return self._change("retain", why, "retain", _names(documents), _until(until), self._by, why)

    def _quarantine(self, rule: Quarantine, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason, required=True)
        governing.check_quarantine(self._open(), rule)
        return self._change("quarantine", why, "quarantine", rule, self._by, why)

    def _lift(self, name: str, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason, required=True)
        return self._change("lift", why, "lift", _named(name, "name"), self._by, why)

    def _round(self, rounds: governing.Rounds) -> tuple[Store, Flow[tuple[Reconciled, Place | None]]]:
        store, why = self._open(), self._why("reconcile")
        return store, governing.reconcile(self._pipeline, store, self._governor, why, rounds.place)

    def _rounds(self, limit: int, patience: float, progress: Callable[[int], None] | None) -> governing.Rounds:
        self._open()
        return governing.Rounds(_whole(limit, "limit"), float(patience), progress)

    def _expired(self, limit: int, largest_share: float, reason: str) -> tuple[Store, Flow[Sequence[str]]]:
        store, why = self._open(), self._why(reason or "retention")
        share = float(largest_share)
        return store, governing.find_expired(self._pipeline, store, self._governor, why, _whole(limit, "limit"), share)

    def _parts(
        self,
        names: Sequence[str],
        action: GovernAction,
        reason: str,
        generations: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[Store, Flow[Receipt]]]:
        """Yield the parts of an erasure, each with the store's time limit and decided when its turn comes."""
        for start in range(0, len(names), ROUND):
            store, part = self._open(), names[start : start + ROUND]
            only = None if generations is None else {one: generations[one] for one in part}
            yield store, governing.erase_documents(self._pipeline, store, self._governor, action, reason, part, only)

    def _joined(self, receipts: Sequence[Receipt], reason: str, shared: tuple[str, ...] = ()) -> Receipt:
        store = self._open()
        whole = governing.joined(receipts, self._tenant, store, shared)
        content = governing.content_of(whole, store, self._by, reason)
        return dataclasses.replace(whole, signed=self._sign(content))

    def _of_producer(self, producer: str, reason: str) -> tuple[Store, Flow[tuple[Mapping[str, int], tuple[str, ...]]]]:
        store = self._open()
        return store, governing.find_of_producer(
            self._pipeline, store, self._governor, reason, _named(producer, "producer")
        )

    def _family(self, parent: str | None, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason)
        return self._change(
            "family", why, "set_parent", None if parent is None else check_tenant(parent), self._by, why
        )

    def _step(self, step: Callable[[Store, str], Flow[T]], reason: str) -> tuple[Store, Flow[T]]:
        """Return one step of a verification, recorded, with the store's time limit and decided when its turn comes."""
        store = self._open()
        body = partial(step, store)
        return store, governing.governed(self._pipeline, store, self._governor, "verify", self._why(reason), body)

    def _feed(self, records: Iterable[Access], source: str) -> _Feed:
        self._open()
        given = list(records)
        if not all(type(one) is Access for one in given):
            raise InvalidInputError("records holds values of vectoracl.Access.", field="records")
        if not 1 <= len(given) <= MAX_RECORDS:
            raise InvalidInputError(
                f"A feed has 1 to {MAX_RECORDS:,} records; of a source without news it has a heartbeat.",
                field="records",
            )
        return _Feed(_named(source, "source"), given)

    def _part(self, feed: _Feed, part: Sequence[Access], reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason)
        return self._change("access", why, "apply_access", feed.source, tuple(part), self._by, why)

    def _was_read(self, feed: _Feed, reason: str) -> tuple[Store, Flow[Any]]:
        why = self._why(reason)
        return self._change("access", why, "access_read", feed.source, feed.as_of, self._by, why)

    def _stated(self, source: str, found: Sequence[Access]) -> tuple[Store, Flow[Any]]:
        after = found[-1].document if found else ""
        return self._look("list_access", source=_named(source, "source"), after=after, size=_RECORDS)

    def _look(self, method: str, **options: Any) -> tuple[Store, Flow[Any]]:
        return self._change("look", self._why(f"look at {method}"), method, **options)


class Governance(GovernanceBase):
    """Governs one tenant, for a principal that the configuration names as a governor.

    Every change is in force at the next query of every process when its method returns; no chunk was written for it.
    """

    def _run(self, work: tuple[Store, Flow[T]], timeout: float | None = None) -> T:
        store, flow = work
        return self._driver.run(store, flow, timeout)  # type: ignore[no-any-return]  # the result is typed by the flow

    def define_label(
        self,
        name: str,
        *,
        parent: str | None = None,
        attributes: Mapping[str, str | float | bool] | None = None,
        entries: Iterable[Entry] = (),
        children: bool = False,
        shared: bool = False,
        reason: str = "",
    ) -> int:
        """Create a label, or replace its definition in place.

        Args:
            name: The label's name.
            parent: The label above it, from which it takes what it does not define itself.
            attributes: Its attributes, of the types that `[registry.attributes]` declares.
            entries: Its access entries. Without any permission there it takes its parent's; denials add up.
            children: Whether child tenants read it.
            shared: Whether every tenant reads it, in a tenant of `[tenants] shared`.
            reason: A text for the history.

        Returns:
            The tenant's new version in the registry.

        Raises:
            DeniedError: The principal is not a governor.
            RefusedError: The labels would form a circle or be too deep, or an attribute is not declared.
            StoreError: The registry did not answer; nothing was changed.
        """
        return self._run(self._define(name, parent, attributes, entries, children, shared, reason))  # type: ignore[no-any-return]  # the result is typed by the flow

    def drop_label(self, name: str, *, reason: str = "") -> int:
        """Remove a label that no document and no other label uses. Raises: as `define_label`."""
        return self._run(self._drop(name, reason))  # type: ignore[no-any-return]  # the result is typed by the flow

    def classify(self, documents: Documents, label: str, *, reason: str = "") -> list[str]:
        """Register documents under *label*, before or after they have content; others are moved to it.

        Args:
            documents: An id, or several.
            label: The label's name.
            reason: A text for the history.

        Returns:
            The documents that changed.

        Raises:
            DeniedError: The principal is not a governor.
            RefusedError: The label does not exist, or too many documents have changed (`overlay_max`).
            StoreError: The registry did not answer.
        """
        return self._run(self._point(documents, label, reason, create=True))

    def move(self, documents: Documents, label: str, *, reason: str = "") -> list[str]:
        """Point registered documents at another label. Arguments, returns and raises: as `classify`."""
        return self._run(self._point(documents, label, reason, create=False))

    def apply_access(
        self,
        records: Iterable[Access],
        *,
        source: str,
        progress: Callable[[int], None] | None = None,
        reason: str = "",
    ) -> Applied:
        """Take over what a source of rights says of documents; it can be repeated, and continues where it ended.

        The records are applied in the order of their moments (`as_of`), and a record that is older than what is in
        force changes nothing. After the last one the source counts as read until the newest moment: a feed holds
        everything that has changed there until then, and a heartbeat alone says that nothing has.

        Args:
            records: The records, in any order.
            source: The source's name in `[registry.sources]`.
            progress: Called after each part with the number of records so far.
            reason: A text for the history.

        Returns:
            What has changed.

        Raises:
            DeniedError: The principal is not a governor.
            InvalidInputError: The source says two things of a document for one moment.
            RefusedError: The source is not declared, a label does not exist, or a record is of a later time than now.
            StoreError: The registry did not answer; repeat it.
        """
        feed = self._feed(records, source)
        for part in feed.parts():
            feed.take(self._run(self._part(feed, part, reason)), len(part), progress)
        return feed.applied(self._run(self._was_read(feed, reason)))

    def access_records(self, source: str) -> list[Access]:
        """Return the latest record that *source* has made of each document. Raises: DeniedError, StoreError."""
        found: list[Access] = []
        while part := self._run(self._stated(source, found)):
            found += part
        return found

    def sources(self) -> list[SourceInfo]:
        """Return the sources of rights, and how far they have been read. Raises: DeniedError, StoreError."""
        return self._run(self._look("list_sources"))

    def hold(self, documents: Documents, matter: str, *, reason: str) -> list[str]:
        """Hold documents for *matter*: no one reads them and no path deletes them before every matter is released.

        Args:
            documents: An id, or several.
            matter: The matter's name; several matters may hold one document.
            reason: The reason, which is recorded.

        Returns:
            The documents that this matter did not hold before.

        Raises:
            DeniedError: The principal is not a governor.
            RefusedError: A document is not registered, or its deletion is under way.
            StoreError: The registry did not answer.
        """
        return self._run(self._hold(documents, matter, reason))

    def release(self, matter: str, documents: Documents | None = None, *, reason: str) -> list[str]:
        """End the hold of *matter* on *documents*, or on all of them; the last release restores what was.

        Raises: as `hold`.
        """
        return self._run(self._release(documents, matter, reason))

    def retain(self, documents: Documents, until: float | None, *, reason: str = "") -> None:
        """Make documents invisible from *until* on, in POSIX seconds by the registry's clock; None keeps them.

        `sweep` erases what has expired. Raises: as `hold`.
        """
        self._run(self._retain(documents, until, reason))

    def quarantine(
        self,
        name: str,
        *,
        producer: str | None = None,
        source: str | None = None,
        document: str | None = None,
        generation: int | None = None,
        since: float | None = None,
        until: float | None = None,
        reason: str,
    ) -> int:
        """Take chunks out of retrieval by what the framework noted when they were written; all parts must match.

        Args:
            name: The rule's name.
            producer: The id of the principal that wrote them.
            source: The pipeline that wrote them (`scoped(source=…)`), or an operation such as "load".
            document: The document's id.
            generation: The generation of that document.
            since: The first time of writing, in POSIX seconds.
            until: The end of the times of writing.
            reason: The reason, which is recorded.

        Returns:
            The tenant's new version in the registry.

        Raises:
            DeniedError: The principal is not a governor.
            RefusedError: The name is taken, there are 32 rules already, or the rule has no part.
            StoreError: The registry did not answer.
        """
        rule = _rule(name, producer, source, document, generation, since, until)
        return self._run(self._quarantine(rule, reason))  # type: ignore[no-any-return]  # the result is typed by the flow

    def lift(self, name: str, *, reason: str) -> int:
        """End a quarantine rule. Raises: as `quarantine`."""
        return self._run(self._lift(name, reason))  # type: ignore[no-any-return]  # the result is typed by the flow

    def reconcile(
        self, *, limit: int = _MOST, patience: float = 0.0, progress: Callable[[int], None] | None = None
    ) -> Reconciled:
        """Write changed documents to the store, so that filters become short again; it changes no answer.

        Args:
            limit: The number of documents after which it ends; it can be repeated at any time.
            patience: The seconds to wait for documents that changed so lately that a read may still be under way.
            progress: Called after each round with the number of documents so far.

        Returns:
            What was written and what is left.

        Raises:
            DeniedError: The principal is not a governor.
            StoreError: The store or the registry failed; repeat it.
        """
        rounds = self._rounds(limit, patience, progress)
        while (wait := rounds.after(self._run(self._round(rounds)))) is not None:
            time.sleep(wait)
        return rounds.total

    def sweep(self, *, limit: int = _MOST, largest_share: float = 0.2, reason: str = "") -> Receipt:
        """Erase documents whose time has passed, holds excepted.

        Args:
            limit: The most documents of this call.
            largest_share: The share of the tenant's documents above which nothing is erased: a clock may be wrong.
            reason: A text for the history.

        Returns:
            What was erased.

        Raises:
            DeniedError: The principal is not a governor.
            RefusedError: More than *largest_share* of the documents have expired.
            StoreError: The store or the registry failed; repeat it.
        """
        names = self._run(self._expired(limit, largest_share, reason))
        parts = self._parts(names, "sweep", reason or "retention")
        return self._joined([self._run(one) for one in parts], reason or "retention")

    def erase(self, documents: Documents, *, reason: str) -> Receipt:
        """Delete documents and look for what is left of them. Raises: HeldError for a held one; as `sweep`."""
        names, why = _names(documents), self._why(reason, required=True)
        return self._joined([self._run(one) for one in self._parts(names, "erase", why)], why)

    def verify(
        self, *, accept_registry: bool = False, progress: Callable[[int], None] | None = None, reason: str = "verify"
    ) -> Verified:
        """Compare every chunk of the tenant with the registry, correct what contradicts it, and end a stop.

        A tenant is stopped when its store or the registry turns out to have been restored from a backup. Changes that
        the registry has lost are taken from the journal first.

        Args:
            accept_registry: Store and registry were both restored to one moment, without a journal; the rights are
                those of this registry from now on.
            progress: Called with the number of documents so far.
            reason: A text for the record.

        Returns:
            What was corrected, deleted and found to be missing.

        Raises:
            DeniedError: The principal is not a governor.
            RefusedError: The registry is older than its store, and the journal does not have what it lacks.
            StoreError: The store or the registry failed; the tenant stays stopped, repeat it.
        """
        whole = Verification(self._tenant, accepted=accept_registry is True, progress=progress)
        while (step := whole.step()) is not None:
            whole.take(self._run(self._step(step, reason)))
        return whole.result

    def erase_producer(self, producer: str, *, reason: str) -> Receipt:
        """Delete every document that *producer* alone has written, and look for what is left of them.

        Documents that others have written too stay, and are named in the receipt as `shared`: `quarantine` hides the
        chunks of this producer in them, and `erase` deletes them as a whole.

        Args:
            producer: The id of the principal that wrote the chunks.
            reason: The reason, which is recorded.

        Returns:
            The receipt.

        Raises:
            DeniedError: The principal is not a governor.
            HeldError: One of the documents is held.
            StoreError: The store or the registry failed; repeat it.
        """
        why = self._why(reason, required=True)
        found, shared = self._run(self._of_producer(producer, why))
        parts = self._parts(list(found), "erase", why, found)
        return self._joined([self._run(one) for one in parts], why, shared)

    def set_parent(self, parent: str | None, *, reason: str = "") -> int:
        """Make the tenant a child of *parent*, whose labels for children it reads from now on; None ends that.

        Only an operator may (`hazmat.govern`). Raises: DeniedError; RefusedError for a circle or more than 8 levels.
        """
        return self._run(self._family(parent, reason))  # type: ignore[no-any-return]  # the result is typed by the flow

    def labels(self) -> list[LabelDefinition]:
        """Return the labels with their definitions. Raises: DeniedError, StoreError."""
        return self._run(self._look("list_labels"))

    def documents(
        self, *, after: str = "", size: int = 1000, matter: str | None = None, label: str | None = None
    ) -> list[DocumentInfo]:
        """Return a page of documents, in the order of their ids, from after the id *after*.

        Args:
            after: The last id of the page before.
            size: The most documents.
            matter: Only documents that this matter holds.
            label: Only documents of this label.

        Returns:
            The documents.

        Raises:
            DeniedError: The principal is not a governor.
            StoreError: The registry did not answer.
        """
        _whole(size, "size")
        return self._run(self._look("list_documents", after=after, size=size, matter=matter, label=label))

    def rules(self) -> tuple[Quarantine, ...]:
        """Return the quarantine rules. Raises: DeniedError, StoreError."""
        return self._run(self._look("list_rules"))

    def who(self, document: str) -> dict[str, Any]:
        """Return who may read *document*: the entries in effect for its label, and what hides it from all.

        Rules over attributes, and quarantine, are not in it. Raises: DeniedError, RefusedError, StoreError.
        """
        return self._run(self._look("who", document=check_id(document, "document")))

    def history(self, *, size: int = 100) -> list[dict[str, Any]]:
        """Return the latest changes, the newest first. Raises: DeniedError, StoreError."""
        _whole(size, "size")
        return self._run(self._look("history", size=size))


class AsyncGovernance(GovernanceBase):
    """`Governance` for asyncio."""

    async def _run(self, work: tuple[Store, Flow[T]], timeout: float | None = None) -> T:
        store, flow = work
        return await self._driver.arun(store, flow, timeout)  # type: ignore[no-any-return]  # the result is typed by the flow

    async def define_label(
        self,
        name: str,
        *,
        parent: str | None = None,
        attributes: Mapping[str, str | float | bool] | None = None,
        entries: Iterable[Entry] = (),
        children: bool = False,
        shared: bool = False,
        reason: str = "",
    ) -> int:
        """See `Governance.define_label`."""
        return await self._run(self._define(name, parent, attributes, entries, children, shared, reason))

    async def drop_label(self, name: str, *, reason: str = "") -> int:
        """See `Governance.drop_label`."""
        return await self._run(self._drop(name, reason))

    async def classify(self, documents: Documents, label: str, *, reason: str = "") -> list[str]:
        """See `Governance.classify`."""
        return await self._run(self._point(documents, label, reason, create=True))

    async def move(self, documents: Documents, label: str, *, reason: str = "") -> list[str]:
        """See `Governance.move`."""
        return await self._run(self._point(documents, label, reason, create=False))

    async def apply_access(
        self,
        records: Iterable[Access],
        *,
        source: str,
        progress: Callable[[int], None] | None = None,
        reason: str = "",
    ) -> Applied:
        """See `Governance.apply_access`."""
        feed = self._feed(records, source)
        for part in feed.parts():
            feed.take(await self._run(self._part(feed, part, reason)), len(part), progress)
        return feed.applied(await self._run(self._was_read(feed, reason)))

    async def access_records(self, source: str) -> list[Access]:
        """See `Governance.access_records`."""
        found: list[Access] = []
        while part := await self._run(self._stated(source, found)):
            found += part
        return found

    async def sources(self) -> list[SourceInfo]:
        """See `Governance.sources`."""
        return await self._run(self._look("list_sources"))

    async def hold(self, documents: Documents, matter: str, *, reason: str) -> list[str]:
        """See `Governance.hold`."""
        return await self._run(self._hold(documents, matter, reason))

    async def release(self, matter: str, documents: Documents | None = None, *, reason: str) -> list[str]:
        """See `Governance.release`."""
        return await self._run(self._release(documents, matter, reason))

    async def retain(self, documents: Documents, until: float | None, *, reason: str = "") -> None:
        """See `Governance.retain`."""
        await self._run(self._retain(documents, until, reason))

    async def quarantine(
        self,
        name: str,
        *,
        producer: str | None = None,
        source: str | None = None,
        document: str | None = None,
        generation: int | None = None,
        since: float | None = None,
        until: float | None = None,
        reason: str,
    ) -> int:
        """See `Governance.quarantine`."""
        rule = _rule(name, producer, source, document, generation, since, until)
        return await self._run(self._quarantine(rule, reason))

    async def lift(self, name: str, *, reason: str) -> int:
        """See `Governance.lift`."""
        return await self._run(self._lift(name, reason))

    async def reconcile(
        self, *, limit: int = _MOST, patience: float = 0.0, progress: Callable[[int], None] | None = None
    ) -> Reconciled:
        """See `Governance.reconcile`."""
        rounds = self._rounds(limit, patience, progress)
        while (wait := rounds.after(await self._run(self._round(rounds)))) is not None:
            await asyncio.sleep(wait)
        return rounds.total

    async def sweep(self, *, limit: int = _MOST, largest_share: float = 0.2, reason: str = "") -> Receipt:
        """See `Governance.sweep`."""
        names = await self._run(self._expired(limit, largest_share, reason))
        parts = self._parts(names, "sweep", reason or "retention")
        return self._joined([await self._run(one) for one in parts], reason or "retention")

    async def erase(self, documents: Documents, *, reason: str) -> Receipt:
        """See `Governance.erase`."""
        names, why = _names(documents), self._why(reason, required=True)
        return self._joined([await self._run(one) for one in self._parts(names, "erase", why)], why)

    async def verify(
        self, *, accept_registry: bool = False, progress: Callable[[int], None] | None = None, reason: str = "verify"
    ) -> Verified:
        """See `Governance.verify`."""
        whole = Verification(self._tenant, accepted=accept_registry is True, progress=progress)
        while (step := whole.step()) is not None:
            whole.take(await self._run(self._step(step, reason)))
        return whole.result

    async def erase_producer(self, producer: str, *, reason: str) -> Receipt:
        """See `Governance.erase_producer`."""
        why = self._why(reason, required=True)
        found, shared = await self._run(self._of_producer(producer, why))
        parts = self._parts(list(found), "erase", why, found)
        return self._joined([await self._run(one) for one in parts], why, shared)

    async def set_parent(self, parent: str | None, *, reason: str = "") -> int:
        """See `Governance.set_parent`."""
        return await self._run(self._family(parent, reason))

    async def labels(self) -> list[LabelDefinition]:
        """See `Governance.labels`."""
        return await self._run(self._look("list_labels"))

    async def documents(
        self, *, after: str = "", size: int = 1000, matter: str | None = None, label: str | None = None
    ) -> list[DocumentInfo]:
        """See `Governance.documents`."""
        _whole(size, "size")
        return await self._run(self._look("list_documents", after=after, size=size, matter=matter, label=label))

    async def rules(self) -> tuple[Quarantine, ...]:
        """See `Governance.rules`."""
        return await self._run(self._look("list_rules"))

    async def who(self, document: str) -> dict[str, Any]:
        """See `Governance.who`."""
        return await self._run(self._look("who", document=check_id(document, "document")))

    async def history(self, *, size: int = 100) -> list[dict[str, Any]]:
        """See `Governance.history`."""
        _whole(size, "size")
        return await self._run(self._look("history", size=size))


def _names(documents: Documents) -> list[str]:
    given = [documents] if isinstance(documents, str) else list(documents)
    names = list(dict.fromkeys(check_id(one, "document") for one in given))
    if not 1 <= len(names) <= _MOST:
        raise InvalidInputError(f"Name 1 to {_MOST:,} documents in one call.", field="documents")
    return names


def _named(value: str, field: str) -> str:
    text = check_text(value, field, _NAME)
    if not text.strip():
        raise InvalidInputError(f"{field} is blank.", field=field)
    return text


def _number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInputError(f"{field} is a time in POSIX seconds.", field=field)
    return float(value)


def _until(value: float | None) -> float:
    return NEVER_EXPIRES if value is None else min(_number(value, "until"), NEVER_EXPIRES)


def _whole(value: object, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"{field} must be a positive integer.", field=field)
    return value


def _generation(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _GREATEST:
        raise InvalidInputError("generation is a whole number from 0.", field="generation")
    return value


def _rule(
    name: str,
    producer: str | None,
    source: str | None,
    document: str | None,
    generation: int | None,
    since: float | None,
    until: float | None,
) -> Quarantine:
    return Quarantine(
        _named(name, "name"),
        None if producer is None else _named(producer, "producer"),
        None if source is None else _named(source, "source"),
        None if document is None else check_id(document, "document"),
        None if generation is None else _generation(generation),
        None if since is None else _number(since, "since"),
        None if until is None else _number(until, "until"),
    )
