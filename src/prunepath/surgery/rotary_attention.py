"""Compact rotary attention: query-key and value widths of their own, exact and with a small cache.

The family's code assumes one head width for queries, keys and values and the full set of rotary
frequencies. Here every KV group keeps its own rotary pairs; their indices pick the matching
cosines and sines, the softmax keeps the scale of the dense head width, and keys and values are
cached at the widths that are left.

Shapes: B batch, T tokens, S cached tokens, K KV groups, R query heads per group, P pairs kept,
V value coordinates kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunepath.structure.axes import IntArray

__all__ = ["RotaryAttention"]


class RotaryAttention(nn.Module):
    """Attention of a cut layer; takes over the four projections of the module it replaces."""

    rotary_pairs: Tensor

    def __init__(self, module: nn.Module, dense: Mapping[str, int], sizes: Mapping[str, int]):
        nn.Module.__init__(self)  # not that of the class `take_over` mixes in
        source: Any = module
        self.config = source.config
        self.layer_idx: int = source.layer_idx
        self.num_kv_groups = sizes["kv"]
        self.num_key_value_groups = sizes["rep"]  # the name attention kernels look for
        self.num_pairs = sizes["pair"]
        self.value_width = sizes["value"]
        self.dense_pairs: int = getattr(source, "dense_pairs", dense["pair"])
        self.scaling: float = source.scaling  # of the dense head width: logits must not change
        self.attention_dropout: float = source.attention_dropout
        self.sliding_window: int | None = getattr(
            source, "sliding_window", getattr(source.config, "sliding_window", None)
        )
        self.is_causal: bool = getattr(source, "is_causal", True)
        self.q_proj: nn.Module = source.q_proj
        self.k_proj: nn.Module = source.k_proj
        self.v_proj: nn.Module = source.v_proj
        self.o_proj: nn.Linear = source.o_proj
        shape = (self.num_kv_groups, self.num_pairs)
        device = next(module.parameters()).device
        self.register_buffer("rotary_pairs", torch.zeros(shape, dtype=torch.int64, device=device))
        self._before: Tensor | None = getattr(source, "rotary_pairs", None)  # cut a second time

    @classmethod
    def take_over(
        cls, module: nn.Module, dense: Mapping[str, int], sizes: Mapping[str, int]
    ) -> RotaryAttention:
        """Build from the attention it replaces, whose projections are already cut."""
        # An instance of the replaced class too: transformers finds attention modules by class.
        bases = (type(module),) if isinstance(module, cls) else (cls, type(module))
        made: type[RotaryAttention] = type(cls.__name__, bases, {"__module__": __name__})
        return made(module, dense, sizes)

    def set_kept_(self, kept: Mapping[str, IntArray]) -> None:
        """Store the rotary pairs each KV group keeps: all, where they are no units of the path."""
        shape = (self.num_kv_groups, self.num_pairs)
        everything = np.broadcast_to(np.arange(self.num_pairs), shape)
        pairs = torch.from_numpy(kept.get("pair", everything).copy())
        if self._before is not None:
            lanes = torch.from_numpy(kept.get("kv", np.arange(self.num_kv_groups)))
            pairs = self._before.cpu()[lanes].gather(1, pairs)
            self._before = None
        self.rotary_pairs.copy_(pairs)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The signature of the attention it replaces."""
        batch, tokens, _ = hidden_states.shape
        if 0 in (self.num_kv_groups, self.num_key_value_groups, self.value_width):
            return self._emptied(hidden_states, past_key_values), None
        query, key = self._queries_and_keys(hidden_states, position_embeddings)
        value = self.v_proj(hidden_states).view(batch, tokens, self.num_kv_groups, -1)
        value = value.transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        if self.num_pairs == 0:  # all logits are zero: attend evenly
            key = key.expand(-1, self.num_kv_groups, -1, -1)
        query, key, value = self._same_width(query, key, value)
        output, weights = self._attend()(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        output = output[..., : self.value_width].reshape(batch, tokens, -1)
        return self.o_proj(output), weights

    def _queries_and_keys(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Rotated queries (B, K*R, T, 2P) and keys (B, K, T, 2P)."""
        batch, tokens, _ = hidden_states.shape
        heads = self.num_kv_groups * self.num_key_value_groups
        if self.num_pairs == 0:
            zero = hidden_states.new_zeros(batch, 1, tokens, 1)
            return zero.expand(-1, heads, -1, -1), zero
        cos, sin = (self._own_frequencies(table) for table in position_embeddings)  # (B, K, T, P)
        query = self.q_proj(hidden_states).view(
            batch, tokens, self.num_kv_groups, self.num_key_value_groups, 2 * self.num_pairs
        )
        query = _rotate(query.permute(0, 2, 3, 1, 4), cos.unsqueeze(2), sin.unsqueeze(2))
        key = self.k_proj(hidden_states).view(batch, tokens, self.num_kv_groups, -1)
        key = _rotate(key.transpose(1, 2), cos, sin)
        return query.reshape(batch, heads, tokens, -1), key

    def _own_frequencies(self, table: Tensor) -> Tensor:
        """Cosines or sines (B, T, 2 * dense pairs) of the pairs each KV group keeps."""
        return table[..., : self.dense_pairs][..., self.rotary_pairs].transpose(1, 2)

    def _same_width(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Pad the narrower of query-key and value with zeros where the fused kernels want one
        width. A single new token needs no padding, and then the cache is not copied."""
        width = max(query.shape[-1], value.shape[-1])
        if query.shape[-2] == 1 or self.config._attn_implementation == "eager":
            return query, key, value
        return tuple(F.pad(x, (0, width - x.shape[-1])) for x in (query, key, value))

    def _attend(self) -> Callable[..., tuple[Tensor, Tensor | None]]:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.llama.modeling_llama import eager_attention_forward

        interface: Callable[..., tuple[Tensor, Tensor | None]]
        interface = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        return interface

    def _emptied(self, hidden_states: Tensor, past_key_values: Any) -> Tensor:
        """Nothing is read from any token; the cache still has to count them."""
        batch, tokens, _ = hidden_states.shape
        if past_key_values is not None:
            zero = hidden_states.new_zeros(batch, 1, tokens, 1)
            past_key_values.update(zero, zero, self.layer_idx)
        empty = hidden_states.new_zeros(batch, tokens, self.o_proj.in_features)
        output: Tensor = self.o_proj(empty)
        return output


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + P) of the last axis."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
