"""A real model opened once, the paths searched on it, and its cuts measured on all its samples.

Methods share one pass of statistics for every seed, as in a comparison, and rank the same samples.
A seed draws the samples, the rows and probes of OPTIN, and the label-free gradients. Samples for
evaluation are prepared once and kept with the dense model's answers, longest texts last, so that
no batch is padded to more than it needs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.models import MODELS, RealModel
from benchmarks.protocol import OUT

__all__ = ["Ground", "search_counts"]

# Fewer than a search takes by default: OPTIN scores 32 of them, and every seed has a pass.
COUNTS = {
    "vit": {"windows": 128, "refit": 128, "holdout": 32, "moments": 128},
    "minilm": {"windows": 256, "refit": 128, "holdout": 64, "moments": 512},
}
_TINY = {"windows": 4, "refit": 4, "holdout": 2, "moments": 4}
_TINY_OPTIN = {"samples": 2, "probes": 1, "tokens": 16, "mode": "gn"}


def search_counts(name: str, *, tiny: bool = False) -> dict[str, int]:
    """How many samples the parts of a search take on one model."""
    return _TINY if tiny else COUNTS[name]


class Ground:
    """One real model.

    Args:
        name: short name.
        tiny: so few samples and probes that a benchmark can be tried out.
    """

    def __init__(self, name: str, *, tiny: bool = False) -> None:
        from prunepath.api.calibration import DenseModel
        from prunepath.api.discovery import discover_for
        from prunepath.checkpoint.source import fingerprint, open_model

        self.real: RealModel = MODELS[name]
        opened = open_model(self.real.folder(), task=self.real.task, dtype="float32")
        self.dense = DenseModel(
            opened=opened,
            weights=fingerprint(opened.model),
            structure=discover_for(opened.model, opened.task, proven=False),
        )
        self.counts = search_counts(name, tiny=tiny)
        self._config = _TINY_OPTIN if tiny else {}
        self._evaluation = 16 if tiny else None
        self._folder = OUT / ("tiny" if tiny else "optin") / self.real.title

    def paths(self, seed: int, methods: Sequence[str]) -> dict[str, Any]:
        """The paths of some methods on the same samples, searched where they are not yet.

        Args:
            seed: of everything that is drawn.
            methods: registered names.
        """
        from prunepath.api.calibration import read_calibration
        from prunepath.api.plan import Plan
        from prunepath.api.recipes import find_recipe
        from prunepath.api.shared_search import SharedSearch

        calibration = read_calibration(
            self.dense,
            self.real.data(self.real.calibration),
            plan=Plan.of(self.dense.opened.task, **self.counts),
            objective="kl",
            seed=seed,
        )
        search = SharedSearch(calibration, self._folder / "passes", None)
        recipes = {name: find_recipe(name) for name in methods}
        if "optin" in recipes:
            recipes["optin"] = replace(recipes["optin"], config=self._config)
        targets = {name: self._folder / f"{name}-{seed}" for name in methods}
        for name, recipe in recipes.items():
            search.expect(recipe, targets[name])
        found = {}
        for name, recipe in recipes.items():
            start = time.perf_counter()
            found[name], taken = search.find(recipe, targets[name])
            print(
                f"{self.real.title}: path of {name}, seed {seed}, "
                f"{time.perf_counter() - start:.0f} s now, ranking {taken.ranking_seconds:.0f} s",
                flush=True,
            )
        return found

    def kept(self, path: Any, budget: str, **options: Any) -> dict[str, list[float]]:
        """Share of the units kept in every layer, by kind; of kinds that lost some.

        Args:
            path, budget, options: see `made`.
        """
        from prunepath.allocation.budget import Budget
        from prunepath.api.workshop import Workshop

        shop = Workshop(path, sequence_length=self.real.tokens, **options)
        selection = shop.allocate(Budget.parse("macs", budget)).selection
        shares = {
            kind: [float(selection.of(group).mean()) for group in path.structure.of_kind(kind)]
            for kind in path.structure.kinds
        }
        return {kind: found for kind, found in shares.items() if min(found) < 1}

    def made(self, path: Any, budget: str, **options: Any) -> dict[str, Any]:
        """Cut one size in memory and measure it.

        Args:
            path: a path of this model.
            budget: MACs kept, like `"60%"`.
            options: of `api.workshop.Workshop`.
        """
        from prunepath.allocation.budget import Budget
        from prunepath.api.workshop import Workshop

        shop = Workshop(path, sequence_length=self.real.tokens, **options)
        shop.open(self.dense.opened.model, tokenizer=False)
        start = time.perf_counter()
        made = shop.make(Budget.parse("macs", budget))
        seconds = time.perf_counter() - start
        allocation = made.allocation
        return {
            "kept_macs": allocation.cost.macs / allocation.dense.macs,
            "kept_params": allocation.cost.params / allocation.dense.params,
            **self.quality(made.model),
            "extract_seconds": round(seconds, 2),
        }

    def quality(self, model: Any) -> dict[str, Any]:
        """Accuracy in percent, and mean distance to the dense answers in nats."""
        import torch

        from prunepath.evaluation.mode import evaluating
        from prunepath.tasks.scores import accuracy

        task, samples, dense = self.dense.opened.task, *self._samples
        answers, distance, start = [], 0.0, 0
        with evaluating(model):
            for batch in _batches(samples, task.counts.batch):
                own = task.output(model, batch.inputs)
                theirs = dense[start : start + len(batch)]
                distance += len(batch) * float(task.distance(own, theirs, batch))
                answers.append(own)
                start += len(batch)
        predicted = torch.cat(answers).argmax(-1)
        return {
            "value": accuracy(predicted, samples.labels),
            "distance": distance / len(samples),
            "samples": len(samples),
        }

    @cached_property
    def _samples(self) -> tuple[Any, Any]:
        """The samples with labels, and the dense answers to them."""
        import torch
        from safetensors.torch import load_file, save_file

        from prunepath.data.samples import Samples

        source = self.real.data(self.real.evaluation)
        stat = source.stat()
        key = json.dumps([stat.st_size, stat.st_mtime, self.dense.weights, self._evaluation])
        file = OUT / "evaluation" / f"{self.real.title}-{_short(key)}.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            samples, answers = self._prepared(source)
            tensors = {f"inputs.{name}": value for name, value in samples.inputs.items()}
            half = file.with_suffix(".partial")
            save_file({**tensors, "labels": samples.labels, "answers": answers}, half)
            half.rename(file)
        kept = load_file(file)
        answers, labels = kept.pop("answers"), kept.pop("labels")
        inputs = {name.removeprefix("inputs."): value for name, value in kept.items()}
        assert torch.isfinite(answers).all()
        return Samples(inputs=inputs, labels=labels, description=str(source)), answers

    def _prepared(self, source: Path) -> tuple[Any, Any]:
        import torch

        from prunepath.evaluation.mode import evaluating
        from prunepath.tasks.task import DataRequest

        opened = self.dense.opened
        request = DataRequest(count=self._evaluation, labels=True)
        samples = opened.task.samples(opened, source, request)
        mask = samples.inputs.get("attention_mask")
        if mask is not None:
            samples = samples.chosen(mask.sum(1).sort(stable=True).indices.tolist())
        with evaluating(opened.model):
            answers = [
                opened.task.output(opened.model, batch.inputs)
                for batch in _batches(samples, opened.task.counts.batch)
            ]
        return samples, torch.cat(answers)


def _batches(samples: Any, size: int) -> list[Any]:
    from prunepath.methods.optin.batching import trimmed

    return [trimmed(batch) for batch in samples.batches(size)]


def _short(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:10]
