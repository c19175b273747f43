"""Judges by reach: which objects the runtime role may use, and whose privileges it thereby gains.

A function's body is not searched for the table's name, since a name can be escaped, built at run time or hidden. The
role that the code runs as decides. Each object that lends the privileges of a role which could read governed rows is a
finding, unless a small proof holds for it (`function_proofs`) or an extension or managed service ships it
(`recognised`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vectoracl.adapter_api.postgres_roles import STRONG_PREDEFINED
from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture import function_proofs, recognised, releases
from vectoracl_pgvector.posture.fix_sql import advice, ident, role
from vectoracl_pgvector.posture.reach_graph import PUBLIC, Graph, usable
from vectoracl_pgvector.posture.reach_rows import Function, OtherRelation
from vectoracl_pgvector.posture.rows import Extension, ForeignKey
from vectoracl_pgvector.posture.snapshot import Snapshot, make_finding

FIRST_NORMAL = 16384  # smaller OIDs belong to PostgreSQL itself
_LENDING = ("PG070", "PG071", "PG072", "PG074")


def reach(snapshot: Snapshot, direct: list[Finding]) -> list[Finding]:
    """Judge by reach: return *direct* without recognised objects, and the additional findings."""
    if any(name.startswith("reach_") for name in snapshot.missing) or snapshot.table is None:
        return direct
    graph = Graph(snapshot)
    if not graph.runtime:
        return direct
    known = {function.display_name for function in graph.functions if recognised.function(function, graph)}
    remaining = [one for one in direct if not (one.rule.id in ("PG072", "PG073", "PG074") and one.subject in known)]
    return remaining + list(_further_findings(graph, remaining))


def _further_findings(graph: Graph, before: list[Finding]) -> Iterator[Finding]:
    named = {finding.subject for finding in before if finding.rule.id in _LENDING}
    walk = Walk(graph, strict=_strict(graph.snapshot))
    walk.lend()
    for finding in (*walk.code(), *walk.relations()):
        if finding.subject not in named:
            yield finding
    yield from _native(graph)
    yield from _leakproof(graph)
    if walk.strict:
        yield from _triggers(graph)
        yield from _rules(graph)
    yield from _policies(graph, before)
    yield from _system(graph, walk.actors)
    yield from _parameters(graph, walk.actors)
    yield from _members(graph)
    yield from _owned(graph)
    yield from _outside(graph, walk.actors)


def _strict(snapshot: Snapshot) -> bool:
    """Return whether vectoracl provisioned the table, so that its runtime role should read nothing else."""
    table = snapshot.table
    return table is not None and any(p.name.startswith("vectoracl_") for p in snapshot.policies[table.oid])


class Walk:
    """The closure over lent privileges: from the runtime role to every role as which it can read."""

    def __init__(self, graph: Graph, *, strict: bool) -> None:
        self.graph = graph
        self.actors = graph.runtime
        self.strict = strict or self._filled_by_trigger()
        self._powerful: dict[int, tuple[Function, str]] = {}

    def _filled_by_trigger(self) -> bool:
        """Return whether unproved code runs whenever the table is written, and could copy rows."""
        for trigger in self.graph.triggers:
            if trigger.on_tree and not trigger.definer:
                if not function_proofs.computes_only(trigger.language, trigger.source, ""):
                    return True
            elif trigger.on_tree:
                function = next((f for f in self.graph.functions if f.oid == trigger.function), None)
                if function is not None and not self._is_move_trigger(function):
                    return True
        return any(node.refs for node in self.graph.nodes.values())

    def lend(self) -> None:
        """Follow SECURITY DEFINER functions until no role is added."""
        before: frozenset[int] = frozenset()
        while before != self.actors:
            before = self.actors
            for function in self.graph.functions:
                if not function.definer or function.owner in self.actors or function.oid in self._powerful:
                    continue
                if not self._reached(function) or self._harmless(function):
                    continue
                power = self.graph.power(function.owner)
                if power is None:
                    self.actors |= self.graph.closure([function.owner])
                else:
                    self._powerful[function.oid] = (function, power)

    def _reached(self, function: Function) -> bool:
        if function.fires or function.referenced:
            return True
        if not function.is_event_trigger and usable(function.executors, self.actors):
            return usable(function.schema_users, self.actors)
        return any(
            trigger.function == function.oid and (trigger.on_tree or usable(trigger.writers, self.actors))
            for trigger in self.graph.triggers
        )

    def _harmless(self, function: Function) -> bool:
        pinned = function_proofs.pinned_to_system(function.settings)
        return (
            function.pure
            or (pinned and function_proofs.computes_only(function.language, function.source, function.arguments))
            or self._is_move_trigger(function)
            or recognised.function(function, self.graph)
        )

    def _is_move_trigger(self, function: Function) -> bool:
        """Return whether it is vectoracl's own trigger that keeps the copy in sync during a move."""
        snapshot = self.graph.snapshot
        table = snapshot.table
        return (
            table is not None
            and function.schema == snapshot.target.schema
            and re.fullmatch(rf"{re.escape(snapshot.target.table)}_moving(?:_[1-9]\d?)?", function.name, re.ASCII)
            is not None
            and self.graph.name(function.owner) == table.owner
            and not usable(function.executors, self.graph.runtime)
            and function_proofs.pinned_to_system(function.settings)
            and function_proofs.keeps_a_copy_in_step(function.source)
        )

    def code(self) -> Iterator[Finding]:
        """Yield findings for functions and procedures that run as a role that could read governed rows."""
        for function, power in self._powerful.values():
            kind = "PROCEDURE" if function.kind == "p" else "FUNCTION"
            name = f"{kind} {ident(function.schema, function.name)}({function.arguments})"
            yield make_finding(
                "PG131", function.display_name,
                f"{function.display_name} runs as {self.graph.name(function.owner)}, and is not proved harmless: "
                f"{power}.",
                _revoke(self.graph, f"EXECUTE ON {name}", function.executors, self.actors)
                or advice(f"ALTER {name} SECURITY INVOKER, or let another role own it."),
            )  # fmt: skip

    def relations(self) -> Iterator[Finding]:
        """Yield findings for views and rules that read as another role, and for relations that can hold copies."""
        reads: dict[int, tuple[OtherRelation, frozenset[int]]] = {}
        for other in self.graph.relations.values():
            if not usable(other.schema_users, self.actors):
                continue
            readable = usable(other.readers, self.actors) or other.owner in self.actors
            if readable or ((other.refs or other.catalogs) and usable(other.writers, self.actors)):
                reads.setdefault(other.oid, (other, self.actors))
        visits: set[tuple[int, frozenset[int]]] = set()
        todo = [(other, roles, other) for other, roles in reads.values()]
        reported: set[tuple[str, str]] = set()
        for node in self.graph.nodes.values():
            if usable(node.writers, self.actors):  # a rule on the table acts as the table's owner
                owner = self.graph.closure([node.owner])
                todo += [(self.graph.relations[ref], owner, self.graph.relations[ref])
                         for ref in node.refs if ref in self.graph.relations and self._is_readable(ref)]  # fmt: skip
        while todo:
            other, roles, entry = todo.pop()
            if (other.oid, roles) in visits:
                continue
            visits.add((other.oid, roles))
            finding, more = self._judge_relation(other, roles, entry)
            todo += [(one, as_roles, entry) for one, as_roles in more]
            if finding is not None and (finding.rule.id, finding.subject) not in reported:
                reported.add((finding.rule.id, finding.subject))
                yield finding

    def _is_readable(self, ref: int) -> bool:
        other = self.graph.relations[ref]
        return usable(other.readers, self.actors)

    def _judge_relation(
        self, other: OtherRelation, roles: frozenset[int], entry: OtherRelation
    ) -> tuple[Finding | None, list[tuple[OtherRelation, frozenset[int]]]]:
        if other.kind == "v" or ((other.refs or other.catalogs) and other.kind != "m"):
            # A view with security_invoker reads as the session's role, even within another role's view.
            runs_as = self.actors if other.invoker else self.graph.closure([other.owner])
            return self._view(other, runs_as, entry)
        return self._copy(other, roles, entry), []

    def _view(
        self, view: OtherRelation, runs_as: frozenset[int], entry: OtherRelation
    ) -> tuple[Finding | None, list[tuple[OtherRelation, frozenset[int]]]]:
        more: list[tuple[OtherRelation, frozenset[int]]] = []
        readable = view.kind != "v" and usable(view.readers, self.actors)
        finding = self._copy(view, self.actors, entry) if readable else None
        if view.catalogs and not runs_as <= self.actors and not recognised.relation(view, self.graph):
            finding = make_finding(
                "PG132", entry.display_name,
                f"{entry.display_name} reads {', '.join(view.catalogs)} as {self.graph.name(view.owner)}, which "
                "PostgreSQL does not grant to the runtime role.", self._revoke_table(entry),
            )  # fmt: skip
        for ref in view.refs:
            if ref in self.graph.relations:
                more.append((self.graph.relations[ref], runs_as))
            elif (
                ref in self.graph.tree
                and not runs_as <= self.actors
                and not self.graph.bound(runs_as, ref, as_view=True)
            ):
                relation = self.graph.tree[ref]
                finding = make_finding(
                    "PG132", entry.display_name,
                    f"{entry.display_name} reads {relation.schema}.{relation.name} as {self.graph.name(view.owner)}, "
                    "to which another policy applies, or none.",
                    f"ALTER VIEW {ident(view.schema, view.name)} SET (security_invoker = true);"
                    if view.kind == "v" else advice(f"Drop the rules on {entry.display_name}."),
                )  # fmt: skip
        return finding, more

    def _copy(self, other: OtherRelation, roles: frozenset[int], entry: OtherRelation) -> Finding | None:
        if other.kind == "f":
            return make_finding(
                "PG138", other.display_name, f"{other.display_name} is a foreign table: it is read as another "
                "role, and no policy applies there.", self._revoke_table(other),
            )  # fmt: skip
        if not other.content or recognised.relation(other, self.graph):
            return None
        if other.kind in "rp" and self._binds_every_reader(other, roles):
            return None
        if not self.strict and not self._resembles_governed_table(other):
            return None
        via = "" if other is entry else f" through {entry.display_name}"
        return make_finding(
            "PG130", other.display_name,
            f"{self.graph.snapshot.role} can read {other.display_name}{via}, which has {', '.join(other.content[:4])} "
            "and no policy that is proved to bind the tenant: it can hold copies of governed rows.",
            self._revoke_table(other),
        )  # fmt: skip

    def _binds_every_reader(self, other: OtherRelation, roles: frozenset[int]) -> bool:
        """Return whether each role that reads it, judged separately, sees only its tenant's rows."""
        readers = [oid for oid in roles if usable(other.readers, frozenset({oid})) or other.owner == oid]
        as_view = roles != self.actors
        bound = (self.graph.bound(self.graph.closure([oid]), other.oid, as_view=as_view) for oid in readers)
        return bool(readers) and all(bound)

    def _resembles_governed_table(self, other: OtherRelation) -> bool:
        """Return whether *other* resembles the governed table, on a database whose application reads many tables."""
        target = self.graph.snapshot.target
        if target.foreign and other.vectors and other.kind in "rp":
            return False  # a table with vectors is checked and graded separately
        if target.foreign and other.kind in "rp" and self._referred_to(other):
            return False  # a list that the governed rows refer to (collections, kinds), not filled by code
        # Other tables of the same tenants are usual in an application; PG100 names them.
        known = not target.foreign and bool(target.tenant_column) and target.tenant_column in other.columns
        return other.kind in "mt" or other.vectors or bool(other.shared) or known

    def _referred_to(self, other: OtherRelation) -> bool:
        """Return whether the governed table has a foreign key to *other*, which has no tenant column."""
        return any(
            key.direction == "out" and (key.to_schema, key.to_table) == (other.schema, other.name)
            for key in self.graph.snapshot.read("foreign_keys", ForeignKey)
            if not key.to_has_tenant
        )

    def _revoke_table(self, other: OtherRelation) -> str:
        return _revoke(
            self.graph, f"ALL ON TABLE {ident(other.schema, other.name)}", other.readers, self.actors
        ) or advice(f"Revoke the runtime role's access to {other.display_name}, or add the tenant's policy to it.")


