"""How much layers and sub-layers turn the residual stream: distances of what enters and leaves.

Of a layer that is what it is called with and what it returns. Of a sub-layer it is the stream x
before its residual add and the sum x + s behind it, s being what is added (normed or scaled, where
the family does that first). Where a norm stands behind the sum (post-norm), x + s is taken before
that norm, which stays when the sub-layer goes; a layer's own output is behind it.

Every token gives two numbers: the cosine distance 1 - cos(a, b), and the angle
arccos(cos(a, b)) / pi. They come from chords of unit vectors, so that vectors which hardly differ
are told apart in float32, too:

    1 - cos = |u - v|^2 / 2,    angle = 2 atan2(|u - v|, |u + v|) / pi    (Kahan).

They are summed over tokens that are no padding. With `blocks`, also between what enters layer i and
what leaves layer j of the same stack, for all i <= j.

Shapes: N tokens, d residual width, L layers of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunepath.statistics.residual_adds import ResidualAdds, tensors_in
from prunepath.structure.units import PlaceInfo, Structure

if TYPE_CHECKING:
    from prunepath.statistics.collect import Recorder

__all__ = ["mean_distances", "reading_influence", "turn_of"]

_CHUNK = 4096
"""Rows in float32 at a time, whatever the model is in."""


def turn_of(entering: Tensor, leaving: Tensor) -> Tensor:
    """Sums over tokens of the cosine distance and of the angle in parts of pi, and their number.

    Args:
        entering, leaving: (N, d); a vector of zeros is at distance 1/2 of any other.

    Returns:
        (3,), float64, on the CPU.

    Example:
        >>> found = turn_of(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
        >>> [round(value, 6) for value in found.tolist()]
        [1.0, 0.5, 1.0]
    """
    found = torch.zeros(3, dtype=torch.float64)
    for one, two in zip(*(torch.split(part, _CHUNK) for part in (entering, leaving)), strict=True):
        found += _between(_unit(one), _unit(two))
    return found


def mean_distances(sums: Tensor, distance: str) -> Tensor:
    """Means over tokens of sums as `turn_of` gives them, NaN where nothing was compared.

    Args:
        sums: (3, ...).
        distance: `"cosine"` or `"angular"`.
    """
    return sums[("cosine", "angular").index(distance)] / sums[2]


@contextmanager
def reading_influence(model: nn.Module, structure: Structure, recorder: Recorder) -> Iterator[None]:
    """Add to `influence` (layers and sub-layers, by path) and `blocks` (stacks, by path).

    Layers are wrapped, not hooked: with checkpointing they run twice, and this is the run their
    caller sees. Nothing of the model's answer changes.

    Args:
        model: the dense model, frozen.
        structure: its structure; sub-layers are the places that have one as a unit.
        recorder: what is added to; knows what is padding and which sums are wanted.
    """
    running: list[ResidualAdds] = []
    lengths = {stack.path: stack.num_layers for stack in structure.stacks}
    blocks = _Blocks(recorder, lengths)
    layers = {place.layer_path: place for place in structure.places}
    with ExitStack() as stack:
        if recorder.wanted.influence:
            for module, name in _followed(structure).items():
                hook = _mark(name, running)
                stack.callback(model.get_submodule(module).register_forward_hook(hook).remove)
        for place in layers.values():
            layer = model.get_submodule(place.layer_path)
            before = layer.__dict__.get("forward")
            layer.forward = _watched(layer.forward, place, recorder, running, blocks)
            stack.callback(_restore, layer, before)
        yield


def _followed(structure: Structure) -> dict[str, str]:
    """Linear map -> the sub-layer whose words it puts out; all maps of places that are no units
    (experts) without a name: what they add is not the stream."""
    consumers = {group.consumer: group.place for group in structure.groups if group.is_sublayer}
    known = set(consumers.values())
    others = {
        tensor.name.removesuffix(".weight"): ""
        for place in structure.places
        if place.path not in known
        for tensor in place.tensors
        if tensor.name.endswith(".weight") and any(tensor.rows)
    }
    return {**others, **consumers}


def _mark(name: str, running: list[ResidualAdds]) -> Any:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if running and isinstance(output, Tensor):  # nothing runs when a gradient is due
            running[-1].mark(name, output)

    return hook


def _watched(
    forward: Callable[..., Any],
    place: PlaceInfo,
    recorder: Recorder,
    running: list[ResidualAdds],
    blocks: _Blocks,
) -> Callable[..., Any]:
    sums, wanted = recorder.sums, recorder.wanted

    def take(path: str, stream: Tensor, said: Tensor) -> None:
        before, added = recorder.real(stream), recorder.real(said)
        sums.add_("influence", path, turn_of(before, before + added))

    def run(*args: Any, **kwargs: Any) -> Any:
        entering = _first((args, kwargs))
        rows = None if entering is None else recorder.real(entering.clone())  # it may be added to
        if wanted.influence:
            running.append(ResidualAdds(take))
            try:
                with running[-1]:
                    output = forward(*args, **kwargs)
            finally:
                running.pop()
        else:
            output = forward(*args, **kwargs)
        leaving = _first(output)
        if rows is None or entering is None or leaving is None:
            return output
        if wanted.influence and entering.shape == leaving.shape:
            sums.add_("influence", place.layer_path, turn_of(rows, recorder.real(leaving)))
        if wanted.blocks:
            blocks.add(place, rows, recorder.real(leaving))
        return output

    return run


class _Blocks:
    """What entered the layers of every stack in the batch that runs, and sums over pairs."""

    def __init__(self, recorder: Recorder, lengths: dict[str, int]) -> None:
        self._recorder = recorder
        self._lengths = lengths
        self._batch = -1
        self._entered: dict[str, dict[int, Tensor]] = {}

    def add(self, place: PlaceInfo, entering: Tensor, leaving: Tensor) -> None:
        """Compare what leaves a layer with what entered it and those before it."""
        sums = self._recorder.sums
        if sums.windows != self._batch:
            self._batch, self._entered = sums.windows, {}
        entered = self._entered.setdefault(place.stack, {})
        entered[place.layer] = _unit(entering)
        length, unit = self._lengths[place.stack], _unit(leaving)
        found = torch.zeros(3, length, length, dtype=torch.float64)
        for first, rows in entered.items():
            if first <= place.layer and rows.shape == unit.shape:
                found[:, first, place.layer] = _between(rows, unit)
        sums.add_("blocks", place.stack, found)


def _first(value: Any) -> Tensor | None:
    return next((found for found in tensors_in(value) if found.is_floating_point()), None)


def _unit(rows: Tensor) -> Tensor:
    wide = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
    return functional.normalize(wide, dim=-1, eps=torch.finfo(wide.dtype).tiny)


def _between(one: Tensor, two: Tensor) -> Tensor:
    chord, across = (one - two).norm(dim=-1), (one + two).norm(dim=-1)
    angle = 2 / math.pi * torch.atan2(chord, across)
    parts = (chord.double().square().sum() / 2, angle.double().sum())
    total = torch.stack([*parts, parts[0].new_tensor(float(len(one)))])
    return total.cpu()


def _restore(layer: nn.Module, before: Any) -> None:
    if before is None:
        del layer.forward  # the class's own is back
    else:
        layer.forward = before
