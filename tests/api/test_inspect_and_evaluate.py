"""`inspect` and `evaluate`: a model, a path, an extracted folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import prunepath
from prunepath.errors import DataError, ModelError, PathFileError, RequestError
from prunepath.evaluation import Speed
from tests.conformance.families import tiny

ATTENTION_KINDS = ["qk_coordinate", "vo_coordinate", "query_head", "kv_group", "attention"]
KINDS = [*ATTENTION_KINDS, "ffn_channel", "ffn"]
EVALUATE: dict[str, Any] = {"windows": 2, "window": 32}


def test_inspect_a_model(model_folder: Path) -> None:
    found = prunepath.inspect(model_folder)
    assert [kind.kind for kind in found.kinds] == KINDS
    assert found.provenance is None
    channel, ffn = found.kinds[-2:]
    assert (channel.groups, channel.units, channel.widths) == (2, 2 * 56, {56: 2})
    assert (channel.unit.params, channel.unit.macs) == (3 * 48, 3 * 48 * 512)
    assert channel.runs_natively
    assert (ffn.groups, ffn.units, ffn.widths) == (2, 2, {1: 2})
    assert ffn.unit.params == 56 * channel.unit.params
    assert not ffn.runs_natively
    assert not found.kinds[0].runs_natively
    left = {item.module: item.reason for item in found.structure.left_alone}
    assert left["model.embed_tokens"] == "an embedding; the residual width and the vocabulary stay"
    assert left["model.norm"] == "a norm over the residual width, which stays"
    named = dict(tiny("Llama", vocab_size=300).named_parameters())
    assert found.cost.params == sum(parameter.numel() for parameter in named.values())


def test_inspect_a_path_needs_no_model(path_folder: Path, model_folder: Path) -> None:
    found = prunepath.inspect(path_folder)
    assert found.provenance is not None
    assert found.provenance.method == "spp"
    expected = prunepath.inspect(model_folder)
    assert (found.structure, found.cost, found.kinds) == (
        expected.structure,
        expected.cost,
        expected.kinds,
    )


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
def test_inspect_an_extracted_folder(layout: str, tmp_path: Path, path_folder: Path) -> None:
    made = prunepath.extract(path_folder, output=tmp_path / "small", layout=layout, ratio=0.3)
    found = prunepath.inspect(tmp_path / "small")
    assert found.cost == made.allocation.cost
    assert found.structure.num_params == made.allocation.cost.params


def test_inspect_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no config.json, so it is not a saved model"):
        prunepath.inspect(tmp_path)
    (tmp_path / "path.safetensors").write_bytes(b"short")
    with pytest.raises(PathFileError, match="is truncated or not a safetensors file"):
        prunepath.inspect(tmp_path)


def test_evaluate_a_model(model_folder: Path, text_file: Path) -> None:
    found = prunepath.evaluate(model_folder, data=text_file, **EVALUATE)
    assert found.source == str(model_folder)
    assert found.perplexity.window == 32
    assert found.perplexity.num_tokens == 2 * 31
    assert found.perplexity.value == pytest.approx(math.exp(found.perplexity.nll))
    assert (found.task, found.metric.name, found.metric.samples) == ("causal-lm", "perplexity", 2)
    assert found.metric.value == found.perplexity.value
    assert isinstance(found.speed, Speed)
    assert found.speed.decode_tokens_per_second > 0
    assert found.speed.sequence_length == 32
    assert found.stated_for == "32 tokens"
    assert found.cost == prunepath.inspect(model_folder, sequence_length=32).cost


@pytest.mark.usefixtures("no_fresh_process")
def test_evaluate_an_extracted_folder(tmp_path: Path, path_folder: Path, text_file: Path) -> None:
    made = prunepath.extract(path_folder, output=tmp_path / "small", ratio=0.3)
    found = prunepath.evaluate(tmp_path / "small", data=text_file, speed=False, **EVALUATE)
    same = prunepath.evaluate(
        made.model,
        tokenizer=str(tmp_path / "small"),
        data=text_file,
        speed=False,
        **EVALUATE,
    )
    assert found.perplexity == same.perplexity
    assert found.speed is None


def test_the_default_text_is_one_that_no_search_has_seen(model_folder: Path) -> None:
    found = prunepath.evaluate(model_folder, speed=False, **EVALUATE)
    assert "evaluation split" in found.data


def test_a_family_without_a_table_is_evaluated_without_costs(
    tiny_tokenizer: Any, text_file: Path
) -> None:
    from transformers import CTRLConfig, CTRLLMHeadModel

    config = CTRLConfig(vocab_size=300, n_embd=16, dff=32, n_layer=1, n_head=2)
    found = prunepath.evaluate(
        CTRLLMHeadModel(config), tokenizer=tiny_tokenizer, data=text_file, **EVALUATE
    )
    assert found.cost is None
    assert found.perplexity.value > 1


@pytest.mark.parametrize(
    ("wish", "error", "match"),
    [
        ({"data": ["few words"]}, DataError, "give more text, or ask for fewer"),
        ({"windows": 0}, RequestError, "windows is 0; it must be at least 1"),
        ({"window": 1}, RequestError, "window is 1; it must be at least 2"),
        ({"task": "causal"}, RequestError, "unknown task 'causal'; did you mean 'causal-lm'"),
        ({"data": "no-such-file.txt"}, DataError, "no-such-file.txt"),
        ({"split": "train"}, RequestError, "has no splits; leave it out"),
        ({"dtype": "float3"}, RequestError, "unknown dtype 'float3'"),
        ({"device": "cuda:99"}, RequestError, "cannot use the device 'cuda:99'"),
        ({"device": "gpu"}, RequestError, "cannot use the device 'gpu'"),
        ({"tokenizer": "no/where/here"}, ModelError, "there is no tokenizer at 'no/where/here'"),
    ],
    ids=str,
)
def test_malformed_evaluations_are_refused(
    wish: dict[str, Any], error: type[Exception], match: str, model_folder: Path, text_file: Path
) -> None:
    with pytest.raises(error, match=match):
        prunepath.evaluate(model_folder, **{"data": text_file, **EVALUATE, **wish})
