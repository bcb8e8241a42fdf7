"""What the trajectory score costs as it was released: one forward pass for every unit.

    python -m benchmarks.optin_naive [--models minilm,vit] [--candidates 16]

The loop is written down from a description of the released procedure (OPTIN, arXiv 2403.17921) and
keeps what makes it slow, so that faster ways to the same score have something to be compared with:

- hooks are registered again for every candidate, the mask's and those that keep features;
- every pass is a whole pass, whatever layer the candidate is in;
- per later layer K rows of the features are drawn at random, on every call anew, so the Gram
  matrices of the dense model are formed again, too;
- losses are read as numbers for every candidate, which waits for the device.

With features F_z of dense (t) and masked (s) model, rows normalised to length 1, the score is

    sum over z of ||F_t F_t^T - F_s F_s^T||_F^2   and   T^2 sum_b KL(softmax(y_b) || softmax(y'_b)),

with T = 4 outside the softmax only, as released. z runs over the layers behind the candidate's, and
over the last layer itself for its own units. Features are what the release hooked: the second FFN
map's output in BERT, the norm in front of each block in ViT. Candidates are whole heads and FFN
channels; the released multipliers of scores cost nothing and are left out.

Only a sample of candidates is timed, evenly over layers, and the total is extrapolated.

Shapes: B samples, n tokens, d features, K rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

ROWS = 768
TEMPERATURE = 4.0
BATCHES = {"minilm": 128, "vit": 32}  # samples of the released language and vision runs
FEATURES = {"bert": "{layer}.output.dense", "vit": "{layer}.layernorm_before"}
KINDS = ("head", "ffn_channel")


@dataclass(frozen=True, kw_only=True)
class NaiveTiming:
    """What a candidate costs on average, and all of them.

    Args:
        seconds: kind -> mean wall seconds of one candidate.
        candidates: kind -> how many there are in the model.
        timed: kind -> how many of those were timed.
        losses: (group, unit) -> relation and divergence terms of the timed ones.
    """

    seconds: Mapping[str, float]
    candidates: Mapping[str, int]
    timed: Mapping[str, int]
    losses: Mapping[tuple[str, int], tuple[float, float]]

    @property
    def total_seconds(self) -> float:
        """All candidates, extrapolated."""
        return sum(self.seconds[kind] * self.candidates[kind] for kind in self.seconds)


def naive_seconds_per_candidate(
    model: Any,
    batch: Any,
    *,
    task: Any,
    structure: Any,
    candidates: int = 16,
    rows: int = ROWS,
    seed: int = 0,
) -> NaiveTiming:
    """Time the naive loop on some candidates of each kind.

    Args:
        model: a BERT-like or ViT-like classifier.
        batch: the calibration batch, `Samples`.
        task: its task.
        structure: its structure.
        candidates: how many of each kind to time, evenly over the layers.
        rows: K, rows of the features drawn at every call.
        seed: of those draws and of which units are timed.

    Returns:
        Mean seconds by kind, and the losses found.
    """
    import torch

    from prunepath.evaluation.mode import evaluating

    seconds: dict[str, float] = {}
    timed: dict[str, int] = {}
    losses: dict[tuple[str, int], tuple[float, float]] = {}
    with evaluating(model):
        loop = NaiveLoop(model, batch, task, structure, rows=rows, seed=seed)
        for kind in KINDS:
            draw = torch.Generator().manual_seed(seed)
            chosen = _chosen(structure.of_kind(kind), candidates, draw)
            loop.losses(*chosen[0])  # a warm-up
            start = time.perf_counter()
            for group, unit in chosen:
                losses[group.name, unit] = loop.losses(group, unit)
            seconds[kind] = (time.perf_counter() - start) / len(chosen)
            timed[kind] = len(chosen)
    counts = {kind: sum(g.num_units for g in structure.of_kind(kind)) for kind in KINDS}
    return NaiveTiming(seconds=seconds, candidates=counts, timed=timed, losses=losses)


class NaiveLoop:
    """The dense model's features and logits on one batch, and the losses of masked units."""

    def __init__(
        self, model: Any, batch: Any, task: Any, structure: Any, *, rows: int = ROWS, seed: int = 0
    ) -> None:
        import torch

        self._model, self._task, self._structure = model, task, structure
        self._rows, self._generator = rows, torch.Generator().manual_seed(seed)
        self._inputs = batch.to(next(model.parameters()).device)
        self._features = feature_modules(model, structure)
        self._dense: dict[int, Any] = {}
        with _keeping(model, self._features, self._dense):
            self._answers = task.output(model, self._inputs)

    def losses(self, group: Any, unit: int | None) -> tuple[float, float]:
        """Relation and divergence terms of one unit, by a whole pass with it masked.

        Args:
            group: its group.
            unit: which; None masks nothing.
        """
        import torch

        from prunepath.structure.gates import gated

        gate = torch.ones(group.num_units)
        if unit is not None:
            gate[unit] = 0.0
        own: dict[int, Any] = {}
        masked = gated(self._model, self._structure, {group.name: gate})
        with masked, _keeping(self._model, self._features, own):
            answers = self._task.output(self._model, self._inputs)
        last = len(self._features) - 1
        relation = sum(
            relation_loss(self._dense[z], own[z], self._generator, self._rows)
            for z in range(min(group.layer + 1, last), last + 1)
        )
        dense, masked_log = (torch.log_softmax(each, -1) for each in (self._answers, answers))
        divergence = (dense.exp() * (dense - masked_log)).sum().clamp(min=0)
        return relation, float(TEMPERATURE**2 * divergence)


