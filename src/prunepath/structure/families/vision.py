"""Places that vision transformers share: separate projections, and a plain two-layer FFN.

transformers gives most of them the same names: `q_proj`, `k_proj`, `v_proj` and one map behind the
heads; `fc1` and `fc2`. Their code splits heads with `view(..., -1, head_dim)`, so whole heads can
go without any change to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prunepath.structure.families.parts import plain_attention, plain_ffn
from prunepath.structure.families.table import Merging, Place

__all__ = ["WINDOWS", "attention", "merging", "mlp"]

WINDOWS = "attention in windows needs every patch of the grid in its place"
"""Why tokens of Swin and its relatives cannot merge."""


def attention(
    module: str = "attention",
    *,
    output: str = "o_proj",
    inside: str = "",
    prefix: str = "",
    optional: bool = False,
    native: bool = True,
    held: Mapping[str, str] | None = None,
    tensors: Mapping[str, tuple[str, ...]] | None = None,
) -> Place:
    """Multi-head attention with separate projections.

    Args:
        module: path of the place inside a layer; empty: the layer itself.
        output: name of the linear map behind the heads.
        inside: path of the attention inside the place, where that is not the same.
        prefix: see `Place`.
        optional: see `Place`.
        native: whether the code runs any number of heads.
        held: see `Place`.
        tensors: further parameters with a head axis.
    """
    own = f"{inside}." if inside else ""
    query, key, value, behind = (f"{own}{name}" for name in ("q_proj", "k_proj", "v_proj", output))
    place = plain_attention(
        query,
        key,
        value,
        behind,
        module=module,
        sizes={
            "qk": f".{own}head_dim",
            "head": f"{query}.out // qk",
            "value": f"{value}.out // head",
        },
        native=native,
        attributes={f"{own}{name}": "head" for name in ("num_attention_heads", "num_heads")},
    )
    return replace(place, tensors=tensors or {}, held=held or {}, prefix=prefix, optional=optional)


def mlp(module: str = "mlp", *, optional: bool = False) -> Place:
    """An FFN of two linear maps.

    Args:
        module: path of the place inside a layer; empty: the layer itself.
        optional: see `Place`.
    """
    return plain_ffn(module, "fc1", "fc2", optional=optional)


def merging(
    attention: tuple[str, ...],
    ffn: tuple[str, ...],
    *,
    keys: str = "attention.k_proj",
    patches: str = "embeddings.patch_embeddings",
    refuse: Mapping[str, str] | None = None,
) -> Merging:
    """Where tokens can merge in a pre-norm layer.

    Args:
        attention, ffn, keys, patches: see `Merging`.
        refuse: see `Merging`.
    """
    tokens = ("cls_token", "class_embedding", "distillation_token", "register_tokens")
    return Merging(
        attention=attention,
        ffn=ffn,
        keys=keys,
        patches=patches,
        protected=tuple(f"embeddings.{name}" for name in tokens),
        refuse=refuse or {},
    )
