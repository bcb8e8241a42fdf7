"""Prove on the user's own model that what a table says can be cut, can be cut.

Layer by layer a random third of all units is gated and, in a copy of the layer, cut; both layers
must answer the same on what the model itself feeds them. Where they do not, every group of the
layer is tried alone, and those whose gate and cut disagree are taken out of the structure and named
with the measured difference. A search never sees them.

Whole sub-layers are tried apart from the units inside them, which they would hide. One whose finer
units all failed is out, too: its table does not describe it, whatever little it has to say here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.errors import ModelError
from prunepath.structure.gates import gated, gates_of
from prunepath.structure.selection import Selection
from prunepath.structure.units import LeftAlone, Structure, UnitGroup
from prunepath.surgery.cut import cut_places_

__all__ = ["Proof", "prove"]

_FRACTION = 1 / 3
_ALLOWED = {torch.float32: 1e-4, torch.float64: 1e-8}
_ALLOWED_ROUNDED = 5e-2  # bfloat16 and float16 round every activation


@dataclass(frozen=True)
class Proof:
    """What was tried.

    Args:
        structure: the structure without the groups that failed.
        difference: largest difference of the groups that passed, relative to the answer.
        failed: group -> its difference.
    """

    structure: Structure
    difference: float
    failed: Mapping[str, float]


def prove(model: nn.Module, structure: Structure, run: Callable[[], object]) -> Proof:
    """Compare gate and cut for every group of a model.

    Args:
        model: the dense model; layers are swapped for cut copies and put back.
        structure: what discovery found.
        run: runs the model on a few samples and returns its answer.

    Returns:
        The structure that may be searched.

    Raises:
        ModelError: no group passed.
    """
    allowed = _ALLOWED.get(next(model.parameters()).dtype, _ALLOWED_ROUNDED)
    failed: dict[str, float] = {}
    worst = 0.0
    layers = dict.fromkeys(place.layer_path for place in structure.places)
    owner = {place.path: place.layer_path for place in structure.places}
    calls = _calls_of(model, layers, run)
    for layer in layers:
        groups = [group for group in structure.groups if owner[group.place] == layer]
        answer = _alone(model, layer, calls[layer]) if layer in calls else run
        for whole in (False, True):
            tried = [group for group in groups if group.is_sublayer == whole]
            together = _difference(model, structure, layer, tried, answer) if tried else 0.0
            if together <= allowed:
                worst = max(worst, together)
                continue
            for group in tried:
                alone = _difference(model, structure, layer, [group], answer)
                if alone <= allowed:
                    worst = max(worst, alone)
                else:
                    failed[group.name] = alone
    _fail_undescribed_(failed, structure)
    if len(failed) == len(structure.groups):
        name, value = next(iter(failed.items()))
        raise ModelError(
            f"nothing in this '{structure.model_type}' model can be cut exactly: of {len(failed)} "
            f"groups none passed (the first, '{name}', differs by {value:.2g}); the family table "
            "does not describe this model"
        )
    return Proof(_without(structure, failed), worst, failed)


def _fail_undescribed_(failed: dict[str, float], structure: Structure) -> None:
    """Add the sub-layers before whose consumer no finer unit passed."""
    described = {
        group.gate.key
        for group in structure.groups
        if not group.is_sublayer and group.name not in failed
    }
    for group in structure.groups:
        if group.is_sublayer and group.gate.key not in described:
            inside = structure.groups_by_place[group.place]
            failed[group.name] = max(failed.get(other.name, 0.0) for other in inside)


_Call = tuple[tuple[Any, ...], dict[str, Any]]


def _calls_of(
    model: nn.Module, layers: Iterable[str], run: Callable[[], object]
) -> dict[str, _Call]:
    """What every layer is called with first when the model runs; layers that are handed something
    they would change by running twice (a cache) are left out, and tried with the whole model."""
    calls: dict[str, _Call] = {}
    stateful: set[str] = set()
    with ExitStack() as stack, torch.no_grad():
        for layer in layers:

            def keep(_: nn.Module, args: Any, kwargs: Any, layer: str = layer) -> None:
                calls.setdefault(layer, (args, dict(kwargs)))
                if any(hasattr(value, "update") for value in (*args, *kwargs.values())):
                    stateful.add(layer)

            module = model.get_submodule(layer)
            handle = module.register_forward_pre_hook(keep, with_kwargs=True)
            stack.callback(handle.remove)
        run()
    return {layer: call for layer, call in calls.items() if layer not in stateful}


def _alone(model: nn.Module, layer: str, call: _Call) -> Callable[[], object]:
    """Runs whatever module stands in the layer's place on the layer's own inputs."""
    args, kwargs = call
    return lambda: model.get_submodule(layer)(*args, **kwargs)


def _difference(
    model: nn.Module,
    structure: Structure,
    layer: str,
    groups: Sequence[UnitGroup],
    run: Callable[[], object],
) -> float:
    """How far the gated and the cut layer are apart in what `run` answers."""
    selection = _some_of(groups)
    with torch.no_grad():
        with gated(model, structure, gates_of(selection, structure)):
            expected = flatten(run())
        whole = model.get_submodule(layer)
        model.set_submodule(layer, copy.deepcopy(whole))
        try:
            cut_places_(model, structure, selection, {group.place for group in groups})
            found = flatten(run())
        except (RuntimeError, ValueError, IndexError, AttributeError, TypeError):
            return float("inf")  # the model's own code cannot run what is left
        finally:
            model.set_submodule(layer, whole)
    if len(found) != len(expected) or found[0].shape != expected[0].shape:
        return float("inf")
    # What a layer says of its heads one by one has another shape when heads are gone.
    both = [pair for pair in zip(found, expected, strict=True) if pair[0].shape == pair[1].shape]
    scale = max(1.0, *(float(value.abs().max()) for _, value in both))
    worst = max(float((one - other).abs().max()) for one, other in both) / scale
    return worst if np.isfinite(worst) else float("inf")


def _some_of(groups: Sequence[UnitGroup]) -> Selection:
    """A random third of every lane of every group is gone, at least one unit of it, and no more
    than the model's code can spare."""
    random = np.random.default_rng(0)
    keep = {}
    for group in groups:
        mask = np.ones((group.num_lanes, group.lane_width), dtype=np.bool_)
        spare = group.lane_width - group.least
        count = min(max(1, round(_FRACTION * group.lane_width)), spare)
        for lane in mask:
            lane[random.permutation(group.lane_width)[:count]] = False
        keep[group.name] = mask.reshape(-1)
    return Selection(keep)


