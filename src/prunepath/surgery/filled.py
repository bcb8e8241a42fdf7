"""Linear maps that lost coordinates inside code that knows nothing of it.

The weight is small; what the model's own code sees keeps the width it expects. Outputs are written
into zeros at the places of the coordinates that are left, inputs are read from those places. That
is exact for any attention whatever it does between its projections (position biases, norms over the
head, windows, soft caps), because a coordinate that was gated to zero is a zero there, too.

Parameters keep their names; the positions travel as buffers beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.structure.axes import BoolArray, IntArray
from prunepath.structure.matrices import out_width

__all__ = ["fill_", "positions_within"]


class _Filled:
    """Mixed into the class of a linear map; see the module's words."""

    out_positions: Tensor | None
    in_positions: Tensor | None
    run_out_features: int

    def forward(self, hidden: Tensor) -> Tensor:
        """The map of the class it was mixed into, between a gather and a scatter."""
        if self.in_positions is not None:
            hidden = hidden.index_select(-1, self.in_positions)
        # A map stored transposed cannot multiply nothing.
        full = hidden.shape[-1] > 0
        small: Tensor = super().forward(hidden) if full else self._of_nothing(hidden)  # type: ignore[misc]
        if self.out_positions is None:
            return small
        wide = small.new_zeros(*small.shape[:-1], self.run_out_features)
        return wide.index_copy(-1, self.out_positions, small)

    def _of_nothing(self, hidden: Tensor) -> Tensor:
        """What is left of a map without inputs: its bias."""
        module: Any = self
        zeros = hidden.new_zeros(*hidden.shape[:-1], out_width(module))
        return zeros if module.bias is None else zeros + module.bias


_MADE: dict[type[nn.Module], type[nn.Module]] = {}


def fill_(module: nn.Module, side: str, where: IntArray, width: int) -> None:
    """Give one side of a linear map that was cut the width its surroundings expect.

    Args:
        module: the map; its class becomes a subclass of what it was.
        side: `"input"` or `"output"`.
        where: where each input is found, or each output goes.
        width: positions its surroundings have there.
    """
    filled: Any = module
    if not isinstance(module, _Filled):
        base = type(module)
        if base not in _MADE:
            _MADE[base] = type(base.__name__, (_Filled, base), {"__module__": __name__})
        module.__class__ = _MADE[base]
        for name in ("out_positions", "in_positions"):
            module.register_buffer(name, None)
        filled.run_out_features = 0
    positions = torch.from_numpy(where.copy()).to(filled.weight.device)
    if side == "output":
        filled.out_positions, filled.run_out_features = positions, width
    else:
        filled.in_positions = positions


def positions_within(
    before: Tensor | None, width: int, kept: BoolArray, running: BoolArray
) -> IntArray:
    """Where the positions that are left lie among those the model's own code goes on running.

    Args:
        before: where the positions lay up to now, (len(kept),); None: each in its own place.
        width: positions the code ran up to now.
        kept: which positions are left.
        running: which of the `width` positions the code goes on running.

    Returns:
        Indices among the running positions, (kept.sum(),).
    """
    where = np.arange(width) if before is None else before.cpu().numpy()
    rank = np.cumsum(running) - 1
    found: IntArray = rank[where[kept]].astype(np.int64)
    return found
