"""ModernBERT: pre-norm encoders with rotary attention, full or local by turns, and a gated FFN.

Queries, keys and values come from one projection, one after the other; so do the two halves of the
gated FFN.
"""

from __future__ import annotations

from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["MODERNBERT"]

MODERNBERT = Family(
    name="modernbert",
    model_types=("modernbert",),
    stacks=(
        Stack(
            layers="layers",
            config_sizes={"intermediate_size": ("ffn",)},
            places=(
                Place(
                    name="attn",
                    module="attn",
                    sizes={
                        "value": ".head_dim",
                        "head": "Wo.in // value",
                        "half": "2",  # the members of a rotary pair: i and i + head_dim / 2
                        "pair": "value // half",
                    },
                    linears={
                        "Wqkv": ("head half pair | head half pair | head value", ""),
                        "Wo": ("", "head value"),
                    },
                    scores="head half pair",
                    context="head value",
                    native=("head",),  # the code counts heads by what is left of the projection
                    kinds=(
                        Kind(
                            name="qk_coordinate",
                            unit="head pair",
                            tied="head",
                            gate="Wqkv.output#0",
                        ),
                        Kind(
                            name="vo_coordinate",
                            unit="head value",
                            tied="head",
                            gate="Wo.input",
                            consumer="Wo",
                        ),
                        Kind(name="head", unit="head", gate="Wo.input", consumer="Wo"),
                    ),
                ),
                Place(
                    name="mlp",
                    module="mlp",
                    sizes={"ffn": "Wo.in"},
                    linears={"Wi": ("2 ffn", ""), "Wo": ("", "ffn")},
                    native=("ffn",),
                    kinds=(Kind(name="ffn_channel", unit="ffn", gate="Wo.input", consumer="Wo"),),
                ),
            ),
        ),
    ),
)
