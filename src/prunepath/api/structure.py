"""What can be cut of the user's own model, proven on it before anything expensive starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunepath.errors import ModelError

if TYPE_CHECKING:
    from prunepath.progress import Progress
    from prunepath.structure.families import Place
    from prunepath.structure.units import Structure
    from prunepath.tasks.task import Task

__all__ = ["read_structure"]

_SAMPLES = 2


def read_structure(
    model: Any, task: Task, *, proven: bool = True, progress: Progress | None = None
) -> Structure:
    """Discover a model's units and prove every group on the model.

    A model of known families is read with their tables. Any other is read with a table guessed
    from the names of its modules; of every place the variant is taken that proves exact.

    Args:
        model: a transformers model; experts stored in one tensor are taken apart in it.
        task: what it is for; makes the samples it is tried on.
        proven: compare gate and cut for every group; without it a known model is only read.
        progress: who listens.

    Returns:
        The structure; groups that failed are in `left_alone` with the measured difference.

    Raises:
        ModelError: nothing can be cut exactly.
    """
    import torch

    from prunepath.progress import note
    from prunepath.structure.discover import discover
    from prunepath.structure.families.portable import carried_tables
    from prunepath.structure.gates import frozen
    from prunepath.structure.walk import found_stacks
    from prunepath.surgery.experts import unfuse_experts_
    from prunepath.surgery.proof import prove

    unfuse_experts_(model)
    device = next(model.parameters()).device

    def probe(length: int) -> object:
        return task.output(model, task.dummy(model, 1, window=length).to(device))

    def run() -> object:
        return task.output(model, task.dummy(model, _SAMPLES).to(device))

    tables = carried_tables(model)
    with frozen(model), torch.no_grad():
        if not found_stacks(model, tables):
            return _guessed(model, probe, run, progress)
        structure = discover(model, probe, tables=tables)
        if not proven:
            return structure
        proof = prove(model, structure, run)
        for name, difference in proof.failed.items():
            note(progress, f"left alone: '{name}', whose gate and cut differ by {difference:.2g}")
        return proof.structure


def _guessed(model: Any, probe: Any, run: Any, progress: Progress | None) -> Structure:
    """The best table that names suggest, place by place."""
    from prunepath.progress import note
    from prunepath.structure.discover import discover
    from prunepath.structure.guess import guess_variants, guessed_family
    from prunepath.surgery.proof import prove

    variants = guess_variants(model)
    model_type = getattr(model.config, "model_type", type(model).__name__)
    if not variants:
        raise ModelError(
            f"cannot search a model of type '{model_type}': no family table covers it, and none of "
            "its modules have names that suggest attention or a feed-forward network; describe it "
            "with prunepath.register_family(...)"
        )
    best: dict[tuple[str, str], tuple[int, Place]] = {}
    most = max(len(options) for places in variants.values() for options in places.values())
    for turn in range(most):
        chosen = {
            layers: [options[min(turn, len(options) - 1)] for options in places.values()]
            for layers, places in variants.items()
        }
        structure = discover(model, probe, tables=[guessed_family(model, chosen)])
        try:
            left = prove(model, structure, run).structure.groups
        except ModelError:
            left = ()
        for layers, places in variants.items():
            for path, place in zip(places, chosen[layers], strict=True):
                passed = sum(_lives_in(group.place, layers, path) for group in left)
                if (layers, path) not in best or passed > best[layers, path][0]:
                    best[layers, path] = (passed, place)
    chosen = {
        layers: [best[layers, path][1] for path in places if best[layers, path][0]]
        for layers, places in variants.items()
    }
    family = guessed_family(model, {layers: places for layers, places in chosen.items() if places})
    if not family.stacks:
        raise ModelError(
            f"cannot search a model of type '{model_type}': no family table covers it, and nothing "
            "that its names suggest proved exact; describe it with prunepath.register_family(...)"
        )
    proof = prove(model, discover(model, probe, tables=[family]), run)
    note(progress, f"'{model_type}' is in no table; {len(proof.structure.groups)} groups proved")
    return replace(proof.structure, family=family.name)


def _lives_in(place: str, layers: str, path: str) -> bool:
    """Whether a group's place is that module of one of those layers."""
    if not place.startswith(f"{layers}."):
        return False
    inside = place[len(layers) + 1 :].partition("#")[0].partition(".")[2]
    return inside == path or (not inside and "#" in place)
