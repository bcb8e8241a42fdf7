"""Greedy removal of sub-layers: at every step the one whose removal moves the answer least.

Candidates are closed by gates, together with what left before; no weight is touched. What comes
before the layer of a candidate is the same for all candidates of a step but for those before it, so
it is computed once a step and replayed (`optin.folding`): a candidate in layer l of L runs layers
l to L. Over a step that is half of what whole passes would take, and one pass more.

State is kept after every step; a run that is interrupted goes on and ends with the same bits.

Shapes: U candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.errors import NumericsError
from prunepath.methods.depth.distance import output_distance
from prunepath.methods.method import SearchContext
from prunepath.methods.optin.folding import Prefix, prefix_of, recorded, replaying
from prunepath.methods.optin.scene import repeated
from prunepath.methods.optin.tape import CallTape
from prunepath.methods.run_state import RunState
from prunepath.progress import note, track
from prunepath.structure.gates import gated
from prunepath.structure.units import UnitGroup

__all__ = ["Greedy", "Removals"]

_ROWS = 2**12
"""Rows (tokens) of one pass; a CPU leaves its cache with more."""
_ANSWER = 2**26
"""Numbers of an answer in one pass."""
_ALLOWED = {torch.float32: 1e-5, torch.float64: 1e-10}
_ALLOWED_ROUNDED = 1e-2


@dataclass(frozen=True)
class Removals:
    """What a greedy run found.

    Args:
        order: names of the groups that left, first removed first.
        distances: of the answer after each of these removals.
        rest: group that stayed -> the distance if it had left in the last step instead.
    """

    order: tuple[str, ...]
    distances: tuple[float, ...]
    rest: Mapping[str, float]


class Greedy:
    """Removes sub-layers one after the other.

    Args:
        context: the model must be `frozen` and in evaluation mode.
        samples: what the answers are compared on.
        groups: the candidates, in the order in which ties are broken.
        distance: one of `distance.DISTANCES`.
        replay: whether what comes before a candidate is replayed; without, every candidate runs the
            whole model. Both give the same answers.
    """

    def __init__(
        self,
        context: SearchContext,
        samples: Samples,
        groups: Sequence[UnitGroup],
        distance: str,
        *,
        replay: bool = True,
    ) -> None:
        self._context = context
        self._groups = groups
        self._distance = distance
        self._device = next(context.model.parameters()).device
        self._once: CallTape
        self._prefixes = {group.name: Prefix({}, {}) for group in groups}
        with torch.no_grad():
            one = samples.rows(0, 1).to(self._device)
            size = self._tapes(one)
            if replay:
                self._find_prefixes(one)
            self._parts = [
                (part, self._output(part)) for part in samples.batches(self._at_once(samples, size))
            ]
        for _, answer in self._parts:
            _require_finite(answer)

    def run(self, steps: int, store: RunState) -> Removals:
        """Remove sub-layers until `steps` of them are gone, or what is left is one step.

        Args:
            steps: how many leave; 0: all.
            store: what is resumed from, and saved to after every step.

        Raises:
            NumericsError: an answer without one of them is not finite; it is named.
        """
        names = [group.name for group in self._groups]
        count = min(steps or len(names), len(names))
        order, distances, rest = _load(store)
        todo = range(len(order), count)
        for _ in track(self._context.progress, todo, "removing sub-layers", len(todo)):
            found = self.step(order)
            chosen = min(found, key=lambda name: found[name])  # of equals the first
            order.append(chosen)
            distances.append(found.pop(chosen))
            rest = found
            store.save(
                {"distances": torch.tensor(distances, dtype=torch.float64)},
                {"order": order, "rest": rest},
            )
        return Removals(tuple(order), tuple(distances), rest)

    def step(self, removed: Sequence[str]) -> dict[str, float]:
        """The distance of the answer without each candidate, and without what left before.

        Args:
            removed: names of the groups that left.

        Returns:
            group that is still there -> distance, in the order of the candidates.
        """
        left = [group for group in self._groups if group.name not in set(removed)]
        total = np.zeros(len(left))
        rows = 0
        keys = {key for group in left for key in self._prefixes[group.name].calls}
        with torch.no_grad():
            for part, dense in self._parts:
                with self._without(removed):
                    kept = recorded(self._context.model, keys, partial(self._output, part))
                for number, group in enumerate(left):
                    answer = self._answer(part, group, removed, kept)
                    value, weight = output_distance(
                        self._context.task, self._distance, answer, dense, part
                    )
                    self._require(value, group, removed)
                    total[number] += value * weight
                rows += weight
        return {group.name: float(value / rows) for group, value in zip(left, total, strict=True)}

    def _answer(
        self, part: Samples, group: UnitGroup, removed: Sequence[str], kept: Mapping[Any, Any]
    ) -> Tensor:
        prefix = self._prefixes[group.name]
        with (
            self._without([*removed, group.name]),
            replaying(self._context.model, prefix, kept, 1),
        ):
            return self._output(part)

    def _without(self, names: Sequence[str]) -> Any:
        gates = {name: torch.zeros(1, device=self._device) for name in names}
        return gated(self._context.model, self._context.structure, gates)

    def _output(self, part: Samples) -> Tensor:
        return self._context.task.output(self._context.model, part.to(self._device))

    def _tapes(self, one: Mapping[str, Tensor]) -> int:
        """Watch a pass over one sample and one over it twice; numbers in the first's answer."""
        model, sizes = self._context.model, list[int]()

        def run(inputs: Mapping[str, Tensor]) -> None:
            sizes.append(self._context.task.output(model, inputs).numel())

        self._once = CallTape.record(model, lambda: run(one))
        self._twice = CallTape.record(model, lambda: run(repeated(one, 2)))
        return sizes[0]

    def _find_prefixes(self, one: Mapping[str, Tensor]) -> None:
        """What can be replayed for every layer, where it gives the same answer as a whole pass."""
        model, structure = self._context.model, self._context.structure
        samples = Samples(inputs={name: value.cpu() for name, value in one.items()})
        found: dict[str, Prefix] = {}
        for group in self._groups:
            layer = structure.places_by_path[group.place].layer_path
            if layer not in found:
                calls = self._twice.of(model, layer)
                start = calls[0].begin if calls else 0
                found[layer] = prefix_of(self._once, self._twice, start)
                if not self._agrees(found[layer], group, samples):
                    found[layer] = Prefix({}, {})
                    note(
                        self._context.progress,
                        f"what comes before '{layer}' cannot be replayed in this model; its "
                        "sub-layers are tried with whole passes",
                    )
            self._prefixes[group.name] = found[layer]

    def _agrees(self, prefix: Prefix, group: UnitGroup, one: Samples) -> bool:
        plain = self._answer(one, group, [], {})
        kept = recorded(self._context.model, prefix.calls, partial(self._output, one))
        with (
            self._without([group.name]),
            replaying(self._context.model, prefix, kept, 1),
        ):
            found = self._output(one)
        allowed = _ALLOWED.get(next(self._context.model.parameters()).dtype, _ALLOWED_ROUNDED)
        if not torch.isfinite(plain).all():
            return True  # the run names it
        size = float(plain.abs().max())
        return found.shape == plain.shape and float((found - plain).abs().max()) <= allowed * size

    def _at_once(self, samples: Samples, size: int) -> int:
        """Samples of one pass, so that passes are of nearly equal size."""
        longest = max(
            (value.shape[1] for value in samples.inputs.values() if value.ndim == 2), default=1
        )
        most = max(1, min(_ROWS // longest, _ANSWER // size))
        passes = -(-len(samples) // most)
        return -(-len(samples) // passes)

    def _require(self, value: float, group: UnitGroup, removed: Sequence[str]) -> None:
        if not np.isfinite(value):
            raise NumericsError(
                f"without '{group.name}', after {len(removed)} other sub-layers, the distance of "
                f"the answer is {value}; check the model's weights, or load it in float32 or "
                "bfloat16"
            )


def _require_finite(answer: Tensor) -> None:
    if not torch.isfinite(answer).all():
        raise NumericsError(
            "the dense model's answer holds NaN or infinity on calibration data; check its "
            "weights, or load it in float32 or bfloat16 instead of float16"
        )


def _load(store: RunState) -> tuple[list[str], list[float], dict[str, float]]:
    found = store.load()
    if found is None:
        return [], [], {}
    tensors, facts = found
    return list(facts["order"]), tensors["distances"].tolist(), dict(facts["rest"])
