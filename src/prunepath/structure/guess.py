"""Guess a family table for an architecture no table covers, from the names people give to things.

A guess is a proposal: every place has several variants (query-key coordinates alone or in rotary
pairs, the orders a fused projection may have), and whoever asks must prove on the model which of
them is exact. What no name matches stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from prunepath.structure.families import Family, Kind, Place, Stack
from prunepath.structure.matrices import input_width, is_linear, out_width

__all__ = ["guess_variants", "guessed_family"]

# (query, key, value, output)
_SEPARATE = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_proj", "k_proj", "v_proj", "dense"),
    ("query", "key", "value", "out_proj"),
    ("query", "key", "value", "dense"),
    ("self.query", "self.key", "self.value", "output.dense"),
    ("attention.query", "attention.key", "attention.value", "output.dense"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("to_q", "to_k", "to_v", "to_out"),
    ("wq", "wk", "wv", "wo"),
    ("q", "k", "v", "o"),
)
_FUSED = (
    ("query_key_value", "dense"),
    ("qkv_proj", "o_proj"),
    ("qkv_proj", "out_proj"),
    ("qkv", "proj"),
    ("qkv", "projection"),
    ("c_attn", "c_proj"),
    ("Wqkv", "out_proj"),
    ("Wqkv", "Wo"),
    ("in_proj", "out_proj"),
)
# (inputs, output); a single input twice as wide as the output's is a gate and a value in one
_FFN = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("wi_0", "wi_1"), "wo"),
    (("w1", "w3"), "w2"),
    (("gate_up_proj",), "down_proj"),
    (("intermediate.dense",), "output.dense"),
    (("up_proj",), "down_proj"),
    (("fc1",), "fc2"),
    (("fc_in",), "fc_out"),
    (("c_fc",), "c_proj"),
    (("lin1",), "lin2"),
    (("linear1",), "linear2"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("wi",), "wo"),
    (("w1",), "w2"),
    (("w12",), "w3"),
    (("Wi",), "Wo"),
)
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "encoder_attention_heads")


def guess_variants(model: nn.Module) -> dict[str, dict[str, list[Place]]]:
    """Variants of every place whose names are known: list of layers -> module path -> variants."""
    found: dict[str, dict[str, list[Place]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            places = dict(_layer(module[0], model))
            if places:
                found[name] = places
    # The innermost list wins: a list of stages holds the layers of its stages, too.
    return {
        name: places
        for name, places in found.items()
        if not any(other.startswith(f"{name}.") for other in found)
    }


def guessed_family(model: nn.Module, chosen: dict[str, list[Place]]) -> Family:
    """A family of the chosen variants: list of layers -> places."""
    config: Any = model.config
    model_type = str(getattr(config, "model_type", "") or type(model).__name__)
    front = f"{getattr(model, 'base_model_prefix', '')}."  # a model with another head lacks it
    stacks = tuple(
        Stack(layers=layers.removeprefix(front), places=tuple(places), additive=False)
        for layers, places in chosen.items()
    )
    return Family(name=f"{model_type} (guessed)", model_types=(model_type,), stacks=stacks)


def _layer(layer: nn.Module, model: nn.Module) -> Iterator[tuple[str, list[Place]]]:
    taken: set[str] = set()
    attentions = 0
    for path, module in layer.named_modules():
        variants = _attention(module, path, model, attentions)
        if variants:
            attentions += 1
            taken.update(f"{path}.{name}" for name in variants[0].linears)
            yield path or "attention", variants
    for path, module in layer.named_modules():
        ffn = _ffn(module, path, taken)
        if ffn is not None:
            taken.update(f"{path}.{name}" for name in ffn.linears)
            yield path or "ffn", [ffn]


def _linear(module: nn.Module, name: str) -> nn.Module | None:
    try:
        found = module.get_submodule(name)
    except AttributeError:
        return None
    return found if is_linear(found) else None


def _ffn(module: nn.Module, path: str, taken: set[str]) -> Place | None:
    for names, out in _FFN:
        maps = [_linear(module, name) for name in (*names, out)]
        if any(item is None for item in maps) or f"{path}.{out}" in taken:
            continue
        *ins, last = [item for item in maps if item is not None]
        width = input_width(last)
        fused = len(ins) == 1 and out_width(ins[0]) == 2 * width
        if not fused and any(out_width(item) != width for item in ins):
            continue
        return Place(
            name="ffn",
            module=path,
            sizes={"ffn": f"{out}.in"},
            linears={**dict.fromkeys(names, ("2 ffn" if fused else "ffn", "")), out: ("", "ffn")},
            kinds=(Kind(name="ffn_channel", unit="ffn", gate=f"{out}.input", consumer=out),),
            optional=True,
        )
    return None


def _attention(module: nn.Module, path: str, model: nn.Module, before: int) -> list[Place]:
    heads = _heads(module, model)
    if heads is None:
        return []
    prefix = path.replace(".", "_") if before else ""
    for query, key, value, out in _SEPARATE:
        if all(_linear(module, name) is not None for name in (query, key, value, out)):
            sizes = {
                "heads": heads,
                "width": f"{query}.out // heads",
                "kv": f"{key}.out // width",
                "rep": "heads // kv",
                "value": f"{value}.out // kv",
            }
            return [
                Place(
                    name="attention",
                    module=path,
                    prefix=prefix,
                    sizes={**sizes, **more},
                    linears={
                        query: (f"kv rep {qk}", ""),
                        key: (f"kv {qk}", ""),
                        value: ("kv value", ""),
                        out: ("", "kv rep value"),
                    },
                    scores=f"kv rep {qk}",
                    context="kv rep value",
                    keys=key,
                    cache=(f"kv {qk}", "kv value") if _caches(model) else (),
                    kinds=_kinds(f"kv {unit}", f"{query}.output", out),
                    optional=True,
                )
                for qk, unit, more in _coordinates(f"{key}.out // kv")
            ]
    for fused, out in _FUSED:
        if _linear(module, fused) is not None and _linear(module, out) is not None:
            return list(_fused(path, prefix, heads, fused, out, model))
    return []


def _fused(
    path: str, prefix: str, heads: str, fused: str, out: str, model: nn.Module
) -> Iterator[Place]:
    for order in ("kv {qk} | kv {qk} | kv value", "kv: {qk} | {qk} | value"):
        for qk, unit, more in _coordinates(f"{out}.in // kv"):
            yield Place(
                name="attention",
                module=path,
                prefix=prefix,
                sizes={"kv": heads, "rep": "1", "value": f"{out}.in // kv", **more},
                linears={fused: (order.format(qk=qk), ""), out: ("", "kv value")},
                scores=f"kv {qk}",
                context="kv value",
                cache=(f"kv {qk}", "kv value") if _caches(model) else (),
                kinds=_kinds(f"kv {unit}", f"{fused}.output#0", out)[:3],
                optional=True,
            )


def _coordinates(width: str) -> tuple[tuple[str, str, dict[str, str]], ...]:
    """(layout of one head's query-key axis, unit, sizes): alone, and in rotary pairs."""
    return (
        ("qk", "qk", {"qk": width}),
        ("half pair", "pair", {"half": "2", "pair": f"{width} // half"}),
        ("pair half", "pair", {"half": "2", "pair": f"{width} // half"}),
    )


def _kinds(coordinate: str, query: str, out: str) -> tuple[Kind, ...]:
    behind = {"gate": f"{out}.input", "consumer": out}
    return (
        Kind(name="qk_coordinate", unit=coordinate, tied="kv", gate=query),
        Kind(name="vo_coordinate", unit="kv value", tied="kv", **behind),
        Kind(name="kv_group", unit="kv", **behind),
        Kind(name="query_head", unit="kv rep", tied="kv", **behind),
    )


def _heads(module: nn.Module, model: nn.Module) -> str | None:
    """Where the number of heads is written, as a size expression."""
    for name in _HEADS:
        value = getattr(module, name, None)
        if isinstance(value, int) and value > 0:
            return f".{name}"
    config: Any = getattr(module, "config", None) or model.config
    for name in _HEADS:
        if isinstance(getattr(config, name, None), int):
            return f"config.{name}"
    return None


def _caches(model: nn.Module) -> bool:
    can = getattr(model, "can_generate", None)
    return bool(can and can())
