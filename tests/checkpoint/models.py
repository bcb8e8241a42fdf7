"""One tiny random model of every kind of checkpoint, and a toy cut that needs no family table.

The toy narrows pairs of linear maps and records their widths; `toy_reshape_` takes them again. So
the classes that hold cut models are tested apart from what is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

__all__ = ["KINDS", "Kind", "narrow_", "toy_reshape_"]

_TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_NO_TOKENS: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
_IMAGE: dict[str, Any] = {**_TEXT, "image_size": 16, "patch_size": 8}
_THREE: dict[str, Any] = {"num_labels": 3}
_SPEECH: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "max_target_positions": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}


@dataclass(frozen=True)
class Kind:
    """One kind of checkpoint.

    Args:
        build: makes the model, random and in evaluation mode.
        inputs: makes two samples.
        pairs: linear maps that feed one another: (wide outputs, wide inputs).
        task: what it is for.
        auto_class: the Auto class that is to give it back.
    """

    build: Callable[[], Any]
    inputs: Callable[[], dict[str, Tensor]]
    pairs: tuple[tuple[str, str], ...]
    task: str
    auto_class: str


def _make(name: str, config: Any) -> Callable[[], Any]:
    def build() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return getattr(transformers, name)(config()).eval()

    return build


def _ids(seed: int = 0) -> Tensor:
    return torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(seed))


def _pixels() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _clip() -> Any:
    return transformers.CLIPConfig(
        text_config={**_TEXT, "max_position_embeddings": 16, **_NO_TOKENS, "eos_token_id": 2},
        vision_config=_IMAGE,
        projection_dim=8,
    )


def _t5() -> Any:
    shape: dict[str, Any] = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24}
    shape.update(num_layers=2, num_heads=2, decoder_start_token_id=0)
    return transformers.T5Config(**shape)


_BERT_PAIR = ("encoder.layer.0.intermediate.dense", "encoder.layer.0.output.dense")
_T5_PAIR = tuple(f"decoder.block.1.layer.2.DenseReluDense.{name}" for name in ("wi", "wo"))
_CLIP_PAIR = tuple(f"layers.0.mlp.{name}" for name in ("fc1", "fc2"))

KINDS: dict[str, Kind] = {
    "llama": Kind(
        build=_make("LlamaForCausalLM", lambda: transformers.LlamaConfig(**_TEXT, **_NO_TOKENS)),
        inputs=lambda: {"input_ids": _ids()},
        pairs=(
            ("model.layers.0.mlp.gate_proj", ""),
            ("model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"),
        ),
        task="causal-lm",
        auto_class="AutoModelForCausalLM",
    ),
    "bert-classifier": Kind(
        build=_make(
            "BertForSequenceClassification", lambda: transformers.BertConfig(**_TEXT, **_THREE)
        ),
        inputs=lambda: {"input_ids": _ids(), "attention_mask": torch.ones(2, 7, dtype=torch.int64)},
        pairs=((f"bert.{_BERT_PAIR[0]}", f"bert.{_BERT_PAIR[1]}"),),
        task="text-classification",
        auto_class="AutoModelForSequenceClassification",
    ),
    "vit": Kind(
        build=_make(
            "ViTForImageClassification", lambda: transformers.ViTConfig(**_IMAGE, **_THREE)
        ),
        inputs=lambda: {"pixel_values": _pixels()},
        pairs=(("vit.layers.0.mlp.fc1", "vit.layers.0.mlp.fc2"),),
        task="image-classification",
        auto_class="AutoModelForImageClassification",
    ),
    "clip": Kind(
        build=_make("CLIPModel", _clip),
        inputs=lambda: {"input_ids": _ids(), "pixel_values": _pixels()},
        pairs=tuple(
            (f"{tower}.encoder.{_CLIP_PAIR[0]}", f"{tower}.encoder.{_CLIP_PAIR[1]}")
            for tower in ("text_model", "vision_model")
        ),
        task="image-text",
        auto_class="AutoModelForZeroShotImageClassification",
    ),
    "t5": Kind(
        build=_make("T5ForConditionalGeneration", _t5),
        inputs=lambda: {"input_ids": _ids(), "decoder_input_ids": _ids(1)},
        pairs=((_T5_PAIR[0], _T5_PAIR[1]),),
        task="seq2seq-lm",
        auto_class="AutoModelForSeq2SeqLM",
    ),
    "whisper": Kind(
        build=_make(
            "WhisperForConditionalGeneration", lambda: transformers.WhisperConfig(**_SPEECH)
        ),
        inputs=lambda: {
            "input_features": torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0)),
            "decoder_input_ids": _ids(1),
        },
        pairs=(("model.encoder.layers.0.fc1", "model.encoder.layers.0.fc2"),),
        task="speech",
        auto_class="AutoModelForSpeechSeq2Seq",
    ),
}


def narrow_(model: Any, kind: Kind, width: int = 17) -> None:
    """The toy cut: keep the first `width` channels between each pair, and record it."""
    toy_reshape_(model, model.config, {"pairs": kind.pairs, "width": width}, keep=True)
    model.config.prunepath = {
        "format_version": 2,
        "base_model_type": model.config.model_type,
        "places": {},
        "pairs": [list(pair) for pair in kind.pairs],
        "width": width,
    }


def toy_reshape_(
    model: nn.Module, config: Any, record: Mapping[str, Any], *, keep: bool = False
) -> None:
    """What `reshape_` does, for the records of `narrow_`."""
    width = int(record["width"])
    for wide, narrow in record["pairs"]:
        for name, axis in ((wide, 0), (narrow, 1)):
            if not name:
                continue
            linear: Any = model.get_submodule(name)
            old = linear.weight
            cut = old.detach()[:width] if axis == 0 else old.detach()[:, :width]
            linear.weight = nn.Parameter(cut.clone() if keep else torch.empty_like(cut))
            if axis == 0 and linear.bias is not None:
                linear.bias = nn.Parameter(linear.bias.detach()[:width].clone())
            linear.out_features, linear.in_features = linear.weight.shape