def relation_loss(dense: Any, own: Any, generator: Any, rows: int) -> float:
    """||G_t - G_s||_F^2 over K rows drawn at random, the same of both."""
    import torch
    from torch.nn import functional

    flat = [functional.normalize(each, dim=-1).flatten(0, -2) for each in (dense, own)]
    drawn = torch.randperm(len(flat[0]), generator=generator)[:rows].to(flat[0].device)
    teacher, student = (each[drawn] for each in flat)
    return float((teacher @ teacher.T - student @ student.T).square().sum())


def feature_modules(model: Any, structure: Any) -> list[str]:
    """The modules whose outputs are compared, layer by layer.

    Raises:
        SystemExit: no release exists for models of that kind.
    """
    pattern = FEATURES.get(structure.model_type)
    if pattern is None:
        raise SystemExit(
            f"the loop was released for {' and '.join(FEATURES)}, and this model is "
            f"'{structure.model_type}'"
        )
    layers = dict.fromkeys(place.layer_path for place in structure.places)
    names = [pattern.format(layer=layer) for layer in layers]
    for name in names:
        model.get_submodule(name)
    return names


@contextmanager
def _keeping(model: Any, features: Sequence[str], kept: dict[int, Any]) -> Iterator[None]:
    """Hooks on every feature module, new ones each time."""
    with ExitStack() as stack:
        for index, name in enumerate(features):

            def keep(_: Any, __: Any, output: Any, index: int = index) -> None:
                kept[index] = output.detach()

            stack.callback(model.get_submodule(name).register_forward_hook(keep).remove)
        yield


def _chosen(groups: Sequence[Any], count: int, generator: Any) -> list[tuple[Any, int]]:
    """Units evenly over the layers."""
    import torch

    total = sum(group.num_units for group in groups)
    chosen = []
    for index in range(min(count, total)):
        group = groups[index * len(groups) // min(count, total)]
        chosen.append((group, int(torch.randint(group.num_units, (), generator=generator))))
    return chosen


def main(arguments: list[str]) -> None:
    """Time the loop on real models and show what all candidates would take."""
    from benchmarks.models import MODELS, chosen
    from prunepath.api.discovery import discover_for
    from prunepath.checkpoint.source import open_model
    from prunepath.tasks.task import DataRequest

    parser = argparse.ArgumentParser(prog="python -m benchmarks.optin_naive", description=__doc__)
    parser.add_argument("--models", default=",".join(BATCHES))
    parser.add_argument("--candidates", type=int, default=16)
    options = parser.parse_args(arguments)
    for name in chosen(options.models):
        if name not in BATCHES:
            raise SystemExit(f"the loop is timed on {', '.join(BATCHES)}, not on '{name}'")
        real = MODELS[name]
        opened = open_model(real.folder(), task=real.task, dtype="float32")
        request = DataRequest(count=BATCHES[name])
        batch = opened.task.samples(opened, real.data(real.calibration), request)
        structure = discover_for(opened.model, opened.task, proven=False)
        timing = naive_seconds_per_candidate(
            opened.model,
            batch,
            task=opened.task,
            structure=structure,
            candidates=options.candidates,
        )
        for kind, seconds in timing.seconds.items():
            print(
                f"{real.title}, {kind}: {1e3 * seconds:.1f} ms a candidate "
                f"({timing.timed[kind]} of {timing.candidates[kind]} timed)"
            )
        print(f"{real.title}: {timing.total_seconds:.0f} s for all candidates, extrapolated")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
