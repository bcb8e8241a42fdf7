"""Linear maps by any name: `nn.Linear` and GPT-2's transposed `Conv1D` as one (O, I) matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "input_width",
    "is_convolution",
    "is_linear",
    "is_transposed",
    "out_width",
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