def _revoke(graph: Graph, what: str, grantees: Iterable[int], actors: frozenset[int]) -> str:
    names = [graph.name(oid) if oid != PUBLIC else None for oid in grantees if oid == PUBLIC or oid in actors]
    return f"REVOKE {what} FROM {', '.join(role(name) for name in names)};" if names else ""


def _native(graph: Graph) -> Iterator[Finding]:
    for function in graph.functions:
        if function.trusted or function.extension or function.definer or function.kind == "a":
            continue
        reached = function.referenced or (
            usable(function.executors, graph.runtime) and usable(function.schema_users, graph.runtime)
        )
        if reached:
            yield make_finding(
                "PG133", function.display_name,
                f"{function.display_name} is written in {function.language}, which PostgreSQL's privileges do not "
                "bind.",
                _revoke(graph, f"EXECUTE ON FUNCTION {ident(function.schema, function.name)}({function.arguments})",
                        function.executors, graph.runtime) or advice(f"Drop {function.display_name}."),
            )  # fmt: skip
    for native in graph.native:
        unknown = recognised.unknown_native(native)
        if unknown or not native.owned_by_superuser:
            yield make_finding(
                "PG133", f"extension {native.extension} {native.version}",
                f"{unknown} native functions of the extension {native.extension} {native.version} (such as "
                f"{native.example}) are not recognised.",
                advice(f"Compare them with the extension's release; then accept them with a reason, or DROP EXTENSION "
                       f"{ident(native.extension)}."),
            )  # fmt: skip


