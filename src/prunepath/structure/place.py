"""One sub-layer of a model, read with its table: tensors, groups, and why it does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from prunepath.errors import ModelError
from prunepath.structure.axes import Axis, AxisLayout
from prunepath.structure.families import Kind, Place
from prunepath.structure.matrices import (
    input_width,
    is_convolution,
    is_linear,
    is_router,
    is_transposed,
    out_width,
)
from prunepath.structure.members import with_members
from prunepath.structure.sizes import place_factors
from prunepath.structure.units import GateSite, PlaceInfo, TensorInfo, UnitGroup
from prunepath.structure.walk import FoundLayer, FoundStack

__all__ = ["describe_place", "each_match", "factors_of", "misfit", "place_record"]


def each_match(modules: Mapping[str, nn.Module], layer: str, table: Place) -> list[Place]:
    """A place for every module of a layer that its path stands for; without `*` that is itself."""
    before, star, after = table.module.partition("*")
    if not star:
        return [table]
    parent = f"{layer}.{before}".rstrip(".")
    names = [name for name, _ in modules[parent].named_children()] if parent in modules else []
    return [
        replace(table, module=f"{before}{name}{after}", prefix=table.prefix.replace("*", name))
        for name in names
    ]


def place_record(model: nn.Module, path: str) -> Mapping[str, Mapping[str, int]] | None:
    """What an earlier cut wrote down about a place: `sizes`, and `run` where they differ."""
    record = getattr(getattr(model, "config", None), "prunepath", None) or {}
    found: Mapping[str, Mapping[str, int]] | None = record.get("places", {}).get(path)
    return found


def factors_of(model: nn.Module, path: str, table: Place, config: Any) -> dict[str, int]:
    """Sizes of all factors of a place: of a cut model as recorded, else read off the module."""
    record = place_record(model, path)
    if record is not None:
        return {name: int(size) for name, size in record["sizes"].items()}
    return place_factors(table, model.get_submodule(path.partition("#")[0]), config)


def misfit(
    modules: Mapping[str, nn.Module], path: str, table: Place, config: Any, model: nn.Module
) -> tuple[str, bool]:
    """Why a place cannot be described by its table, or an empty string; and whether it is simply
    not there, which an optional place may be."""
    if any(bool(getattr(config, flag, False)) != value for flag, value in table.when.items()):
        return "", True
    first = next(iter(table.linears))
    if path not in modules or not _is_map(modules.get(f"{path}.{first}")):
        if table.optional:
            return "", True
        if path not in modules:
            return f"there is no module '{path}'", False
    for name in table.linears:
        module = modules.get(f"{path}.{name}")
        if module is None and name in table.sometimes:
            continue
        if not _is_map(module):
            found = type(module).__name__ if module is not None else "nothing"
            return f"'{name}' should be a linear map and is {found}", False
    try:
        sizes = factors_of(model, place_path(path, table), table, config)
    except ModelError as error:
        return str(error), False
    for name, texts in table.linears.items():
        if f"{path}.{name}" not in modules:
            continue  # one of those that may be missing
        module = modules[f"{path}.{name}"]
        for text, width in zip(texts, (out_width(module), input_width(module)), strict=True):
            axis = Axis.parse(text, sizes) if text else None
            if axis is not None and axis.size != width:
                return f"'{name}' should have an axis of {axis.size} ({axis}), not {width}", False
    return "", False


def place_path(path: str, table: Place) -> str:
    """Unique path of a place: two places of the same module are told apart by their names."""
    return path if table.module else f"{path}#{table.name}"


def describe_place(
    model: nn.Module, path: str, layer: FoundLayer, label: str, table: Place, found: FoundStack
) -> tuple[PlaceInfo, list[UnitGroup], dict[str, str]]:
    """A place that fits its table, its groups, and the kinds that are refused, with the reason."""
    unique = place_path(path, table)
    sizes = factors_of(model, unique, table, found.config)
    record = place_record(model, unique)
    run = {name: int(size) for name, size in (record or {}).get("run", {}).items()}
    tensors = _tensors(model, path, table, sizes, {**sizes, **run})
    pair_sizes = sizes if table.runtime else {**sizes, **run}
    pairs = tuple(
        AxisLayout.parse(part, pair_sizes)
        for text in (table.scores, table.context)
        for part in text.split("|")
        if part.strip()
    )
    caches = (AxisLayout.parse(text, pair_sizes) for text in table.cache)
    place = PlaceInfo(
        path=unique,
        layer=layer.index,
        layer_path=layer.path,
        stack=found.path,
        tensors=tuple(tensors),
        pair_layouts=pairs,
        cache_layouts=tuple(x for x in caches if x.size or table.runtime),
        cache_itemsize=tensors[0].itemsize,
        native=tuple(
            name
            for name in table.native
            if not getattr(found.config, table.held.get(name, ""), False)
        ),
        runtime=table.runtime,
        attributes=dict(table.attributes),
        run=run,
        routed=table.routed,
    )
    refused = {
        kind: why
        for module, (kinds, why) in table.refuse.items()
        if _there(model, f"{path}.{module}")
        for kind in kinds
    }
    kinds = [
        kind
        for kind in table.kinds
        if kind.name not in refused and AxisLayout.parse(kind.unit, sizes).size
    ]
    groups = []
    for kind in (*kinds, *_sublayer(table, kinds)):
        group = _group(kind, path, unique, layer.index, label, table, sizes, found)
        if kind.members or kind.least:
            group, why = with_members(group, kind, model, path, found.config, sizes)
            if why:
                refused[kind.name] = why
                continue
        groups.append(group)
    return place, groups, refused


def _is_map(module: nn.Module | None) -> bool:
    """Whether a table may name the module among its linear maps."""
    return is_linear(module) or is_router(module)


def _sublayer(table: Place, kinds: Sequence[Kind]) -> list[Kind]:
    """The sub-layer as one unit more, where all it puts out passes a consumer that units stand
    before.

    Its unit is the empty product: it owns every position of every axis, so gate, cut and cost
    follow as they do for other units. What a router chooses goes with the router, and has none.
    """
    behind = next((kind for kind in kinds if kind.gate == f"{kind.consumer}.input"), None)
    if behind is None or table.routed:
        return []
    heads = any(kind.tied for kind in kinds)  # deformable attention multiplies no pairs of tokens
    name = "attention" if table.scores or heads else "ffn"
    return [Kind(name=name, unit="", gate=behind.gate, consumer=behind.consumer)]


def _there(model: nn.Module, path: str) -> bool:
    """Whether a module or parameter exists and does something."""
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name, None)
    return found is not None and not isinstance(found, nn.Identity)


def _tensors(
    model: nn.Module,
    path: str,
    table: Place,
    sizes: Mapping[str, int],
    running: Mapping[str, int],
) -> list[TensorInfo]:
    tensors = []
    for name, texts in table.linears.items():
        if name in table.sometimes and not _there(model, f"{path}.{name}"):
            continue
        module: Any = model.get_submodule(f"{path}.{name}")
        widths = (out_width(module), input_width(module))
        out_axis, in_axis = (
            Axis.parse(text, sizes) if text else Axis.fixed(width)
            for text, width in zip(texts, widths, strict=True)
        )
        axes: tuple[Axis, ...] = (out_axis, in_axis)
        axes = axes[::-1] if is_transposed(module) else axes
        itemsize = module.weight.element_size()
        full = f"{path}.{name}"
        tensors.append(
            TensorInfo(name=f"{full}.weight", axes=axes, rows=(0.0, 1.0), itemsize=itemsize)
        )
        if getattr(module, "bias", None) is not None:
            tensors.append(
                TensorInfo(
                    name=f"{full}.bias", axes=(out_axis,), rows=(0.0, 0.0), itemsize=itemsize
                )
            )
    for name, layouts in table.tensors.items():
        if not _there(model, f"{path}.{name}"):
            continue
        owner, _, attribute = f"{path}.{name}".rpartition(".")
        holder: Any = model.get_submodule(owner)
        parameter = getattr(holder, attribute)
        multiplies = is_linear(holder) or is_convolution(holder)
        if isinstance(parameter, Tensor):
            axes = tuple(
                Axis.parse(text, running) if text else Axis.fixed(width)
                for text, width in zip(layouts, parameter.shape, strict=True)
            )
            tensors.append(
                TensorInfo(
                    name=f"{path}.{name}",
                    axes=axes,
                    rows=(0.0, float(multiplies and parameter.ndim > 1)),
                    itemsize=parameter.element_size(),
                    whole=True,
                )
            )
    return tensors


def _group(
    kind: Kind,
    path: str,
    place: str,
    layer: int,
    label: str,
    table: Place,
    sizes: Mapping[str, int],
    found: FoundStack,
) -> UnitGroup:
    where, _, part = kind.gate.partition("#")
    linear, _, side = where.rpartition(".")
    text = table.linears[linear][1 if side == "input" else 0]
    name = f"{table.prefix}.{kind.name}" if table.prefix else kind.name
    width = kind.name if table.routed else name  # groups of one width in the uniform layout
    own = set(kind.unit.split()) - {kind.tied}
    fields = {name: set(said) for name, said in found.stack.config_sizes.items() if own & set(said)}
    shared = found.config_path is not None and own <= set().union(*fields.values())
    stated = f"{found.config_path or 'config'}.{'+'.join(fields)}"  # two stacks may share a field
    alike = found.layers[layer].path.rpartition(".")[0]  # layers of one list, of one width
    return UnitGroup(
        name=f"{label}.{layer}.{name}",
        kind=kind.name,
        layer=layer,
        place=place,
        series=f"{stated if shared else alike}/{width}",
        unit=AxisLayout.parse(kind.unit, sizes),
        tied=kind.tied,
        gate=GateSite(
            module=f"{path}.{linear}", side=side, axis=Axis.parse(text, sizes), part=int(part or 0)
        ),
        consumer=f"{path}.{kind.consumer}" if kind.consumer else "",
    )
