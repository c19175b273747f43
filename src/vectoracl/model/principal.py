"""Principals. A principal comes from verified claims, never from an argument that a model or a caller can choose."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Literal, get_args

from vectoracl.errors import InvalidInputError, InvalidPrincipalError, without_context
from vectoracl.model.identifiers import check_principal_id, check_tenant, check_text, plain
from vectoracl.model.values import native

Kind = Literal["user", "service", "agent", "operator"]
AttributeValue = str | int | float | bool | tuple[str, ...]
_KINDS = frozenset(get_args(Kind))


def _names(value: object, what: str) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidPrincipalError(f"{what} must be a collection of str, got {type(value).__name__}.", field=what)
    return frozenset(check_principal_id(item, what) for item in value)


def _attributes(value: Mapping[str, object]) -> Mapping[str, AttributeValue]:
    if not isinstance(value, Mapping):
        raise InvalidPrincipalError("attributes must be a mapping.", field="attributes")
    frozen: dict[str, AttributeValue] = {}
    for key in value:
        if not isinstance(key, str) or not key:
            raise InvalidPrincipalError("The name of an attribute must be a non-empty string.", field="attributes")
        name = _text(key, "The name of an attribute")
        frozen[name] = _attribute(name, value[key])
    return MappingProxyType(frozen)


def _attribute(name: str, value: object) -> AttributeValue:
    """Return *value* as exactly one of the types of a claim: a subclass could define its own equality."""
    value = native(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, f"The attribute {name!r}")
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = list(value)
        if all(isinstance(one, str) for one in items):
            texts = [_text(one, f"The attribute {name!r}") for one in items]
            return tuple(sorted(texts) if isinstance(value, set | frozenset) else texts)
    raise InvalidPrincipalError(
        f"The attribute {name!r} must be a string, a finite number, a boolean or a list of strings.",
        field="attributes",
    )


@without_context
def _text(value: object, what: str, limit: int = 1 << 16, field: str = "attributes") -> str:
    try:
        return check_text(value, what, limit)
    except InvalidInputError as error:
        raise InvalidPrincipalError(error.message, field=field) from None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Principal:
    """An authenticated user, service, agent or operator of one tenant. Immutable, comparable by value and hashable.

    Args:
        id: The principal's id, kept exactly as given.
        tenant: The id of its tenant, kept exactly as given.
        roles: The names of its roles.
        groups: The names of its groups.
        attributes: Further claims: names with a str, finite number, bool or list of str each.
        kind: "user", "service", "agent" or "operator".
        authenticated_by: How the claims were verified, for example "oidc:https://issuer.example". It appears in the
            audit record of every decision.
        expires_at: A POSIX time in seconds or an aware datetime; from then on every operation is denied.

    Raises:
        InvalidPrincipalError: A field has the wrong form.
        InvalidTenantError: *tenant* is not a tenant id.
    """

    id: str
    tenant: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    kind: Kind = "user"
    authenticated_by: str = field(kw_only=True)
    expires_at: float | None = None
    _key: tuple[object, ...] = field(init=False)
    _hash: int = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "id", check_principal_id(self.id))
        put(self, "tenant", check_tenant(self.tenant))
        put(self, "roles", _names(self.roles, "roles"))
        put(self, "groups", _names(self.groups, "groups"))
        put(self, "attributes", _attributes(self.attributes))
        if not isinstance(self.kind, str) or plain(self.kind) not in _KINDS:
            raise InvalidPrincipalError(f"kind must be one of {', '.join(sorted(_KINDS))}.", field="kind")
        put(self, "kind", plain(self.kind))
        if not isinstance(self.authenticated_by, str) or not plain(self.authenticated_by).strip():
            raise InvalidPrincipalError(
                "authenticated_by must state how this principal was verified, for example 'oidc:https://issuer'.",
                field="authenticated_by",
            )
        by = _text(self.authenticated_by, "authenticated_by", 1024, "authenticated_by")
        put(self, "authenticated_by", by)
        put(self, "expires_at", _expiry(self.expires_at))
        # The types are part of the key: True, 1 and 1.0 are equal in Python but different claims.
        claims = tuple((name, type(value).__name__, value) for name, value in sorted(self.attributes.items()))
        key = (
            self.id,
            self.tenant,
            self.roles,
            self.groups,
            claims,
            self.kind,
            self.authenticated_by,
            self.expires_at,
        )
        put(self, "_key", key)
        put(self, "_hash", hash(key))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Principal) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        # Attributes may hold personal data, so only their names are shown.
        names = f", attributes of {sorted(self.attributes)}" if self.attributes else ""
        return f"Principal({self.id!r} of tenant {self.tenant!r}, {self.kind}, by {self.authenticated_by!r}{names})"

    def __reduce__(self) -> tuple[object, ...]:
        # A pickle would turn bytes into a principal without verification.
        raise InvalidPrincipalError("A principal cannot be serialised; verify the claims again where they are used.")

    def expired(self, now: float) -> bool:
        """Return whether the principal has expired.

        Args:
            now: The time in POSIX seconds.

        Returns:
            True at and after `expires_at`.
        """
        return self.expires_at is not None and now >= self.expires_at

    @classmethod
    def service(cls, id: str, tenant: str, reason: str) -> Principal:  # noqa: A002 - the field's own name
        """Create a principal for a job (ingestion, migration) that acts without a person's token.

        Args:
            id: The principal's id.
            tenant: The id of its tenant.
            reason: A sentence for the readers of the audit records.

        Returns:
            A principal of the kind "service".

        Raises:
            InvalidPrincipalError: An argument has the wrong form, or the reason is blank.
            InvalidTenantError: *tenant* is not a tenant id.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise InvalidPrincipalError("A service principal requires a reason, as a sentence.", field="reason")
        return cls(id, tenant, kind="service", authenticated_by=f"service: {reason.strip()}")


def _expiry(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidPrincipalError("expires_at must be an aware datetime or POSIX seconds.", field="expires_at")
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise InvalidPrincipalError("expires_at must be an aware datetime or POSIX seconds.", field="expires_at")
    return float.__float__(float(value))


def check_principal(value: object) -> Principal:
    """Return *value* if it is exactly a Principal; no other type is converted. Raises: InvalidPrincipalError."""
    if type(value) is not Principal:
        raise InvalidPrincipalError(
            f"A Principal is required, got {type(value).__name__}. Create one from verified claims; it is never "
            "derived from a string, a dict or a header.",
        )
    return value
