"""Linear maps by any name: `nn.Linear` and GPT-2's transposed `Conv1D` as one (O, I) matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "input_width",
    "is_convolution",
    "is_linear",
    "is_router",
    "is_transposed",
    "new_bias_",
    "out_width",
    "own_inputs",
    "positions_at",
    "set_weight_",
    "set_widths_",
    "weight_of",
]


def is_transposed(module: nn.Module) -> bool:
    """Whether the weight is stored as (in, out)."""
    return any(base.__name__ == "Conv1D" for base in type(module).__mro__)


def is_linear(module: nn.Module | None) -> bool:
    """Whether the module is a linear map over the last axis."""
    return module is not None and (isinstance(module, nn.Linear) or is_transposed(module))


def is_router(module: nn.Module | None) -> bool:
    """Whether the module compares choices by the rows of a weight of its own, (choices, in), and
    sends each of its inputs to the `top_k` best."""
    weight = getattr(module, "weight", None)
    picks = isinstance(getattr(module, "top_k", None), int)
    return picks and isinstance(weight, Tensor) and weight.ndim == 2 and not is_linear(module)


def is_convolution(module: nn.Module) -> bool:
    """Whether the weight is applied at every position of a grid."""
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def weight_of(module: nn.Module) -> Tensor:
    """The weight as (O, I), detached; a view."""
    weight: Any = module.weight
    detached: Tensor = weight.detach()
    return detached.T if is_transposed(module) else detached


def set_weight_(module: nn.Module, weight_OI: Tensor) -> None:
    """Write a weight given as (O, I), in the stored type."""
    weight: Any = module.weight
    with torch.no_grad():
        weight.copy_(weight_OI.T if is_transposed(module) else weight_OI)


def new_bias_(module: nn.Module) -> None:
    """Give a linear map a bias of zeros, in the type and on the device of its weight."""
    linear: Any = module
    weight = linear.weight
    zeros = torch.zeros(out_width(module), dtype=weight.dtype, device=weight.device)
    linear.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)


def out_width(module: nn.Module) -> int:
    """Number of outputs O."""
    return int(weight_of(module).shape[0])


def input_width(module: nn.Module) -> int:
    """Number of inputs I."""
    return int(weight_of(module).shape[1])


def set_widths_(module: nn.Module) -> None:
    """Make the attributes that state a linear map's widths agree with its weight."""
    if not is_linear(module):
        return
    named: Any = module
    if is_transposed(module):
        named.nx, named.nf = named.weight.shape
    else:
        named.out_features, named.in_features = named.weight.shape


def positions_at(module: nn.Module, side: str) -> Tensor | None:
    """Which positions of its surroundings a map that was cut before reads or writes; None: all.

    Args:
        module: a linear map.
        side: `"input"` or `"output"`.
    """
    found = getattr(module, "in_positions" if side == "input" else "out_positions", None)
    return found if isinstance(found, Tensor) else None


def own_inputs(module: nn.Module, hidden: Tensor) -> Tensor:
    """What of an activation in front of a linear map its weight multiplies."""
    positions = positions_at(module, "input")
    return hidden if positions is None else hidden.index_select(-1, positions)