def _leakproof(graph: Graph) -> Iterator[Finding]:
    for function in graph.functions:
        ours = function.schema in ("pg_catalog", "information_schema") or function.extension
        if function.leakproof and ours and not recognised.leakproof(function):
            yield make_finding(
                "PG083", function.display_name, f"{function.display_name} is marked LEAKPROOF.",
                f"ALTER FUNCTION {ident(function.schema, function.name)}({function.arguments}) NOT LEAKPROOF;",
            )  # fmt: skip
    for (oids,) in graph.snapshot.rows.get("reach_leakproof", []):
        extra = sorted(set(oids) - recognised.system_leakproof())
        if extra:
            yield make_finding(
                "PG083", "pg_catalog", f"{len(extra)} of PostgreSQL's own functions are marked LEAKPROOF, which "
                f"they are not by default (OIDs {', '.join(map(str, extra[:5]))}).",
                advice("ALTER FUNCTION … NOT LEAKPROOF for each: SELECT oid::regprocedure FROM pg_proc WHERE oid = …"),
            )  # fmt: skip


def _triggers(graph: Graph) -> Iterator[Finding]:
    """Yield findings for the table's triggers whose function is unproved and runs as the writing role."""
    for trigger in graph.triggers:
        if not trigger.on_tree or trigger.definer or trigger.function < FIRST_NORMAL:
            continue  # functions that run as their owner are judged with the other functions
        if not function_proofs.computes_only(trigger.language, trigger.source, ""):
            at = f"{trigger.schema}.{trigger.table}.{trigger.name}"
            yield make_finding(
                "PG141", at, f"The trigger {at} receives every row that is written, and its function is not proved "
                "harmless.", f"DROP TRIGGER {ident(trigger.name)} ON {ident(trigger.schema, trigger.table)};",
            )  # fmt: skip


