"""One pass for many removals: what comes before a gate is not computed again.

Removing a unit changes nothing in front of its gate, so every module that has finished by then
gives back what it gave on the dense model; and the passes of several candidates run as one, their
samples one after the other, each block multiplied by its own gate. Both are exact up to the
rounding of differently shaped products. Activations are masked, never weights.

Shapes: C candidates, B samples, w positions at a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.methods.optin.tape import Call, CallTape
from prunepath.structure.gates import at_site, scaled
from prunepath.structure.units import GateSite

__all__ = ["Key", "Prefix", "block_of", "gate_axis", "masked", "prefix_of", "recorded", "replaying"]

Key = tuple[str, int]
"""A call: module and how many calls of it came before."""
Axes = tuple[int | None, ...]
"""For every tensor of an answer the axis that samples lie on; None: it has none."""


@dataclass(frozen=True)
class Prefix:
    """What has finished before a gate acts.

    Args:
        calls: the outermost of those calls -> where samples lie in what they return.
        skipped: module -> calls inside those, which do not happen when they are replayed.
    """

    calls: Mapping[Key, Axes]
    skipped: Mapping[str, int]


def prefix_of(once: CallTape, twice: CallTape, start: int) -> Prefix:
    """Read it off two passes, over one sample and over that sample twice.

    Args:
        once, twice: the passes.
        start: when the gate acts, on the second tape.
    """
    shapes = {(call.module, call.number): call.shapes for call in once.calls}
    calls: dict[Key, Axes] = {}
    skipped: dict[str, int] = {}

    def visit(call: Call) -> None:
        if call.begin >= start:
            return
        key = (call.module, call.number)
        axes = _axes(shapes.get(key), call.shapes) if call.end <= start else None
        if axes is None:
            for inner in call.inside:
                visit(inner)
            return
        calls[key] = axes
        for inner in _below(call):
            skipped[inner.module] = skipped.get(inner.module, 0) + 1

    for call in twice.calls:
        if call.parent is None:
            visit(call)
    return Prefix(calls, skipped)


def _below(call: Call) -> Iterator[Call]:
    for inner in call.inside:
        yield inner
        yield from _below(inner)


def _axes(
    one: tuple[tuple[int, ...], ...] | None, two: tuple[tuple[int, ...], ...] | None
) -> Axes | None:
    """Where samples lie; None where that cannot be told or nothing is returned."""
    if not one or not two or len(one) != len(two):
        return None
    axes: list[int | None] = []
    for left, right in zip(one, two, strict=True):
        if left == right:
            axes.append(None)
            continue
        axis = _axis(left, right)
        if axis is None:
            return None
        axes.append(axis)
    return tuple(axes)


def _axis(one: Sequence[int], two: Sequence[int]) -> int | None:
    if len(one) != len(two):
        return None
    changed = [axis for axis, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    return changed[0] if len(changed) == 1 and two[changed[0]] == 2 * one[changed[0]] else None


def gate_axis(model: nn.Module, once: CallTape, twice: CallTape, gate: GateSite) -> int | None:
    """The axis samples lie on where a gate acts; None where they lie on no one axis."""
    pairs = list(zip(once.of(model, gate.module), twice.of(model, gate.module), strict=False))
    found = set()
    for one, two in pairs:
        left, right = (
            (call.source if gate.side == "input" else call.result) for call in (one, two)
        )
        if left is None or right is None:
            return None
        found.add(_axis(left.shape, right.shape))
    return found.pop() if len(found) == 1 else None


def recorded(
    model: nn.Module,
    keys: Iterable[Key],
    run: Callable[[], object],
    known: tuple[Prefix, Mapping[Key, Any]] | None = None,
) -> dict[Key, Any]:
    """What these calls return on the dense model; nothing behind the last of them is computed.

    Args:
        model: the model.
        keys: the calls.
        run: runs the model once.
        known: what has finished before an earlier gate, and what it returned: not computed again.
    """
    wanted = set(keys)
    kept: dict[Key, Any] = {}
    prefix, outputs = known or (Prefix({}, {}), {})
    with ExitStack() as stack:
        stack.enter_context(replaying(model, prefix, outputs, 1))
        for name in {name for name, _ in wanted}:
            hook = _keep(name, wanted, kept, prefix.skipped.get(name, 0))
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        if wanted:
            with suppress(_Enough):
                run()
    return kept


class _Enough(Exception):
    """Ends a pass of which everything wanted is known; never seen outside."""


def _keep(name: str, wanted: set[Key], kept: dict[Key, Any], number: int) -> Any:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal number
        if (name, number) in wanted:  # a copy: the model may go on to write into its own
            kept[name, number] = _mapped(output, torch.Tensor.clone)
            if len(kept) == len(wanted):
                raise _Enough
        number += 1

    return hook


@contextmanager
def replaying(
    model: nn.Module, prefix: Prefix, kept: Mapping[Key, Any], times: int
) -> Iterator[None]:
    """While the model runs once inside the block, calls of the prefix return what was kept.

    Args:
        model: the model.
        prefix: calls before a gate.
        kept: what they returned.
        times: how often every sample is repeated.
    """
    with ExitStack() as stack:
        for name in {name for name, _ in prefix.calls}:
            module = model.get_submodule(name)
            own = module.__dict__.get("forward")
            module.forward = _replay(name, module.forward, prefix, kept, times)
            stack.callback(_restore, module, own)
        yield


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        del module.forward  # the class's own is back
    else:
        module.forward = own


def _replay(
    name: str,
    forward: Callable[..., Any],
    prefix: Prefix,
    kept: Mapping[Key, Any],
    times: int,
) -> Callable[..., Any]:
    number = 0

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal number
        key = (name, number)
        number += 1
        if key not in kept or key not in prefix.calls:  # a later call, or routed elsewhere
            return forward(*args, **kwargs)
        axes = iter(prefix.calls[key])

        def repeat(tensor: Tensor) -> Tensor:
            axis = next(axes)
            return tensor.clone() if axis is None else torch.cat([tensor] * times, dim=axis)

        return _mapped(kept[key], repeat)

    return run


def _mapped(value: Any, act: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor acted on, in the order of `tape.tensors_of`."""
    if isinstance(value, Tensor):
        return act(value)
    if isinstance(value, Mapping):
        kind: Any = type(value)
        return kind(**{key: _mapped(item, act) for key, item in value.items()})
    if isinstance(value, tuple | list):
        parts = [_mapped(item, act) for item in value]
        kind = type(value)
        return kind(*parts) if hasattr(value, "_fields") else kind(parts)
    return value


