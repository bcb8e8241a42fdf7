"""Experts as modules of their own, and back as the one tensor their family stores them in.

transformers keeps all experts of a layer in two tensors, (E, 2f, d) and (E, d, f), where no hook
can sit and every expert has the same width. Taken apart, each expert is two linear maps: gates,
statistics and cuts treat it like any other feed-forward part, and each may keep a width of its
own. Put together again, it is the module it was, with the family's fast kernels.

Shapes: E experts, N tokens, k experts a token is sent to, d residual width, f channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.structure.matrices import input_width

__all__ = ["Expert", "Experts", "fuse_experts_", "unfuse_experts_"]

_TENSORS = ("gate_up_proj", "down_proj")
_ARGUMENTS = ["self", "hidden_states", "top_k_index", "top_k_weights"]


class Expert(nn.Module):
    """One expert: a gated feed-forward part of its own width.

    The linear maps are not called `gate_up_proj` and `down_proj`, or transformers would merge
    them again when it reads a file.
    """

    def __init__(self, gate_up: Tensor, down: Tensor, activation: nn.Module) -> None:
        super().__init__()
        self.gate_up = _linear(gate_up)
        self.down = _linear(down)
        self.act_fn = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, d) -> (N, d)."""
        gate, up = self.gate_up(hidden).chunk(2, dim=-1)
        output: Tensor = self.down(self.act_fn(gate) * up)
        return output


class Experts(nn.Module):
    """All experts of a layer, each a child named by the number it had when they were taken apart;
    the router counts those that are left.

    Args:
        stock: the module they were stored in; it is kept without its tensors.
    """

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        fused: Any = stock
        pairs = zip(*(getattr(fused, name) for name in _TENSORS), strict=True)
        for number, (gate_up, down) in enumerate(pairs):
            self.add_module(str(number), Expert(gate_up, down, fused.act_fn))
        for name in _TENSORS:
            setattr(fused, name, None)
        self._stock = (stock,)  # in a tuple: no child of this module
        self.train(stock.training)

    @property
    def widths(self) -> list[int]:
        """Channels of every expert."""
        return [input_width(self.get_submodule(f"{number}.down")) for number in self._modules]

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """What the module it was does, one expert after the other.

        Args:
            hidden_states: (N, d).
            top_k_index: the experts each token is sent to, (N, k).
            top_k_weights: how much each of them counts, (N, k).
        """
        output = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self._modules.values()):
            assert expert is not None
            choice, token = torch.where(top_k_index.T.eq(number))
            if not len(token) and not _is_watched(expert):
                continue
            own = expert(hidden_states[token]) * top_k_weights[token, choice, None]
            output.index_add_(0, token, own.to(output.dtype))
        return output

    def fused(self) -> nn.Module:
        """The module they were stored in, with the widths they have now, which must be equal."""
        stock: Any = self._stock[0]
        experts: list[Any] = list(self._modules.values())
        stacks = (
            [expert.gate_up.weight for expert in experts],
            [expert.down.weight for expert in experts],
        )
        for name, weights in zip(_TENSORS, stacks, strict=True):
            stacked = torch.stack([weight.detach() for weight in weights])
            setattr(stock, name, nn.Parameter(stacked, requires_grad=weights[0].requires_grad))
        stock.intermediate_dim, stock.num_experts = self.widths[0], len(experts)
        stock.train(self.training)
        return self._stock[0]


def unfuse_experts_(model: nn.Module, places: Mapping[str, Any] | None = None) -> bool:
    """Take all experts apart that are stored in one tensor.

    Args:
        model: changed in place; its answers stay what they were, up to the order of sums.
        places: what a cut wrote down of a model with these layers, perhaps with another head, by
            path; experts are taken apart only if it says something of an expert. None: always.

    Returns:
        Whether they were taken apart.
    """
    found = [name for name, module in model.named_modules() if _is_fused(module)]
    if places is not None:
        head = f"{getattr(model, 'base_model_prefix', '')}."
        inside = tuple(f".{name.removeprefix(head)}." for name in found)
        if not any(part in f".{path}" for path in _recorded(places) for part in inside):
            return False
    for name in found:
        _replace_(model, name, Experts(model.get_submodule(name)))
    return bool(found)


def fuse_experts_(model: nn.Module) -> bool:
    """Put all experts together again, if all of a layer are equally wide and their config can say
    so: in models with a record of their own, only where no expert was cut.

    Args:
        model: changed in place.

    Returns:
        Whether there were any, and they are together now.
    """
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, Experts)]
    places = (getattr(getattr(model, "config", None), "prunepath", None) or {}).get("places", {})
    if any(path.startswith(f"{name}.") for name, _ in found for path in _recorded(places)):
        return False
    if any(len(set(experts.widths)) != 1 for _, experts in found):
        return False
    counts = {len(experts.widths) for _, experts in found}
    for name, experts in found:
        _replace_(model, name, experts.fused())
    head: Any = model
    if hasattr(model, "num_experts") and len(counts) == 1:  # its balancing loss counts by this
        (head.num_experts,) = counts
    return bool(found)


def _recorded(places: Mapping[str, Any]) -> Iterator[str]:
    """All paths that the record of a cut model speaks of: places, and what is left of those that
    lost some of their modules."""
    for path, entry in places.items():
        yield path
        for member in entry.get("members", ()):
            yield f"{path}.{member}"


def _is_fused(module: nn.Module) -> bool:
    """Whether a module stores gated experts without biases the way `Experts` reads them."""
    wide, out = (getattr(module, name, None) for name in _TENSORS)
    if not (isinstance(wide, Tensor) and isinstance(out, Tensor) and wide.ndim == out.ndim == 3):
        return False
    plain = (
        not getattr(module, "is_transposed", False)
        and not getattr(module, "has_bias", False)
        and not getattr(module, "has_post_expert_norm", False)
        and getattr(module, "has_gate", True)
        and getattr(module, "is_concatenated", True)
        and isinstance(getattr(module, "act_fn", None), nn.Module)
        and len(list(module.parameters(recurse=False))) == len(_TENSORS)
    )
    experts, channels, width = wide.shape[0], out.shape[2], wide.shape[2]
    fits = wide.shape == (experts, 2 * channels, width) and out.shape == (experts, width, channels)
    return plain and fits and list(inspect.signature(type(module).forward).parameters) == _ARGUMENTS


def _is_watched(expert: nn.Module) -> bool:
    """Whether hooks listen: they must hear, too, that an expert was sent nothing."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in expert.children())


def _linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    return made


def _replace_(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)
