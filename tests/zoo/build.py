"""What a case of the zoo is: a tiny random model, its inputs, and what of its answer counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

VOCAB_SIZE = 64
IMAGE = 16
"""Pixels per side of the images."""

Inputs = Callable[[int, int], dict[str, Tensor]]
"""(rows, tokens) -> model inputs; the second is ignored by models that see no text."""


@dataclass(frozen=True)
class Case:
    """One model of the zoo.

    Args:
        build: makes the model, random and in evaluation mode, the same one every time.
        inputs: makes inputs; texts are padded in some rows where the model takes a mask.
        generates: whether `generate` and caches are tried, too.
        kinds: unit kinds its table must find, one that finds less fails; sub-layers follow.
    """

    build: Callable[[], Any]
    inputs: Inputs
    kinds: tuple[str, ...]
    generates: bool = False

    @property
    def sublayers(self) -> tuple[str, ...]:
        """Kinds of whole sub-layers it must have: none where a router gives out all channels."""
        channels = {"ffn_channel", "expert_channel"}
        attention = ("attention",) if set(self.kinds) - channels else ()
        return (*attention, "ffn") if "ffn_channel" in self.kinds else attention


def make(architecture: str, config: Any, *, scale: float = 0.15) -> Any:
    """A model of that class with random weights large enough that every cut shows.

    Args:
        architecture: class name in transformers, `"BertModel"`.
        config: its config; biases and norms become random, too.
        scale: standard deviation of all weights.
    """
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, architecture)(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # The module's own name counts, not its parents': "roberta_prelayernorm.encoder...".
                owner = name.lower().rpartition(".")[0].rpartition(".")[-1]
                norm = "norm" in owner or owner == "ln" or owner.startswith("ln_")
                centre = 1.0 if norm and name.endswith("weight") else 0.0
                parameter.normal_(centre, scale)
    return model.eval()


def text(rows: int, tokens: int, *, mask: bool = True, side: str = "right") -> dict[str, Tensor]:
    """Token ids and an attention mask that pads every second row."""
    generator = torch.Generator().manual_seed(rows * 100 + tokens)
    ids = torch.randint(4, VOCAB_SIZE, (rows, tokens), generator=generator)
    if not mask:
        return {"input_ids": ids}
    real = torch.ones(rows, tokens, dtype=torch.int64)
    for row in range(1, rows, 2):
        cut = tokens // 3
        real[row, slice(tokens - cut, tokens) if side == "right" else slice(0, cut)] = 0
    return {"input_ids": ids, "attention_mask": real}


def images(
    rows: int, tokens: int = 0, *, size: int = IMAGE, channels: int = 3
) -> dict[str, Tensor]:
    """Pixel values."""
    generator = torch.Generator().manual_seed(rows)
    return {"pixel_values": torch.randn(rows, channels, size, size, generator=generator)}


def answers(output: Any) -> dict[str, Tensor]:
    """Every floating tensor of a model's output by name, caches left out."""
    found: dict[str, Tensor] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                found[name] = value
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if "past_key_values" not in str(key):
                    collect(f"{name}.{key}", item)
        elif isinstance(value, tuple | list):
            for index, item in enumerate(value):
                collect(f"{name}.{index}", item)

    collect("", output)
    assert found, "the model answers nothing"
    return found


def furthest(found: Any, expected: Any, mask: Tensor | None = None) -> float:
    """Largest difference of all answers at positions that are no padding, relative to the largest
    answer where that is above one."""
    left, right = answers(found), answers(expected)
    assert left.keys() == right.keys()
    worst = 0.0
    for name, value in left.items():
        one, other = value, right[name]
        if mask is not None and one.shape[: mask.ndim] == mask.shape:
            one, other = one[mask.bool()], other[mask.bool()]
        assert torch.isfinite(other).all(), name
        if one.numel():
            scale = max(1.0, float(other.abs().max()))
            worst = max(worst, float((one - other).abs().max()) / scale)
    return worst
