"""Four tiny random models with a random path each: what every measuring rule is tried on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from prunepath.data.samples import Samples
from prunepath.path import SolutionPath
from prunepath.structure.discover import discover
from prunepath.surgery.experts import unfuse_experts_
from prunepath.tasks import TASKS
from tests.conformance.families import tiny
from tests.conformance.paths import random_path
from tests.zoo.build import make

__all__ = ["MODELS", "Tiny", "ready"]


def _decoder() -> Any:
    return tiny("Llama", attention_bias=True)


def _encoder() -> Any:
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        num_hidden_layers=2,
        max_position_embeddings=64,
        num_labels=3,
    )
    return make("BertForSequenceClassification", config)


def _vision() -> Any:
    from transformers import ViTConfig

    config = ViTConfig(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        num_hidden_layers=2,
        image_size=16,
        patch_size=4,
        num_labels=5,
    )
    return make("ViTForImageClassification", config)


def _experts() -> Any:
    return tiny("Mixtral", num_local_experts=4, num_experts_per_tok=2, intermediate_size=24)


MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "decoder": ("causal-lm", _decoder),
    "encoder": ("text-classification", _encoder),
    "vision": ("image-classification", _vision),
    "experts": ("causal-lm", _experts),
}
"""Name -> its task, and what builds it."""


class Tiny:
    """A model with its task, structure, samples and a random path; to be read, never written."""

    def __init__(self, name: str) -> None:
        task, build = MODELS[name]
        self.task, self.model = TASKS[task], build()
        unfuse_experts_(self.model)
        self.samples: Samples = self.task.dummy(self.model, 4)
        self.structure = discover(
            self.model, probe=lambda length: self.task.output(self.model, self._sample(length))
        )
        self.path: SolutionPath = random_path(self.structure)

    def _sample(self, length: int) -> Any:
        return self.task.dummy(self.model, 1, window=length).to("cpu")


@cache
def ready(name: str) -> Tiny:
    """A model of the table, built once."""
    return Tiny(name)
