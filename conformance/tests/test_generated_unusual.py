"""Generated unusual adapters: between them they declare everything that can be declared."""

from __future__ import annotations

from typing import Any

import pytest

from vectoracl.adapter_api.contract import Capabilities, OpenContext
from vectoracl.memory.config import MemoryConfig
from vectoracl.memory.plugin import vectoracl_open
from vectoracl_conformance.harnesses.generated_unusual import Unusual, declarable, unusual, values_of

ALL = {one.name: one for one in unusual()}


def opened(one: Unusual) -> Any:
    names: dict[str, Any] = {}
    exec(compile(one.source, "<adapter>", "exec"), names)
    config = MemoryConfig(dimension=3, metric=one.metric)
    return names["dress"](vectoracl_open(config, OpenContext("main", {}, ".")))


@pytest.mark.parametrize("name", ALL)
def test_each_opens(name: str) -> None:
    assert isinstance(opened(ALL[name]).adapter.capabilities, Capabilities)
    assert "conformance" not in ALL[name].source


def test_each_value_that_can_be_declared_is_declared() -> None:
    able = [opened(one).adapter.capabilities for one in ALL.values()]
    assert not [name for name, test in declarable().items() if not any(map(test, able))]


def test_a_new_kind_of_capability_has_to_be_declared() -> None:
    with pytest.raises(TypeError, match="precision"):
        values_of("precision", complex, 1j)
