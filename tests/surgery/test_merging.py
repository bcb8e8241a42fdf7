"""Models whose tokens merge: every vision encoder of the zoo, dense and cut."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunepath.api.merging import token_site
from prunepath.checkpoint.load import load
from prunepath.checkpoint.save import save_model
from prunepath.errors import ModelError, PrunepathError, RequestError
from prunepath.structure.cost import cost_of
from prunepath.structure.families import FAMILIES, Merging
from prunepath.structure.families.portable import family_from_dict, family_to_dict
from prunepath.structure.gates import frozen
from prunepath.structure.tokens import TokenSchedule, TokenSite
from prunepath.surgery.cut import cut
from prunepath.surgery.merging import install_merging_, merge_tokens_, read_site
from prunepath.surgery.record import recorded_tokens, require_unmerged
from prunepath.tasks import TASKS
from tests.conformance.selections import select
from tests.zoo.build import furthest
from tests.zoo.models import CASES
from tests.zoo.models.vision import beit
from tests.zoo.test_zoo import dense, structure_of

# model of the zoo -> tokens and protected ones among them
MERGING = {
    "vit": (17, 1),
    "vit-classifier": (17, 1),
    "deit": (18, 2),
    "deit-distilled": (18, 2),
    "dinov2": (17, 1),
    "dinov2-gated": (17, 1),
    "dinov2-registers": (20, 4),
    "dinov2-registers-gated": (20, 4),
    "beit-absolute": (17, 1),
    "clip": (17, 1),
    "clip-vision": (17, 1),
    "clip-classifier": (17, 1),
    "siglip": (16, 0),
    "siglip-classifier": (16, 0),
}
REFUSED = {
    "bert": "of this 'bert' model cannot merge: it has no encoder of image patches .*dinov2",
    "clip-text": "of this 'clip_text_model' model cannot merge: it has no encoder of image patches",
    "swin": "cannot merge: attention in windows needs every patch of the grid in its place",
    "swinv2": "cannot merge: attention in windows needs every patch",
    "segformer": "cannot merge: its FFN convolves the grid of patches",
    "beit": "cannot merge: attention adds a bias per pair of grid positions",
    "beit-shared-bias": "cannot merge: attention adds a bias per pair of grid positions",
    "siglip2": "cannot merge: images of any shape are padded, and masks say which patches are real",
}
every_model = pytest.mark.parametrize("name", MERGING)
TOKENS = 10


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@cache
def site_of(name: str) -> TokenSite:
    model, batch = dense(name), CASES[name].inputs(1, TOKENS)
    return read_site(model, lambda: model(**batch))


def schedule_of(name: str) -> TokenSchedule:
    return TokenSchedule(site=site_of(name), dropped=(5, 2))


def merging(name: str, what: str = "ratio 0", kernel: str = "sdpa") -> Any:
    """A model of the zoo, cut and with merging on."""
    structure = structure_of(name)
    model = cut(dense(name), structure, select(structure, "all kinds", what))
    merge_tokens_(model, structure, schedule_of(name))
    model.set_attn_implementation(kernel)
    return model


@every_model
def test_the_site_is_found_and_the_model_is_left_as_it_is(name: str) -> None:
    model, batch = dense(name), CASES[name].inputs(2, TOKENS)
    before = model(**batch)
    site = site_of(name)
    assert (site.tokens, site.protected, site.num_layers) == (*MERGING[name], 2)
    assert furthest(model(**batch), before) == 0
    assert recorded_tokens(model.config) is None


@every_model
def test_nothing_merged_is_the_same_model(name: str) -> None:
    structure, batch = structure_of(name), CASES[name].inputs(2, TOKENS)
    model = copy.deepcopy(dense(name))
    merge_tokens_(model, structure, TokenSchedule(site=site_of(name), dropped=(0, 0)))
    assert furthest(model(**batch), dense(name)(**batch)) == 0
    assert not getattr(model.config, "prunepath", None)


@every_model
@pytest.mark.parametrize("what", ["ratio 0", "ratio 0.3", "ratio 0.7"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_macs_are_those_of_torch_s_counter(name: str, what: str, kernel: str) -> None:
    structure, model = structure_of(name), merging(name, what, kernel)
    with frozen(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**CASES[name].inputs(1, TOKENS))
    selection = select(structure, "all kinds", what)
    counted = cost_of(structure, selection, TOKENS, tokens=schedule_of(name))
    assert counted.macs == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    without = cost_of(structure, selection, TOKENS)
    assert counted.macs < without.macs
    assert (counted.params, counted.weight_bytes) == (without.params, without.weight_bytes)


@every_model
@pytest.mark.parametrize("what", ["ratio 0", "ratio 0.3"])
def test_answers_keep_their_shapes_and_do_not_depend_on_the_kernel(name: str, what: str) -> None:
    batch = CASES[name].inputs(3, TOKENS)
    found, plain = merging(name, what)(**batch), dense(name)(**batch)
    assert furthest(merging(name, what, "eager")(**batch), found) <= 1e-5
    assert furthest(found, plain) > 1e-4, "merging must show"


@every_model
def test_a_row_of_a_batch_is_what_it_is_alone(name: str) -> None:
    model = merging(name)
    batch = CASES[name].inputs(3, TOKENS)
    together = model(**batch)
    states = getattr(together, "vision_model_output", together)
    for row in range(3):
        alone = model(**{key: value[row : row + 1] for key, value in batch.items()})
        alone = getattr(alone, "vision_model_output", alone)
        for key, value in states.items():
            if isinstance(value, torch.Tensor) and value.shape[:1] == (3,):
                torch.testing.assert_close(alone[key][0], value[row], rtol=1e-4, atol=1e-4)


@every_model
@pytest.mark.parametrize("what", ["ratio 0", "ratio 0.3"])
def test_what_is_saved_comes_back(name: str, what: str, tmp_path: Path) -> None:
    model, batch = merging(name, what), CASES[name].inputs(2, TOKENS)
    expected = model(**batch)
    save_model(model, None, tmp_path)
    loaded = load(tmp_path)
    assert recorded_tokens(loaded.config) == schedule_of(name)
    assert furthest(loaded(**batch), expected) <= 1e-6


def test_the_body_of_a_classifier_merges_when_it_is_loaded_alone(tmp_path: Path) -> None:
    from transformers import AutoModel

    model = merging("vit-classifier", "ratio 0.3")
    save_model(model, None, tmp_path)
    body = AutoModel.from_pretrained(tmp_path).eval()
    states = model(**CASES["vit"].inputs(2, 0), output_hidden_states=True).hidden_states
    found = body(**CASES["vit"].inputs(2, 0), output_hidden_states=True)
    assert [state.shape[1] for state in found.hidden_states] == [17, 12, 17]
    torch.testing.assert_close(found.hidden_states[-1], states[-1])


@pytest.mark.parametrize("name", ["vit-classifier", "dinov2-gated", "siglip-classifier", "clip"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_merging_equal_tokens_changes_nothing(name: str, kernel: str) -> None:
    """Equal tokens, merged, are one with their size: attention, FFN and pooling answer the same."""
    model = copy.deepcopy(dense(name))
    for key, parameter in model.named_parameters():
        if key.endswith(("position_embeddings", "position_embedding.weight")) and "text" not in key:
            parameter.zero_()  # patches are then what their pixels are
    batch = CASES[name].inputs(2, TOKENS)
    pixels = batch["pixel_values"]
    columns = [column for column in range(0, pixels.shape[-1], 8) for _ in range(2)]
    twice = [pixels[..., column : column + 4] for column in columns]
    batch["pixel_values"] = torch.cat(twice, dim=-1)  # patches 0 and 1, 2 and 3, ... are equal
    model.set_attn_implementation(kernel)
    expected = model(**batch)
    site = read_site(model, lambda: model(**batch))
    install_merging_(model, TokenSchedule(site=site, dropped=(8, 0)))
    assert furthest(model(**batch), expected) <= 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_models_whose_tokens_cannot_merge(name: str) -> None:
    model, batch = dense(name), CASES[name].inputs(1, TOKENS)
    with pytest.raises(RequestError, match=REFUSED[name]):
        read_site(model, lambda: model(**batch))


def test_every_table_that_merges_is_tested_or_refused() -> None:
    types = {kind for name in (*MERGING, *REFUSED) for kind in _types(dense(name).config)}
    for family in (FAMILIES[name] for name in FAMILIES):
        if any(isinstance(stack.merging, Merging) for stack in family.stacks):
            assert types & set(family.model_types), family.name


def _types(config: Any) -> set[str]:
    parts = (getattr(config, name) for name in getattr(config, "sub_configs", None) or ())
    return {config.model_type, *(part.model_type for part in parts)}


def test_a_task_that_needs_every_patch_is_refused() -> None:
    absolute = {"use_absolute_position_embeddings": True, "num_hidden_layers": 4}
    small = beit("BeitForSemanticSegmentation", out_indices=[1, 2, 3, 4], **absolute)()
    with pytest.raises(RequestError, match="'segmentation' answers for every patch .*image-class"):
        token_site(small, TASKS["segmentation"], structure_of("beit-absolute"))


def test_masks_and_other_kernels_are_refused() -> None:
    model, batch = merging("vit"), CASES["vit"].inputs(2, TOKENS)
    with pytest.raises(RequestError, match="given an attention mask over them; leave the mask out"):
        model(**batch, attention_mask=torch.tensor([[1] * 17, [1] * 16 + [0]]))
    model.config._attn_implementation = "flash_attention_2"
    model.layers[0].attention.config = copy.copy(model.config)
    model.layers[0].attention.config._attn_implementation = "sdpa"
    with pytest.raises(RequestError, match="'flash_attention_2' adds nothing; use model.set_attn"):
        model.layers[1](model.layers[0](torch.randn(1, 17, 32)))


def test_what_was_merged_must_reach_the_next_layer() -> None:
    model = merging("vit")
    shorter = model.layers[0](torch.randn(1, 17, 32))
    assert shorter.shape == (1, 12, 32)
    with pytest.raises(ModelError, match="it was lost which .*run it on one device"):
        model.layers[1](shorter.clone())


def test_a_replaced_key_projection_is_noticed() -> None:
    model = merging("vit")
    old = model.layers[0].attention.k_proj
    model.layers[0].attention.k_proj = torch.nn.Linear(old.in_features, old.out_features)
    with pytest.raises(ModelError, match="saw 0 of them in one layer .* was replaced"):
        model(**CASES["vit"].inputs(1, 0))


def test_a_table_that_does_not_describe_its_layers_is_refused() -> None:
    family = family_from_dict(family_to_dict(FAMILIES["vit"]))
    assert family == FAMILIES["vit"]
    data = family_to_dict(FAMILIES["vit"])
    data["stacks"][0]["merging"]["ffn"] = ("layernorm_before", "mlp")
    model, batch = dense("vit"), CASES["vit"].inputs(1, 0)
    with pytest.raises(ModelError, match="do not give the layer's answer; correct `merging`"):
        read_site(model, lambda: model(**batch), [family_from_dict(data)])


def test_a_schedule_of_another_model_is_refused() -> None:
    other = TokenSchedule(site=site_of("vit-classifier"), dropped=(5, 2))
    with pytest.raises(ModelError, match=r"2 layers at 'vit.layers', and this model has 2 at 'lay"):
        install_merging_(copy.deepcopy(dense("vit")), other)


def test_a_merging_model_is_no_dense_one() -> None:
    with pytest.raises(RequestError, match="merges tokens at run time .*take the model it was"):
        require_unmerged(merging("vit"))
    require_unmerged(dense("vit"))


def test_threads_do_not_mix_up_what_merged() -> None:
    model = merging("vit-classifier")
    batches = [CASES["vit"].inputs(rows, 0) for rows in (1, 2, 3, 4)] * 3

    def answer(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return torch.as_tensor(model(**batch).logits)

    expected = [answer(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(answer, batches), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_smaller_images_merge_what_they_can() -> None:
    model = copy.deepcopy(dense("vit"))
    merge_tokens_(model, structure_of("vit"), TokenSchedule(site=site_of("vit"), dropped=(8, 4)))
    tiny = {"pixel_values": torch.randn(2, 3, 8, 8), "interpolate_pos_encoding": True}
    found = model(**tiny, output_hidden_states=True)
    assert [state.shape[1] for state in found.hidden_states] == [5, 3, 5]


def test_gradients_and_recomputed_layers_agree() -> None:
    model, batch = merging("vit-classifier"), CASES["vit"].inputs(2, 0)
    gradients = []
    for recompute in (False, True):
        if recompute:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
        with torch.enable_grad():
            model.zero_grad()
            model(**batch).logits.square().sum().backward()
        gradients.append(model.vit.layers[0].attention.k_proj.weight.grad.clone())
        assert gradients[-1].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_half_precision_runs_in_its_type() -> None:
    model = merging("vit-classifier").to(torch.bfloat16)
    batch = {"pixel_values": CASES["vit"].inputs(2, 0)["pixel_values"].bfloat16()}
    assert model(**batch).logits.dtype == torch.bfloat16


def test_a_newer_record_is_refused(tmp_path: Path) -> None:
    import json

    save_model(merging("vit-classifier"), None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["prunepath"]["format_version"] == 3
    config["prunepath"]["format_version"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PrunepathError, match="a newer prunepath .*4, this one reads 2 and 3"):
        load(tmp_path)
