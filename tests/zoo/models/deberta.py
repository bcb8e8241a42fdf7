"""Encoders that attend to relative positions by products."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.zoo.build import Case, make, text
from tests.zoo.models.bert import KINDS, SHAPE

NO_COORDINATES = tuple(kind for kind in KINDS if kind != "qk_coordinate")


def deberta(version: str, head: str = "Model", **changes: Any) -> Any:
    import transformers

    fields = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], **SHAPE, **changes}
    config = getattr(transformers, f"Deberta{version}Config")(**fields)
    return make(f"Deberta{version}{head}", config)


v3 = partial(
    deberta,
    "V2",
    share_att_key=True,
    position_buckets=8,
    norm_rel_ebd="layer_norm",
    position_biased_input=False,
    type_vocab_size=0,
)

CASES = {
    "deberta-v3": Case(v3, text, KINDS),
    "deberta-v3-classifier": Case(
        partial(v3, "ForSequenceClassification", num_labels=3), text, KINDS
    ),
    "deberta-v2-convolution": Case(
        partial(deberta, "V2", "ForMaskedLM", share_att_key=True, conv_kernel_size=3), text, KINDS
    ),
    "deberta-v2-content-to-position": Case(
        partial(deberta, "V2", pos_att_type=["c2p"], position_buckets=4), text, KINDS
    ),
    "deberta-v2-own-projections": Case(
        partial(deberta, "V2", "ForTokenClassification"), text, NO_COORDINATES
    ),
    "deberta-v2-no-positions": Case(
        partial(deberta, "V2", relative_attention=False, pos_att_type=None), text, KINDS
    ),
    "deberta-v1": Case(partial(deberta, "", max_relative_positions=8), text, NO_COORDINATES),
    "deberta-v1-talking-heads": Case(
        partial(deberta, "", "ForMaskedLM", talking_head=True),
        text,
        ("vo_coordinate", "ffn_channel"),
    ),
}
