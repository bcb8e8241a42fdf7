"""What several tables say alike: multi-head and rotary attention with their kinds, plain FFNs."""

from __future__ import annotations

from collections.abc import Mapping

from prunepath.structure.families.table import Kind, Place

__all__ = [
    "HEAD_NORM",
    "ROTARY_SIZES",
    "WHOLE_NORM",
    "attention_kinds",
    "grouped_kinds",
    "head_kinds",
    "plain_attention",
    "plain_ffn",
    "rotary_place",
]

HEAD_NORM = "a norm over the head dimension changes when coordinates go"
WHOLE_NORM = "a norm over all heads together changes when one of them loses anything"
ROTARY_SIZES = {
    "num_key_value_heads": ("kv",),
    "num_attention_heads": ("kv", "rep"),
    "intermediate_size": ("ffn",),
}
"""What the configs of decoders with `rotary_place` state."""


def attention_kinds(query: str, output: str) -> tuple[Kind, ...]:
    """Kinds of plain multi-head attention: both coordinates, and whole heads.

    Args:
        query: where the gate of a query-key coordinate sits: `"q_proj.output"`.
        output: the linear map behind the heads.
    """
    behind = {"gate": f"{output}.input", "consumer": output}
    return (
        Kind(name="qk_coordinate", unit="head qk", tied="head", gate=query),
        Kind(name="vo_coordinate", unit="head value", tied="head", **behind),
        Kind(name="head", unit="head", **behind),
    )


def plain_attention(
    query: str,
    key: str,
    value: str,
    output: str,
    *,
    name: str = "attention",
    module: str = "attention",
    heads: str = "",
    sizes: Mapping[str, str] | None = None,
    native: bool = True,
    attributes: Mapping[str, str] | None = None,
    cache: tuple[str, ...] = (),
) -> Place:
    """Multi-head attention with four projections and no rotation.

    Args:
        query, key, value: the projections in front of the heads.
        output: the linear map behind them.
        name, module: see `Place`.
        heads: size expression of the number of heads; widths then follow from the projections.
        sizes: all sizes, where they follow from something else.
        native: whether the code runs any number of heads.
        attributes: see `Place`.
        cache: see `Place`.
    """
    usual = {"head": heads, "qk": f"{query}.out // head", "value": f"{value}.out // head"}
    return Place(
        name=name,
        module=module,
        sizes=sizes or usual,
        linears={
            query: ("head qk", ""),
            key: ("head qk", ""),
            value: ("head value", ""),
            output: ("", "head value"),
        },
        scores="head qk",
        context="head value",
        keys=key,
        cache=cache,
        native=("head",) if native else (),
        attributes=attributes or {},
        kinds=attention_kinds(f"{query}.output", output),
    )


def grouped_kinds(query: str, output: str, rest: str = "") -> tuple[Kind, ...]:
    """Kinds of attention whose query heads share the keys and values of a KV group.

    Args:
        query: gate of a rotary pair: `"q_proj.output"`.
        output: the linear map behind the heads.
        rest: gate of the coordinates that are not rotated; empty: all are.
    """
    behind = {"gate": f"{output}.input", "consumer": output}
    return (
        *_coordinates("kv", query, rest),
        Kind(name="vo_coordinate", unit="kv value", tied="kv", **behind),
        Kind(name="query_head", unit="kv rep", tied="kv", **behind),
        Kind(name="kv_group", unit="kv", **behind),
    )


def head_kinds(query: str, output: str, rest: str = "") -> tuple[Kind, ...]:
    """Kinds of attention with rotary pairs and one key and value per head; see `grouped_kinds`."""
    behind = {"gate": f"{output}.input", "consumer": output}
    return (
        *_coordinates("head", query, rest),
        Kind(name="vo_coordinate", unit="head value", tied="head", **behind),
        Kind(name="head", unit="head", **behind),
    )


def _coordinates(lane: str, query: str, rest: str) -> tuple[Kind, ...]:
    pairs = Kind(name="qk_coordinate", unit=f"{lane} pair", tied=lane, gate=query)
    if not rest:
        return (pairs,)
    return pairs, Kind(name="qk_plain", unit=f"{lane} rest", tied=lane, gate=rest)


def rotary_place(
    *,
    runtime: str = "",
    refuse: Mapping[str, tuple[tuple[str, ...], str]] | None = None,
) -> Place:
    """Grouped-query attention with four projections and pairs `i`, `i + head_dim / 2`.

    Args:
        runtime: the compact module, where it computes just what the family's own does.
        refuse: see `Place.refuse`.
    """
    return Place(
        name="self_attn",
        module="self_attn",
        sizes={
            "kv": "config.num_key_value_heads",
            "rep": "config.num_attention_heads // kv",
            "half": "2",  # the members of a rotary pair: i and i + head_dim / 2
            "pair": "k_proj.out // kv // half",
            "value": "v_proj.out // kv",
        },
        linears={
            "q_proj": ("kv rep half pair", ""),
            "k_proj": ("kv half pair", ""),
            "v_proj": ("kv value", ""),
            "o_proj": ("", "kv rep value"),
        },
        scores="kv rep half pair",
        context="kv rep value",
        keys="k_proj",
        cache=("kv half pair", "kv value"),
        native=("kv", "rep"),
        runtime=runtime,
        attributes={"num_key_value_groups": "rep"},
        refuse=refuse or {},
        kinds=grouped_kinds("q_proj.output", "o_proj"),
    )


def plain_ffn(
    module: str, up: str, down: str, *, name: str = "mlp", optional: bool = False
) -> Place:
    """An FFN of two linear maps.

    Args:
        module: path inside a layer; empty: the layer itself.
        up: the first linear map.
        down: the second.
        name, optional: see `Place`.
    """
    return Place(
        name=name,
        module=module,
        sizes={"ffn": f"{down}.in"},
        linears={up: ("ffn", ""), down: ("", "ffn")},
        native=("ffn",),
        kinds=(Kind(name="ffn_channel", unit="ffn", gate=f"{down}.input", consumer=down),),
        optional=optional,
    )
