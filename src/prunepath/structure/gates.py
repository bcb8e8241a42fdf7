"""Gates: one multiplicative scalar per unit, put on activations by hooks.

Gate 0 equals physical removal and gate 1 is bit-equal to no gate at all. Weights are frozen while
gates are on, so a backward pass allocates no weight gradient.

What a gate multiplies is an activation, or the odds with which a router picks a unit. Odds are
exponentials of logits, so there the logarithm of the gate is added: at 0 the router never picks
the unit and shares its probability among the others, just as it does without that row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunepath.structure.matrices import positions_at
from prunepath.structure.selection import Selection
from prunepath.structure.units import GateSite, Structure, UnitGroup

__all__ = [
    "at_site",
    "frozen",
    "gate_gradient",
    "gated",
    "gates_of",
    "new_gates",
    "owner_index",
    "scaled",
]

Edit = Callable[[Tensor], Tensor]


def new_gates(
    structure: Structure, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[str, Tensor]:
    """Gates at 1 that require gradients, by group name; shape (num_units,) each."""
    return {
        group.name: torch.ones(group.num_units, dtype=dtype, device=device, requires_grad=True)
        for group in structure.groups
    }


def gates_of(selection: Selection, structure: Structure) -> dict[str, Tensor]:
    """Gates at 0 and 1 that stand for a selection; groups kept whole get none."""
    return {
        group.name: torch.from_numpy(selection.of(group)).to(torch.float32)
        for group in structure.groups
        if not selection.of(group).all()
    }


def owner_index(group: UnitGroup) -> Tensor:
    """Unit of every gated position, in the order of the gate's layout; int64, (positions,)."""
    return torch.from_numpy(group.gate.layout.owner(group.unit).copy())


def scaled(activation: Tensor, gate: Tensor, side: str) -> Tensor:
    """What a gate does at its site.

    Args:
        activation: what is found there.
        gate: one scalar per position of its last axis; not negative where it multiplies odds.
        side: see `GateSite`.
    """
    gate = gate.to(activation.device, activation.dtype)
    if side != "logits":
        return activation * gate
    # The clamp keeps the gradient of a closed gate at 0 instead of 0 / 0.
    logarithm = gate.clamp_min(torch.finfo(gate.dtype).tiny).log()
    return activation + logarithm.masked_fill(gate <= 0, -torch.inf)


def gate_gradient(activation: Tensor, gradient: Tensor, side: str) -> Tensor:
    """The gradient of open gates, position by position, from that of the activation behind them."""
    return gradient if side == "logits" else activation * gradient


@contextmanager
def gated(model: nn.Module, structure: Structure, gates: Mapping[str, Tensor]) -> Iterator[None]:
    """Run the model with gates on; hooks and nothing else, removed on leaving.

    Args:
        model: the dense model.
        structure: its structure.
        gates: group name -> scalars, shape (num_units,).

    Example:
        >>> with gated(model, structure, gates):  # doctest: +SKIP
        ...     logits = model(ids).logits
    """
    by_site: dict[tuple[str, str], list[tuple[Tensor, Tensor, Tensor | None]]] = {}
    sites: dict[tuple[str, str], GateSite] = {}
    for name, gate in gates.items():
        group = structure.groups_by_name[name]
        key = (group.gate.module, group.gate.side)
        sites[key] = group.gate
        positions = group.gate.positions
        where = None if positions is None else torch.from_numpy(positions)
        by_site.setdefault(key, []).append((gate, owner_index(group), where))
    with ExitStack() as stack:
        for key, pairs in by_site.items():
            stack.enter_context(at_site(model, sites[key], _scaler(pairs, sites[key].side)))
        yield


def _scaler(pairs: list[tuple[Tensor, Tensor, Tensor | None]], side: str) -> Edit:
    def scale(activation: Tensor) -> Tensor:
        for gate, index, where in pairs:
            scale = gate[index.to(gate.device)]
            if where is not None:  # a part of a fused projection: the rest is multiplied by one
                ones = scale.new_ones(activation.shape[-1])
                scale = ones.index_copy(0, where.to(gate.device), scale)
            activation = scaled(activation, scale, side)
        return activation

    return scale


@contextmanager
def at_site(model: nn.Module, site: GateSite, edit: Edit) -> Iterator[None]:
    """Replace the activation at a gate site by `edit(activation)` while inside.

    Of a map that was cut before, only the positions it still reads or writes are shown.
    """
    module = model.get_submodule(site.module)

    def edited(whole: Tensor) -> Tensor:
        positions = positions_at(module, site.side)
        if positions is None:
            return edit(whole)
        return whole.index_copy(-1, positions, edit(whole.index_select(-1, positions)))

    def on_input(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (edited(args[0]), *args[1:])

    def on_output(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return edited(output)

    if site.side == "logits":
        with _inside(module, edited):
            yield
        return
    if site.side == "input":
        handle = module.register_forward_pre_hook(on_input)
    else:
        handle = module.register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _inside(router: Any, edit: Edit) -> Iterator[None]:
    """Edit the logits of a router where its own code has just computed them: what it goes on to do
    with them (softmax, top-k, shares that sum to one or not) differs from family to family."""
    forward = router.forward
    patched = "forward" in vars(router)

    def run(*args: Any, **kwargs: Any) -> Any:
        with _ProductEdited(router.weight, edit):
            return forward(*args, **kwargs)

    router.forward = run
    try:
        yield
    finally:
        if patched:
            router.forward = forward
        else:
            del router.forward  # the class's own is back


class _ProductEdited(TorchFunctionMode):
    """While it is on, the linear map with one weight gives `edit` of its outputs."""

    def __init__(self, weight: Tensor, edit: Edit) -> None:
        super().__init__()
        self._weight = weight
        self._edit = edit

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        ours = func is nn.functional.linear and any(arg is self._weight for arg in args[1:2])
        return self._edit(output) if ours else output


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with no parameter requiring gradients; both are restored on leaving."""
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])
        for name, module in model.named_modules():
            module.training = training[name]
