"""Tiny models of several families with their tasks, and scores found the plain way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.methods.method import SearchContext
from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.features import reading
from prunepath.methods.optin.scene import Scene
from prunepath.statistics.sums import Statistics
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen, gated
from prunepath.tasks import TASKS
from tests.zoo.build import Inputs, images, text
from tests.zoo.models import CASES
from tests.zoo.models.decoders import GROUPS, decoder

TOKENS = 9


def llama() -> Any:
    return decoder("Llama", **GROUPS)


def two_texts(rows: int, tokens: int) -> dict[str, Tensor]:
    """A padded source and a padded target of another length, both masked."""
    target = text(rows, tokens - 2)
    return {**text(rows, tokens), **{f"decoder_{key}": value for key, value in target.items()}}


# Name -> what builds it, what makes its inputs, its task: one line a family.
MODELS: dict[str, tuple[Callable[[], Any], Inputs, str]] = {
    "llama": (llama, CASES["gpt2"].inputs, "causal-lm"),
    "bert": (CASES["bert-classifier"].build, text, "text-classification"),
    "vit": (CASES["vit-classifier"].build, images, "image-classification"),
    "t5": (CASES["t5"].build, two_texts, "seq2seq-lm"),
    "swin": (CASES["swin-padded"].build, images, "image-classification"),
    "albert": (CASES["albert-groups"].build, text, "masked-lm"),
    "gpt2": (CASES["gpt2"].build, CASES["gpt2"].inputs, "causal-lm"),
    "mixtral": (CASES["mixtral"].build, CASES["mixtral"].inputs, "causal-lm"),
    "clip": (CASES["clip"].build, CASES["clip"].inputs, "image-text"),
}


@cache
def context(name: str, double: bool = False, samples: int = 3) -> SearchContext:
    """What a method sees of a model; nothing of it may be changed."""
    build, inputs, task = MODELS[name]
    model = build().double() if double else build()

    def batch(rows: int, tokens: int) -> dict[str, Tensor]:
        dtype = next(model.parameters()).dtype
        found = inputs(rows, tokens)
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in found.items()}

    return SearchContext(
        model=model,
        structure=discover(model, probe=lambda length: model(**batch(1, length))),
        statistics=Statistics(),
        task=TASKS[task],
        samples=Samples(inputs=batch(samples, TOKENS)),
    )


def scene(name: str, *, double: bool = False, **settings: Any) -> Scene:
    """The scene of a model; few tokens a pass, so that several passes are needed."""
    found = context(name, double)
    config = OptinConfig(**{"candidates_tokens": 500, **settings})
    with frozen(found.model):
        return Scene.of(found, config)


def changed(found: Scene, **changes: Any) -> Scene:
    """The same scene in another context."""
    return replace(found, context=replace(found.context, **changes))


def plain_scores(found: Scene, group: str, unit: int) -> tuple[np.ndarray, float]:
    """L_MD at every feature and the answer's distance, by the definition: one plain gate, one full
    pass, Gram matrices formed and subtracted in float64."""
    there, structure = found.context, found.context.structure
    gate = torch.ones(structure.groups_by_name[group].num_units)
    gate[unit] = 0
    inputs = found.samples.inputs
    runs = []
    with torch.no_grad(), frozen(there.model):
        for gates in ({}, {group: gate}):
            with (
                gated(there.model, structure, gates),
                reading(there.model, found.trajectory.sites) as features,
            ):
                answer = there.task.output(there.model, inputs)
            grams = []
            for index, feature in enumerate(features):
                rows = found.rows.rows(index, feature.double())
                grams.append(rows @ rows.T)
            runs.append((grams, answer))
    (dense, before), (without, after) = runs
    md = np.array([float((a - b).square().sum()) for a, b in zip(without, dense, strict=True)])
    return md, float(there.task.distance(after.double(), before.double(), found.samples))
