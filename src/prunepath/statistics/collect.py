"""Hooks that turn forward and backward passes over calibration data into sums.

Weights are frozen. Activations at gate sites and consumers are read by hooks; the gradient of a
gate is the activation times its gradient (of a router's logits, the gradient itself), summed over
the positions the unit owns, so no gate has to be multiplied in and no weight gradient is ever
allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.data.samples import Samples
from prunepath.statistics.gate_gradients import reading_gates
from prunepath.statistics.influence import reading_influence
from prunepath.statistics.padding import padding_masks, real_rows
from prunepath.statistics.sums import Statistics
from prunepath.statistics.weights import reading_weights
from prunepath.structure.matrices import own_inputs
from prunepath.structure.units import Structure, UnitGroup

__all__ = [
    "BLOCK_LIMIT",
    "Recorder",
    "Wanted",
    "checkpointed_layers",
    "estimate_bytes",
    "reading_gates",
    "recording",
]

BLOCK_LIMIT = 512
"""Groups with more units than this get no full block of gate gradients."""


def _has_block(group: UnitGroup) -> bool:
    """Whether interactions of its units are measured. Units with a consumer have theirs in the
    second moments of its inputs."""
    return not group.consumer and group.num_units <= BLOCK_LIMIT


@dataclass(frozen=True)
class Wanted:
    """Which sums to form.

    Args:
        gradients: gate gradients: fisher, its small blocks, first-order sums.
        moments: second moments of consumer inputs.
        output_gradients: second moments of consumer output gradients.
        weights: per-sample weight gradients, reduced to rows and columns (`statistics/weights.py`).
        influence: how far layers and sub-layers turn the residual stream.
        blocks: how far all runs of layers do (`statistics/influence.py`).
    """

    gradients: bool = True
    moments: bool = True
    output_gradients: bool = True
    weights: bool = False
    influence: bool = False
    blocks: bool = False

    def __or__(self, other: Wanted) -> Wanted:
        """What either wants: one pass for several methods."""
        names = [item.name for item in fields(self)]
        return Wanted(**{name: getattr(self, name) or getattr(other, name) for name in names})

    def covers(self, other: Wanted) -> bool:
        """Whether a pass for this gives the other all it wants."""
        return self | other == self

    @property
    def backward(self) -> bool:
        """Whether a backward pass is needed at all."""
        return self.gradients or self.output_gradients or self.weights


@dataclass
class Recorder:
    """What the hooks must know about the batch that runs: how many samples, what is padding.

    Args:
        sums: what is added to.
        wanted: which sums are formed.
        per_sample: whether the loss has one term per sample; else one per token.
    """

    sums: Statistics
    wanted: Wanted
    per_sample: bool
    _samples: int = 0
    _masks: tuple[Tensor, ...] = ()

    def begin(self, samples: Samples) -> None:
        """Say which batch the next forward pass is over, and count it."""
        self._samples = len(samples)
        self._masks = padding_masks(samples)
        if self.wanted.backward:
            self.sums.tokens += len(samples) if self.per_sample else samples.num_tokens
        self.sums.windows += 1

    def terms(self, units: Tensor) -> Tensor:
        """Gate gradients (rows, units) with one row for every term of the loss."""
        flat = units.reshape(-1, units.shape[-1])
        found = self.by_sample(flat) if self.per_sample else flat
        return found.sum(1) if found.ndim > 2 else found

    def by_sample(self, flat: Tensor) -> Tensor:
        """Rows (N, n) as (samples, rows of one, n), where every sample has equally many."""
        if self._samples and len(flat) % self._samples == 0:
            return flat.view(self._samples, -1, flat.shape[-1])
        return flat

    def take(self, group: UnitGroup, units: Tensor) -> None:
        """Add the gate gradients (..., units) of a group to the sums."""
        if group.gate.side == "logits":  # a router sees the tokens of all windows as one list
            units = self.by_sample(units)
        terms, sums = self.terms(units), self.sums
        sums.add_("fisher", group.name, terms.square().sum(0))
        # Second opinions on the squares of units that a repair follows; tokens are too many to
        # need one.
        if self.per_sample and group.consumer:
            sums.add_("gradient_sizes", group.name, terms.abs().sum(0))
            sums.add_("gradient_fourths", group.name, terms.double().pow(4).sum(0))
        sums.add_("gradient", group.name, terms.sum(0))
        # The gradient of a gate that all tokens of a window share.
        whole = units.sum(1) if units.ndim > 2 else units
        sums.add_("gradient_windows", group.name, whole.reshape(-1, group.num_units).abs().sum(0))
        if _has_block(group):
            sums.add_moment_("fisher_blocks", group.name, terms)
            sums.add_moment_("fisher_fourths", group.name, terms.double().square())

    def real(self, rows: Tensor) -> Tensor:
        """Rows (N, n) of an activation that are no padding."""
        return real_rows(rows, self._masks)


@contextmanager
def recording(
    model: nn.Module,
    structure: Structure,
    wanted: Wanted,
    sums: Statistics,
    *,
    per_sample: bool = False,
) -> Iterator[Recorder]:
    """Hooks that add to `sums` whenever the model runs, forward and backward, inside the block.

    With a backward pass, layers keep only their inputs and run again when their gradient is due
    (activation checkpointing), so memory does not grow with depth. Everything is counted in that
    second run, where gradients are enabled.

    Args:
        model: the dense model, frozen.
        structure: its structure.
        wanted: which sums to form.
        sums: added to.
        per_sample: whether the loss has one term per sample; else one per token.

    Yields:
        The recorder, to be told of every batch before it runs.
    """
    recorder = Recorder(sums, wanted, per_sample)
    consumers = dict.fromkeys(group.consumer for group in structure.groups if group.consumer)
    with ExitStack() as stack:
        if wanted.backward:
            stack.enter_context(checkpointed_layers(model, structure))
        if wanted.gradients:
            stack.enter_context(reading_gates(model, structure.groups, recorder.take))
        for name in consumers:
            module = model.get_submodule(name)
            if wanted.moments:
                handle: Any = module.register_forward_pre_hook(_moment_hook(name, recorder))
                stack.callback(handle.remove)
            if wanted.output_gradients:
                handle = module.register_forward_hook(_output_hook(name, sums))
                stack.callback(handle.remove)
        if wanted.weights:
            stack.enter_context(reading_weights(model, structure, recorder))
        if wanted.influence or wanted.blocks:  # last: it follows what all other hooks leave
            stack.enter_context(reading_influence(model, structure, recorder))
        yield recorder


@contextmanager
def checkpointed_layers(model: nn.Module, structure: Structure) -> Iterator[None]:
    """Layers that store their input and nothing else between forward and backward."""
    from torch.utils.checkpoint import checkpoint

    layers = dict.fromkeys(place.layer_path for place in structure.places)
    patched = [model.get_submodule(name) for name in layers]

    def lean(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            others = (*args[1:], *kwargs.values())
            # A gradient may enter by another way, too (the states of an encoder): keep the graph.
            simple = bool(args) and not any(_needs_gradient(other) for other in others)
            if not torch.is_grad_enabled() or not simple:
                return forward(*args, **kwargs)
            hidden = args[0]
            if not hidden.requires_grad:  # the first layer: no weight before it asks for any
                hidden = hidden.detach().requires_grad_()
            return checkpoint(partial(forward, **kwargs), hidden, *args[1:], use_reentrant=True)

        return run

    for layer in patched:
        layer.forward = lean(layer.forward)
    try:
        yield
    finally:
        for layer in patched:
            del layer.forward  # the class's own is back


def _needs_gradient(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    return isinstance(value, list | tuple) and any(_needs_gradient(item) for item in value)


def _on_gradient(tensor: Tensor, act: Callable[[Tensor], None]) -> None:
    tensor.register_hook(act)  # type: ignore[no-untyped-call]


def _moment_hook(name: str, recorder: Recorder) -> Any:
    sums, wanted = recorder.sums, recorder.wanted

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() != wanted.backward:
            return
        rows = recorder.real(own_inputs(module, args[0]))
        sums.add_moment_("moments", name, rows)
        sums.add_("inputs", name, rows.to(torch.promote_types(rows.dtype, torch.float32)).sum(0))
        sums.add_("rows", name, torch.tensor([float(len(rows))], dtype=torch.float64))

    return hook


def _output_hook(name: str, sums: Statistics) -> Any:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad and torch.is_grad_enabled():
            _on_gradient(output, lambda g: sums.add_moment_("output_gradients", name, g))

    return hook


def estimate_bytes(structure: Structure, wanted: Wanted) -> int:
    """Bytes the sums of a full pass take, for a check before it starts."""
    total = 0
    seen = set()
    for group in structure.groups:
        if wanted.gradients:
            total += 12 * group.num_units
            total += (4 + 8) * group.num_units**2 if _has_block(group) else 0
        if wanted.moments and group.consumer and group.consumer not in seen:
            seen.add(group.consumer)
            total += 4 * group.gate.layout.size**2
    return total
