"""How much of the ideal speed-up a cut model reaches, end to end at its task's usual shape.

    python -m benchmarks task_speed [--models vit,minilm,smollm2] [--order even] [--rounds 15]

40% of the MACs of the blocks are removed. Dense model, cut model and the dense model without its
layers (embeddings and head, which are never cut) take turns in one process. The time of the blocks
is the total less that of the model without layers, and their ideal speed-up is that of their MACs.

Speed hardly depends on which units went, but on how many of each kind. The order `even` needs no
search: damage is random and in proportion to cost, so every kind and layer loses about as much.
The name of a method takes its path from the other benchmarks instead, searched where it is not yet.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.models import MODELS
from benchmarks.protocol import Rows, opened

REMOVED = 0.4  # of the MACs of the blocks
# short name -> (samples at once, tokens of each; None: images)
SHAPES: dict[str, tuple[int, int | None]] = {
    "vit": (16, None),
    "minilm": (32, 64),
    "smollm2": (1, 512),
}
LAYOUTS = (("uniform", 8), ("uniform", 16), ("per-layer", 8), ("per-layer", 16))
WARM_UPS = 2


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks task_speed", description=__doc__)
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--order", default="even", help="'even', or a method whose path to cut")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    rows = Rows("task_speed")
    for name in options.models.split(","):
        if name not in SHAPES:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(SHAPES)}")
        _model(rows, name, options.order, options.rounds)


def _model(rows: Rows, name: str, order: str, rounds: int) -> None:
    import torch

    title = MODELS[name].title if name in MODELS else "SmolLM2-135M-Instruct"
    key = {"model": title, "order": order, "threads": torch.get_num_threads()}
    missing = [
        (layout, multiple)
        for layout, multiple in LAYOUTS
        if not rows.has(layout=layout, multiple=multiple, **key)
    ]
    if not missing:
        return
    dense = _Dense.open(name)
    path = dense.even_path() if order == "even" else dense.searched_path(order)
    for layout, multiple in missing:
        row = {
            "layout": layout,
            "multiple": multiple,
            **dense.measure(path, layout, multiple, rounds),
        }
        rows.add({**key, **row})


@dataclass(frozen=True, kw_only=True)
class _Dense:
    """A dense model, what it is without its layers, and the samples both are timed on."""

    name: str
    model: Any
    rest: Any
    task: Any
    structure: Any
    samples: int
    tokens: int | None

    @classmethod
    def open(cls, name: str) -> _Dense:
        from torch import nn

        from prunepath.api.discovery import discover_for
        from prunepath.checkpoint.source import open_model

        if name in MODELS:
            found = open_model(MODELS[name].folder(), task=MODELS[name].task, dtype="float32")
        else:
            found = opened()
        structure = discover_for(found.model, found.task, proven=False)
        layers = [found.model.get_submodule(stack.path) for stack in structure.stacks]
        # A copy that finds its layers copied already, as empty lists.
        rest = copy.deepcopy(found.model, {id(each): nn.ModuleList() for each in layers})
        samples, tokens = SHAPES[name]
        return cls(
            name=name,
            model=found.model,
            rest=rest,
            task=found.task,
            structure=structure,
            samples=samples,
            tokens=tokens,
        )

    @property
    def length(self) -> int:
        """Tokens that MACs are counted over; they say nothing about images."""
        return self.tokens or 1

    def even_path(self) -> Any:
        """A seeded random order in which every kind and layer loses about as much."""
        import numpy as np

        from prunepath.methods.method import Ranking, total_order
        from prunepath.path import Provenance, SolutionPath
        from prunepath.structure.cost import unit_cost

        draw = np.random.default_rng(0)
        damage = {
            group.name: draw.uniform(0.5, 1.5, group.num_units)
            * unit_cost(self.structure, group, self.length).macs
            for group in self.structure.groups
        }
        made = Provenance(
            method="even",
            method_config={},
            model_id=self.name,
            model_fingerprint="",
            data="none",
            data_fingerprint="",
            objective="kl",
            seed=0,
            library_version="",
            tokens=0,
        )
        order = total_order(self.structure, Ranking(damage=damage))
        return SolutionPath(structure=self.structure, **order, provenance=made)

    def searched_path(self, method: str) -> Any:
        """The path of a method that the benchmarks of quality cut."""
        from benchmarks import quality, tasks
        from prunepath.path import SolutionPath

        if self.name in MODELS:
            real = MODELS[self.name]
            folder, _ = tasks.path_folder(real, method, **tasks.search_counts(real))
        else:
            folder, _ = quality.path_folder(method, {})
        return SolutionPath.from_pretrained(folder)

    def measure(self, path: Any, layout: str, multiple: int, rounds: int) -> dict[str, Any]:
        """Cut one size and time it in turns with the dense model."""
        from prunepath.allocation.allocate import allocate
        from prunepath.allocation.budget import Budget
        from prunepath.allocation.steps import StepOptions
        from prunepath.structure.cost import cost_of
        from prunepath.structure.selection import everything
        from prunepath.surgery.cut import cut

        structure = path.structure
        total = cost_of(structure, everything(structure), self.length).macs
        fixed = sum(
            factor * self.length**power for power, factor in enumerate(structure.fixed_macs)
        )
        blocks = total - fixed
        allocation = allocate(
            path,
            Budget(metric="macs", limit=total - REMOVED * blocks),
            StepOptions(layout=layout, multiple=multiple, sequence_length=self.length),
        )
        removed = (total - allocation.cost.macs) / blocks
        smaller = cut(self.model, structure, allocation.selection)
        models = {"dense": self.model, "cut": smaller, "rest": self.rest}
        seconds = self._seconds(models, rounds)
        ideal = 1 / (1 - removed)
        turns = list(zip(seconds["dense"], seconds["cut"], seconds["rest"], strict=True))
        blocks_faster = statistics.median((d - r) / (c - r) for d, c, r in turns)
        return {
            "samples": self.samples,
            "tokens": self.tokens,
            "rounds": rounds,
            "block_macs": round(blocks),
            "removed": removed,
            **{f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()},
            "speedup": statistics.median(d / c for d, c, _ in turns),
            "block_speedup": blocks_faster,
            "ideal": ideal,
            "share": blocks_faster / ideal,
        }

    def _seconds(self, models: Mapping[str, Any], rounds: int) -> dict[str, list[float]]:
        """Wall seconds of every model in every round."""
        from prunepath.evaluation.mode import evaluating

        inputs = self.task.dummy(self.model, self.samples, window=self.tokens).inputs
        taken: dict[str, list[float]] = {name: [] for name in models}
        with evaluating(*models.values()):
            for turn in range(WARM_UPS + rounds):
                for name, model in models.items():
                    start = time.perf_counter()
                    self.task.output(model, inputs)
                    if turn >= WARM_UPS:
                        taken[name].append(time.perf_counter() - start)
        return taken