def _rules(graph: Graph) -> Iterator[Finding]:
    """Yield findings for the table's rules, which run as its owner and can return rows that the owner reads."""
    for schema, table, name in graph.snapshot.rows.get("rewrite_rules", []):
        at = f"{schema}.{table}.{name}"
        yield make_finding(
            "PG132", at, f"The rule {at} runs as the owner of the table whenever a tenant writes, and is not proved "
            "harmless.", f"DROP RULE {ident(name)} ON {ident(schema, table)};",
        )  # fmt: skip


def _policies(graph: Graph, before: Iterable[Finding]) -> Iterator[Finding]:
    known = {finding.subject for finding in before if finding.rule.id == "PG035"}
    for code in graph.code:
        relation = graph.tree.get(code.oid)
        if not code.in_tree or relation is None:
            continue
        policy = next((p for p in graph.snapshot.policies[code.oid] if p.name == code.policy), None)
        subject = f"{relation.schema}.{relation.name}.{code.policy}"
        if policy is not None and policy.applies and subject not in known:
            known.add(subject)
            yield make_finding(
                "PG035", subject, f"Policy {code.policy} uses {code.uses}, which is not part of PostgreSQL.",
                advice("Use only the tenant column, pg_catalog.current_setting and pg_catalog.= in the policy."),
            )  # fmt: skip


