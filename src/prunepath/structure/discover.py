"""Read a model with its families' name tables and return its structure.

Every name and shape in a table is checked against the model. What does not fit is listed as left
alone with the reason, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.counting import count_places
from prunepath.structure.families import FAMILIES, Family, ships_with_us
from prunepath.structure.families.portable import family_to_dict
from prunepath.structure.measure import Probe
from prunepath.structure.place import describe_place, each_match, misfit
from prunepath.structure.probe import legal_sizes
from prunepath.structure.units import LeftAlone, PlaceInfo, StackInfo, Structure, UnitGroup
from prunepath.structure.walk import FoundStack, found_stacks

__all__ = ["discover", "read_places"]


def discover(
    model: nn.Module, probe: Probe | None = None, *, tables: Sequence[Family] = ()
) -> Structure:
    """Find the unit groups of a model.

    Args:
        model: a transformers model made of known families.
        probe: runs the model on a sample; needed wherever rows are not simply tokens of one text
            (images, pairs, weights shared between layers). Without one every linear map is taken
            to see every token once.
        tables: family tables that count beside the registered ones, and before them.

    Returns:
        Groups, places, what is left alone, and the dense totals.

    Raises:
        ModelError: the family is unknown or nothing in the model can be cut.
    """
    config: Any = getattr(model, "config", None)
    model_type = str(getattr(config, "model_type", type(model).__name__))
    base_type = str(getattr(config, "base_model_type", "") or model_type)
    stacks = found_stacks(model, tables)
    if not stacks:
        known = ", ".join(sorted(t for name in FAMILIES for t in FAMILIES[name].model_types))
        raise ModelError(
            f"cannot search a model of type '{base_type}': no family table covers it. Known "
            f"types: {known}. Add a table with prunepath.register_family(...)"
        )
    reader = _Reader(model, several=len(stacks) > 1)
    for found in stacks:
        reader.read(found)
    if not reader.groups:
        nothing = "everything was cut away before" if reader.places else "it has no layers"
        why = next(iter(reader.reasons.values()), nothing)
        raise ModelError(f"nothing in this '{base_type}' model can be cut: {why}")
    return reader.structure(base_type, probe)


def _additive(found: FoundStack) -> bool:
    said = found.stack.additive
    return bool(getattr(found.config, said)) if isinstance(said, str) else said


def read_places(model: nn.Module, tables: Sequence[Family] = ()) -> dict[str, PlaceInfo]:
    """The sub-layers of a model by their path, for loading: nothing is measured or tried."""
    reader = _Reader(model, several=False)
    for found in found_stacks(model, tables):
        reader.read(found, legal=False)
    return {place.path: place for place, _ in reader.places}


class _Reader:
    """Collects what the stacks of one model hold."""

    def __init__(self, model: nn.Module, several: bool) -> None:
        self.model = model
        self.modules = dict(model.named_modules())
        self.several = several
        self.groups: list[UnitGroup] = []
        self.places: list[tuple[PlaceInfo, str]] = []  # with the linear that sees the keys
        self.stacks: list[StackInfo] = []
        self.families: list[str] = []
        self.tables: dict[str, Mapping[str, Any]] = {}
        self.layers: list[str] = []
        self.reasons: dict[str, str] = {}

    def read(self, found: FoundStack, *, legal: bool = True) -> None:
        """Add one stack; `legal`: also ask its config class which sizes it accepts."""
        label = found.path if self.several else "layers"
        first_sizes: dict[str, int] = {}
        for layer in found.layers:
            self.layers.append(layer.path)
            for module, why in found.stack.stays.items():
                if f"{layer.path}.{module}" in self.modules:
                    self.reasons[f"{layer.path}.{module}"] = why
            tables = (each_match(self.modules, layer.path, place) for place in found.stack.places)
            for table in chain.from_iterable(tables):
                path = f"{layer.path}.{table.module}".rstrip(".")
                problem, skip = misfit(self.modules, path, table, found.config, self.model)
                if skip:
                    continue
                if problem:
                    self.reasons[path] = problem
                    continue
                place, groups, refused = describe_place(
                    self.model, path, layer, label, table, found
                )
                if refused and len(refused) == len(table.kinds):
                    self.reasons[path] = next(iter(refused.values()))
                    continue
                if any(place.path == other.path for other, _ in self.places):
                    continue  # the same module hangs in two places: weights shared between layers
                self.places.append((place, table.keys))
                self.groups.extend(groups)
                for name, why in refused.items():
                    self.reasons[f"{path}#{name}"] = why
                for factor, size in place.factors.items():
                    first_sizes.setdefault(factor, size)
        fields = found.stack.config_sizes if found.config_path is not None else {}
        self.families.append(found.family.name)
        if not ships_with_us(found.family):
            self.tables[found.family.name] = family_to_dict(found.family)
        self.stacks.append(
            StackInfo(
                path=found.path,
                config=found.config_path or "",
                num_layers=len(found.layers),
                config_sizes=dict(fields),
                legal_sizes=legal_sizes(found.config, fields, first_sizes) if legal else {},
                additive=_additive(found),
            )
        )

    def structure(self, model_type: str, probe: Probe | None) -> Structure:
        """Everything together, with rows, pairs and fixed work measured if there is a probe."""
        parameters = dict(self.model.named_parameters())  # tied weights appear once
        places = [place for place, _ in self.places]
        fixed = (0.0, self._linear_macs_per_token(places), 0.0)
        if probe is not None:
            places, fixed = count_places(self.model, self.places, probe)
            places = self._running(places)
        layers = tuple(f"{path}." for path in dict.fromkeys(self.layers))
        return Structure(
            family=", ".join(dict.fromkeys(self.families)),
            model_type=model_type,
            groups=tuple(self.groups),
            places=tuple(places),
            stacks=tuple(self.stacks),
            left_alone=tuple(self._left_alone(places, parameters, layers)),
            num_params=sum(p.numel() for p in parameters.values()),
            block_params=sum(p.numel() for n, p in parameters.items() if n.startswith(layers)),
            weight_bytes=sum(p.numel() * p.element_size() for p in parameters.values()),
            fixed_macs=fixed,
            tables=tuple(self.tables.values()),
        )

    def _running(self, places: list[PlaceInfo]) -> list[PlaceInfo]:
        """Places the measured passes went through; the others would look free to cut."""
        idle = {
            place.path
            for place in places
            if all(tensor.rows == (0.0, 0.0) for tensor in place.tensors)
        }
        for path in idle:
            self.reasons[path.partition("#")[0]] = "this task never runs it, so nothing is known"
        self.groups = [group for group in self.groups if group.place not in idle]
        return [place for place in places if place.path not in idle]

    def _linear_macs_per_token(self, places: list[PlaceInfo]) -> float:
        covered = {tensor.name for place in places for tensor in place.tensors}
        return sum(
            float(module.weight.numel())
            for name, module in self.modules.items()
            if isinstance(module, nn.Linear) and f"{name}.weight" not in covered
        )

    def _left_alone(
        self, places: list[PlaceInfo], parameters: Mapping[str, Any], layers: tuple[str, ...]
    ) -> list[LeftAlone]:
        covered = {tensor.name for place in places for tensor in place.tensors}
        left: list[LeftAlone] = []
        for name, module in self.model.named_modules():
            own = {f"{name}.{key}": p for key, p in module.named_parameters(recurse=False)}
            rest = {key: p for key, p in own.items() if key not in covered and key in parameters}
            if rest:
                place = next((p for p in self.reasons if f"{name}.".startswith(f"{p}.")), "")
                why = self.reasons.get(place) or self._reason(name, module, layers)
                size = sum(p.numel() for p in rest.values())
                left.append(LeftAlone(module=name, params=size, reason=why))
        for place, why in self.reasons.items():
            if "#" in place:  # a kind of a place that is cut otherwise
                left.append(LeftAlone(module=place, params=0, reason=why))
        return left

    def _reason(self, name: str, module: nn.Module, layers: tuple[str, ...]) -> str:
        if isinstance(module, nn.Embedding):
            return "an embedding; the residual width and the vocabulary stay"
        if "norm" in type(module).__name__.lower():
            return "a norm over the residual width, which stays"
        if f"{name}.".startswith(layers):
            return f"not named by the '{', '.join(dict.fromkeys(self.families))}' table"
        return "outside the layers"
