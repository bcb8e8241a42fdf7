"""Falcon: one projection holds, KV group after KV group, the queries, the key and the value.

That is so for all three ways the code reads it: one KV group for all heads, one for each, or some.
Positions are rotary pairs or, in the oldest models, a bias by distance (ALiBi).
"""

from __future__ import annotations

from prunepath.structure.families.parts import grouped_kinds, plain_ffn
from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["FALCON"]


def _attention(*, new: bool, alibi: bool) -> Place:
    """One of the four attentions.

    Args:
        new: keys and values are repeated for every query head in front of the cache.
        alibi: nothing is rotated; the bias holds one slope per head of the whole model, so the
            code cannot run fewer heads.
    """
    coordinate = "qk" if alibi else "half pair"
    kept = "kv rep" if new else "kv"
    kinds = grouped_kinds("query_key_value.output#0", "dense")
    if alibi:
        name, gate = kinds[0].name, kinds[0].gate
        kinds = (Kind(name=name, unit="kv qk", tied="kv", gate=gate), *kinds[1:])
    rotary = {"half": "2", "pair": "value // half"}  # members of a pair: i and i + head_dim / 2
    return Place(
        name="self_attention",
        module="self_attention",
        when={"new_decoder_architecture": new, "alibi": alibi},
        sizes={
            "kv": ".num_kv_heads",
            "rep": ".num_heads // kv",
            "value": ".head_dim",
            **({"qk": "value"} if alibi else rotary),
        },
        linears={
            "query_key_value": (f"kv: rep {coordinate} | {coordinate} | value", ""),
            "dense": ("", "kv rep value"),
        },
        scores=f"kv rep {coordinate}",
        context="kv rep value",
        cache=(f"{kept} {coordinate}", f"{kept} value"),
        native=() if alibi else ("kv", "rep"),
        attributes={} if alibi else {"num_heads": "kv rep", "num_kv_heads": "kv"},
        kinds=kinds,
    )


FALCON = Family(
    name="falcon",
    model_types=("falcon",),
    stacks=(
        Stack(
            layers="h",
            config_sizes={"ffn_hidden_size": ("ffn",)},
            places=(
                *(
                    _attention(new=new, alibi=alibi)
                    for new in (False, True)
                    for alibi in (False, True)
                ),
                plain_ffn("mlp", "dense_h_to_4h", "dense_4h_to_h"),
            ),
        ),
    ),
)
