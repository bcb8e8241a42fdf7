"""One pass over calibration data: forward, one backward per window, sums of everything asked for.

Weights are frozen. Activations at gate sites and consumers are read by hooks; the gradient of a
gate is the activation times its gradient, summed over the positions the unit owns, so no gate has
to be multiplied in and no weight gradient is ever allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.statistics.objective import LogitGradient
from prunepath.statistics.sums import Statistics
from prunepath.structure.gates import at_site
from prunepath.structure.units import Structure, UnitGroup

__all__ = ["BLOCK_LIMIT", "Wanted", "add_window_", "estimate_bytes", "recording"]

BLOCK_LIMIT = 512
"""Groups with more units than this get no full block of gate gradients."""


@dataclass(frozen=True)
class Wanted:
    """Which sums to form.

    Args:
        gradients: gate gradients: fisher, its small blocks, first-order sums.
        moments: second moments of consumer inputs.
        output_gradients: second moments of consumer output gradients.
    """

    gradients: bool = True
    moments: bool = True
    output_gradients: bool = True

    @property
    def backward(self) -> bool:
        """Whether a backward pass is needed at all."""
        return self.gradients or self.output_gradients


@contextmanager
def recording(
    model: nn.Module, structure: Structure, wanted: Wanted, sums: Statistics
) -> Iterator[None]:
    """Hooks that add to `sums` whenever the model runs, forward and backward, inside the block.

    With a backward pass, layers keep only their inputs and run again when their gradient is due
    (activation checkpointing), so memory does not grow with depth. Everything is counted in that
    second run, where gradients are enabled.

    Args:
        model: the dense model, frozen.
        structure: its structure.
        wanted: which sums to form.
        sums: added to.
    """
    sites: dict[tuple[str, str], list[UnitGroup]] = {}
    for group in structure.groups:
        sites.setdefault((group.gate.module, group.gate.side), []).append(group)
    consumers = dict.fromkeys(group.consumer for group in structure.groups if group.consumer)
    with ExitStack() as stack:
        if wanted.backward:
            stack.enter_context(_checkpointed_layers(model, structure))
        if wanted.gradients:
            for groups in sites.values():
                stack.enter_context(
                    at_site(model, groups[0].gate, _GradientReader(groups, sums).read)
                )
        for name in consumers:
            module = model.get_submodule(name)
            if wanted.moments:
                handle: Any = module.register_forward_pre_hook(_moment_hook(name, sums, wanted))
                stack.callback(handle.remove)
            if wanted.output_gradients:
                handle = module.register_forward_hook(_output_hook(name, sums))
                stack.callback(handle.remove)
        yield


@contextmanager
def _checkpointed_layers(model: nn.Module, structure: Structure) -> Iterator[None]:
    """Layers that store their input and nothing else between forward and backward."""
    from torch.utils.checkpoint import checkpoint

    layers = dict.fromkeys(place.path.rpartition(".")[0] for place in structure.places)
    patched = [model.get_submodule(name) for name in layers]

    def lean(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(hidden, *args, **kwargs)
            if not hidden.requires_grad:  # the first layer: no weight before it asks for any
                hidden = hidden.detach().requires_grad_()
            return checkpoint(partial(forward, **kwargs), hidden, *args, use_reentrant=True)

        return run

    for layer in patched:
        layer.forward = lean(layer.forward)
    try:
        yield
    finally:
        for layer in patched:
            del layer.forward  # the class's own is back


class _GradientReader:
    """Reads gate gradients of all groups that share one site."""

    def __init__(self, groups: list[UnitGroup], sums: Statistics) -> None:
        self._sums = sums
        layout = groups[0].gate.layout
        self._sizes = layout.sizes
        self._groups = [
            (
                group,
                [dim - len(layout.names) for dim, name in enumerate(layout.names)
                 if name not in group.unit.names],
            )
            for group in groups
        ]  # fmt: skip

    def read(self, activation: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # the run that only stores layer inputs
            return activation
        if not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        value = activation.detach()
        _on_gradient(activation, lambda gradient: self._add(value, gradient))
        return activation

    def _add(self, activation: Tensor, gradient: Tensor) -> None:
        contribution = (activation * gradient).float()
        contribution = contribution.view(*contribution.shape[:-1], *self._sizes)
        for group, others in self._groups:  # a unit's gradient sums over the factors it lacks
            units = contribution.sum(others) if others else contribution
            units = units.reshape(*activation.shape[:-1], group.num_units)  # (B, T, units)
            flat = units.reshape(-1, group.num_units)
            self._sums.add_("fisher", group.name, flat.square().sum(0))
            self._sums.add_("gradient", group.name, flat.sum(0))
            whole = units.sum(1)  # the gradient of a gate that all tokens of a window share
            self._sums.add_("gradient_windows", group.name, whole.abs().sum(0))
            if group.num_units <= BLOCK_LIMIT:
                self._sums.add_moment_("fisher_blocks", group.name, flat)


def _on_gradient(tensor: Tensor, act: Callable[[Tensor], None]) -> None:
    tensor.register_hook(act)  # type: ignore[no-untyped-call]


def _moment_hook(name: str, sums: Statistics, wanted: Wanted) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() != wanted.backward:
            return
        rows = args[0].detach()
        sums.add_moment_("moments", name, rows)
        sums.add_("inputs", name, rows.reshape(-1, rows.shape[-1]).float().sum(0))

    return hook


def _output_hook(name: str, sums: Statistics) -> Any:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad and torch.is_grad_enabled():
            _on_gradient(output, lambda g: sums.add_moment_("output_gradients", name, g))

    return hook


def add_window_(
    model: nn.Module,
    ids: Tensor,
    gradient_of: LogitGradient,
    generator: torch.Generator,
    wanted: Wanted,
    sums: Statistics,
    index: int,
) -> None:
    """Run one batch of windows inside `recording` and count it.

    Args:
        model: the dense model, frozen, inside `recording`.
        ids: token ids (B, T).
        gradient_of: the objective.
        generator: source of label draws; seed it by window to make a pass resumable.
        wanted: whether a backward pass is needed.
        sums: the same object `recording` adds to.
        index: number of the batch, for messages.

    Raises:
        NumericsError: the logits are not finite.
    """
    device = next(model.parameters()).device
    if not wanted.backward:  # nobody reads logits: the head is a fifth of a small model's work
        body: Any = getattr(model, str(getattr(model, "base_model_prefix", "")), model)
        with torch.no_grad():
            body(input_ids=ids.to(device), use_cache=False)
    else:
        logits = model(input_ids=ids.to(device), use_cache=False).logits
        try:
            gradient = gradient_of(logits, ids.to(device), generator)
        except NumericsError as error:
            raise NumericsError(f"calibration window {index}: {error}") from None
        logits.backward(gradient.to(logits.dtype))
    sums.tokens += ids.numel() if wanted.backward else 0
    sums.moment_tokens += ids.numel() if wanted.moments else 0
    sums.windows += ids.shape[0]


def estimate_bytes(structure: Structure, wanted: Wanted) -> int:
    """Bytes the sums of a full pass take, for a check before it starts."""
    total = 0
    seen = set()
    for group in structure.groups:
        if wanted.gradients:
            total += 12 * group.num_units
            total += 4 * group.num_units**2 if group.num_units <= BLOCK_LIMIT else 0
        if wanted.moments and group.consumer and group.consumer not in seen:
            seen.add(group.consumer)
            total += 4 * group.gate.layout.size**2
    return total