@contextmanager
def masked(model: nn.Module, gate: GateSite, masks_Cw: Tensor, axis: int | None) -> Iterator[None]:
    """Close gates at a site by masks, one per block of samples.

    Args:
        model: the model.
        gate: where.
        masks_Cw: one mask per candidate over the gated positions.
        axis: where samples lie at the gate; None with a single candidate.
    """
    count, where = len(masks_Cw), gate.positions
    positions = None if where is None else torch.from_numpy(where)

    def edit(activation: Tensor) -> Tensor:
        masks = masks_Cw.to(activation.device, activation.dtype)
        if positions is not None:  # a part of a fused projection: the rest is multiplied by one
            whole = masks.new_ones(count, activation.shape[-1])
            masks = whole.index_copy(1, positions.to(masks.device), masks)
        if count == 1 or axis is None:
            return scaled(activation, masks[0], gate.side)
        before, after = activation.shape[:axis], activation.shape[axis + 1 :]
        blocks = activation.reshape(*before, count, -1, *after)
        shape = [1] * (blocks.ndim - 1) + [masks.shape[-1]]
        shape[axis] = count
        return scaled(blocks, masks.view(shape), gate.side).reshape(activation.shape)

    with at_site(model, gate, edit):
        yield


def block_of(answer: Tensor, dense: Tensor, candidate: int) -> Tensor:
    """The answer to one candidate's samples, of the shape of the dense answer.

    Where samples are compared with each other (images with texts) they are on two axes.
    """
    for axis, (size, own) in enumerate(zip(answer.shape, dense.shape, strict=True)):
        if size != own:
            answer = answer.narrow(axis, candidate * own, own)
    return answer
