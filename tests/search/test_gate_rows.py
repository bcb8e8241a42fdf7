"""Gate gradients by row say what the sums of a calibration pass say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prunepath.data.samples import Samples
from prunepath.errors import NumericsError
from prunepath.statistics.collect import Wanted
from prunepath.statistics.gate_rows import gate_rows
from prunepath.statistics.run import collect
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen, gated, new_gates
from prunepath.tasks.task import TASKS, Task
from tests.conformance.families import tiny
from tests.tasks.tiny import SHAPE

GRADIENTS = Wanted(gradients=True, moments=False, output_gradients=False)


def classifier() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SHAPE, initializer_range=0.3)).eval()


def albert() -> Any:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    torch.manual_seed(0)
    config = AlbertConfig(**SHAPE, embedding_size=8, initializer_range=0.3)
    return AlbertForSequenceClassification(config).eval()


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "a term per token": (lambda: tiny("Llama"), "causal-lm"),
    "a term per sample": (classifier, "text-classification"),
}


def opened(case: str) -> tuple[Any, Task, Samples]:
    build, name = CASES[case]
    model, task = build(), TASKS[name]
    return model, task, task.dummy(model, 4, window=16)


@pytest.mark.parametrize("case", CASES)
def test_squares_sum_up_to_the_diagonal_of_the_fisher_matrix(case: str, tmp_path: Path) -> None:
    model, task, samples = opened(case)
    structure = discover(model)
    sums = collect(
        *(model, structure, task, samples, GRADIENTS),
        objective="kl",
        seed=3,
        folder=tmp_path,
        output_batches=0,
    )
    found = gate_rows(model, structure, task, samples, structure.groups, seed=3)
    assert set(found) == {group.name for group in structure.groups}
    for group in structure.groups:
        rows = found[group.name]
        # 4 samples are few, so windows are split into tokens: the very terms of the sums.
        assert rows.shape == (4 if task.loss_rows == "sample" else 64, group.num_units)
        expected = sums.mean("fisher", group.name).float()
        torch.testing.assert_close(rows.square().sum(0), expected, rtol=1e-4, atol=1e-9)


def test_a_row_of_a_sample_is_the_gradient_of_its_gates() -> None:
    model, task, samples = opened("a term per sample")
    structure = discover(model)
    found = gate_rows(model, structure, task, samples, structure.groups, seed=0)
    generator = torch.Generator().manual_seed(0)
    gates = new_gates(structure)
    groups = {group.name: gates[group.name] for group in structure.finest_groups}
    with frozen(model), gated(model, structure, groups):
        output = task.output(model, samples.inputs)
        gradient = task.draw(output, samples, "kl", generator)
        for row in range(4):
            only = torch.zeros_like(gradient)
            only[row] = gradient[row]
            truth = torch.autograd.grad(
                output, list(groups.values()), only, retain_graph=True, allow_unused=False
            )
            for name, expected in zip(groups, truth, strict=True):
                torch.testing.assert_close(
                    found[name][row] * 2, expected, rtol=1e-4, atol=1e-7
                )  # divided by the root of 4 samples


def test_layers_that_share_weights_share_their_gates() -> None:
    model, task = albert(), TASKS["text-classification"]
    structure, samples = discover(model), task.dummy(model, 2, window=8)
    group = next(g for g in structure.groups if g.kind == "ffn_channel")
    found = gate_rows(model, structure, task, samples, [group], seed=0)[group.name]
    gate = torch.ones(group.num_units, requires_grad=True)
    with frozen(model), gated(model, structure, {group.name: gate}):
        output = task.output(model, samples.inputs)
        generator = torch.Generator().manual_seed(0)
        gradient = task.draw(output, samples, "kl", generator)
        (truth,) = torch.autograd.grad(output, [gate], gradient)
    torch.testing.assert_close(found.sum(0) * 2**0.5, truth, rtol=1e-4, atol=1e-7)


def test_the_same_seed_gives_the_same_rows() -> None:
    model, task, samples = opened("a term per sample")
    structure = discover(model)
    one, two, other = (
        gate_rows(model, structure, task, samples, structure.groups[:1], seed=seed)
        for seed in (0, 0, 1)
    )
    (name,) = one
    assert torch.equal(one[name], two[name])
    assert not torch.equal(one[name], other[name])


def test_answers_that_are_not_finite_are_refused() -> None:
    model, task, samples = opened("a term per sample")
    structure = discover(model)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(NumericsError, match="calibration batch 0: .* not finite"):
        gate_rows(model, structure, task, samples, structure.groups[:1])
