"""Where the features of a trajectory are read: found by running the model, not by names.

Every layer gives the output of the norm that it applies first to what enters it. A layer that does
not begin with a norm (encoders that norm last, whose residual stream is normed already) gives what
enters it. Behind the last layer of a stack comes one feature more: the norm that reads its output,
or that output. So the features of later layers are the ones behind a unit, the last layer has one,
too, and nothing of a unit's own layer is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunepath.errors import ModelError
from prunepath.methods.optin.tape import Call, CallTape, first_tensor
from prunepath.structure.families.portable import family_from_dict
from prunepath.structure.units import Structure, UnitGroup
from prunepath.structure.walk import found_stacks

__all__ = ["FeatureSite", "Trajectory", "find_features", "find_trajectory", "reading"]


@dataclass(frozen=True)
class FeatureSite:
    """Where one feature is read.

    Args:
        module: full path of the module.
        side: `"input"` (the first tensor it is given) or `"output"`.
        stack: path of the stack.
        index: place in the stack; the number of calls of its layers comes behind them all.
        call: how many calls of the module came before this one (layers that run several times).
    """

    module: str
    side: str
    stack: str
    index: int
    call: int = 0

    @property
    def name(self) -> str:
        """One word for files: `"layers.3.norm.output"`."""
        again = f"#{self.call}" if self.call else ""
        return f"{self.module}.{self.side}{again}"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The features of a model in the order they come by.

    Args:
        sites: where they are read.
        first: group -> index of the first feature behind its gate.
        start: group -> position on the tape where its gate acts first.
        tape: the pass they were found in.
    """

    sites: tuple[FeatureSite, ...]
    first: Mapping[str, int]
    start: Mapping[str, int]
    tape: CallTape


def find_features(
    model: nn.Module, structure: Structure, run: Callable[[], object]
) -> tuple[FeatureSite, ...]:
    """Where the features of a model are read, in call order.

    Args:
        model: the dense model, in evaluation mode.
        structure: its structure.
        run: runs the model once on a sample or two.

    Raises:
        ModelError: no layer of the model was called.
    """
    return find_trajectory(model, structure, run).sites


def find_trajectory(
    model: nn.Module, structure: Structure, run: Callable[[], object]
) -> Trajectory:
    """The features of a model, and which of them lie behind every group; see `find_features`."""
    stacks = _layers(model, structure)
    tape = CallTape.record(model, run, held=set(stacks))
    found: list[tuple[int, FeatureSite]] = []
    ended: dict[str, tuple[Call, int]] = {}
    for call in tape.calls:
        if call.module not in stacks:
            continue
        stack = stacks[call.module]
        index = ended[stack][1] + 1 if stack in ended else 0
        ended[stack] = (call, index)
        norm = _norm_of(model, call)
        if norm is None:
            site = FeatureSite(call.module, "input", stack, index, call.number)
            found.append((call.begin, site))
        else:
            found.append((norm.end, FeatureSite(norm.module, "output", stack, index, norm.number)))
    if not found:
        raise ModelError(
            f"no layer of this '{structure.model_type}' model ran on the calibration data, so it "
            "has no features to compare; use another method"
        )
    for stack, (call, index) in ended.items():
        norm = _norm_behind(model, tape, call)
        last = call if norm is None else norm
        site = FeatureSite(last.module, "output", stack, index + 1, last.number)
        found.append((last.end, site))
    found.sort(key=lambda item: item[0])
    start = {group.name: _start(model, structure, tape, group) for group in structure.groups}
    first = {name: sum(when < begin for when, _ in found) for name, begin in start.items()}
    return Trajectory(tuple(site for _, site in found), first, start, tape)


def _layers(model: nn.Module, structure: Structure) -> dict[str, str]:
    """Layer -> its stack; layers without units count, too."""
    tables = [family_from_dict(table) for table in structure.tables]
    layers = {
        layer.path: found.path for found in found_stacks(model, tables) for layer in found.layers
    }
    layers.update({place.layer_path: place.stack for place in structure.places})
    return layers


