"""Read a model with its family's name table and return its structure.

Every name and shape in the table is checked against the model. What does not fit is listed as
left alone with the reason, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.axes import AxisLayout
from prunepath.structure.families import FAMILIES, Family, Place, family_for
from prunepath.structure.probe import legal_sizes
from prunepath.structure.units import (
    GateSite,
    LeftAlone,
    PlaceInfo,
    Structure,
    TensorInfo,
    UnitGroup,
)

__all__ = ["dense_sizes", "discover", "factor_sizes"]


def discover(model: nn.Module) -> Structure:
    """Find the unit groups of a model.

    Args:
        model: a transformers model of a known family.

    Returns:
        Groups, places, what is left alone, and the dense totals.

    Raises:
        ModelError: the family is unknown or nothing in the model can be cut.
    """
    config: Any = getattr(model, "config", None)
    model_type = str(getattr(config, "model_type", type(model).__name__))
    base_type = str(getattr(config, "base_model_type", model_type))
    family = family_for(base_type)
    if family is None:
        known = ", ".join(t for name in FAMILIES for t in FAMILIES[name].model_types)
        raise ModelError(
            f"cannot search a model of type '{model_type}': no family table covers it. Known "
            f"types: {known}. Add a table with prunepath.register_family(...)"
        )
    modules = dict(model.named_modules())
    layers = modules.get(family.layers)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"a '{model_type}' model should have its layers in '{family.layers}', and "
            f"{type(model).__name__} has none there; load it with its language-model head"
        )
    places: list[PlaceInfo] = []
    groups: list[UnitGroup] = []
    covered: set[str] = set()
    reasons: dict[str, str] = {}
    for index in range(len(layers)):
        sizes = factor_sizes(family, config, index)
        for table in family.places:
            path = f"{family.layers}.{index}.{table.module}"
            problem = _misfit(modules, path, table, sizes, family.refuse)
            if problem:
                reasons[path] = problem
                continue
            place = _place(modules, path, index, table, sizes)
            places.append(place)
            covered.update(tensor.name for tensor in place.tensors)
            groups.extend(_groups(family, path, index, table, sizes))
    if not groups:
        why = next(iter(reasons.values()), "it has no layers")
        raise ModelError(f"nothing in this '{model_type}' model can be cut: {why}")
    return _assemble(model, family, base_type, groups, places, covered, reasons)


def factor_sizes(family: Family, config: Any, layer: int) -> dict[str, int]:
    """Sizes of all factors in one layer, from the config or from a cut model's own record."""
    sizes = dense_sizes(family, config)
    record = getattr(config, "prunepath", None)
    if record:
        sizes.update({k: int(v) for k, v in record["layers"][layer].items()})
    return sizes


def dense_sizes(family: Family, config: Any) -> dict[str, int]:
    """Sizes of all factors before any cut, from the config's own fields."""
    return {name: _evaluate(text, config) for name, text in family.sizes.items()}


def _evaluate(text: str, config: Any) -> int:
    numerator, _, denominator = text.partition(" // ")
    value = _field(numerator, config)
    return value // _field(denominator, config) if denominator else value


def _field(name: str, config: Any) -> int:
    if name.isdigit():
        return int(name)
    value = getattr(config, name, None)
    if value is None and name == "head_dim":  # several configs leave it to be derived
        value = config.hidden_size // config.num_attention_heads
    if value is None:
        raise ModelError(
            f"the config of this '{config.model_type}' model has no '{name}', which its family "
            "table needs"
        )
    return int(value)


def _misfit(
    modules: Mapping[str, nn.Module],
    path: str,
    table: Place,
    sizes: Mapping[str, int],
    refuse: Mapping[str, str],
) -> str:
    """Why a place cannot be described by its table, or an empty string."""
    if path not in modules:
        return f"there is no module '{path}'"
    for name, reason in refuse.items():
        if f"{path}.{name}" in modules:
            return reason
    for name, texts in table.linears.items():
        module = modules.get(f"{path}.{name}")
        if not isinstance(module, nn.Linear):
            found = type(module).__name__ if module is not None else "nothing"
            return f"'{name}' should be a linear map and is {found}"
        for text, found_size in zip(texts, (module.out_features, module.in_features), strict=True):
            if text and AxisLayout.parse(text, sizes).size != found_size:
                layout = AxisLayout.parse(text, sizes)
                return f"'{name}' should have an axis of {layout.size} ({layout}), not {found_size}"
    return ""


