"""A store that differs from its configuration: reported by check with the grade, and refused by provision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from vectoracl import RefusedError, VectorACL
from vectoracl_conformance.adapter_tests.kept_embedder import provision


def findings(config: Mapping[str, Any], ignored: Collection[str] = ()) -> tuple[str, list[str]]:
    """Return the grade of the store of *config* and its findings, without those of the rules *ignored*."""
    with VectorACL({**config, "minimum_grade": "none"}) as acl:
        report = acl.check()["main"]
    return report.grade, [f"{one.subject}: {one.message}" for one in report.findings if one.rule.id not in ignored]


def assert_differs(config: Mapping[str, Any], *words: str, ignored: Collection[str] = ()) -> None:
    """Assert that one finding with all of *words* lowers the grade, and that provision refuses with them."""
    grade, messages = findings(config, ignored)
    assert grade == "none"
    assert any(all(word in one for word in words) for one in messages), messages
    with pytest.raises(RefusedError) as caught:
        provision(config)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert findings(config, ignored) == (grade, messages), "nothing was changed"
