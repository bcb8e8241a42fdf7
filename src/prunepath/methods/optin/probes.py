"""Random probes of a trajectory: one backward pass says how much every gate moves it, by sample.

A probe of feature z gives every compared row t of length 1 an independent random gradient u_t with
mean outer product 2 A, A = F^T F over all K rows. Behind a gate j the sum over a sample's rows of
<u_t, dF_t/dm_j> is what hooks at the gates read. Only activations carry gradients; the graph of a
few samples is kept and run backward as often as there are probes.

Shapes: B samples, K rows, d width, r rank, Z features, U units of a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.errors import NumericsError
from prunepath.methods.optin.features import reading
from prunepath.methods.optin.folding import gate_axis
from prunepath.methods.optin.rows import Teacher
from prunepath.methods.optin.scene import Scene
from prunepath.statistics.gate_gradients import GateGradients, groups_by_site
from prunepath.structure.gates import at_site
from prunepath.structure.units import UnitGroup

__all__ = ["Graph", "Prober", "root_of"]

BySample = Mapping[str, Tensor]
"""Group -> what one probe found, sample by sample (B, U)."""


def root_of(teacher: Teacher) -> Tensor:
    """R (r, d) with R^T R = 2 A, so that random signs times R are the gradients of a probe.

    The rows themselves where they are fewer than the width; else the eigenvectors of A.
    """
    rows = teacher.rows
    if len(rows) <= rows.shape[1]:
        scaled: Tensor = math.sqrt(2) * rows
        return scaled
    values, vectors = torch.linalg.eigh(2 * teacher.gram.double())
    kept = values > values[-1] * 1e-12
    root: Tensor = values[kept].sqrt()[:, None] * vectors[:, kept].T
    return root.to(rows.dtype)


@dataclass(frozen=True, eq=False)
class Graph:
    """A pass over some samples that can be run backward as often as wanted.

    Args:
        samples: the samples.
        rows: compared rows of every feature, of length 1, (K, d) each.
        answer: the task's answer.
        backward: runs one gradient at some of these tensors backward.
    """

    samples: Samples
    rows: Sequence[Tensor]
    answer: Tensor
    backward: Callable[[Tensor, Tensor], BySample]


class Prober:
    """Runs probes through a model.

    Args:
        scene: samples, features and rows.

    Raises:
        NumericsError: a feature of the dense model is not finite.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        model, groups = scene.context.model, scene.context.structure.groups
        self._sites = groups_by_site(groups)
        routed = scene.context.structure.places_by_path
        self._axes = [
            None
            if routed[here[0].place].routed
            else gate_axis(model, scene.once, scene.twice, here[0].gate)
            for here in self._sites
        ]
        for site, teacher in zip(scene.trajectory.sites, scene.teachers, strict=True):
            if not torch.isfinite(teacher.rows).all():
                raise NumericsError(
                    f"the feature '{site.name}' of the dense model is not finite; check its "
                    "weights, or load it in float32 or bfloat16 instead of float16"
                )
        self._roots = [root_of(teacher) for teacher in scene.teachers]
        first = [min(scene.trajectory.first[group.name] for group in here) for here in self._sites]
        self.costs = tuple(
            sum(begin <= z for begin in first) / len(first)
            for z in range(len(scene.trajectory.sites))
        )
        """Share of all gates that lie in front of each feature: what a backward pass to there is
        of one through the whole model. 0: no gate reaches it."""

    @property
    def alone(self) -> bool:
        """Whether samples must run one by one, because they cannot be told apart at a gate."""
        return any(axis is None for axis in self._axes)

    def probe(self, feature: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The random gradients of one probe at the rows of a feature, (K, d)."""
        root = self._roots[feature]
        signs = torch.randint(0, 2, (len(rows), len(root)), generator=generator, dtype=torch.int8)
        return (signs * 2 - 1).to(root.device, root.dtype) @ root

    @contextmanager
    def graph(self, samples: Sequence[int]) -> Iterator[Graph]:
        """Run some samples forward and keep what their backward passes need.

        Args:
            samples: which of the scene's.
        """
        scene = self._scene
        context, count = scene.context, len(samples)
        here, rows = scene.batch(samples)
        found: dict[str, Tensor] = {}
        leaves: list[Tensor] = []

        def act(group: UnitGroup, units: Tensor) -> None:
            # A module that runs several times has one gate: its gradient is the sum.
            found[group.name] = found[group.name] + units if group.name in found else units

        with ExitStack() as stack:
            for groups, axis in zip(self._sites, self._axes, strict=True):
                reader = GateGradients(groups, act, partial(_by_sample, axis=axis, samples=count))
                edit = partial(_keeping, reader.read, leaves)
                stack.enter_context(at_site(context.model, groups[0].gate, edit))
            features = stack.enter_context(
                reading(context.model, scene.trajectory.sites, rows.rows)
            )
            with torch.enable_grad():
                answer = context.task.output(context.model, here.to(scene.device))

            def backward(root: Tensor, gradient: Tensor) -> BySample:
                found.clear()
                if root.requires_grad:
                    torch.autograd.backward(root, gradient.to(root.dtype), retain_graph=True)
                for leaf in leaves:
                    leaf.grad = None
                return dict(found)

            yield Graph(here, features, answer, backward)


def _keeping(read: Callable[[Tensor], Tensor], leaves: list[Tensor], activation: Tensor) -> Tensor:
    """Read an activation, and remember it where it begins the graph: it collects a gradient."""
    kept = read(activation)
    if kept.is_leaf and kept.requires_grad:
        leaves.append(kept)
    return kept


def _by_sample(contribution: Tensor, axis: int | None, samples: int) -> Tensor:
    """Sums over everything of a sample but the gated positions, (B, w)."""
    if contribution.dtype != torch.float64:
        contribution = contribution.float()
    if axis:
        contribution = contribution.movedim(axis, 0)
    return contribution.reshape(1 if axis is None else samples, -1, contribution.shape[-1]).sum(1)