def _system(graph: Graph, actors: frozenset[int]) -> Iterator[Finding]:
    files = {str(row[0]) for row in graph.snapshot.rows.get("file_functions", [])}
    for one in graph.privileges:
        if one.grantee != PUBLIC and one.grantee not in actors:
            continue
        if one.kind == "function" and one.schema == "pg_catalog" and one.name.partition("(")[0] in files:
            continue  # reported by PG012
        at = f"{one.schema}.{one.name}" if one.name else one.schema
        schema, name = ident(one.schema), one.name
        if one.kind == "schema":
            sql = f"REVOKE {one.privilege} ON SCHEMA {schema}"
        elif one.kind == "function":
            bare, _, rest = name.partition("(")
            sql = f"REVOKE {one.privilege} ON FUNCTION {schema}.{ident(bare)}({rest}"
        else:
            bare, _, column = name.partition(".")
            sql = f"REVOKE {one.privilege}{f' ({ident(column)})' if column else ''} ON TABLE {schema}.{ident(bare)}"
        grantee = None if one.grantee == PUBLIC else graph.name(one.grantee)
        yield make_finding(
            "PG134", at, f"{graph.name(one.grantee)} has {one.privilege} on {at}, which PostgreSQL does not grant by "
            "default.",
            f"{sql} FROM {role(grantee)};",
        )  # fmt: skip


def _parameters(graph: Graph, actors: frozenset[int]) -> Iterator[Finding]:
    for (grants,) in graph.snapshot.rows.get("reach_parameters", []):
        for grant in grants:
            grantee, _, rest = grant.partition(" ")
            parameter, _, privilege = rest.partition(" ")
            oid = int(grantee)
            if oid == PUBLIC or oid in actors:
                grantee = None if oid == PUBLIC else graph.name(oid)
                yield make_finding(
                    "PG135", parameter, f"{graph.name(oid)} has {privilege} on the parameter {parameter}.",
                    f"REVOKE {privilege} ON PARAMETER {ident(*parameter.split('.'))} FROM {role(grantee)};",
                )  # fmt: skip


def _members(graph: Graph) -> Iterator[Finding]:
    named = STRONG_PREDEFINED | releases.STATISTICS_PREDEFINED | releases.HARMLESS_PREDEFINED
    for member in sorted(graph.runtime):
        if _predefined(graph, member):
            continue  # a predefined role's own memberships are part of it
        for oid in sorted(graph.memberships(member)):
            name = graph.name(oid)
            if _predefined(graph, oid) and name not in named:
                yield make_finding(
                    "PG136", name, f"{graph.snapshot.role} can act as {name}.",
                    f"REVOKE {ident(name)} FROM {ident(graph.name(member))};",
                )  # fmt: skip


def _predefined(graph: Graph, oid: int) -> bool:
    return oid < FIRST_NORMAL and graph.name(oid).startswith("pg_")


def _owned(graph: Graph) -> Iterator[Finding]:
    for what in sorted({one.what for one in graph.owned}):
        users = sorted(one.used_by for one in graph.owned if one.what == what and one.used_by)
        use = f", which {users[0]} uses" if users else ""
        yield make_finding(
            "PG137", what, f"{graph.snapshot.role} owns or can own {what}{use}: it can change what other roles run.",
            advice(f"ALTER {what} OWNER TO a role that the runtime role cannot become."),
        )  # fmt: skip


def _outside(graph: Graph, actors: frozenset[int]) -> Iterator[Finding]:
    for extension in graph.snapshot.read("extensions", Extension):
        if extension.name in releases.RETURNING_EXTENSIONS and extension.usable:
            yield make_finding(
                "PG138", f"extension {extension.name}",
                f"{graph.snapshot.role} may call functions of {extension.name}, which come back to this server's data "
                "by "
                "another way.", f"DROP EXTENSION {ident(extension.name)};",
            )  # fmt: skip
    for one in graph.outside:
        if not usable(one.grantees, actors):
            continue
        if one.kind == "language":
            yield make_finding(
                "PG133", f"language {one.name}", f"The untrusted language {one.name} is marked trusted, so every "
                "role may write native code.", advice(f"Mark {one.name} untrusted again, or drop it."),
            )  # fmt: skip
            continue
        sql = "FOREIGN SERVER" if one.kind == "server" else "FOREIGN DATA WRAPPER"
        yield make_finding(
            "PG138", f"{one.kind} {one.name}", f"{graph.snapshot.role} may use the {one.kind} {one.name}.",
            _revoke(graph, f"USAGE ON {sql} {ident(one.name)}", one.grantees, actors) or advice(f"Drop {one.name}."),
        )  # fmt: skip
