"""What a family table may say. A family is data: names, axis layouts, kinds, gate sites.

No algorithm names an architecture and no table holds one: `discover` reads a table together with
a model and returns unit groups. Adding an architecture means filling in one `Family`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Family", "Kind", "Place"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One sub-layer: its linear maps, labelled axis by axis, and what it costs beyond them.

    Args:
        module: path inside a layer, for example `"self_attn"`.
        linears: linear name -> (layout of its outputs, layout of its inputs); an empty layout
            is an axis that is never cut (the residual width).
        scores: layout whose positions are multiplied once per pair of tokens (attention logits).
        context: the same for the weighted sum of values.
        cache: layouts kept per token in the KV cache.
        runtime: name of the module of ours that runs shapes the model's own code cannot.
        attributes: attribute of the sub-layer -> factor whose size it states.
        native: factors the model's own code can run at any size; a cut of any other factor
            needs `runtime`.
    """

    module: str
    linears: Mapping[str, tuple[str, str]]
    scores: str = ""
    context: str = ""
    cache: tuple[str, ...] = ()
    runtime: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    native: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One unit kind: which factors name a unit, where its gate sits, what stays equal.

    Args:
        name: a word of the glossary, for example `"ffn_channel"`.
        place: module path of the place it lives in.
        unit: factors that name one unit, for example `"kv pair"`.
        gate: `"linear.input"` or `"linear.output"`: where one scalar per unit multiplies.
        tied: leading factor of `unit` whose values must all keep equally many units.
        consumer: linear whose kept columns the refit repairs; empty where nothing is linear.
    """

    name: str
    place: str
    unit: str
    gate: str
    tied: str = ""
    consumer: str = ""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A set of architectures that share module names.

    Args:
        name: for messages.
        model_types: `config.model_type` values it covers.
        layers: path of the module list of layers.
        sizes: factor -> its size: a number, a config field, or `"field // field"`.
        places: sub-layers, in the order they run.
        kinds: unit kinds.
        config_sizes: config field -> factors whose product it states; used to write the config
            of a model that the family's own code can load.
        refuse: module name inside a place -> why kinds there cannot be cut exactly.
    """

    name: str
    model_types: tuple[str, ...]
    layers: str
    sizes: Mapping[str, str]
    places: tuple[Place, ...]
    kinds: tuple[Kind, ...]
    config_sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refuse: Mapping[str, str] = field(default_factory=dict)