def flatten(answer: Any) -> list[Tensor]:
    """Every floating tensor in what a model answers, in order; caches are left out."""
    if isinstance(answer, Tensor):
        return [answer.float()] if answer.is_floating_point() and answer.numel() else []
    if isinstance(answer, Mapping):
        parts: Any = [value for key, value in answer.items() if "past_key_values" not in str(key)]
    else:
        parts = answer if isinstance(answer, list | tuple) else ()
    return [tensor for part in parts for tensor in flatten(part)]


def _without(structure: Structure, failed: Mapping[str, float]) -> Structure:
    if not failed:
        return structure
    groups = tuple(group for group in structure.groups if group.name not in failed)
    served = {path for group in groups for path in (group.place, *group.members)}
    left = [
        LeftAlone(
            module=name,
            params=0,
            reason=f"gate and cut disagree by {value:.2g} of the answer, so it is never cut",
        )
        for name, value in failed.items()
    ]
    lost = [p.dense_macs for p in structure.places if p.path not in served]
    a, b, c = zip(structure.fixed_macs, *lost, strict=True)
    return replace(
        structure,
        groups=groups,
        places=tuple(place for place in structure.places if place.path in served),
        left_alone=(*structure.left_alone, *left),
        fixed_macs=(sum(a), sum(b), sum(c)),
    )
