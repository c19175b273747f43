"""Comparison of the answer to a call with that of the reference: whole, or by a property where stores may differ.

They may differ in the order of equal scores, in the scores of words (each store has its own), in a search that says
that it is not complete, and in the numbers of generations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from vectoracl import errors
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.client.bulk_load import LoadReport
from vectoracl.engine.arguments import INCLUDE
from vectoracl.model.queries import Hybrid, Lexical
from vectoracl.model.records import Facet, Hit, Page, Record, Result, Updated, Written
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.content import Key, Precision, key, named, row_problem, same, unique
from vectoracl_conformance.generated.fusion import missing_problem, ranges, score_problem

Outcome = tuple[str, Any]
"""("ok", answer), ("error", (the library's class, the class, the text, the data)) or ("cut", None)."""
Words = Literal["lexical", "hybrid"]
_PARTS = ("text", "metadata", "vector")
Wider = Callable[[Call], Outcome]
"""Answers a search as the reference does, with every visible hit instead of the best ones."""


def error_of(outcome: Outcome) -> tuple[str, str]:
    """Return the class and the code of the error, by which programs tell errors apart."""
    known, name, _, data = outcome[1]
    return known or name, str(data.get("code", ""))


def of_the_store(outcome: Outcome) -> bool:
    """Return whether the outcome is a failure of the store: the library's StoreError or a subclass of it."""
    if outcome[0] != "error":
        return False
    kind = getattr(errors, outcome[1][0], None)
    return isinstance(kind, type) and issubclass(kind, errors.StoreError)


def shown(outcome: Outcome) -> str:
    """Return an outcome as text for a report."""
    kind, value = outcome
    if kind == "error":
        name, code = error_of(outcome)
        return f"{name}{f' ({code})' if code else ''}: {value[2]:.200}"
    if kind == "cut":
        return "it was cancelled"
    return _short(value)


def _short(value: object) -> str:
    if isinstance(value, Result | list | tuple) and not isinstance(value, Hit | Facet):
        some = ", ".join(_short(one) for one in value[:8])
        return f"[{some}{', …' if len(value) > 8 else ''}] ({len(value)})"
    if isinstance(value, Hit):
        return f"{value.id:.40}@{value.score:.5f}"
    if isinstance(value, Facet):
        return f"{value.value!r:.40}: {value.count}"
    return f"{value!r:.200}"


class Comparison:
    """Judges the answers of one store by those of the reference.

    Attributes:
        follow: Makes a call on the store, to see what a cursor leads to.
        ranked_alike: The kinds of queries by words that this store scores as the reference does; found by `calibrate`.
    """

    def __init__(
        self, capabilities: Capabilities, wider: Wider, rows: Callable[[], Mapping[Key, Record]], *, words: bool = False
    ) -> None:
        self.capabilities = capabilities
        self.precision = Precision.of(capabilities)
        self.ranked_alike: set[Words] = {"lexical", "hybrid"} if words else set()
        self.hits = [0, 0]
        self.follow: Callable[[Call], Outcome] | None = None
        self._wider = wider
        self._rows = rows

    def problem(self, call: Call, right: Outcome, got: Outcome) -> str | None:
        """Say how *got* differs from *right*, or None."""
        if right[0] != got[0]:
            return f"{shown(got)} instead of {shown(right)}"
        if right[0] == "error":
            one, other = error_of(right), error_of(got)
            return None if one == other else f"{shown(got)} instead of {shown(right)}"
        return self._answer(call, right[1], got[1])

    def calibrate(self, answers: Sequence[tuple[Call, Outcome, Outcome]]) -> None:
        """Find out which queries by words this store ranks as the reference: then all have to be ranked so."""
        self.ranked_alike = set()
        for words in ("lexical", "hybrid"):  # a hybrid query is judged with what is then known of lexical ones
            alike = [
                _list_alike(right[1], got[1], self.precision)
                or (words == "hybrid" and self._fused(call, got[1]) is None)
                for call, right, got in answers
                if words_of(call.arguments.get("query")) == words and right[0] == got[0] == "ok" and len(right[1])
            ]
            if alike and all(alike):
                self.ranked_alike.add(words)

    def _answer(self, call: Call, right: Any, got: Any) -> str | None:
        if isinstance(right, list) and right and isinstance(right[0], Result):
            return self._several(call, right, got)
        if type(right) is not type(got):
            return f"the answer is a {type(got).__name__}, not a {type(right).__name__}"
        include = frozenset(call.arguments.get("include", INCLUDE))
        match right:
            case Result():
                return self._result(call, right, got)
            case Page():
                return self._listed(right.hits, got.hits, include) or self._end(call, right, got)
            case Written():
                return self._written(call, right, got)
            case Updated():
                same_ = (right.count, right.atomic) == (got.count, got.atomic)
                return None if same_ else f"{_short(got)}, not {_short(right)}"
            case LoadReport() if right.batches < got.batches <= got.written:  # a store that takes less at once
                return structure_problem(replace(right, batches=got.batches), got)
            case list() if (right and isinstance(right[0], Hit)) or (got and isinstance(got[0], Hit)):
                return self._listed(right, got, include)
            case list() if right and isinstance(right[0], Facet):
                return (
                    None
                    if list(map(_typed, right)) == list(map(_typed, got))
                    else f"{_short(got)}, not {_short(right)}"
                )
        return structure_problem(right, got)

    def _several(self, call: Call, right: list[Result], got: Any) -> str | None:
        if not isinstance(got, list) or len(got) != len(right):
            return f"{_short(got)} instead of {len(right)} results"
        arguments = {name: value for name, value in call.arguments.items() if name != "queries"}
        for place, query in enumerate(call.arguments["queries"]):
            one = replace(call, method="search", arguments={**arguments, "query": query})
            if (problem := self._answer(one, right[place], got[place])) is not None:
                return f"result {place}: {problem}"
        return None

    def _written(self, call: Call, right: Written, got: Written) -> str | None:
        uncounted = got.count is None and call.method == "delete" and not self.capabilities.delete_counts
        return None if uncounted or same(right.count, got.count) else f"{got.count} rows instead of {right.count}"

    def _listed(self, right: Sequence[Hit], got: Sequence[Hit], include: frozenset[str]) -> str | None:
        if (problem := unique(got)) is not None:
            return problem
        if (problem := _sets(right, got)) is not None:
            return problem
        for place, (one, other) in enumerate(zip(right, got, strict=True)):
            if key(one) != key(other):
                return f"hit {place} is {named(other)}, and {named(one)} comes first"
            if (problem := self._hit(one, other, include)) is not None:
                return problem
            if other.score != one.score:
                return f"the score of {named(other)} is {other.score}, not {one.score}"
        return None

    def _end(self, call: Call, right: Page, got: Page) -> str | None:
        """Judge a cursor. A store may not know that its page was the last one; then an empty one follows."""
        if got.after is None:
            return None if right.after is None else "a page that others follow has no cursor"
        if right.after is not None:
            return None
        if self.follow is not None:
            kind, last = self.follow(replace(call, arguments={**call.arguments, "after": got.after}))
            if kind == "ok" and isinstance(last, Page) and not last.hits and last.after is None:
                return None
        return "the last page has a cursor"

    def _hit(self, right: Hit, got: Hit, include: frozenset[str]) -> str | None:
        if (got.tenant, got.document, got.id, got.position) != (right.tenant, right.document, right.id, right.position):
            return f"{named(got)} has other ids than its tag"
        for part in sorted(include):
            if getattr(got, part) is None:
                return f"{named(got)} came without its {part}"
        row: Hit | Record = right
        if any(
            getattr(got, part) is not None and getattr(right, part) is None for part in ("text", "metadata", "vector")
        ):
            row = self._rows().get(key(right), right)  # more than was asked for has to be right too
        problem = row_problem(row, got, self.precision)
        return None if problem is None else f"{named(got)}: {problem}"

    def _result(self, call: Call, right: Result, got: Result) -> str | None:
        problem = unique(got) or _flags(right, got) or _too_many(call, got)
        if problem is not None:
            return problem
        if not got.complete:
            self.hits[0] += len(got)
            self.hits[1] += len(right)
        include = frozenset(call.arguments.get("include", INCLUDE))
        words = words_of(call.arguments.get("query"))
        scored = words is None or words in self.ranked_alike
        if scored and _list_alike(right, got, self.precision):
            pairs = zip(right, got, strict=True)
            return next((one for pair in pairs if (one := self._hit(*pair, include)) is not None), None)
        return self._ranked(call, right, got, include, scored=scored)

    def _ranked(self, call: Call, right: Result, got: Result, include: frozenset[str], *, scored: bool) -> str | None:
        """Judge hits that are not those of the reference one by one: ties, words, or a search that is not complete."""
        kind, wide = self._wider(call)
        if kind != "ok":
            return f"{_short(got)} instead of {_short(right)}"
        candidates = {key(hit): hit for hit in wide}
        for hit in got:
            if key(hit) not in candidates:
                return f"{named(hit)} came back, which must not: {_short(got)} instead of {_short(right)}"
            if (problem := self._hit(candidates[key(hit)], hit, include)) is not None:
                return problem
        words = words_of(call.arguments.get("query"))
        if not scored or words == "hybrid":
            return self._by_words(call, wide, got) or (self._fused(call, got) if scored else None)
        return _Ranking(call, right, got, candidates, self.precision).problem(
            lenient=not got.complete and not call.arguments.get("exact", False)
        )

    def _by_words(self, call: Call, wide: Sequence[Hit], got: Result) -> str | None:
        """Judge a search by words, whose scores are the store's own, by membership, number and order."""
        for one, other in pairwise(got):
            if other.score > one.score:
                return f"{named(other)} comes after {named(one)}, and has the higher score"
        floor = call.arguments.get("min_score")
        if floor is not None:
            return next((f"the score of {named(hit)} is below {floor}" for hit in got if hit.score < floor), None)
        return None if not got.complete else _number(call, wide, got)

    def _fused(self, call: Call, got: Result) -> str | None:
        """Judge the scores of a hybrid query by the ranks that each row may have in the legs."""
        query, most = call.arguments["query"], self.capabilities.max_k
        near = self._wider(_leg(call, query.text if query.vector is None else query.vector, most))
        worded = self._worded(call)
        if near[0] != "ok" or worded is None:
            return None
        right = ranges([near[1], worded], call.arguments.get("k", 10), self.precision)
        problem = score_problem(got, right)
        if problem is not None or not got.complete or call.arguments.get("group_by") is not None:
            return problem
        return missing_problem(got, right)

    def _worded(self, call: Call) -> Sequence[Hit] | None:
        """Return the ranking by the words of a hybrid query, by the store's own scores if it has some; None: unknown.

        Whether that ranking has the right rows is judged where a lexical query is asked.
        """
        most = self.capabilities.max_k
        leg = _leg(call, Lexical(call.arguments["query"].text), most)
        if "lexical" in self.ranked_alike or self.follow is None:
            kind, ranked = self._wider(leg)
            return ranked if kind == "ok" else None
        kind, ranked = self.follow(leg)
        whole = kind == "ok" and isinstance(ranked, Result) and ranked.complete and len(ranked) < most
        return ranked if whole else None


def _leg(call: Call, query: object, most: int) -> Call:
    """Return the search by one part of a hybrid query, for *most* rows."""
    arguments = {name: one for name, one in call.arguments.items() if name not in ("group_by", "per_group")}
    arguments |= {"query": query, "include": frozenset(), "k": most}
    return widened(replace(call, arguments=arguments), most)


def _typed(facet: Any) -> tuple[Any, ...]:
    """Return a facet with the types of its parts: a whole number is an int, and True is not 1."""
    return tuple((type(part), part) for part in facet) if isinstance(facet, tuple) else (type(facet), facet)


def words_of(query: object) -> Words | None:
    """Return the kind of a query by words; None for one by vector."""
    return "lexical" if isinstance(query, Lexical) else "hybrid" if isinstance(query, Hybrid) else None


def widened(call: Call, most: int) -> Call:
    """Return a search that finds every hit which may be among the best of *call*."""
    arguments = {**call.arguments, "k": most}
    if arguments.get("group_by") is not None:
        arguments["per_group"] = most
    arguments.pop("min_score", None)
    arguments.pop("tuning", None)
    arguments.pop("timeout", None)
    return replace(call, arguments=arguments)


def _flags(right: Result, got: Result) -> str | None:
    if type(got.complete) is not bool or (got.complete != (got.shortfall is None)):
        return f"complete is {got.complete!r}, and the shortfall {got.shortfall!r:.80}"
    if bool(right.decision_id) != bool(got.decision_id):
        return f"the decision's id is {got.decision_id!r}"
    return None


def _list_alike(right: Sequence[Hit], got: Sequence[Hit], precision: Precision) -> bool:
    """Return whether both have the same hits in the same order with the same scores."""
    return len(right) == len(got) and all(
        key(one) == key(other) and precision.near(other.score, one.score) for one, other in zip(right, got, strict=True)
    )


def _sets(right: Sequence[Hit], got: Sequence[Hit]) -> str | None:
    expected, keys = {key(hit) for hit in right}, {key(hit) for hit in got}
    for hit in got:
        if key(hit) not in expected:
            return f"{named(hit)} came back, which must not ({len(got)} rows instead of {len(right)})"
    for hit in right:
        if key(hit) not in keys:
            return f"{named(hit)} is missing ({len(got)} rows instead of {len(right)})"
    return None


def _too_many(call: Call, got: Result) -> str | None:
    """Say that more hits came than were asked for, or None: also an answer that is not complete has at most as many."""
    k, each = call.arguments.get("k", 10), call.arguments.get("per_group", 1)
    if call.arguments.get("group_by") is None:
        return f"{len(got)} hits, and {k} were asked for" if len(got) > k else None
    groups = _grouped(got)
    if len(groups) > k:
        return f"{len(groups)} documents, and {k} were asked for"
    most = max(map(len, groups.values()), default=0)
    return f"{most} hits of one document, and {each} were asked for" if most > each else None


def _number(call: Call, wide: Sequence[Hit], got: Result) -> str | None:
    """Say that too few or too many hits came, or None."""
    k, groups = call.arguments.get("k", 10), _grouped(wide)
    if call.arguments.get("group_by") is None:
        right = min(k, len(wide))
        return None if len(got) == right else f"{len(got)} hits instead of {right}"
    each, mine = call.arguments.get("per_group", 1), _grouped(got)
    if len(mine) != min(k, len(groups)):
        return f"{len(mine)} documents instead of {min(k, len(groups))}"
    for document, hits in mine.items():
        if len(hits) != min(each, len(groups[document])):
            return f"{len(hits)} hits of the document {document[1]!r:.60} instead of {min(each, len(groups[document]))}"
    return None


def _grouped(hits: Sequence[Hit]) -> dict[tuple[str, str], list[Hit]]:
    groups: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        groups.setdefault((hit.tenant, hit.document), []).append(hit)
    return groups


class _Ranking:
    """A ranking whose rows are all permitted, and the reference's, which may differ by rows of equal scores."""

    def __init__(
        self, call: Call, right: Result, got: Result, candidates: Mapping[Key, Hit], precision: Precision
    ) -> None:
        self._call = call
        self._right = right
        self._got = got
        self._scores = {place: hit.score for place, hit in candidates.items()}
        self._candidates = list(candidates.values())
        self._precision = precision
        self._away = f"{_short(got)} instead of {_short(right)}"

    def problem(self, *, lenient: bool) -> str | None:
        """Say what differs, or None; *lenient* permits hits to be missing."""
        if (problem := self._ordered()) is not None or lenient:
            return problem
        if self._call.arguments.get("group_by") is not None:
            return self._groups()
        return self._missing(list(self._right), list(self._got))

    def _ordered(self) -> str | None:
        floor = self._call.arguments.get("min_score")
        for hit in self._got:
            score = self._scores[key(hit)]
            if not self._precision.near(hit.score, score):
                return f"the score of {named(hit)} is {hit.score:.6f}, not {score:.6f}"
            if floor is not None and score < floor - self._precision.around(floor):
                return f"the score of {named(hit)} is {score:.6f}, below {floor}"
        for one, other in pairwise(self._got):
            before, after = self._scores[key(one)], self._scores[key(other)]
            if after > before + 2 * self._precision.around(before):
                return f"{named(other)} comes after {named(one)}, and is nearer: {self._away}"
        return None

    def _missing(self, right: Sequence[Hit], got: Sequence[Hit]) -> str | None:
        """Say that a hit is missing which no other one of an equal score replaces."""
        keys = {key(hit) for hit in got}
        floor = self._call.arguments.get("min_score")
        worst = min((self._scores[key(hit)] for hit in got), default=-np.inf)
        free = len(got) - len({key(hit) for hit in right} & keys)
        for hit in right:
            if key(hit) in keys:
                continue
            if floor is not None and hit.score < floor + self._precision.around(floor):
                continue
            if free and hit.score <= worst + 2 * self._precision.around(hit.score):
                free -= 1
                continue
            return f"{named(hit)} is missing: {self._away}"
        return self._away if free > 0 and floor is None else None

    def _groups(self) -> str | None:
        right, got, every = _grouped(self._right), _grouped(self._got), _grouped(self._candidates)
        heads = [min(every[document], key=lambda hit: -hit.score) for document in right]
        mine = [min(every[document], key=lambda hit: -hit.score) for document in got]
        if (problem := self._missing(heads, mine)) is not None:
            return problem
        each = self._call.arguments.get("per_group", 1)
        for document, hits in got.items():
            ranked = sorted(every[document], key=lambda hit: -hit.score)
            if (problem := self._missing(ranked[:each], hits)) is not None:
                return problem
        return None


def structure_problem(right: Any, got: Any) -> str | None:
    """Say how two values of the same form differ, for answers of which nothing more is known; ids of decisions may."""
    if is_dataclass(right) and type(right) is type(got):
        names = [one.name for one in fields(right) if one.name != "decision_id"]
        for name in names:
            if (problem := structure_problem(getattr(right, name), getattr(got, name))) is not None:
                return f"{name}: {problem}"
        return None
    if isinstance(right, list | tuple) and isinstance(got, list | tuple) and len(right) == len(got):
        problems = (structure_problem(one, other) for one, other in zip(right, got, strict=True))
        return next((problem for problem in problems if problem is not None), None)
    return None if same(right, got) else f"{_short(got)} instead of {_short(right)}"
