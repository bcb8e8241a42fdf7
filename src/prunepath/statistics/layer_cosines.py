"""How far every layer turns its tokens: the cosine between what enters it and what leaves.

A layer whose output points where its input did adds little. Read by hooks in any pass over the
model, dense or gated, with or without gradients; padding is left out.

Shapes: N rows that are no padding, d width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.data.samples import Samples
from prunepath.errors import ModelError, NumericsError
from prunepath.statistics.padding import padding_masks, real_rows
from prunepath.structure.units import Structure

__all__ = ["LayerCosines", "layers_by_stack", "reading_layers"]


def layers_by_stack(structure: Structure) -> dict[str, tuple[str, ...]]:
    """Stack -> full module paths of its layers that have units, in their order."""
    found: dict[str, dict[str, None]] = {}
    for place in structure.places:
        found.setdefault(place.stack, {})[place.layer_path] = None
    return {stack: tuple(layers) for stack, layers in found.items()}


@dataclass
class LayerCosines:
    """Sums over rows of cos(x, y), x what enters a layer and y what leaves it.

    Args:
        stacks: stack -> its layers, by full module path.
        sums: layer -> sum of cosines.
        rows: layer -> how many rows; a layer that runs several times counts every run.
    """

    stacks: Mapping[str, tuple[str, ...]]
    sums: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    _masks: tuple[Tensor, ...] = ()

    def begin(self, samples: Samples) -> None:
        """Say which batch the next forward pass is over: where its padding is."""
        self._masks = padding_masks(samples)

    def take(self, layer: str, entering: Tensor, leaving: Tensor) -> None:
        """Add the rows of one call of a layer, (..., d) each.

        Raises:
            ModelError: the two have different shapes, so no row has an own counterpart.
        """
        if entering.shape != leaving.shape:
            raise ModelError(
                f"the layer '{layer}' is given {tuple(entering.shape)} and returns "
                f"{tuple(leaving.shape)}, so its input and output cannot be compared token by "
                "token; use a method that does not look at layers"
            )
        x_Nd, y_Nd = (real_rows(rows, self._masks).float() for rows in (entering, leaving))
        cosines = torch.nn.functional.cosine_similarity(x_Nd, y_Nd, dim=-1)
        self.sums[layer] = self.sums.get(layer, 0.0) + float(cosines.double().sum())
        self.rows[layer] = self.rows.get(layer, 0) + len(cosines)

    def means(self) -> dict[str, dict[str, float]]:
        """Mean cosine of every layer, stack by stack; in [-1, 1].

        Raises:
            ModelError: a layer was never called.
            NumericsError: a cosine is not finite.
        """
        found: dict[str, dict[str, float]] = {}
        for stack, layers in self.stacks.items():
            for layer in layers:
                if not self.rows.get(layer):
                    raise ModelError(
                        f"the layer '{layer}' did not run on the calibration data, so nothing is "
                        "known of how it turns its tokens; use a method that does not look at "
                        "layers"
                    )
                mean = self.sums[layer] / self.rows[layer]
                if not -2 < mean < 2:
                    raise NumericsError(
                        f"the cosine between input and output of the layer '{layer}' is {mean}; "
                        "load the model in float32 or bfloat16"
                    )
                found.setdefault(stack, {})[layer] = mean
        return found


@contextmanager
def reading_layers(model: nn.Module, structure: Structure) -> Iterator[LayerCosines]:
    """Hooks that measure cosines whenever the model runs inside the block.

    Args:
        model: dense, gated or cut.
        structure: names its layers.

    Yields:
        The sums, to be told of every batch before it runs.

    Example:
        >>> with reading_layers(model, structure) as cosines:  # doctest: +SKIP
        ...     cosines.begin(batch)
        ...     model(**batch.inputs)
        >>> cosines.means()  # doctest: +SKIP
        {'model.layers': {'model.layers.0': 0.31, 'model.layers.1': 0.87}}
    """
    found = LayerCosines(layers_by_stack(structure))
    with ExitStack() as stack:
        for layers in found.stacks.values():
            for layer in layers:
                module = model.get_submodule(layer)
                hook = partial(_hook, found, layer)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield found


def _hook(
    found: LayerCosines, layer: str, _: nn.Module, args: Any, kwargs: Any, output: Any
) -> None:
    entering, leaving = _first_tensor((args, kwargs)), _first_tensor(output)
    assert entering is not None
    assert leaving is not None
    found.take(layer, entering.detach(), leaving.detach())


def _first_tensor(value: Any) -> Tensor | None:
    """The first floating tensor in arguments or in an answer."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if not isinstance(value, Mapping | list | tuple):
        return None
    parts: Any = value.values() if isinstance(value, Mapping) else value
    return next((tensor for part in parts if (tensor := _first_tensor(part)) is not None), None)
