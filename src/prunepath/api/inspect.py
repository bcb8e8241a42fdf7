"""The verb `inspect`: what can be cut, what one unit costs, what is left alone and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunepath.path import Provenance
    from prunepath.structure.cost import Cost
    from prunepath.structure.tokens import TokenSchedule
    from prunepath.structure.units import Structure

__all__ = ["Inspection", "KindReport", "inspect"]


@dataclass(frozen=True, kw_only=True)
class KindReport:
    """One unit kind over all layers.

    Args:
        kind: its name.
        groups: number of groups (usually one a layer).
        units: number of units in all groups.
        widths: units per lane -> number of groups of that width.
        lanes: lanes that end equally wide in each group.
        unit: what one unit of the first group costs.
        runs_natively: whether the family's own code runs any number of them.
    """

    kind: str
    groups: int
    units: int
    widths: Mapping[int, int]
    lanes: int
    unit: Cost
    runs_natively: bool


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` found.

    Args:
        source: what was inspected.
        structure: groups, places and what is left alone.
        cost: of the model as it is.
        kinds: one report per unit kind.
        provenance: how the path was made, for a path.
        sequence_length: tokens the costs are stated for.
        stated_for: the same in words: `"512 tokens"`, or `"one sample"` where length changes
            nothing.
        task: name of the task.
        tokens: how many tokens every block merges, of a model that merges some.
    """

    source: str
    structure: Structure
    cost: Cost
    kinds: tuple[KindReport, ...]
    provenance: Provenance | None
    sequence_length: int
    stated_for: str
    task: str
    tokens: TokenSchedule | None = None


def inspect(
    source: Any,
    *,
    task: str | None = None,
    sequence_length: int | None = None,
    trust_remote_code: bool = False,
    **hub: Any,
) -> Inspection:
    """Look at a model, a path or an extracted folder without changing anything.

    Args:
        source: Hub id, folder, GGUF file, model object, or the folder of a solution path.
        task: registered task name; by default what the model's class is for.
        sequence_length: tokens the costs are stated for, by default 512.
        trust_remote_code: run code that comes with the model.
        hub: how to load a model (revision, token, cache_dir).

    Returns:
        Unit kinds with counts and costs, and what is left alone.

    Raises:
        ModelError: it cannot be loaded or nothing in it can be cut.
        PathFileError: it is a path and is damaged.

    Example:
        >>> import prunepath
        >>> report = prunepath.inspect("model")  # doctest: +SKIP
        >>> [kind.kind for kind in report.kinds]  # doctest: +SKIP
        ['qk_coordinate', 'vo_coordinate', 'head', 'attention', 'ffn_channel', 'ffn']
    """
    from prunepath.api.discovery import discover_for
    from prunepath.api.stated import LENGTH, stated_for
    from prunepath.checkpoint.source import open_model
    from prunepath.path import PATH_FILE, SolutionPath
    from prunepath.structure.cost import cost_of
    from prunepath.structure.selection import everything
    from prunepath.surgery.record import recorded_tokens

    length = LENGTH if sequence_length is None else sequence_length
    provenance = tokens = None
    if isinstance(source, SolutionPath):
        structure, provenance = source.structure, source.provenance
    elif isinstance(source, str | Path) and _is_path(Path(source), PATH_FILE):
        path = SolutionPath.from_pretrained(source)
        structure, provenance = path.structure, path.provenance
    else:
        opened = open_model(source, task=task, trust_remote_code=trust_remote_code, **hub)
        structure = discover_for(opened.model, opened.task)
        task = opened.task.name
        tokens = recorded_tokens(opened.model.config)
    return Inspection(
        source=str(source) if isinstance(source, str | Path) else type(source).__name__,
        structure=structure,
        cost=cost_of(structure, everything(structure), length),
        kinds=tuple(_report(structure, kind, length) for kind in structure.kinds),
        provenance=provenance,
        sequence_length=length,
        stated_for=stated_for(structure, length),
        task=str(task) if provenance is None else provenance.task,
        tokens=tokens,
    )


def _is_path(source: Path, file_name: str) -> bool:
    return source.name == file_name or (source / file_name).is_file()


def _report(structure: Structure, kind: str, sequence_length: int) -> KindReport:
    from prunepath.structure.cost import unit_cost

    groups = structure.of_kind(kind)
    widths: dict[int, int] = {}
    for group in groups:
        widths[group.lane_width] = widths.get(group.lane_width, 0) + 1
    native = {place.path: set(place.native) for place in structure.places}
    return KindReport(
        kind=kind,
        groups=len(groups),
        units=sum(group.num_units for group in groups),
        widths=widths,
        lanes=groups[0].num_lanes,
        unit=unit_cost(structure, groups[0], sequence_length),
        runs_natively=not groups[0].is_sublayer
        and set(groups[0].unit.names) <= native[groups[0].place],
    )
