"""The settings of a registry: limits, the schema of attributes, the rules over them, and who may govern."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vectoracl.errors import ConfigError, InvalidInputError
from vectoracl.model.identifiers import check_text
from vectoracl.model.principal import AttributeValue, Principal
from vectoracl.model.values import native

AttributeKind = Literal["keyword", "number", "boolean"]
MAX_TEXT = 1024


@dataclass(frozen=True, slots=True)
class Attribute:
    """The declared type of a label's attribute; `levels` are the ordered values of a keyword, lowest first."""

    kind: AttributeKind
    levels: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> str | float | bool:
        """Return *value* as stored. Raises: InvalidInputError if it is not of the declared type."""
        value = native(value)
        if self.kind == "boolean":
            if isinstance(value, bool):
                return value
        elif self.kind == "number":
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1 << 53:
                return float(value)
        elif isinstance(value, str):
            text = check_text(value, f"The attribute {name!r}", MAX_TEXT)
            if not self.levels or text in self.levels:
                return text
            raise InvalidInputError(
                f"The attribute {name!r} is one of {', '.join(self.levels)}, in this order.", field=name
            )
        raise InvalidInputError(f"The attribute {name!r} is a {self.kind}, not {type(value).__name__}.", field=name)


class Condition(NamedTuple):
    """One condition of a rule: the label's attribute, compared with an attribute of the principal."""

    attribute: str
    operator: Literal["==", "in", "<=", "<", ">=", ">"]
    claim: str


@dataclass(frozen=True, slots=True)
class AttributeRule:
    """A rule that allows labels by their attributes: all conditions must hold, and a missing attribute denies."""

    conditions: tuple[Condition, ...]
    write: bool = False


_CONDITION = re.compile(r"(==|in|<=|<|>=|>)\s+principal\.([A-Za-z_][A-Za-z0-9_]*)\Z")
_ORDERED = ("<=", "<", ">=", ">")


def parse_rule(allow: Mapping[str, str], attributes: Mapping[str, Attribute], *, write: bool) -> AttributeRule:
    """Read a rule, for example {"label.sensitivity": "<= principal.clearance"}. Raises: ConfigError."""
    if not allow:
        raise ConfigError("A rule in [[registry.rules]] needs at least one condition: without one it would allow all.")
    return AttributeRule(tuple(_condition(left, right, attributes) for left, right in allow.items()), write)


def _condition(left: str, right: str, attributes: Mapping[str, Attribute]) -> Condition:
    name = left.removeprefix("label.")
    if name == left or name not in attributes:
        known = ", ".join(f"label.{one}" for one in sorted(attributes)) or "none"
        raise ConfigError(f"A rule compares a declared attribute of the label. Declared: {known}.")
    found = _CONDITION.match(right.strip())
    if found is None:
        raise ConfigError(
            f"The condition on {left!r} must be an operator (==, in, <=, <, >=, >) and principal.NAME, for example "
            '"<= principal.clearance".'
        )
    operator, claim = found.groups()
    declared = attributes[name]
    if operator in _ORDERED and not declared.levels and declared.kind != "number":
        raise ConfigError(f"The attribute {name!r} has no order: declare its levels, or compare it with == or in.")
    return Condition(name, operator, claim)  # type: ignore[arg-type]  # the pattern has no other operator


def claim_of(principal: Principal, name: str) -> AttributeValue | tuple[str, ...] | None:
    """Return what a rule means by principal.*name*: its id, roles or groups, or one of its attributes."""
    match name:
        case "id":
            return principal.id
        case "roles":
            return tuple(sorted(principal.roles))
        case "groups":
            return tuple(sorted(principal.groups))
    return principal.attributes.get(name)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """How long a source of rights is believed.

    Attributes:
        max_age_seconds: The time after which its last records are not believed any more.
        serve: Whether its documents are served nevertheless; else no one reads those that only it vouches for.
    """

    max_age_seconds: float
    serve: bool = False


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The settings that the flows and the registry share.

    Attributes:
        default_label: The label of a document that was not classified; None refuses to write it.
        overlay_max: The most changed documents of a tenant that its filters name.
        max_read_seconds: The longest time that a read may take while rights change; slower ones are read again.
        ticket_seconds: The time after which another writer may take over a document from one that has stopped.
        request_seconds: The longest time for which a request to the store may be under way after its client gave up.
        attributes: The declared attributes of labels.
        rules: The rules over them.
        governors: Who may govern, as subjects such as "role:records-manager"; none by default.
        shared: The tenants of `[tenants] shared`.
        sources: The sources of rights by name; one that is not named vouches for nothing.
    """

    default_label: str | None = None
    overlay_max: int = 2_000
    max_read_seconds: float = 30.0
    ticket_seconds: float = 120.0
    request_seconds: float = 60.0
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    rules: tuple[AttributeRule, ...] = ()
    governors: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)


TENANT_WIDE = "tenant"


def subjects_of(principal: Principal) -> tuple[str, ...]:
    """Return the subjects of access entries that name *principal*; names are compared as exact strings."""
    return (
        TENANT_WIDE,
        f"user:{principal.id}",
        *(f"group:{one}" for one in sorted(principal.groups)),
        *(f"role:{one}" for one in sorted(principal.roles)),
    )


def check_subject(value: object) -> str:
    """Return *value* if it is "tenant", or "user:", "group:" or "role:" with a name. Raises: InvalidInputError."""
    text = check_text(value, "A subject", MAX_TEXT)
    kind, separator, name = text.partition(":")
    if text != TENANT_WIDE and not (separator and name and kind in ("user", "group", "role")):
        raise InvalidInputError(
            'A subject is "tenant", or "user:", "group:" or "role:" and a name, for example "group:hr".',
            field="subject",
        )
    return text
