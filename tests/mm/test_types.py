"""The values that go to a model: what they take, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mm.errors import UserError
from mm.types import Sampling, ToolSpec


@pytest.mark.parametrize(
    ("given", "read"),
    [
        pytest.param({"max_tokens": 64.0}, {"max_tokens": 64}, id="a whole float of tokens"),
        pytest.param({"top_k": 50.0}, {"top_k": 50}, id="a whole float of candidates"),
        pytest.param({"seed": -3.0}, {"seed": -3}, id="a whole float of a seed"),
        pytest.param({"max_thought_tokens": 8.0}, {"max_thought_tokens": 8}, id="of thought"),
        pytest.param({"stop": "red"}, {"stop": ("red",)}, id="one stop string"),
        pytest.param({"stop": ["a", "b"]}, {"stop": ("a", "b")}, id="a list of them"),
        pytest.param({"stop": None}, {"stop": ()}, id="none, as clients may say"),
        pytest.param({"stop": ""}, {"stop": ()}, id="nothing to stop at"),
    ],
)
def test_sampling_reads_what_is_meant(given: dict[str, Any], read: dict[str, Any]) -> None:
    sampling = Sampling(**given)
    assert sampling == Sampling(**read)
    assert {name: type(getattr(sampling, name)) for name in read} == {
        name: type(value) for name, value in read.items()
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 64.5),
        ("max_tokens", float("inf")),
        ("max_tokens", None),
        ("max_tokens", "64"),
        ("top_k", 0.5),
        ("seed", 1.5),
        ("seed", float("nan")),
        ("max_thought_tokens", 2.5),
    ],
)
def test_what_is_counted_is_whole(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{name} must be a whole number, got {value}$"):
        Sampling(**{name: value})


@dataclass(frozen=True)
class OwnTool(ToolSpec):
    """A tool that knows more than a client is told."""

    run: Any = None


@pytest.mark.parametrize("kind", [ToolSpec, OwnTool])
def test_a_tool_is_as_clients_write_it(kind: type[ToolSpec]) -> None:
    function = {"name": "see", "description": "Look.", "parameters": {"type": "object"}}
    assert kind(**function).json == {"type": "function", "function": function}