def _place(
    modules: Mapping[str, nn.Module],
    path: str,
    layer: int,
    table: Place,
    sizes: Mapping[str, int],
) -> PlaceInfo:
    tensors = []
    itemsize = 0
    for name, texts in table.linears.items():
        linear = modules[f"{path}.{name}"]
        assert isinstance(linear, nn.Linear)
        itemsize = linear.weight.element_size()
        widths = (linear.out_features, linear.in_features)
        axes = tuple(
            AxisLayout.parse(text, sizes) if text else AxisLayout.fixed(width)
            for text, width in zip(texts, widths, strict=True)
        )
        tensors.append(
            TensorInfo(name=f"{path}.{name}.weight", axes=axes, macs_per_token=1, itemsize=itemsize)
        )
        if linear.bias is not None:
            tensors.append(
                TensorInfo(
                    name=f"{path}.{name}.bias", axes=axes[:1], macs_per_token=0, itemsize=itemsize
                )
            )
    pairs = tuple(AxisLayout.parse(text, sizes) for text in (table.scores, table.context) if text)
    return PlaceInfo(
        path=path,
        layer=layer,
        tensors=tuple(tensors),
        pair_layouts=pairs,
        cache_layouts=tuple(AxisLayout.parse(text, sizes) for text in table.cache),
        cache_itemsize=itemsize,
        native=table.native,
        runtime=table.runtime,
        attributes=dict(table.attributes),
    )


def _groups(
    family: Family, path: str, layer: int, table: Place, sizes: Mapping[str, int]
) -> list[UnitGroup]:
    found = []
    for kind in family.kinds:
        if kind.place != table.module:
            continue
        linear, _, side = kind.gate.partition(".")
        text = table.linears[linear][0 if side == "output" else 1]
        found.append(
            UnitGroup(
                name=f"layers.{layer}.{kind.name}",
                kind=kind.name,
                layer=layer,
                place=path,
                unit=AxisLayout.parse(kind.unit, sizes),
                tied=kind.tied,
                gate=GateSite(
                    module=f"{path}.{linear}", side=side, layout=AxisLayout.parse(text, sizes)
                ),
                consumer=f"{path}.{kind.consumer}" if kind.consumer else "",
            )
        )
    return found


def _assemble(
    model: nn.Module,
    family: Family,
    model_type: str,
    groups: list[UnitGroup],
    places: list[PlaceInfo],
    covered: set[str],
    reasons: Mapping[str, str],
) -> Structure:
    parameters = dict(model.named_parameters())  # tied weights appear once
    fixed_macs = 0
    left: list[LeftAlone] = []
    for name, module in model.named_modules():
        own = {f"{name}.{key}": p for key, p in module.named_parameters(recurse=False)}
        if isinstance(module, nn.Linear) and f"{name}.weight" not in covered:
            fixed_macs += module.weight.numel()  # a tied head works too, though it owns nothing
        rest = {key: p for key, p in own.items() if key not in covered and key in parameters}
        if rest:
            place = next((p for p in reasons if f"{name}.".startswith(f"{p}.")), "")
            why = reasons.get(place) or _left_reason(name, module, family)
            left.append(
                LeftAlone(module=name, params=sum(p.numel() for p in rest.values()), reason=why)
            )
    return Structure(
        family=family.name,
        model_type=model_type,
        groups=tuple(groups),
        places=tuple(places),
        left_alone=tuple(left),
        num_params=sum(p.numel() for p in parameters.values()),
        block_params=sum(
            p.numel() for name, p in parameters.items() if name.startswith(f"{family.layers}.")
        ),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters.values()),
        fixed_macs_per_token=fixed_macs,
        num_layers=len(model.get_submodule(family.layers)),  # type: ignore[arg-type]
        config_sizes=dict(family.config_sizes),
        legal_sizes=legal_sizes(
            model.config, family.config_sizes, factor_sizes(family, model.config, 0)
        ),
    )


def _left_reason(name: str, module: nn.Module, family: Family) -> str:
    if isinstance(module, nn.Embedding):
        return "an embedding; the residual width and the vocabulary stay"
    if "norm" in type(module).__name__.lower():
        return "a norm over the residual width, which stays"
    if name.startswith(f"{family.layers}."):
        return f"not named by the '{family.name}' table"
    return "outside the layers"
