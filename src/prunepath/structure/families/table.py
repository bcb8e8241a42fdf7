"""What a family table may say. A family is data: names, axis layouts, kinds, gate sites.

No algorithm names an architecture and no table holds one: `discover` reads a table together with
a model and returns unit groups. Adding an architecture means filling in one `Family`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Family", "Kind", "Merging", "Place", "Stack"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One unit kind: which factors name a unit, where its gate sits, what stays equal.

    Args:
        name: a word of the glossary, for example `"ffn_channel"`.
        unit: factors that name one unit, for example `"kv pair"`.
        gate: `"linear.input"` or `"linear.output"`: where one scalar per unit multiplies; of a
            fused projection also the part: `"c_attn.output#0"`. `"router.logits"`: the scalar
            multiplies the odds with which a router picks the unit.
        tied: leading factor of `unit` whose values must all keep equally many units.
        consumer: linear whose kept columns the refit repairs; empty where nothing is linear.
        members: modules, one a unit in their order, that leave whole with it: `"experts.*"`, and
            the places that these are.
        least: size of how few units the model's own code runs with; empty: one.
    """

    name: str
    unit: str
    gate: str
    tied: str = ""
    consumer: str = ""
    members: str = ""
    least: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One sub-layer: its linear maps, labelled axis by axis, its unit kinds, its further costs.

    A size is written as a number, `config.field`, `.attribute` of the module (dots allowed),
    `linear.out` or `linear.in`, an earlier factor, or several of these joined by `*` and `//`
    (from left to right), then by `+` and `-`. A kind whose units number zero is not there.

    Args:
        name: how messages call it.
        module: path inside a layer; empty: the layer itself. All names below are relative to it.
            `*` stands for any one name: every module that matches is a place of its own.
        sizes: factor -> its size; later ones may use earlier ones.
        linears: linear name -> (layout of its outputs, layout of its inputs); an empty layout
            is an axis that is never cut (the residual width). A router counts as one.
        sometimes: those of the linears that some models of the family lack.
        kinds: unit kinds that live here.
        tensors: further parameters that native factors take with them, name -> layout of every
            axis: tables with a column per head, convolutions channel by channel.
        scores: layout whose positions are multiplied once per pair of tokens (attention logits);
            several are separated by `|`.
        context: the same for the weighted sum of values.
        keys: linear whose inputs are the tokens attended to; the gate of the first kind or the
            first linear sees the tokens that attend.
        cache: layouts kept per token in the KV cache.
        native: factors the model's own code can run at any size once `attributes` say so. Other
            factors need a `runtime`; without one their activations are filled up with zeros.
        held: factor -> config field that, where it is set, keeps the factor from being native,
            because something outside the layer counts on its full size.
        runtime: name of the module of ours that runs shapes the model's own code cannot.
        attributes: attribute of the module (dots allowed; `config.field`: of its config, as this
            module alone sees it) -> layout whose size it states.
        prefix: distinguishes group names where a layer has two places with the same kinds; `*` is
            what it stands for in `module`.
        refuse: module name inside -> why the kinds named with it cannot be cut exactly.
        optional: absent from some layers or some models of the family.
        when: flags of the config, and what they must be for this place to be there.
        routed: a router decides which tokens it sees: its rows are the mean over all modules that
            `*` stands for, and these are equally wide in the uniform layout.
    """

    name: str
    sizes: Mapping[str, str]
    linears: Mapping[str, tuple[str, str]]
    kinds: tuple[Kind, ...]
    module: str = ""
    tensors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scores: str = ""
    context: str = ""
    keys: str = ""
    cache: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    sometimes: tuple[str, ...] = ()
    refuse: Mapping[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    optional: bool = False
    when: Mapping[str, bool] = field(default_factory=dict)
    routed: bool = False


@dataclass(frozen=True, kw_only=True)
class Merging:
    """Where tokens of a layer can merge: between what attention adds to the stream and the FFN.

    Args:
        attention: what the residual stream passes in a layer to become what attention adds to it,
            in order: names of modules, or of factors that multiply it.
        ffn: the same of the FFN behind it.
        keys: linear map, inside the layer, whose outputs are the attention keys; the module of
            `attention` that it lies in is the one that attends.
        patches: module, beside the list of layers, that makes tokens of an image; without it (the
            text tower of the same table) nothing merges.
        protected: parameters, beside the list of layers, that are tokens themselves (class,
            distillation, registers); those there are stand in front of the patches, and stay.
        refuse: config field that is set -> why tokens cannot merge then.
    """

    attention: tuple[str, ...]
    ffn: tuple[str, ...]
    keys: str
    patches: str
    protected: tuple[str, ...] = ()
    refuse: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A list of layers that look alike.

    Args:
        layers: path of the module list inside the model; `*` stands for any one name, and all
            lists that match are numbered on. Whatever a task head puts in front is found.
        places: sub-layers, in the order they run.
        config_sizes: config field -> factors whose product it states; used to write the config
            of a model that the family's own code can load.
        additive: whether what a consumer puts out is added to the residual stream as it is
            (pre-norm), so that a later consumer can correct what an earlier one lost; where a
            model says so itself, the name of the config field.
        stays: module inside a layer -> why it is not cut.
        merging: where its tokens can merge at run time; where they never can, the reason.
    """

    layers: str
    places: tuple[Place, ...]
    config_sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    additive: bool | str = True
    stays: Mapping[str, str] = field(default_factory=dict)
    merging: Merging | str = ""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A set of architectures that share module names.

    Args:
        name: for messages.
        model_types: `config.model_type` values it covers, of whole models or of their parts.
        stacks: its lists of layers.
    """

    name: str
    model_types: tuple[str, ...]
    stacks: tuple[Stack, ...]
