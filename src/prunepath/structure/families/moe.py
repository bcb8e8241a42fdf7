"""Decoders whose feed-forward parts are experts that a router chooses for every token.

The experts must lie apart (`surgery.experts`): each is a place of its own, with a width of its
own. A whole expert leaves with its row of the router. What all tables of such models say alike.
"""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.llama import GATED_FFN
from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["DENSE_FFN", "SHARED_EXPERT", "moe_family"]

EXPERT = Place(
    name="expert",
    module="mlp.experts.*",
    prefix="experts.*",
    sizes={"channel": "down.in"},
    linears={"gate_up": ("2 channel", ""), "down": ("", "channel")},
    native=("channel",),
    kinds=(Kind(name="expert_channel", unit="channel", gate="down.input", consumer="down"),),
    optional=True,
    routed=True,
)

ROUTER = Place(
    name="experts",
    module="mlp",
    sizes={"expert": "gate.out"},
    linears={"gate": ("expert", "")},
    native=("expert",),
    attributes={"gate.num_experts": "expert"},
    kinds=(
        Kind(
            name="expert",
            unit="expert",
            gate="gate.logits",
            members="experts.*",
            least=".gate.top_k",
        ),
    ),
    optional=True,
)

SHARED_EXPERT = replace(
    GATED_FFN,
    name="shared_expert",
    module="mlp.shared_expert",
    prefix="shared",
    sizes={"shared": "down_proj.in"},
    linears={
        "gate_proj": ("shared", ""),
        "up_proj": ("shared", ""),
        "down_proj": ("", "shared"),
    },
    native=("shared",),
    attributes={"intermediate_size": "shared"},
    kinds=(Kind(name="ffn_channel", unit="shared", gate="down_proj.input", consumer="down_proj"),),
    optional=True,
)

DENSE_FFN = replace(GATED_FFN, optional=True)  # some layers of some models have no experts

STAYS = {
    "mlp.experts": "experts that are stored in one tensor are cut once they lie apart "
    "(prunepath.surgery.experts.unfuse_experts_; every verb does it)",
}


def moe_family(
    name: str,
    attention: Place,
    *others: Place,
    channels: str,
    experts: str = "num_experts",
    sizes: dict[str, tuple[str, ...]],
    stays: dict[str, str] | None = None,
) -> Family:
    """A family of this kind.

    Args:
        name: its `config.model_type`.
        attention: its attention.
        others: places beside attention and experts.
        channels: config field that states the width of an expert.
        experts: config field that states how many a router chooses from.
        sizes: what else the config states.
        stays: what else is not cut, and why.
    """
    return Family(
        name=name,
        model_types=(name,),
        stacks=(
            Stack(
                layers="layers",
                config_sizes={**sizes, channels: ("channel",), experts: ("expert",)},
                additive=False,  # the weights of the router lie between
                places=(attention, ROUTER, EXPERT, *others),
                stays={**STAYS, **(stays or {})},
            ),
        ),
    )
