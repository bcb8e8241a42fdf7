"""Small exact problems, and brute force answers to them, for the search tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.methods.method import SearchContext
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.sums import Statistics
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen
from prunepath.tasks.causal_lm import CAUSAL_LM

EVERYTHING = Wanted(
    gradients=True,
    moments=True,
    output_gradients=True,
    weights=True,
    influence=True,
    blocks=True,
)


def context_of(model: Any, ids: Tensor, **changes: Any) -> SearchContext:
    """What a method sees of a model after a calibration pass."""
    structure = discover(model)
    samples = Samples(inputs={"input_ids": ids})
    sums = Statistics()
    recorded = recording(model, structure, EVERYTHING, sums, per_sample=False)
    with frozen(model), recorded as recorder:
        for index, window in enumerate(samples.batches(1)):
            generator = torch.Generator().manual_seed(index)
            recorder.begin(window)
            logits = CAUSAL_LM.output(model, window.inputs)
            logits.backward(CAUSAL_LM.draw(logits, window, "kl", generator))
    return SearchContext(
        model=model,
        structure=structure,
        statistics=sums,
        task=CAUSAL_LM,
        samples=samples,
        **changes,
    )


class LinearMap:
    """y = W x with inputs X and output-gradient moment G, everything float64.

    Args:
        owner: unit of every column.
        spread: standard deviation of every column's inputs.
    """

    def __init__(
        self, owner: np.ndarray, outputs: int = 5, rows: int = 60, seed: int = 0, spread: float = 1
    ) -> None:
        random = np.random.default_rng(seed)
        width = len(owner)
        mix = np.eye(width) + 0.5 * random.standard_normal((width, width))
        self.owner = owner.astype(np.int64)
        self.inputs = spread * random.standard_normal((rows, width)) @ mix
        self.weight = random.standard_normal((outputs, width))
        gradients = random.standard_normal((rows, outputs))
        self.gamma = gradients.T @ gradients / rows

    @property
    def moment(self) -> np.ndarray:
        """Mean outer product of the inputs."""
        return np.asarray(self.inputs.T @ self.inputs / len(self.inputs))

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
        """As `eliminate_with_refit` takes them."""
        parts = (self.weight, self.moment, self.gamma)
        weight, moment, gamma = (torch.from_numpy(part) for part in parts)
        return weight, moment, gamma, self.owner

    def ridge(self, damping: float) -> float:
        """What `damping` adds to the diagonal of the moment: the lower median, as torch has it."""
        own = np.sort(np.diag(self.moment))
        return damping * float(own[(len(own) - 1) // 2])

    def refitted(self, removed: set[int], damping: float) -> np.ndarray:
        """The weight whose columns of `removed` are 0 and whose rest is fitted by least squares."""
        ridge = self.ridge(damping)
        width = self.weight.shape[1]
        rows = np.concatenate(
            [self.inputs / len(self.inputs) ** 0.5, ridge**0.5 * np.eye(width)]
        )  # the ridge keeps the weight near the old one: that is rows of the identity
        stay = ~np.isin(self.owner, list(removed))
        fitted = np.zeros_like(self.weight)
        if stay.any():
            fitted[:, stay] = np.linalg.lstsq(rows[:, stay], rows @ self.weight.T, rcond=None)[0].T
        return fitted

    def error(self, removed: set[int], damping: float) -> float:
        """Half the G-weighted error, ridge included, after the best repair."""
        gap = self.weight - self.refitted(removed, damping)
        moment = self.moment + self.ridge(damping) * np.eye(len(self.moment))
        return float(np.trace(self.gamma @ gap @ moment @ gap.T) / 2)


def random_block(units: int, seed: int = 0) -> Tensor:
    """A positive definite curvature block with interactions, float64."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3 * units, units, generator=generator, dtype=torch.float64)
    rows = rows * torch.rand(units, generator=generator, dtype=torch.float64).add(0.1)
    return rows.T @ rows / len(rows)


def removal_order(damage: Tensor, lane: range) -> list[int]:
    """Units of one lane, first removed first."""
    return sorted(lane, key=lambda unit: float(damage[unit]))