def _norm_of(model: nn.Module, layer: Call) -> Call | None:
    """The norm that a layer applies before anything else to what enters it."""
    for leaf in layer.leaves():
        reads = leaf.source is not None and leaf.source.same(layer.source)
        if reads and not leaf.passes:
            return leaf if leaf is not layer and _is_norm(model, leaf) else None
    return None


def _norm_behind(model: nn.Module, tape: CallTape, last: Call) -> Call | None:
    """The norm that reads a layer's output, if nothing else reads it first."""
    for call in tape.calls:
        if call.begin < last.end or call.inside or call.source is None or call.passes:
            continue
        if call.source.same(last.result):
            return call if _is_norm(model, call) else None
    return None


def _is_norm(model: nn.Module, call: Call) -> bool:
    """A module that scales channels and mixes nothing: only vectors as parameters."""
    module = model.get_submodule(call.module)
    vectors = [parameter.ndim == 1 for parameter in module.parameters()]
    named = "norm" in type(module).__name__.lower()
    same_shape = call.source is not None and call.result is not None
    same_shape = same_shape and call.source.shape == call.result.shape  # type: ignore[union-attr]
    return same_shape and all(vectors) and (bool(vectors) or named)


def _start(model: nn.Module, structure: Structure, tape: CallTape, group: UnitGroup) -> int:
    """Where on the tape a group's gate acts first."""
    calls = tape.of(model, group.gate.module)
    place = structure.places_by_path[group.place]
    if calls and not place.routed:
        return calls[0].begin if group.gate.side == "input" else calls[0].end
    # What a router sends elsewhere on other samples: no later than what holds all it chooses from.
    name = place.module
    while name:
        name = name.rpartition(".")[0]
        calls = tape.of(model, name)
        if calls:
            return calls[0].begin
    return 0


Take = Callable[[int, Tensor], Tensor]


@contextmanager
def reading(
    model: nn.Module,
    sites: Sequence[FeatureSite],
    take: Take | None = None,
    skipped: Mapping[str, int] | None = None,
) -> Iterator[list[Tensor]]:
    """Collect features while the model runs once inside the block.

    Args:
        model: the model.
        sites: features wanted, in call order.
        take: what of a feature is kept, given its place in `sites`; by default all of it, with its
            graph where gradients are on.
        skipped: module -> its first calls that do not happen in this run, so that later ones are
            known by their number.

    Yields:
        A list that the run fills, one tensor a site in call order; as the model has them,
        usually (B, n, d).

    Example:
        >>> with reading(model, sites) as features:  # doctest: +SKIP
        ...     model(**inputs)
    """
    features: list[Tensor] = []
    wanted: dict[tuple[str, str], dict[int, int]] = {}
    for place, site in enumerate(sites):
        wanted.setdefault((site.module, site.side), {})[site.call] = place

    def keep(key: tuple[str, str]) -> Callable[[Any], None]:
        number = (skipped or {}).get(key[0], 0)

        def act(value: Any) -> None:
            nonlocal number
            place = wanted[key].get(number)
            number += 1
            if place is not None:
                feature = first_tensor(value)
                assert feature is not None
                features.append(feature if take is None else take(place, feature))

        return act

    with ExitStack() as stack:
        for key in wanted:
            module, act = model.get_submodule(key[0]), keep(key)
            if key[1] == "input":
                handle = module.register_forward_pre_hook(_on_input(act), with_kwargs=True)
            else:
                handle = module.register_forward_hook(_on_output(act))
            stack.callback(handle.remove)
        yield features


def _on_input(act: Callable[[Any], None]) -> Any:
    def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
        act((args, kwargs))

    return hook


def _on_output(act: Callable[[Any], None]) -> Any:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        act(output)

    return hook
