"""The size expressions of family tables."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.sizes import evaluate

CONFIG = SimpleNamespace(heads=6, rope={"factor": 0.75}, model_type="toy")


class Toy(nn.Module):
    """A module with a width and a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 10
        self.proj = nn.Linear(12, 24)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("config.heads", 6),
        (".width", 10),
        ("proj.out // proj.in", 2),
        ("proj.out // config.heads // 2", 2),
        (".width * config.rope.factor // 2", 3),
        ("proj.in - 2 * half + 1", 7),
    ],
)
def test_expressions(text: str, value: int) -> None:
    assert evaluate(text, Toy(), CONFIG, {"half": 3}) == value


@pytest.mark.parametrize("text", ["config.missing", ".missing", "width.out", "unknown"])
def test_what_is_not_there_is_named(text: str) -> None:
    with pytest.raises(ModelError, match="has no such thing"):
        evaluate(f"2 * {text}", Toy(), CONFIG, {})
